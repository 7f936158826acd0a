"""Every published evaluation, through the real fairseq-eval-lm."""

import json

import pytest

from tests.commands import REFERENCE, evaluate

ROWS = json.loads((REFERENCE / "evaluation.json").read_text())


@pytest.mark.process
@pytest.mark.parametrize("row", ROWS, ids=[f"{row['checkpoint']}{row['flags'][12:]}" for row in ROWS])
def test_loss_of_the_published_code(row, tmp_path):
    # Batches of 8 samples must give what the published code computes one sample at a time.
    flags = row["flags"].replace("datastore/", f"{REFERENCE}/datastore/") + " --batch-size 8"
    result = evaluate(tmp_path, row["checkpoint"], flags, row["data"])
    assert result["tokens"] == row["tokens"]
    assert result["loss"] == pytest.approx(row["loss_base2"], rel=1e-5)
    assert f"Loss (base 2): {result['loss']:.4f}" in result["log"]


def test_there_are_rows_of_every_kind():
    kinds = [row["flags"] for row in ROWS]
    assert len(ROWS) == 24
    for kind in (
        "--use-external",
        "--knnlm",
        "--use-interp",
        "--knn-sim-func ip",
        "index.l2",
        "--use-long",
        "--mode lm",
        "complete",
        "--context-window 0",
        "test",
    ):
        assert any(kind in flags for flags in kinds)

"""Every published evaluation: its flags, through what fairseq-eval-lm runs."""

import json
import logging

import pytest

from tests.commands import REFERENCE, evaluate, evaluate_here
from tests.played import PlayedTask

# Those of one model one after the other: its decoder runs once, see tests/played.py.
ROWS = sorted(json.loads((REFERENCE / "evaluation.json").read_text()), key=lambda row: row["checkpoint"])


def name_of(row):
    return f"{row['checkpoint']} {row['flags'][13:]}"


def flags_of(row):
    # Batches of 8 samples must give what the published code computes one sample at a time.
    return row["flags"].replace("datastore/", f"{REFERENCE}/datastore/") + " --batch-size 8"


DAILY = ("sample-break-mode complete", "--mem-size 4096", "--use-interp")


def marked(row):
    daily = any(flags in row["flags"] for flags in DAILY)
    return pytest.param(row, marks=[] if daily else pytest.mark.slow, id=name_of(row))


@pytest.mark.parametrize("row", map(marked, ROWS))
def test_loss_of_the_published_code(row, caplog):
    with caplog.at_level(logging.INFO):
        result = evaluate_here(row["checkpoint"], flags_of(row), row["data"], PlayedTask)
    assert result.tokens == row["tokens"]
    assert result.loss == pytest.approx(row["loss_base2"], rel=1e-5)
    assert f"Loss (base 2): {result.loss:.4f}" in caplog.messages[-1]


def one_of(checkpoint, flags):
    (row,) = [row for row in ROWS if row["checkpoint"] == checkpoint and flags in row["flags"]]
    return row


@pytest.mark.process
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(one_of("word-trime", "--mode lm"), marks=pytest.mark.slow),
        one_of("word-trime_long", "--mem-size 512"),
        pytest.param(one_of("word-trime_ext", "--use-interp"), marks=pytest.mark.slow),
        pytest.param(
            one_of("word-trime_ext", "--probe 16 --softmax-temp 10.0 --no-load"), marks=pytest.mark.slow
        ),
    ],
    ids=name_of,
)
def test_loss_of_the_command(row, tmp_path):
    result = evaluate(tmp_path, row["checkpoint"], flags_of(row), row["data"])
    assert result["tokens"] == row["tokens"]
    assert result["loss"] == pytest.approx(row["loss_base2"], rel=1e-5)
    assert f"Loss (base 2): {result['loss']:.4f}" in result["log"].splitlines()[-1]

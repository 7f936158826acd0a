"""trime-compare as a command: its rows are those of separate evaluations, and a killed run continues."""

import csv
import json
import math
import sys
import time

import pytest
import yaml

from tests.commands import REFERENCE, evaluate_here, run, start

pytestmark = [pytest.mark.process, pytest.mark.slow]

STORE = REFERENCE / "datastore"
SEARCH = {
    "dstore_filename": str(STORE / "dstore"),
    "indexfile": str(STORE / "knn.index.ip"),
    **{"dstore_size": 20000, "dstore_fp16": True, "faiss_metric_type": "ip", "no_load_keys": True},
    **{"probe": 32},
}
# Of neighbours with equal scores, a search for fewer may return others: so the best k must be the largest.
NEIGHBOURS = {"word-trime": 1, "word-trime_ext": 64}
SEARCH_FLAGS = (
    f"--dstore-filename {STORE}/dstore --indexfile {STORE}/knn.index.ip --dstore-size 20000 --dstore-fp16 "
    "--faiss-metric-type ip --no-load-keys --probe 32"
)
TEXT = "--tokens-per-sample 128 --batch-size 8"
MEMORIES = {
    "word-trime": ["none", "local + long 256 + external", "cache 256"],
    "word-trime_ext": ["none", "local", "knn", "knn + cache 256"],
}


def command(folder):
    return [
        sys.executable,
        "-m",
        "trime_fairseq.cli.compare",
        folder / "c.yaml",
        "--output",
        folder / "out",
        "--cpu",
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, small):
    """The folder of a comparison that was killed after its first checkpoint, and the log of what followed."""
    folder = tmp_path_factory.mktemp("compared")
    models = {
        model: {
            "checkpoint": str(REFERENCE / "checkpoints" / model / "checkpoint_best.pt"),
            "memories": memories,
            "datastore": {**SEARCH, "k": NEIGHBOURS[model]},
        }
        for model, memories in MEMORIES.items()
    }
    content = {"data": str(small), "evaluation": TEXT, "models": models}
    (folder / "c.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    killed = start(command(folder))
    deadline = time.monotonic() + 300
    while not kept_files(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    (first,) = kept_files(folder)
    before = first.read_bytes()
    log = run(*command(folder))
    assert first.read_bytes() == before
    return folder, log


def kept_files(folder):
    """Those of checkpoints that are through."""
    return [path for path in (folder / "out" / "checkpoints").glob("*.json") if "tuned" not in path.name]


def outputs(folder):
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.is_file()}


def test_a_killed_run_continues(compared):
    folder, log = compared
    # A pass over each text, with a line at its end; the first checkpoint was through.
    assert log.count("TRIME: all 4,") == 2
    assert "step 2 of 4: word-trime: taken from" in log
    assert "step 4 of 4: word-trime_ext: evaluation on test" in log
    assert len(kept_files(folder)) == 2
    before = outputs(folder)
    assert set(before) == {
        *(f"comparison.{ending}" for ending in ("md", "csv", "tex", "json")),
        *("size.png", "frequency.png", "occurrence.png", "shares.png"),
    }
    again = run(*command(folder))
    assert "TRIME: all 4," not in again
    assert outputs(folder) == before
    assert before["comparison.md"].decode() in again


def test_rows_are_those_of_separate_evaluations(compared, small):
    folder, _ = compared
    rows = json.loads((folder / "out" / "comparison.json").read_text())["rows"]
    assert [(row["model"], row["memory"]) for row in rows] == [
        (model, memory) for model, memories in MEMORIES.items() for memory in memories
    ]
    for row in rows:
        (measured,) = row["checkpoints"]
        search = SEARCH_FLAGS if "external" in row["memory"] or "knn" in row["memory"] else ""
        flags = f"{TEXT} {search} {' '.join(measured['flags'])}"
        for subset in ("valid", "test"):
            alone = evaluate_here(row["model"], f"{flags} --gen-subset {subset}", small)
            found = row["test_ppl"] if subset == "test" else row["tuning_ppl"]
            assert math.log2(found) == pytest.approx(alone.loss, rel=1e-5)
        assert row["mass"] == pytest.approx(alone.mem_mass, abs=1e-5)
        assert sum(row["shares"].values()) == pytest.approx(alone.mem_share, abs=1e-5)
        gain = (alone.nll_nats_without_memory - alone.nll_nats) / alone.tokens
        for parts in (
            [measured["gain_inside"], measured["gain_outside"]],
            measured["gain_by_frequency"],
        ):
            assert sum(parts) / alone.tokens == pytest.approx(gain, abs=1e-5)


def test_table(compared):
    folder, _ = compared
    rows = list(csv.DictReader((folder / "out" / "comparison.csv").read_text().splitlines()))
    assert [row["change_percent"] == "" for row in rows] == [True, *[False] * 6]
    for row in rows:
        assert float(row["test_ppl_low"]) < float(row["test_ppl"]) < float(row["test_ppl_high"])
    # A memory whose weight is solved for never harms the text it is tuned on.
    plain, _, *with_memory = [float(row["tuning_ppl"]) for row in rows[3:]]
    assert max(with_memory) <= plain * (1 + 1e-6)


def test_what_would_stop_the_last_model_stops_before_the_first(small, tmp_path):
    models = {
        model: {
            "checkpoint": str(REFERENCE / "checkpoints" / model / "checkpoint_best.pt"),
            "memories": ["none", "local"],
        }
        for model in ("word-trime", "char-trime_long")
    }
    content = {"data": str(small), "evaluation": TEXT, "models": models}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    log = run(*command(tmp_path), fails=True)
    assert "TRIME: step" not in log
    assert log.splitlines()[-1].startswith("trime-compare: error: ")
    assert "dict" in log.splitlines()[-1]

"""The commands where neither fairseq nor PyTorch can be imported."""

import subprocess
import sys

import pytest

from tests.commands import ROOT, environment

from .small import write

pytest.importorskip("bm25s")

PROGRAM = """
import sys

for name in ("fairseq", "fairseq_cli", "torch"):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from trime_fairseq.cli.bm25 import main

for flag in ("--help", "--version"):
    try:
        main([flag])
    except SystemExit as end:
        assert not end.code
segments, rest = ["--segments_path", "s.json"], ["--results_path", "r"]
assert main(["index", *segments, "--index_path", "i", "--engine", "bm25s"]) == 0
assert main(["search", *segments, "--index_path", "i", *rest, "--k", "2", "--threads", "1"]) == 0
assert main(["batches", *rest, "--batch_file", "b.json"]) == 0
assert main(["report", *segments, "--batch_file", "b.json", "--output", "o"]) == 0
assert main(["export", "data", "--segments_path", "new/s.json", "--tokens_per_sample", "8"]) == 1
loaded = [name for name in sys.modules if name.split(".")[0] in ("fairseq", "fairseq_cli", "torch")]
assert sorted(loaded) == ["fairseq", "fairseq_cli", "torch"], loaded
"""


def test_commands(tmp_path):
    write(tmp_path / "s.json", ["red green blue", "green blue sky", "blue red", "sky sun", "sun red"])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**environment(cpu=True), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trime-bm25 0." in done.stdout
    assert (tmp_path / "o" / "report.png").exists()
    last = done.stderr.splitlines()[-1]
    assert last == "trime-bm25 export: error: " + (
        'fairseq-train exports segments: pip install "trime_fairseq[fairseq]"'
    )

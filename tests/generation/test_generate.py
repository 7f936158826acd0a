"""fairseq-generate in this process."""

import multiprocessing

import pytest

from tests.commands import REFERENCE
from trime_fairseq.generation.generate import run_generate

MT = REFERENCE / "mt"


@pytest.mark.process
def test_all_sentences_and_no_process_left():
    before = set(multiprocessing.active_children())
    words = [MT / "data", "--path", MT / "checkpoint" / "checkpoint_best.pt", "--gen-subset", "test", "--cpu"]
    words += ["--beam", 1, "--scoring", "sacrebleu", "--num-workers", 2]
    found = run_generate([str(word) for word in words], quiet=True)
    assert found.sentences == len(found.scorer.pred) == 60
    assert found.seconds > 0
    assert not set(multiprocessing.active_children()) - before

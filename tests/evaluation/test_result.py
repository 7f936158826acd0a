"""The lines that an evaluation ends with, and who scores its batches."""

import logging

import pytest
from fairseq.sequence_scorer import SequenceScorer

from trime_fairseq.evaluation import run_eval_lm
from trime_fairseq.evaluation.result import EvaluationResult
from trime_fairseq.evaluation.run import handed_on


def lines(caplog, nll, mass=0.2, **description):
    result = EvaluationResult(10, 1.0, nll, 20.0, mass, 0.3, description)
    with caplog.at_level(logging.INFO):
        result.log("all")
    return [record.getMessage() for record in caplog.records]


def test_better_memories_are_compared(caplog):
    assert "perplexity 7.39 without memories, 6.05 with" in lines(caplog, 18.0)[-1]


def test_no_comparison_without_memories(caplog):
    assert len(lines(caplog, 20.0, mass=0.0)) == 1


@pytest.mark.parametrize(
    ("description", "advice"),
    [
        ({}, "tune --softmax-temp with trime-tune"),
        ({"lmbda": 0.2, "knnlm": True}, "tune --softmax-temp and --lmbda with trime-tune"),
        (
            {"lmbda": 0.2, "use_interp": True},
            "tune --softmax-temp, --interp-temp and --lmbda with trime-tune",
        ),
        ({"mode": "li", "cache_lmbda": 0.2, "lmbda": None}, "tune --softmax-temp and --cache-lmbda with"),
        (
            {"mode": "li", "knnlm": True, "cache_lmbda": 0.2, "lmbda": 0.1},
            "tune --softmax-temp, --interp-temp, --cache-lmbda and --lmbda with",
        ),
    ],
)
def test_worse_memories_bring_advice(caplog, description, advice):
    assert f"make it worse: {advice}" in lines(caplog, 21.0, **description)[-1]


def test_an_evaluation_that_failed_leaves_the_next_alone():
    """What is left of it ends when Python collects it: perhaps in the middle of the next one."""
    stock = SequenceScorer.generate
    failed, following = handed_on(), handed_on()
    failed.__enter__()
    following.__enter__()
    failed.__exit__(None, None, None)
    assert SequenceScorer.generate is not stock
    following.__exit__(None, None, None)
    assert SequenceScorer.generate is stock


@pytest.mark.parametrize("words", [["--task", "language_modeling"], ["--task=language_modeling"]])
def test_another_task_is_refused_before_anything_runs(words):
    with pytest.raises(ValueError, match="--task language_modeling knows no memories: leave it out"):
        run_eval_lm(["DATA", "--path", "MODEL", *words])

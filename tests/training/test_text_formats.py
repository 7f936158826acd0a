"""The real commands on texts in the old format, cut into lines, and shorter than a batch."""

import re

import pytest

from tests.binarised import lines_of, write_text
from tests.commands import TASK, run, train
from trime_fairseq.evaluation import run_eval_lm

pytestmark = pytest.mark.process
MODEL = (
    "--arch transformer_lm --decoder-layers 2 --decoder-embed-dim 16 --decoder-ffn-embed-dim 24 "
    "--decoder-attention-heads 2 --dropout 0"
).split()


def valid_loss(log):
    (line,) = [line for line in log.splitlines() if "valid on 'valid' subset" in line]
    return float(re.search(r"\bloss ([\d.]+)", line)[1]), float(re.search(r"\bori_loss ([\d.]+)", line)[1])


def flags(tmp_path, kind="lazy", **subsets):
    """Of a training on a text in the given format: 30 lines, 17 to validate."""
    text = write_text(tmp_path / "text", kind, **{"train": lines_of(30), "valid": lines_of(17), **subsets})
    words = ["--max-update", 3, "--tokens-per-sample", 16, "--max-tokens", 64, "--sample-break-mode", "eos"]
    return {"data": text, "model": MODEL}, [tmp_path / "out", *words]


def test_lines_of_an_old_text_and_all_of_the_validation(tmp_path):
    """With fairseq's default --required-batch-size-multiple, which would leave some of its 17 lines out."""
    text, words = flags(tmp_path)
    log = train(*words, "--required-batch-size-multiple", 8, **text)
    checkpoint = str(tmp_path / "out" / "checkpoint_last.pt")
    settings = "--cpu --gen-subset valid --tokens-per-sample 16 --sample-break-mode eos --use-local"
    result = run_eval_lm([str(text["data"]), "--path", checkpoint, *settings.split()])
    assert result.tokens == sum(len(line.split()) + 1 for line in lines_of(17))
    assert valid_loss(log) == pytest.approx((result.loss, result.loss_without_memory), abs=6e-4)


@pytest.mark.slow
def test_text_order_of_an_old_text(tmp_path):
    """The same training, digit for digit, on the text as it is binarised today."""
    losses = []
    for kind in ("lazy", "mmap"):
        text, words = flags(tmp_path / kind, kind)
        words[-1] = "none"
        log = train(*words, "--criterion", "trime_long_loss_same_device", "--keep-order", **text)
        losses.append([valid_loss(log), *re.findall(r"train_inner.*?\bloss[= ][\d.]+", log)])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["train", "valid"])
def test_empty_text(tmp_path, subset):
    text, words = flags(tmp_path, "mmap", **{subset: []})
    log = train(*words, **text, fails=True)
    assert f"--{subset}-subset {subset} of DATA {text['data']} holds no token: give" in log.splitlines()[-1]


@pytest.mark.slow
def test_interactive_is_that_of_stock(tmp_path):
    text, words = flags(tmp_path, "mmap")
    train(*words, "--disable-validation", **text)
    (tmp_path / "lines").write_text("w1 w2 w3\nw4\n\nw5 w6\n")
    hypotheses = []
    for task in ("trime_language_modeling", "language_modeling"):
        words = ["fairseq-interactive", text["data"], *TASK[:3], task, "--cpu", "--beam", 2, "--max-len-b", 6]
        output = run(*words, "--path", tmp_path / "out" / "checkpoint_last.pt", "--input", tmp_path / "lines")
        hypotheses.append(re.findall(r"^[HP]-.*", output, re.MULTILINE))
    assert len(hypotheses[0]) == 8
    assert hypotheses[0] == hypotheses[1]

"""Models without a feed-forward block, from training to evaluation."""

import sys

import pytest

from tests.commands import ROOT
from trime_fairseq.evaluation import EvaluationConfig, evaluate
from trime_fairseq.evaluation.in_process import register

FCONV = ["--arch", "fconv_lm", "--decoder-embed-dim", "16", "--decoder-layers", "[(16, 3)]"]
LSTM = ["--arch", "lstm_lm", "--decoder-embed-dim", "16", "--decoder-hidden-size", "24"]
LSTM += ["--decoder-out-embed-dim", "16", "--share-decoder-input-output-embed"]
KEYS = ["--knn-keytype", "model_output"]


def train(monkeypatch, data, folder, *flags):
    """One update in this process."""
    register()
    from fairseq_cli import train

    words = ["fairseq-train", str(data), "--user-dir", str(ROOT / "trime_fairseq"), "--cpu"]
    words += ["--task", "trime_language_modeling", "--tokens-per-sample", "64", "--max-tokens", "512"]
    words += ["--optimizer", "sgd", "--lr", "0.1", "--max-update", "1", "--disable-validation"]
    words += ["--no-epoch-checkpoints", "--save-dir", str(folder), "--distributed-world-size", "1"]
    monkeypatch.setattr(sys, "argv", [*words, *flags])
    train.cli_main()
    return str(folder / "checkpoint_last.pt")


@pytest.mark.parametrize(
    "model", [pytest.param(FCONV, id="fconv_lm"), pytest.param(LSTM, id="lstm_lm", marks=pytest.mark.slow)]
)
def test_with_keys_from_the_output_and_without_memories(tmp_path, monkeypatch, small, model):
    name = model[1]
    with pytest.raises(
        ValueError, match=f"^--arch {name}: it has no --knn-keytype last_ffn_input: pass --knn-keytype model"
    ):
        train(monkeypatch, small, tmp_path, *model, "--criterion", "trime_loss")
    path = train(monkeypatch, small, tmp_path, *model, "--criterion", "trime_loss", *KEYS)
    flags = dict(gen_subset="valid", cpu=True, batch_size=8)
    plain = evaluate(path, str(small), EvaluationConfig(tokens_per_sample=64, mode="lm"), **flags)
    for asked in (dict(use_local=True), dict(save_knnlm_dstore=True, dstore_mmap=str(tmp_path / "d"))):
        with pytest.raises(ValueError, match=rf"^--path {path} \({name}\): it has no --knn-keytype last_ffn"):
            evaluate(path, str(small), EvaluationConfig(tokens_per_sample=64, **asked), **flags)
    config = EvaluationConfig(tokens_per_sample=64, use_local=True, knn_keytype="model_output")
    local = evaluate(path, str(small), config, **flags)
    assert local.loss_without_memory == pytest.approx(plain.loss, rel=1e-6)
    assert local.loss < plain.loss - 0.1
    # The stock criterion needs no keys.
    train(monkeypatch, small, tmp_path / "stock", *model, "--criterion", "cross_entropy")


def test_no_language_model(tmp_path, monkeypatch, small):
    with pytest.raises(ValueError, match="^--arch masked_lm: it is no language model$"):
        train(monkeypatch, small, tmp_path, "--arch", "masked_lm", "--criterion", "trime_loss")

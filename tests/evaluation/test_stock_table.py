"""Flags and texts that fairseq's own task evaluates: without memories the loss is the same."""

import copy
import math
import sys

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import eval_lm

import trime_fairseq.tasks  # noqa: F401
from tests.binarised import lines_of, model_arguments, write_text
from trime_fairseq.tasks.trime_language_modeling import TrimeLanguageModelingTask

LINES = lines_of(30)
TEXTS = {
    "mmap": dict(test=LINES),
    "lazy": dict(kind="lazy", test=LINES),
    "raw": dict(kind="raw", test=LINES),
    "huffman": dict(kind="huffman", test=LINES),
    "huffman of stock": dict(kind="huffman of stock", test=LINES),
    "documents": dict(test=lines_of(30, empty_every=4)),
    "one token": dict(test=[""]),
    "two words": dict(test=["w1 w2"]),
    "shorter than the segment": dict(test=["w1 w2 w3", "", "w4"]),
    "empty lines": dict(test=[""] * 7),
    "long lines": dict(test=lines_of(6, 50)),
    "some too long": dict(test=lines_of(9, 32)),
    "nothing": dict(test=[]),
}
MODELS = {"sinusoidal": {}, "learned": dict(decoder_learned_pos=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name, text in TEXTS.items():
        write_text(folder / name, **text)
    return folder


@pytest.fixture(scope="module")
def parsed(folder):
    """Configurations of both tasks, parsed once: fairseq's parser takes longer than these evaluations."""
    words = [str(folder), "--cpu", "--path", "MODEL", "--gen-subset", "test", "--num-workers", "0"]
    return {
        task: convert_namespace_to_omegaconf(
            options.parse_args_and_arch(options.get_eval_lm_parser(), [*words, "--task", task])
        )
        for task in ("language_modeling", "trime_language_modeling")
    }


@pytest.fixture
def evaluate(folder, parsed, monkeypatch):
    """The loss of fairseq's line, and our result if it is our task's; arguments as below."""
    runs = []
    dataloader = TrimeLanguageModelingTask.eval_lm_dataloader

    def observed(*arguments, **options):
        runs.append(dataloader(*arguments, **options))
        return runs[-1]

    monkeypatch.setattr(TrimeLanguageModelingTask, "eval_lm_dataloader", observed)

    def load(paths, task, **unused):
        # fairseq's way from a checkpoint takes more than a second; it is tested elsewhere.
        torch.manual_seed(1)
        return [task.build_model(model_arguments(**MODELS[paths[0]]))], None, task

    monkeypatch.setattr(checkpoint_utils, "load_model_ensemble_and_task", load)
    monkeypatch.setattr(sys, "argv", ["fairseq-eval-lm"])

    def run(task, text, model="sinusoidal", **flags):
        config = copy.deepcopy(parsed[task])
        config.common_eval.path = model
        config.task.data = ":".join(str(folder / part) for part in text.split(":"))
        config.task.tokens_per_sample = flags.pop("tokens_per_sample", 32)
        for name, value in flags.items():
            for group in (config.eval_lm, config.dataset, config.common_eval, config.task):
                if name in group:
                    group[name] = value
        runs.clear()
        loss = float(eval_lm.main(config)["loss"])
        return loss, runs[0].result if runs else None

    return run


TABLE = [
    *[("mmap", dict(sample_break_mode=mode)) for mode in ("none", "complete", "complete_doc", "eos")],
    *[("mmap", dict(context_window=9, sample_break_mode=mode)) for mode in ("none", "complete", "eos")],
    *[("documents", dict(sample_break_mode=mode)) for mode in ("none", "complete", "complete_doc", "eos")],
    ("documents", dict(sample_break_mode="complete_doc", context_window=11, add_bos_token=True)),
    *[(text, dict()) for text in ("lazy", "raw", "huffman of stock")],
    *[(text, dict(context_window=9)) for text in ("lazy", "raw", "huffman of stock")],
    *[("lazy", dict(dataset_impl=impl, sample_break_mode="eos")) for impl in ("lazy", "cached")],
    ("mmap", dict(dataset_impl="mmap", context_window=31)),
    ("huffman of stock", dict(dataset_impl="huffman", sample_break_mode="complete")),
    *[("mmap", dict(add_bos_token=True, context_window=window)) for window in (0, 9, 31)],
    *[("mmap", dict(add_bos_token=True, sample_break_mode=mode)) for mode in ("complete", "eos")],
    ("mmap", dict(model="learned", add_bos_token=True, context_window=16)),
    ("mmap", dict(model="learned", add_bos_token=True, context_window=9, sample_break_mode="eos")),
    ("mmap", dict(model="learned", add_bos_token=True, tokens_per_sample=31)),
    ("mmap:documents", dict(context_window=9)),
    *[("one token", dict(context_window=window)) for window in (0, 9)],
    ("one token", dict(add_bos_token=True, sample_break_mode="eos")),
    *[("two words", dict(sample_break_mode=mode)) for mode in ("none", "complete_doc")],
    *[("shorter than the segment", dict(context_window=window)) for window in (0, 9)],
    *[("empty lines", dict(sample_break_mode=mode)) for mode in ("none", "complete", "eos")],
    *[("some too long", dict(sample_break_mode="complete", context_window=window)) for window in (0, 9)],
    ("long lines", dict(tokens_per_sample=20, sample_break_mode="eos", shorten_method="truncate")),
    ("long lines", dict(tokens_per_sample=20, shorten_method="random_crop", context_window=9)),
    ("long lines", dict(tokens_per_sample=20, shorten_method="truncate", shorten_data_split_list="valid")),
    ("mmap", dict(future_target=True, context_window=9)),
    ("mmap", dict(max_target_positions=16)),
    ("mmap", dict(pad_to_fixed_length=True)),
    ("mmap", dict(pad_to_fixed_length=True, add_bos_token=True)),
    ("mmap", dict(output_word_probs=True, output_word_stats=True, context_window=9)),
    ("mmap", dict(output_word_probs=True, add_bos_token=True, context_window=9)),
    ("mmap", dict(output_dictionary_size=20)),
    ("mmap", dict(softmax_batch=7)),
    ("mmap", dict(post_process="@@ ")),
    ("mmap", dict(post_process="subword_nmt")),
]


# fairseq computes what precedes a sample of one token, which nobody uses.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize(("text", "flags"), TABLE, ids=str)
def test_loss_of_the_stock_task(evaluate, text, flags):
    stock, _ = evaluate("language_modeling", text, **{"batch_size": 1, **flags})
    loss, result = evaluate("trime_language_modeling", text, **{"batch_size": 3, **flags})
    assert result.loss == pytest.approx(stock, rel=2e-6)
    assert loss == pytest.approx(stock, rel=2e-6)
    assert result.mem_mass == 0


@pytest.mark.parametrize("window", [0, 9])
def test_the_format_of_the_text_does_not_matter(evaluate, window):
    flags = dict(context_window=window, batch_size=4, use_local=True)
    losses = [
        evaluate("trime_language_modeling", text, **flags)[1].nll_nats
        for text in ("mmap", "lazy", "raw", "huffman")
    ]
    assert losses == [losses[0]] * 4


def test_input_is_never_longer_than_tokens_per_sample(evaluate, monkeypatch):
    from trime_fairseq.evaluation.scorer import MemoryScorer

    widths, generate = [], MemoryScorer.generate

    def observed(self, models, sample, *arguments):
        widths.append(sample["net_input"]["src_tokens"].size(1))
        return generate(self, models, sample, *arguments)

    monkeypatch.setattr(MemoryScorer, "generate", observed)
    for window in (1, 9, 31):
        widths.clear()
        evaluate("trime_language_modeling", "mmap", add_bos_token=True, context_window=window, batch_size=3)
        assert max(widths) == 32


REFUSED = [
    ("nothing", {}, "--gen-subset test of DATA .*nothing holds no token: give fairseq-preprocess a text"),
    ("nothing", dict(context_window=9, use_local=True), "--gen-subset test of DATA .* holds no token"),
    ("empty lines", dict(sample_break_mode="complete_doc"), "test of DATA .* holds no document, only empty"),
    ("mmap", dict(past_target=True), "Unsupported language modeling target: past"),
    ("mmap", dict(self_target=True, future_target=True), "Unsupported language modeling target: self"),
    ("mmap", dict(dataset_impl="cached"), "--dataset-impl cached cannot read .*test.idx"),
    (
        "mmap",
        dict(model="learned", add_bos_token=True),
        "--add-bos-token makes samples of --tokens-per-sample 32 one token longer, .*-sample 31 or",
    ),
    ("mmap", dict(post_process="letter"), "--post-process letter is not known in evaluation: leave it out"),
]


@pytest.mark.parametrize(("text", "flags", "message"), REFUSED, ids=str)
def test_refused(evaluate, text, flags, message):
    with pytest.raises(ValueError, match=message):
        evaluate("trime_language_modeling", text, **{"batch_size": 1, **flags})


def test_further_folders_are_not_evaluated_without_a_word(evaluate, folder, caplog):
    evaluate("trime_language_modeling", "mmap:documents")
    assert f"DATA names 2 folders: fairseq evaluates the first, {folder / 'mmap'}" in caplog.text


def test_what_is_missing_or_damaged_is_named(evaluate, folder, tmp_path):
    for ending, message in [(".idx", "test.idx is not there"), (".bin", "test.bin is not there")]:
        write_text(tmp_path / "text", test=LINES)
        (tmp_path / f"text/test{ending}").unlink()
        with pytest.raises(FileNotFoundError, match=message):
            evaluate("trime_language_modeling", str(tmp_path / "text"))
    write_text(tmp_path / "text", test=LINES)
    (tmp_path / "text" / "dict.txt").write_text("w0 1\nw1\n")
    with pytest.raises(ValueError, match="dict.txt is no dictionary of fairseq-preprocess, or damaged: .*w1"):
        evaluate("trime_language_modeling", str(tmp_path / "text"))
    (tmp_path / "text" / "dict.txt").write_text("w0 1\nw1 1\n")
    with pytest.raises(ValueError, match="test.bin holds the token 43, but the dictionary has 6 types"):
        evaluate("trime_language_modeling", str(tmp_path / "text"))


def test_loss_per_word_and_fairseqs_own(evaluate, tmp_path):
    """fairseq counts a word once more for every sample that ends within it."""
    pieces = ["a@@", "b@@", "c", "d", "e@@"]
    words = ["a@@ b@@ c", "d", "e@@ d", "c", "b@@ c"]
    lines = [" ".join(words[(3 * n + k * k) % 5] for k in range(1 + n % 7)) for n in range(20)]
    data = str(write_text(tmp_path / "bpe", words=pieces, test=lines))
    tokens = [token for line in lines for token in [*line.split(), "</s>"]]
    count = sum(not token.endswith("@@") for token in tokens)
    size = len("".join(f"{line}\n" for line in lines).replace("@@ ", "").encode())
    cut = sum(tokens[end - 1].endswith("@@") for end in range(11, len(tokens), 11))
    assert cut
    flags = dict(tokens_per_sample=11, batch_size=4)
    plain, _ = evaluate("trime_language_modeling", data, **flags)
    for flag in (None, "@@ ", "subword_nmt", "@@"):
        loss, result = evaluate("trime_language_modeling", data, post_process=flag, **flags)
        bits = result.nll_nats / math.log(2)
        found = result.as_json()
        assert found["words"] + found["line_ends"] == count
        assert found["line_ends"] == len(lines)
        assert found["loss_per_word"] == pytest.approx(bits / count, rel=1e-12)
        assert found["loss_per_byte"] == pytest.approx(bits / size, rel=1e-12)
        assert result.loss == pytest.approx(bits / len(tokens), rel=1e-12)
        if flag == "@@ ":
            assert loss == pytest.approx(bits / (count + cut), rel=2e-6)
        else:
            assert loss == plain == pytest.approx(result.loss, rel=2e-6)


def test_flag_that_fairseq_does_not_know(evaluate, caplog):
    """Of subwords that only this package counts; fairseq's own line stays what it is without."""
    caplog.set_level("INFO")
    plain, _ = evaluate("trime_language_modeling", "mmap", batch_size=4)
    loss, result = evaluate("trime_language_modeling", "mmap", batch_size=4, post_process="sentencepiece")
    assert loss == plain
    assert result.description["post_process"] == "sentencepiece"
    assert "--post-process sentencepiece: no type of the dictionary has the mark ▁, so all" in caplog.text
    assert "loss_per_word" not in result.as_json()

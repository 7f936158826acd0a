"""Words and bytes of texts in subwords, against the texts themselves, and the loss per word and per byte."""

import json
import logging
import math
import re
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from trime_fairseq.evaluation.result import EvaluationResult, merge_measured
from trime_fairseq.evaluation.spelling import SCHEMES
from trime_fairseq.evaluation.units import TextUnits, UnitCounter, take_over_post_process

# Lines, one of them empty; é takes two bytes, 猫 three.
TEXT = "the cat's hat\n\na\nthe été of 猫s\n"


def continued(text):
    """subword-nmt: pieces of two letters."""
    return [" ".join("@@ ".join(cut(word, 2)) for word in line.split()) for line in text.splitlines()]


def sentencepiece(text):
    return [" ".join(cut("▁" + line.replace(" ", "▁"), 3)) if line else "" for line in text.splitlines()]


def characters(text):
    return [" ".join(line.replace(" ", "▁")) for line in text.splitlines()]


def gpt2(text):
    from trime_fairseq.evaluation.spelling import _byte_alphabet

    symbols = {byte: symbol for symbol, byte in _byte_alphabet(256).items()}
    return [" ".join(cut("".join(symbols[b] for b in line.encode()), 3)) for line in text.splitlines()]


def fairseq_bytes(text):
    from fairseq.data.encoders.bytes import Bytes

    return [Bytes.encode(line) for line in text.splitlines()]


def cut(word, size):
    return [word[begin : begin + size] for begin in range(0, len(word), size)]


def dictionary_of(lines):
    dictionary = Dictionary()
    for line in lines:
        dictionary.encode_line(line)
    return dictionary


def batches_of(dictionary, lines, sample=5, window=3, bos=False):
    """Samples of the text as evaluation cuts them, two a batch: with context, and behind <s>."""
    tokens = [int(t) for line in lines for t in dictionary.encode_line(line, add_if_not_exist=False)]
    source = [dictionary.eos(), *tokens[:-1]]
    rows = []
    for begin in range(0, len(tokens), sample):
        start = min(window, begin)
        own = [dictionary.bos()] if bos else []
        inputs = [*source[begin - start : begin], *own, *source[begin : begin + sample]]
        rows.append((inputs, [1] * start + own + tokens[begin : begin + sample], start))
    for first in range(0, len(rows), 2):
        batch = rows[first : first + 2]
        width = max(len(inputs) for inputs, _, _ in batch)
        padded = [[row + [1] * (width - len(row)) for row in column] for column in list(zip(*batch))[:2]]
        yield {
            "net_input": {"src_tokens": torch.tensor(padded[0])},
            "target": torch.tensor(padded[1]),
            "spans": [(start, len(inputs)) for inputs, _, start in batch],
        }


def count(lines, post_process=None, folder="", bos=False, dictionary=None):
    dictionary = dictionary or dictionary_of(lines)
    counter = UnitCounter.for_text(dictionary, post_process, folder, bos)
    if counter is None:
        return None
    for batch in batches_of(dictionary, lines, bos=bos):
        counter.add(batch)
    return TextUnits(**counter.report()["text_units"])


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    ("write", "flags"),
    [
        (continued, [None, "subword_nmt", "@@ ", "@@", "fastbpe"]),
        (sentencepiece, [None, "sentencepiece"]),
        (characters, [None, "characters"]),
        (gpt2, ["gpt2", "hf_byte_bpe", None]),
        (fairseq_bytes, ["bytes", "byte_bpe"]),
    ],
)
def test_words_and_bytes_of_the_text(write, flags, bos):
    for flag in flags:
        found = count(write(TEXT), flag, bos=bos).losses(100.0)
        assert found["words"] == len(TEXT.split())
        assert found["bytes"] == len(TEXT.encode())
        assert (found["line_ends"], found["unknown_tokens"]) == (4, 0)
        words = len(TEXT.split()) + 4
        assert found["loss_per_word"] == pytest.approx(100 / math.log(2) / words)
        assert found["ppl_per_word"] == pytest.approx(math.exp(100 / words))
        assert found["loss_per_byte"] == pytest.approx(100 / math.log(2) / len(TEXT.encode()))


def test_the_numbers_of_gpt2(tmp_path):
    lines = gpt2(TEXT)
    numbers = {
        symbol: str(n + 100) for n, symbol in enumerate(sorted({s for line in lines for s in line.split()}))
    }
    text = [" ".join(numbers[symbol] for symbol in line.split()) for line in lines]
    assert count(text, folder=str(tmp_path)) is None
    with pytest.raises(ValueError, match="--post-process gpt2: .*encoder.json is not there"):
        count(text, "gpt2", str(tmp_path))
    encoder = tmp_path / "encoder.json"
    encoder.write_text(json.dumps({symbol: int(number) for symbol, number in numbers.items()}))
    for flag in (None, "gpt2"):
        found = count(text, flag, str(tmp_path))
        assert (found.words, found.text_bytes, found.unknown) == (len(TEXT.split()), len(TEXT.encode()), 0)
    # A number that the file does not know: nobody can tell.
    encoder.write_text(json.dumps({symbol: int(n) for symbol, n in numbers.items() if n != "103"}))
    assert count(text, "gpt2", str(tmp_path)).unknown
    encoder.write_text("[1, 2]")
    with pytest.raises(ValueError, match="encoder.json: the number of each symbol expected"):
        count(text, "gpt2", str(tmp_path))


def test_sentencepiece_itself(tmp_path):
    spm = pytest.importorskip("sentencepiece")
    lines = [line for line in TEXT.splitlines() if line] * 9
    raw = tmp_path / "raw"
    raw.write_text("\n".join(lines))
    spm.SentencePieceTrainer.train(
        input=str(raw),
        model_prefix=str(tmp_path / "pieces"),
        vocab_size=290,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = spm.SentencePieceProcessor(model_file=str(tmp_path / "pieces.model"))
    # Letters that it never saw are spelt in bytes.
    text = [*lines[:3], "zz 犬 hat"]
    found = count([" ".join(pieces.encode(line, out_type=str)) for line in text])
    assert any("<0x" in piece for piece in pieces.encode(text[-1], out_type=str))
    assert found.words == len(" ".join(text).split())
    assert found.text_bytes == sum(len(line.encode()) + 1 for line in text)


def test_spaces_at_the_beginning_of_lines():
    """Those of characters are of the text; those of sentencepiece are its own."""
    lines = [" a b", "c  d"]
    found = count(characters("\n".join(lines) + "\n"))
    assert (found.words, found.text_bytes) == (4, 10)
    # Where all lines begin with one it takes the flag to know.
    every = characters(" a b\n c\n")
    assert count(every, "characters").text_bytes == 8
    assert count(every).text_bytes == count(every, "sentencepiece").text_bytes == 6


@pytest.mark.parametrize("flag", SCHEMES)
def test_no_claim_where_the_flag_is_not_true(flag, caplog):
    """Of words; or of subwords that are marked otherwise."""
    assert count(["the cat sat"], flag) is None
    assert f"--post-process {flag}: no type of the dictionary has the mark" in caplog.text
    if SCHEMES[flag] != "@@":
        assert count(continued(TEXT), flag) is None
    else:
        assert count(sentencepiece(TEXT), flag) is None


@pytest.mark.parametrize("write", [continued, sentencepiece, gpt2])
def test_no_claim_with_unknown_tokens(write, caplog):
    lines = write(TEXT)
    dictionary = dictionary_of(lines)
    lines[0] = "犬犬犬 " + lines[0]
    found = count(lines, dictionary=dictionary)
    assert found.unknown == 1
    losses = found.losses(100.0)
    assert losses["unknown_tokens"] == 1
    for name in ("words", "bytes", "loss_per_word", "ppl_per_word", "loss_per_byte"):
        assert losses[name] is None
    with caplog.at_level(logging.INFO):
        found.log(100.0, None)
    assert re.search("1 tokens are <unk> or no .* is not known", caplog.text)


@pytest.mark.parametrize(
    "lines",
    [
        ["the cat sat", "@@ a"],
        ["12 7 255", "3"],
        # Words of a language that has the letter with which GPT-2 writes a space.
        ["Ġgantija hija ħafna żgħira", "Ġesù"],
        ["T h e c a t"],
    ],
)
def test_no_claim_for_what_may_be_no_subwords(lines):
    assert count(lines) is None


def test_fairseqs_line_is_told_of(caplog):
    units = TextUnits("@@", 8, 2, 40, 0, 2, 0)
    for flag, said in [
        (None, "0.2500 bits per byte"),
        ("@@ ", "bits per byte; fairseq's line counts a word twice where a sample ends within it"),
        (
            "subword_nmt",
            "bits per byte; fairseq's line stays per token (pass '@@ ' for its own count of words)",
        ),
        ("sentencepiece", "bits per byte; fairseq's line is per token"),
    ]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            EvaluationResult(
                *(20, 1.0, 10 * math.log(2), 1.0, 0.0, 0.0),
                description={"post_process": flag},
                measured={"text_units": asdict(units)},
            ).log("all")
        assert "Loss (base 2): 0.5000" in caplog.messages[0]
        assert "per word" not in caplog.messages[0]
        assert caplog.messages[1].startswith(
            "TRIME: 8 words and 2 line ends, 40 bytes of '@@' subwords: 1.0000 bits per word or line end "
            "(perplexity 2.00), "
        )
        assert caplog.messages[1].endswith(said)


def test_shards_add_up():
    parts = [TextUnits("@@", 8, 2, 40, 0, 2, 0), TextUnits("@@", 1, 2, 4, 3, 1, 1)]
    merged = merge_measured([{"text_units": asdict(part)} for part in parts])
    assert TextUnits(**merged["text_units"]) == TextUnits("@@", 9, 4, 44, 3, 3, 1)
    assert "text_units" not in merge_measured([{}, {}])


def test_result_of_a_text_in_words_has_no_such_fields():
    assert "loss_per_word" not in EvaluationResult(20, 1.0, 3.0, 1.0, 0.0, 0.0).as_json()


def test_nothing_is_infinite():
    assert TextUnits("@@", 1, 0, 2, 0, 1, 0).losses(1e6)["ppl_per_word"] is None


def test_flags_that_fairseq_would_refuse():
    for value in SCHEMES:
        whole = OmegaConf.create({"common_eval": {"post_process": value}, "task": {"data": "x"}})
        take_over_post_process(whole.task, value)
        assert whole.common_eval.post_process == (value if value in ("@@ ", "subword_nmt") else None)
    with pytest.raises(ValueError, match="--post-process letter is not known in evaluation: leave it out"):
        take_over_post_process(SimpleNamespace(), "letter")


def test_tables_beside_the_text():
    """A type that the text does not use may be anything."""
    dictionary = dictionary_of(continued(TEXT))
    dictionary.pad_to_multiple_(64)
    assert count(continued(TEXT), dictionary=dictionary).unknown == 0
    counter = UnitCounter.for_text(dictionary, None, "")
    assert np.flatnonzero(counter.tables.unknown).tolist() == [0, 1, 3]

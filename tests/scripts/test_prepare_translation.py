"""Translation pairs become tokens, subwords and binarised data."""

import gzip
import lzma
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from fairseq.data import Dictionary, data_utils

from tests.commands import REFERENCE, ROOT

from .pairs import pack, sentences, write_iwslt14, write_pair

sys.path.insert(0, str(ROOT / "scripts"))

import get_data  # noqa: E402
import iwslt14_text  # noqa: E402
import parallel_lines  # noqa: E402
import prepare_translation  # noqa: E402
import preprocess  # noqa: E402
import translation_text  # noqa: E402

SPLITS = {"train": 60, "valid": 4, "test": 3}


def lines_of(path):
    return Path(path).read_text(encoding="utf-8").split("\n")[:-1]


def binarised(folder, split, language, pair=("de", "en")):
    """The text that fairseq reads."""
    dictionary = Dictionary.load(str(folder / f"dict.{language}.txt"))
    data = data_utils.load_indexed_dataset(f"{folder}/{split}.{'-'.join(pair)}.{language}", dictionary)
    return [dictionary.string(line) for line in data]


@pytest.fixture
def not_binarised(monkeypatch):
    """In place of fairseq-preprocess, which takes seconds: files of the right names and form. How often it
    was run, and with which flags."""
    runs = []

    def copy(texts, part, workers, pair, flags):
        runs.append(list(flags))
        data = REFERENCE / "mt" / "data"
        for other, language in zip(("es", "en"), pair):
            (part / f"dict.{language}.txt").write_bytes((data / f"dict.{other}.txt").read_bytes())
            for split in SPLITS:
                for kind in ("bin", "idx"):
                    name = f"{split}.{'-'.join(pair)}.{language}.{kind}"
                    (part / name).write_bytes((data / f"valid.es-en.{other}.{kind}").read_bytes())

    monkeypatch.setattr(preprocess, "_run", copy)
    return runs


@pytest.fixture
def text(tmp_path):
    write_pair(tmp_path / "text" / "my", {split: sentences(number) for split, number in SPLITS.items()})
    return tmp_path / "text" / "my"


def command(text, destdir, *flags):
    words = [str(text), "--source-lang", "de", "--target-lang", "en", "--destdir", str(destdir)]
    return [*words, "--bpe", "40", "--workers", "1", *flags]


def refused(*words):
    with pytest.raises(SystemExit) as error:
        prepare_translation.main(list(map(str, words)))
    return str(error.value.code)


def test_tokens():
    """Moses tokens in lower case with escapes, as its Perl scripts make them; odd white space is a space."""
    tokenize = translation_text.tokenizer(("de", "en"), keep_case=False)
    assert tokenize(("„Gut“, sagte er & ging.", "He's at 5,300 m\u2028(approx.)\r")) == (
        "„ gut “ , sagte er &amp; ging .",
        "he &apos;s at 5,300 m ( approx . )",
    )
    assert tokenize((None, "A|b")) == (None, "a &#124; b")
    assert translation_text.tokenizer(("de", "en"), keep_case=True)(("Gut", ""))[0] == "Gut"


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("a b", "a b c", True),  # a ratio of 1.5 exactly
        ("a b c", "a b", True),
        ("a b", "a b c d", False),
        ("", "a", False),
        ("a " * 5, "b " * 5, True),
        ("a " * 5, "b " * 6, False),
    ],
)
def test_limits_of_training_pairs(source, target, allowed):
    assert translation_text.Limits(longest=5).allow(source, target) == allowed


@pytest.mark.parametrize("language", ["es", "en"])
def test_subwords_are_those_of_the_reference(language):
    """Its words and its codes give its subwords again."""
    segment = translation_text.segmenter(REFERENCE / "mt" / "data" / f"codes.{language}")
    lines = [
        line
        for line in binarised(REFERENCE / "mt" / "data", "valid", language, ("es", "en"))
        if "<unk>" not in line
    ]
    assert len(lines) > 100
    assert sum(line.count("@@ ") for line in lines) > 100
    assert [segment(line.replace("@@ ", "")) for line in lines] == lines
    assert segment("") == ""


def test_steps(text, tmp_path, not_binarised):
    """What is written, that it is joint, and that only training pairs are left out."""
    too_long = sentences(1)[0][0], "word " * 30
    write_pair(text, {split: [*sentences(number), too_long] for split, number in SPLITS.items()})
    prepare_translation.main(command(text, tmp_path / "my", "--joined-dictionary"))
    folder = tmp_path / "my" / "text"
    assert [len(lines_of(folder / f"{split}.de")) for split in SPLITS] == [60, 5, 4]
    assert lines_of(folder / "train.tokenized.de")[0] == "das haus ist alt &amp; groß . 0 ."
    for split in SPLITS:
        for language in ("de", "en"):
            tokens, subwords = (
                lines_of(folder / f"{split}.tokenized.{language}"),
                lines_of(folder / f"{split}.{language}"),
            )
            assert [line.replace("@@ ", "") for line in subwords] == tokens
    codes = lines_of(folder / "codes")
    assert codes[0] == "#version: 0.2"
    assert len(codes) == 41
    # "Haus" is German only, "house" is English only.
    merged = {line.replace(" ", "") for line in codes[1:]}
    assert {"haus</w>", "house</w>"} <= merged
    assert not_binarised == [["--joined-dictionary"]]


def test_processes_change_nothing(text, tmp_path, not_binarised, monkeypatch):
    monkeypatch.setattr(parallel_lines, "_CHUNK", 7)
    for workers in ("1", "2"):
        prepare_translation.main(command(text, tmp_path / workers, "--workers", workers))
    names = sorted(path.name for path in (tmp_path / "1" / "text").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "2" / "text").iterdir())
    assert len(names) == 14
    for name in names:
        assert (tmp_path / "1" / "text" / name).read_bytes() == (tmp_path / "2" / "text" / name).read_bytes()


def test_continues_and_makes_nothing_twice(text, tmp_path, not_binarised, capsys):
    prepare_translation.main(command(text, tmp_path / "my"))
    folder = tmp_path / "my" / "text"
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    prepare_translation.main(command(text, tmp_path / "my"))
    assert "is complete" in capsys.readouterr().out
    # One side of a text is never alone.
    (folder / "train.tokenized.en").unlink()
    (folder / "valid.de").unlink()
    (tmp_path / "my" / "dict.de.txt").unlink()
    prepare_translation.main(command(text, tmp_path / "my"))
    assert len(not_binarised) == 2
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    changed = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != times[path]}
    assert changed == {"train.tokenized.en", "train.tokenized.de", "valid.de"}


def test_other_settings_and_other_text_need_another_folder(text, tmp_path, not_binarised):
    prepare_translation.main(command(text, tmp_path / "my"))
    assert "(bpe 40 / 50)" in refused(*command(text, tmp_path / "my", "--bpe", "50"))
    assert "keep_case False / True" in refused(*command(text, tmp_path / "my", "--keep-case"))
    write_pair(text, {"test": sentences(5)})
    assert "text has changed" in refused(*command(text, tmp_path / "my"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dict.de.txt").write_text("a 1\n")
    assert "other holds other data" in refused(*command(text, tmp_path / "other"))
    assert len(not_binarised) == 1


def test_two_at_once(text, tmp_path, not_binarised, monkeypatch, capsys):
    learn = translation_text.learn_codes
    monkeypatch.setattr(translation_text, "learn_codes", lambda *given: (time.sleep(0.2), learn(*given)))
    words = command(text, tmp_path / "my")
    threads = [threading.Thread(target=prepare_translation.main, args=(words,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(not_binarised) == 1
    said = capsys.readouterr().out
    assert f"another command makes {tmp_path}/my: waiting for it" in said
    assert f"{tmp_path}/my is complete" in said
    assert sorted(os.listdir(tmp_path)) == ["my", "text"]


def test_compressed_text(text, tmp_path, not_binarised):
    prepare_translation.main(command(text, tmp_path / "plain"))
    for split, (opener, end) in zip(SPLITS, [(gzip.open, ".gz"), (lzma.open, ".xz"), (lzma.open, ".xz")]):
        path = Path(f"{text}.{split}.en")
        with opener(f"{path}{end}", "wb") as file:
            file.write(path.read_bytes())
        path.unlink()
    prepare_translation.main(command(text, tmp_path / "packed"))
    for name in ("train.en", "codes", "test.de"):
        assert (tmp_path / "packed/text" / name).read_bytes() == (tmp_path / "plain/text" / name).read_bytes()


def test_what_is_wrong_with_a_text(text, tmp_path, not_binarised):
    words = command(text, tmp_path / "my")
    good = Path(f"{text}.valid.en").read_bytes()

    def with_valid(content):
        Path(f"{text}.valid.en").write_bytes(content)
        Path(f"{text}.valid.en.xz").unlink(missing_ok=True)
        return refused(*command(text, tmp_path / f"{len(content)}"))

    lines = with_valid(good + b"one more\n")
    assert "my.valid.de and " in lines
    assert "have not the same number of lines: one ends after 4" in lines
    assert "my.valid.en, line 5, is not UTF-8" in with_valid(good + b"\xff\n")
    Path(f"{text}.valid.en.gz").write_bytes(gzip.compress(good))
    assert "my.valid.en and " in refused(*words)
    assert ".gz: leave one" in refused(*words)
    Path(f"{text}.valid.en").unlink()
    Path(f"{text}.valid.en.gz").write_bytes(gzip.compress(good)[:-9])
    assert "my.valid.en.gz is damaged" in refused(*words)
    Path(f"{text}.valid.en.gz").unlink()
    assert "my.valid.en is not there, nor" in refused(*words)
    Path(f"{text}.valid.en").write_bytes(good)
    write_pair(text, {"train": [("ein Satz", "a sentence that is much too long for it")]})
    assert "none of 1 pairs is kept" in refused(*command(text, tmp_path / "none"))
    write_pair(text, {"train": []})
    assert "they are empty" in refused(*command(text, tmp_path / "empty"))
    assert not_binarised == []
    assert not list(tmp_path.glob("*/text/*.tmp"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bpe", "0"], "0 is no whole number from 1"),
        (["--bpe", "1e4"], "1e4 is no whole number"),
        (["--max-ratio", "0.5"], "0.5 is no number of at least 1"),
        (["--max-ratio", "nan"], "nan is no number of at least 1"),
        (["--workers", "2000"], "2000 is more than 1,024"),
        (["--source-lang", "../de"], "../de is no language code"),
        (["--source-lang", "en"], "--source-lang and --target-lang are the same"),
    ],
)
def test_flags(tmp_path, capsys, flags, message):
    refused(*command(tmp_path / "my", tmp_path / "out", *flags))
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.process
def test_own_pair_with_fairseq(text, tmp_path):
    prepare_translation.main(command(text, tmp_path / "my"))
    folder = tmp_path / "my"
    assert binarised(folder, "train", "de") == lines_of(folder / "text" / "train.de")
    assert not list(folder.glob("part-*"))


TRAINING = 60


@pytest.fixture
def small_iwslt14(tmp_path, monkeypatch):
    monkeypatch.setattr(get_data, "IWSLT14_TEST_PAIRS", 10)
    monkeypatch.setattr(iwslt14_text, "MERGES", 50)
    return write_iwslt14(tmp_path / "source", sentences(TRAINING))


def test_iwslt14(tmp_path, small_iwslt14, not_binarised):
    """Titles and descriptions are text, every 23rd pair is for validation, and five sets are the test set."""
    archives = tmp_path / "archives"
    archives.mkdir()
    pack(small_iwslt14, archives / "de-en.tgz")
    words = ["iwslt14", "--from", str(archives), "--data-bin", str(tmp_path / "data-bin"), "--workers", "1"]
    get_data.main(words)
    folder = tmp_path / "data-bin" / "iwslt14"
    raw = folder / "raw_data"
    tokenize = translation_text.tokenizer(("de", "en"), keep_case=False)
    expected = [tokenize(pair) for pair in sentences(TRAINING)]
    for side, language in enumerate(("de", "en")):
        train = [pair[side] for number, pair in enumerate(expected, 1) if number % 23]
        assert lines_of(raw / f"train.tokenized.{language}") == train
        valid = [pair[side] for number, pair in enumerate(expected, 1) if not number % 23]
        assert lines_of(raw / f"valid.tokenized.{language}") == valid
        test = lines_of(raw / f"test.tokenized.{language}")
        assert len(test) == 10
        assert [line.split()[-1] for line in test[::2]] == ["0", "1", "2", "3", "4"]
    assert test[1] == "&quot; good , &quot; said anna &apos;s dog ."
    assert (folder / "dict.en.txt").exists()
    get_data.main(words)
    assert len(not_binarised) == 1


def test_iwslt14_of_another_size(tmp_path, small_iwslt14, monkeypatch):
    monkeypatch.setattr(get_data, "IWSLT14_TEST_PAIRS", 6750)
    words = ["iwslt14", "--from", str(small_iwslt14), "--data-bin", str(tmp_path / "d")]
    with pytest.raises(SystemExit, match="have 10 segments, not 6,750 as IWSLT'14: remove them"):
        get_data.main(words)
    (small_iwslt14 / "train.tags.de-en.en").unlink()
    with pytest.raises(SystemExit, match="none of de-en.tgz, train.tags.de-en.de, .* is there"):
        get_data.main(words)


@pytest.mark.slow
@pytest.mark.process
def test_iwslt14_with_fairseq(tmp_path, small_iwslt14):
    get_data.main(["iwslt14", "--from", str(small_iwslt14), "--data-bin", str(tmp_path), "--workers", "1"])
    folder = tmp_path / "iwslt14"
    assert binarised(folder, "valid", "en") == lines_of(folder / "raw_data" / "valid.en")
    assert len(binarised(folder, "test", "de")) == 10

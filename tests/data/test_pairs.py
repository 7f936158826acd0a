"""Subsets of sentence pairs: what is damaged, missing or of another text is refused before it is read."""

import os
import sys

import pytest

from tests.small_pairs import DATA, copy_data, make_dictionary, make_task, write_pairs, write_side
from trime_fairseq.data.pair_files import PairFiles
from trime_fairseq.files import file_hash

PAIRS = [("w1 w2", "w3"), ("w4", "w5 w6 w7"), ("w8 w9", "w1")]


def load(folder, subset="train"):
    return make_task(folder).load_dataset(subset)


@pytest.fixture(autouse=True)
def in_training(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fairseq-train"])


def test_sound_pairs(tmp_path):
    task = make_task(write_pairs(tmp_path, train=PAIRS))
    task.load_dataset("train")
    pairs = task.dataset("train")
    words = make_dictionary()
    assert [words.string(pair["source"]) for pair in pairs] == [source for source, _ in PAIRS]
    assert [words.string(pair["target"]) for pair in pairs] == [target for _, target in PAIRS]


def test_either_direction(tmp_path):
    """The same files serve both."""
    task = make_task(write_pairs(tmp_path, train=PAIRS), source_lang="en", target_lang="es")
    task.load_dataset("train")
    assert make_dictionary().string(task.dataset("train")[0]["source"]) == PAIRS[0][1]
    files = PairFiles(str(tmp_path), "train", "en", "es")
    assert files.name("es") == "train.es-en.es"
    assert files.target_hash() == file_hash(*(f"{tmp_path}/train.es-en.es.{end}" for end in ("idx", "bin")))


@pytest.mark.parametrize("kind", ["lazy", "cached"])
def test_other_formats_are_read_in_any_order(tmp_path, kind):
    task = make_task(write_pairs(tmp_path, train=PAIRS, impl=kind))
    task.load_dataset("train")
    assert not task.dataset("train").supports_prefetch
    assert make_dictionary().string(task.dataset("train")[2]["target"]) == "w1"


DAMAGES = {
    "no source": ("train.es-en.es", None, r"--train-subset train: .*train\.es-en\.es\.idx is not there"),
    "no target": ("train.es-en.en", None, r"--train-subset train: .*train\.es-en\.en\.idx is not there"),
    "no tokens": ("train.es-en.en.bin", None, r"train\.es-en\.en\.bin is not there: make it again"),
    "no index": ("train.es-en.es.idx", None, r"train\.es-en\.es\.idx is not there: make it again"),
    "cut off": ("train.es-en.en.bin", 100, r"train\.es-en\.en\.bin has 100 bytes, but by .* it must have"),
    "cut index": ("train.es-en.es.idx", 100, r"train\.es-en\.es\.idx is damaged"),
    "valid": ("valid.es-en.en.bin", 7, r"valid\.es-en\.en\.bin has 7 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage(tmp_path, damage):
    name, size, message = DAMAGES[damage]
    folder = copy_data(tmp_path / "data")
    for path in folder.glob(f"{name}*") if size is None else [folder / name]:
        path.unlink() if size is None else os.truncate(path, size)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(folder, name.partition(".")[0])


def test_other_subsets_are_named_by_their_flags(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^--valid-subset tset: .*tset\.es-en\.es\.idx is not there"):
        load(DATA, "tset")
    monkeypatch.setattr(sys, "argv", ["fairseq-generate"])
    with pytest.raises(FileNotFoundError, match=r"^--gen-subset tset: .*tset\.es-en\.es\.idx is not there"):
        load(DATA, "tset")


def test_translations_need_no_references(tmp_path, monkeypatch):
    folder = copy_data(tmp_path / "data")
    for path in folder.glob("test.es-en.en.*"):
        path.unlink()
    monkeypatch.setattr(sys, "argv", ["fairseq-generate"])
    task = make_task(folder)
    task.load_dataset("test")
    assert task.dataset("test").tgt is None
    monkeypatch.setattr(sys, "argv", ["fairseq-validate"])
    with pytest.raises(FileNotFoundError, match=r"^--valid-subset test: .*test\.es-en\.en\.idx is not there"):
        load(folder, "test")


def test_sides_of_different_texts(tmp_path):
    folder = write_pairs(tmp_path, train=PAIRS)
    write_side(folder / "train.es-en.en", ["w1"], make_dictionary())
    message = r"different numbers of sentences \(train\.es-en\.es has 3, train\.es-en\.en has 1\): make both"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_no_sentence(tmp_path):
    with pytest.raises(ValueError, match=f"^--train-subset train of DATA {tmp_path} holds no sentence: give"):
        load(write_pairs(tmp_path, train=[]))


def test_text_of_another_dictionary(tmp_path):
    folder = write_pairs(tmp_path, train=PAIRS)
    (folder / "dict.en.txt").write_text("w1 1\nw2 1\n")
    with pytest.raises(
        ValueError, match=r"train\.es-en\.en\.bin holds the token 11, but the dictionary has 6 types"
    ):
        load(folder)


def test_parts_of_a_subset(tmp_path):
    folder = write_pairs(tmp_path, train=PAIRS, train1=PAIRS[:2])
    task = make_task(folder)
    task.load_dataset("train", combine=True)
    assert len(task.dataset("train")) == 5
    os.truncate(folder / "train1.es-en.en.bin", 1)
    with pytest.raises(ValueError, match=r"train1\.es-en\.en\.bin has 1 bytes"):
        task.load_dataset("train", combine=True)


def test_every_epoch_has_its_folder(tmp_path):
    first, second = (write_pairs(tmp_path / str(number), train=PAIRS[:number]) for number in (1, 2))
    write_pairs(first, valid=PAIRS)
    task = make_task(f"{first}:{second}")
    for epoch, count in ((1, 1), (2, 2), (3, 1)):
        task.load_dataset("train", epoch=epoch)
        assert len(task.dataset("train")) == count
    task.load_dataset("valid", epoch=2)
    assert len(task.dataset("valid")) == 3

"""Damaged files of a binarised text: one error that names the file, before fairseq reads them."""

import struct
import tracemalloc

import numpy as np
import pytest
import torch
from fairseq.data.huffman import HuffmanCodeBuilder, HuffmanMMapIndexedDatasetBuilder
from fairseq.data.indexed_dataset import IndexedDatasetBuilder, MMapIndexedDatasetBuilder

from trime_fairseq.data import text_files
from trime_fairseq.data.text_files import check_text

TYPES = 30
LINES = [[4, 5, 6, 2], [2], [29, 2], [7, 8, 2]]
TOKENS = 10


@pytest.fixture(params=["mmap", "mmap64", "legacy", "huffman"])
def text(request, tmp_path, monkeypatch):
    """The files of LINES, without an ending."""
    # In several pieces.
    monkeypatch.setattr(text_files, "_ENTRIES", 3)
    monkeypatch.setattr(text_files, "_TOKENS", 4)
    return write(tmp_path / "test", request.param)


def write(path, kind, lines=LINES):
    if kind == "huffman":
        counts = HuffmanCodeBuilder()
        counts.add_symbols(*(str(token) for line in lines for token in line))
        with HuffmanMMapIndexedDatasetBuilder(str(path), counts.build_code()) as builder:
            for line in lines:
                builder.add_item([str(token) for token in line])
        return path
    if kind == "legacy":
        builder = IndexedDatasetBuilder(f"{path}.bin")
    else:
        builder = MMapIndexedDatasetBuilder(f"{path}.bin", np.int64 if kind == "mmap64" else np.uint16)
    for line in lines:
        builder.add_item(torch.tensor(line))
    builder.finalize(f"{path}.idx")
    return path


def change(path, ending, position, value):
    file = path.with_suffix(ending)
    content = bytearray(file.read_bytes())
    content[position : position + len(value)] = value
    file.write_bytes(content)


def test_undamaged(text):
    assert check_text(str(text), TYPES) == TOKENS


def test_text_without_a_token(tmp_path):
    for kind in ("mmap", "legacy"):
        assert check_text(str(write(tmp_path / kind, kind, [])), TYPES) == 0


DAMAGE = {
    ".bin cut off": (lambda path: cut(path, ".bin", 3), r"test\.bin has .* bytes, but by test\.idx it must"),
    ".bin empty": (lambda path: path.with_suffix(".bin").write_bytes(b""), r"test\.bin has 0 bytes"),
    ".bin longer": (lambda path: append(path, ".bin"), r"test\.bin has"),
    ".idx cut off": (lambda path: cut(path, ".idx", 5), r"test\.idx is damaged \("),
    ".idx longer": (lambda path: append(path, ".idx"), r"test\.idx is damaged \("),
    ".idx of 20 bytes": (lambda path: cut(path, ".idx", None), r"test\.idx is damaged \(its head"),
    ".idx empty": (lambda path: path.with_suffix(".idx").write_bytes(b""), r"test\.idx is no index"),
    "another magic": (lambda path: change(path, ".idx", 0, b"\0" * 8), r"test\.idx is no index"),
    "cleared end": (lambda path: clear(path, slice(-16, None)), r"test\.idx is damaged \("),
    "cleared middle": (lambda path: clear(path, slice(-40, -20)), r"test\.idx is damaged \("),
    "random end": (lambda path: change(path, ".idx", -9, b"\x81\x55\xff"), r"test\.idx is damaged \("),
}


def cut(path, ending, by):
    file = path.with_suffix(ending)
    content = file.read_bytes()
    file.write_bytes(content[:20] if by is None else content[:-by])


def append(path, ending):
    file = path.with_suffix(ending)
    file.write_bytes(file.read_bytes() + b"\0" * 4)


def clear(path, where):
    file = path.with_suffix(".idx")
    content = bytearray(file.read_bytes())
    content[where] = b"\0" * len(content[where])
    file.write_bytes(content)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged(text, kind):
    damage, message = DAMAGE[kind]
    damage(text)
    with pytest.raises(ValueError, match=message) as error:
        check_text(str(text), TYPES)
    assert "fairseq-preprocess" in str(error.value)


@pytest.mark.parametrize("number", [5, 2**31, 2**62, 2**64 - 1])
def test_numbers_of_lines_that_the_file_cannot_hold(text, number):
    """fairseq would ask for that much memory."""
    kind = text.with_suffix(".idx").read_bytes()[:3]
    change(text, ".idx", {b"MMI": 18, b"TNT": 32, b"HUF": 25}[kind], struct.pack("<Q", number))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"test\.idx is damaged \("):
        check_text(str(text), TYPES)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("ending", [".idx", ".bin"])
def test_missing(text, ending):
    text.with_suffix(ending).unlink()
    with pytest.raises(FileNotFoundError, match=rf"test\{ending} is not there: .*fairseq-preprocess"):
        check_text(str(text), TYPES)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("mmap", struct.pack("<H", TYPES), "30"),
        ("mmap", struct.pack("<H", 65535), "65,535"),
        ("mmap64", struct.pack("<q", -1), "-1"),
        ("mmap64", struct.pack("<q", 2**40), "1,099,511,627,776"),
        ("legacy", struct.pack("<i", TYPES + 1), "30"),
        ("legacy", struct.pack("<i", 0), "-1"),
    ],
)
def test_tokens_that_the_dictionary_does_not_have(tmp_path, kind, value, shown):
    text = write(tmp_path / "test", kind)
    change(text, ".bin", 5 * len(value), value)
    message = rf"test\.bin holds the token {shown}, but the dictionary has 30 types.*--srcdict"
    with pytest.raises(ValueError, match=message):
        check_text(str(text), TYPES)


def test_dtype_that_holds_no_tokens(tmp_path):
    text = write(tmp_path / "test", "mmap64")
    for code in (0, 7, 200):
        change(text, ".idx", 17, bytes([code]))
        with pytest.raises(ValueError, match=r"test\.idx is damaged"):
            check_text(str(text), TYPES)


def test_flag_of_another_format(text):
    other = "mmap" if text.with_suffix(".idx").read_bytes()[:3] != b"MMI" else "cached"
    with pytest.raises(ValueError, match=f"--dataset-impl {other} cannot read .*test.idx, .* leave the flag"):
        check_text(str(text), TYPES, other)


def test_raw_text(tmp_path):
    path = tmp_path / "test"
    with pytest.raises(FileNotFoundError, match=r"--dataset-impl raw reads a text file of this name"):
        check_text(str(path), TYPES, "raw")
    path.write_text("a b\n\nc\n")
    assert check_text(str(path), TYPES, "raw") == check_text(str(path), TYPES) == 6
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="test is no text in UTF-8"):
        check_text(str(path), TYPES)


def test_what_is_not_checked(tmp_path):
    assert check_text("s3://bucket/test", TYPES) is None
    (tmp_path / "test.fasta").write_text(">a\nab\n")
    with pytest.raises(ValueError, match="--dataset-impl fasta is not for this task"):
        check_text(str(tmp_path / "test"), TYPES)

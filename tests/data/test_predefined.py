"""The file of predefined batches, and the description beside it."""

import pytest

from trime_fairseq.bm25 import BatchesInfo
from trime_fairseq.data.predefined import check_description, read_predefined


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[0, 1, 2, 2]", "2 is listed 2 times and 3 not at all"),
        ("[0, 1, 2, 4]", r"4 is not the id of a segment \(0 to 3\)"),
        ("[0, 1, 2, -1]", "-1 is not the id of a segment"),
        ("[0, 1, 2]", "lists 3 segments, but the training data has 4 at --tokens-per-sample 128"),
        ("[0, 1, 2, 3, 4]", "lists 5 segments"),
        ('["0", "1", "2", "3"]', "a JSON list of integers expected"),
        ("[0.0, 1, 2, 3]", "a JSON list of integers expected"),
        ("[true, 1, 2, 3]", "a JSON list of integers expected"),
        ('{"0": 1}', "a JSON list of integers expected"),
        ("[0, 1, 2, 3", "cannot be read as JSON"),
    ],
)
def test_bad_predefined_batches(tmp_path, content, message):
    path = tmp_path / "batches.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_predefined(str(path), 4, 128)
    assert str(error.value).startswith(f"--predefined-batches {path}")


def test_predefined_batches(tmp_path):
    path = tmp_path / "batches.json"
    path.write_text("[3, 0, 2, 1]")
    assert read_predefined(str(path), 4, 128).tolist() == [3, 0, 2, 1]
    with pytest.raises(ValueError, match="cannot be read"):
        read_predefined(str(tmp_path / "missing"), 4, 128)


def check(path, **training):
    training = dict(dict(tokens_per_sample=128, sample_break_mode="none", data_hash="text"), **training)
    check_description(path, **{**training, "data_hash": lambda: training["data_hash"]})


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            dict(tokens_per_sample=64),
            "is of --tokens-per-sample 128, the training of 64: make the file again",
        ),
        (dict(sample_break_mode="eos"), "is of --sample-break-mode none, the training of eos"),
        (dict(data_hash="another"), "was made from another text than the training data"),
        (dict(data_hash=None), "was made from another text than the training data"),
    ],
)
def test_batches_of_other_segments(tmp_path, training, message):
    path = str(tmp_path / "batches.json")
    check(path, **training)  # lists of others have no description
    facts = dict(order_hash="", engine="bm25s", k=1, seed=1, neighbor_share=1.0, segments=4, text_hash="")
    cut = dict(tokens_per_sample=128, sample_break_mode="none")
    BatchesInfo(**facts, **cut, data_hash="text").write(path)
    check(path)
    with pytest.raises(ValueError, match=f"^--predefined-batches {path} {message}"):
        check(path, **training)
    BatchesInfo(**facts).write(path)
    check(path, **training)  # nothing was recorded of them

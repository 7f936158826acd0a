"""Reading exports of segments."""

import json

import pytest

from trime_fairseq.bm25 import SegmentsInfo, read_segments

from .small import write


def test_texts_and_description(tmp_path):
    path = write(tmp_path / "s.json", ["a b", "", "ü"])
    alone = read_segments(path)
    assert alone.texts == ["a b", "", "ü"]
    assert (alone.info.segments, alone.info.data_hash) == (3, None)
    info = SegmentsInfo(3, alone.info.text_hash, "data", 512, "none")
    info.write(path)
    assert read_segments(path).info == info
    # As Pyserini takes them, ids may be numbers.
    assert read_segments(write(tmp_path / "t.json", ["a", "b"], ids=[0, 1])).texts == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a JSON list of"),
        ({"id": "0", "contents": "a"}, "a JSON list of"),
        ([{"id": "0"}], 'entry 0 has no "contents"'),
        (["a"], 'entry 0 has no "contents"'),
        (
            [{"id": "0", "contents": "a"}, {"id": "2", "contents": "b"}],
            "entry 1 has the id '2'; ids must be 0",
        ),
        ([{"id": "1", "contents": "a"}], "entry 0 has the id '1'"),
        ([{"contents": "a"}], "entry 0 has the id None"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_segments(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("NaN", "a JSON list of"),
        ("", "cannot be read as JSON"),
        ('[{"id": "0", "contents": "a", "contents": "b"}]', "is there twice"),
        ('[{"id": "0", "contents": "\\ud800"}]', "hold half a character"),
        ('[{"id": 0.0, "contents": "a"}]', "entry 0 has the id 0.0"),
        ('[{"id": true, "contents": "a"}]', "entry 0 has the id True"),
    ],
    ids=lambda text: text[:20],
)
def test_strange_json(tmp_path, content, message):
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_segments(str(path))
    assert str(error.value).startswith(f"`segments_path` {path}")


def test_half_a_file(tmp_path):
    path = tmp_path / "s.json"
    with pytest.raises(ValueError, match="no such file"):
        read_segments(str(path))
    path.write_text('[{"id": "0", "conte')
    with pytest.raises(ValueError, match="export the segments again"):
        read_segments(str(path))


def test_description_of_another_file(tmp_path):
    path = write(tmp_path / "s.json", ["a", "b"])
    SegmentsInfo(2, "another", None, None, None).write(path)
    with pytest.raises(ValueError, match="is not the file that"):
        read_segments(path)
    (tmp_path / f"s.json{SegmentsInfo.suffix}").write_text("{}")
    with pytest.raises(ValueError, match="does not describe segments"):
        read_segments(path)

"""Kept results are taken only whole, and only by the comparison they are of."""

import json
import logging
from dataclasses import fields, replace

import pytest

from trime_fairseq.comparison.kept import Identity, keep, kept
from trime_fairseq.comparison.result import CheckpointResult, TunedRow, TunedRows, TunedSetting

from .made_up import checkpoint_result, row_result

IDENTITY = Identity("c", "d", "v", "t", None, "valid", "test", "--cpu", "none; cache 512", "", "1")
RESULT = checkpoint_result(row_result("none", 112.0), row_result("cache 512", 97.0, remarks=("limit",)))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "r.json"
    keep(str(path), IDENTITY, RESULT)
    return path


def test_there_and_back(file):
    found = CheckpointResult.from_json(kept(str(file), IDENTITY))
    assert found == RESULT
    assert found.row("cache 512").by_size[0].mem_size == 0


def test_what_was_tuned_there_and_back(tmp_path):
    setting = TunedSetting({"use_local": True, "softmax_temp": 1.19}, 4.5)
    rows = (TunedRow("local", setting, (), ("limit",)), TunedRow("x", setting, (setting,), ()))
    tuned = TunedRows(rows, 9, 1.5)
    keep(str(tmp_path / "t.json"), IDENTITY, tuned)
    assert TunedRows.from_json(kept(str(tmp_path / "t.json"), IDENTITY)) == tuned


def test_nothing_there(tmp_path):
    assert kept(str(tmp_path / "r.json"), IDENTITY) is None


@pytest.mark.parametrize("name", [entry.name for entry in fields(IDENTITY)[1:]])
def test_another_comparison(file, name, caplog):
    with caplog.at_level(logging.WARNING):
        assert kept(str(file), replace(IDENTITY, **{name: "other"})) is None
    assert f"{file} is of another comparison (now / then: {name} other / " in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace("97", "98", 1),
        lambda text: text.replace('"limit"', '"limits"'),
        lambda text: text.replace('"checksum"', '"sum"'),
        lambda text: text.replace('"tune_hash"', '"tune"'),
        lambda text: "[" * 100_000,
    ],
)
def test_damaged(file, damage, caplog):
    text = file.read_text()
    assert damage(text) != text
    file.write_text(damage(text))
    with caplog.at_level(logging.WARNING):
        assert kept(str(file), IDENTITY) is None
    assert f"{file} is damaged (" in caplog.text
    assert "it is measured again" in caplog.text


def test_json_is_one_text(file):
    assert set(json.loads(file.read_text())) == {"identity", "checksum", "result"}

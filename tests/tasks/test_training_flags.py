"""fairseq's own flags of a training, refused before anything is built."""

import logging

import pytest
import torch

from trime_fairseq.tasks.training_flags import check_training_flags


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        # fairseq divides by it, in C: the process is killed.
        ("dataset", "required_batch_size_multiple", 0, "--required-batch-size-multiple must be positive"),
        ("dataset", "required_batch_size_multiple", -8, "--required-batch-size-multiple must be positive"),
        ("optimization", "update_freq", [0], "--update-freq must be positive, not 0"),
        ("optimization", "update_freq", [2, -1], "--update-freq must be positive, not -1"),
        ("common", "fp16", True, "--fp16 trains on a GPU.*or pass --memory-efficient-fp16"),
        ("common", "bf16", True, "--bf16 trains on a GPU.*: leave it out$"),
    ],
)
def test_refused(monkeypatch, group, name, value, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        check_training_flags({group: {name: value}})


def test_accepted(monkeypatch, caplog):
    """What is not there, what is as usual, and half precision that needs no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    half = {"fp16": True, "memory_efficient_fp16": True}
    check_training_flags({})
    check_training_flags({"dataset": {"required_batch_size_multiple": 8}, "common": half})
    check_training_flags({"optimization": {"update_freq": [1, 4]}, "common": {"bf16": True, "amp": True}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_training_flags({"common": {"fp16": True}})
    assert not caplog.records


def test_begins_with_a_folder(tmp_path):
    """fairseq would train from scratch, without a word."""
    folder = str(tmp_path / "model")
    (tmp_path / "model").mkdir()
    save_dir = str(tmp_path / "save")
    for name in ("restore_file", "finetune_from_model"):
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} .*model is a folder: name the ch"):
            check_training_flags({"checkpoint": {"save_dir": save_dir, name: folder}})
    missing = {"save_dir": save_dir, "finetune_from_model": "no/model.pt"}
    with pytest.raises(ValueError, match="--finetune-from-model no/model.pt is not there"):
        check_training_flags({"checkpoint": missing})
    # A training that goes on does not look at the model that it was finetuned from.
    (tmp_path / "save").mkdir()
    (tmp_path / "save" / "checkpoint_last.pt").touch()
    check_training_flags({"checkpoint": {"save_dir": save_dir, "finetune_from_model": folder}})
    check_training_flags({"checkpoint": missing})


def test_begins_with_nothing(tmp_path, caplog):
    """Scripts name the file of their own folder, which is not there at first; of others one is told."""
    caplog.set_level(logging.WARNING)
    own = tmp_path / "checkpoint_last.pt"
    for restored in ("checkpoint_last.pt", str(own)):
        check_training_flags({"checkpoint": {"save_dir": str(tmp_path), "restore_file": restored}})
    assert not caplog.records
    check_training_flags({"checkpoint": {"save_dir": str(tmp_path), "restore_file": f"{tmp_path}/x.pt"}})
    assert "--restore-file" in caplog.text
    assert "x.pt is not there" in caplog.text

"""Checkpoints of released models: what is none gets no name, and does not stay in the way."""

import io
import sys
import zipfile

import pytest
import torch

from tests.commands import REFERENCE, ROOT

from .test_archives import _damaged_deflate, _empty, _encrypted, _link, _unknown_method, zipped

sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "run_pretrained")]

import evaluate  # noqa: E402
import fetch  # noqa: E402

CHECKPOINT = REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt"


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Where a released model is downloaded from; the folder of models."""
    monkeypatch.setattr(evaluate, "ADDRESS", (tmp_path / "{}.zip").as_uri().replace("%7B%7D", "{}"))
    return tmp_path / "models"


def release(folder, content):
    return zipped(folder / "tiny-1M.zip", content, "tiny/checkpoint_best.pt")


def test_released_checkpoint(tmp_path, released):
    release(tmp_path, CHECKPOINT.read_bytes())
    path = evaluate.checkpoint("tiny-1M", released)
    assert path.read_bytes() == CHECKPOINT.read_bytes()
    noted = fetch.digest(CHECKPOINT)
    assert (path.parent / "checkpoint_best.pt.sha256").read_text().split()[0] == noted
    assert sorted(path.name for path in released.iterdir()) == ["tiny-1M", "tiny-1M.zip.sha256"]
    evaluate.checkpoint("tiny-1M", released, noted)
    with pytest.raises(evaluate.FetchError, match=f"its sha256 is not {'0' * 64}"):
        evaluate.checkpoint("tiny-1M", released, "0" * 64)
    path.write_bytes(b"other")
    with pytest.raises(evaluate.FetchError, match="is another file than before: .*; remove it to download"):
        evaluate.checkpoint("tiny-1M", released)


def test_datastore_of_the_archive(tmp_path, released, capsys):
    """Is unpacked before the checkpoint; an archive without one is no error."""
    files = ["dstore/vals.npy", "dstore/knn_index_ip"]
    content = CHECKPOINT.read_bytes()
    zipped(tmp_path / "tiny-1M.zip", content, "tiny/checkpoint_best.pt")
    with zipfile.ZipFile(tmp_path / "tiny-1M.zip", "a") as archive:
        for name in [*files, "dstore/keys.npy"]:
            archive.writestr(f"tiny/{name}", name)
    path = evaluate.checkpoint("tiny-1M", released, None, files)
    assert [(path.parent / name).read_text() for name in files] == files
    assert not (path.parent / "dstore" / "keys.npy").exists()

    (tmp_path / "other").mkdir()
    release(tmp_path, content)
    path = evaluate.checkpoint("tiny-1M", tmp_path / "other", None, files)
    assert path.exists()
    assert "holds no /dstore/vals.npy: datastore and index must be made" in capsys.readouterr().err


def _text(path):
    return b"<html>"


def _weights(path):
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_text, "is no checkpoint"),
        (_weights, "is no checkpoint of fairseq"),
        (lambda path: CHECKPOINT.read_bytes()[:5000], "is no checkpoint"),
        (lambda path: b"", "is no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_gets_no_name(tmp_path, released, content, message):
    """And the next run may have better luck."""
    release(tmp_path, content(tmp_path))
    with pytest.raises(evaluate.FetchError, match=f"{message}.*run again to download it again"):
        evaluate.checkpoint("tiny-1M", released)
    assert not [path for path in released.rglob("*") if path.is_file()]
    release(tmp_path, CHECKPOINT.read_bytes())
    assert evaluate.checkpoint("tiny-1M", released).read_bytes() == CHECKPOINT.read_bytes()


@pytest.mark.parametrize("make", [_encrypted, _unknown_method, _damaged_deflate, _link, _empty])
def test_damaged_release_does_not_stay(tmp_path, released, make):
    released.mkdir()
    make(released / "tiny-1M.zip")
    with pytest.raises(evaluate.FetchError, match="run again to download it again"):
        evaluate.checkpoint("tiny-1M", released)
    release(tmp_path, CHECKPOINT.read_bytes())
    assert evaluate.checkpoint("tiny-1M", released).exists()

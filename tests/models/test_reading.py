"""Files that are no sound checkpoints."""

import argparse
import io
import os
import pickle
import zipfile

import pytest
import torch

from tests.models.checkpoints_made_up import new, old
from trime_fairseq.models.reading import load_with_few_classes, read_checkpoint


class Code:
    """A pickle that touches a file as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def saved(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def compressed(content):
    """The same archive, deflated."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
    return packed.getvalue()


@pytest.mark.parametrize("make", [old, new])
@pytest.mark.parametrize("legacy", [True, False])
def test_sound_checkpoints(tmp_path, make, legacy):
    state, path = make(), tmp_path / "c.pt"
    path.write_bytes(saved(state, _use_new_zipfile_serialization=not legacy))
    found = read_checkpoint(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found["model"][name], weight) for name, weight in state["model"].items())


def test_packed_archive(tmp_path):
    (tmp_path / "c.pt").write_bytes(compressed(saved(old())))
    assert "model" in read_checkpoint(tmp_path / "c.pt")


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="older PyTorch")
def test_checksums_that_were_switched_off(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        (tmp_path / "c.pt").write_bytes(saved(old()))
    finally:
        torch.serialization.set_crc32_options(True)
    assert "model" in read_checkpoint(tmp_path / "c.pt")


def without(name, make=old):
    state = make()
    del state[name]
    return saved(state)


def with_weight(value, make=old, kind=torch.float32):
    state = make()
    name = "decoder.layers.1.fc1.weight"
    state["model"][name] = state["model"][name].to(kind)
    state["model"][name][3, 5] = value
    return saved(state)


def with_tensor(tensor):
    state = old()
    state["model"]["x"] = tensor
    return saved(state)


def stuffed():
    """An archive that is small only as long as it is packed."""
    state = old()
    state["model"]["x"] = torch.zeros(40_000_000)
    return compressed(saved(state))


def flipped(state):
    """One bit of a weight."""
    content = bytearray(saved(state))
    weights = state["model"]["decoder.layers.1.fc1.weight"].numpy().tobytes()
    content[content.index(weights) + 1001] ^= 4
    return bytes(content)


DAMAGED = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"no checkpoint at all\n" * 99, "is no checkpoint: it is no file of PyTorch"),
    "short": (lambda: b"P", "is no checkpoint"),
    "tar": (lambda: b"sys_info" + b"\0" * 600, "is no checkpoint"),
    "cut off": (lambda: saved(old())[:200_000], "is damaged, cut off"),
    "cut off, old": (lambda: saved(old(), _use_new_zipfile_serialization=False)[:90_000], "is damaged"),
    "begins well": (lambda: b"PK\x03\x04" + b"\0" * 500, "is damaged, cut off"),
    "other archive": (lambda: compressed(saved(old()))[:9000], "is damaged, cut off"),
    "a flipped bit": (lambda: flipped(old()), "is damaged, cut off .*Bad CRC-32"),
    "numbers": (lambda: saved([1, 2]), "holds no 'model'"),
    "a state dict": (lambda: saved(old()["model"]), "holds no 'model'"),
    "no model": (lambda: without("model"), "holds no 'model'"),
    "no settings": (lambda: without("args"), "neither 'args' nor 'cfg'"),
    "no new settings": (lambda: without("cfg", new), "neither 'args' nor 'cfg'"),
    "args of another kind": (lambda: saved({**old(), "args": {"arch": "x"}}), "its 'args' are dict"),
    "cfg of another kind": (lambda: saved({**new(), "cfg": [1]}), "its 'cfg' is list"),
    "no weights": (lambda: saved({**old(), "model": {"decoder.version": 3}}), "something else than weights"),
    "state of the task": (lambda: saved({**old(), "task_state": [1]}), "its 'task_state' is list, not dict"),
    "history": (
        lambda: saved({**old(), "optimizer_history": "x"}),
        "its 'optimizer_history' is str, not list",
    ),
    "stuffed": (stuffed, "bytes would become 16"),
    "sparse": (lambda: with_tensor(torch.eye(3).to_sparse()), "something else than weights"),
    "on no device": (lambda: with_tensor(torch.empty(3, device="meta")), "something else than weights"),
    "endless": (lambda: with_tensor(torch.zeros(1).expand(10**6, 10**6)), "something else than weights"),
    "nan": (lambda: with_weight(float("nan")), "NaN or infinite weights .decoder.layers.1.fc1.weight"),
    "infinite": (lambda: with_weight(float("-inf"), new), "NaN or infinite weights"),
    "half": (lambda: with_weight(1e9, old, torch.float16), "NaN or infinite weights"),
    "bfloat16": (lambda: with_weight(float("nan"), old, torch.bfloat16), "NaN or infinite weights"),
    "evaluated": (lambda: saved(old(character_filters="[(1, 2)][print():]")), "sets character_filters to"),
    "huge": (lambda: saved(new(model={"decoder_ffn_embed_dim": 2**40})), "sets decoder_ffn_embed_dim to"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(tmp_path, name):
    content, message = DAMAGED[name]
    path = tmp_path / "c.pt"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=message) as error:
        read_checkpoint(path)
    assert "trust" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["decoder.embed_tokens._float_tensor", "decoder.self_attn.mask"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_no_weight_may_be_anything(tmp_path, name, value):
    """fairseq saves a buffer of memory that it never filled."""
    (tmp_path / "c.pt").write_bytes(
        saved({**old(), "model": {**old()["model"], name: torch.tensor([value])}})
    )
    assert not read_checkpoint(tmp_path / "c.pt")["model"][name].isfinite()


def test_a_model_that_was_halved(tmp_path):
    state = old()
    state["model"] = {name: weight.half() for name, weight in state["model"].items()}
    (tmp_path / "c.pt").write_bytes(saved(state))
    assert "model" in read_checkpoint(tmp_path / "c.pt")


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ValueError, match="is a named pipe, no regular file"):
        read_checkpoint(tmp_path / "pipe.pt")
    with pytest.raises(ValueError, match="is a folder, no regular file"):
        read_checkpoint(tmp_path)


def pickles(path):
    code = Code(path)
    return {
        "settings": saved({**old(), "args": code}),
        "old format": saved({**old(), "args": code}, _use_new_zipfile_serialization=False),
        "weights": saved({**old(), "model": {"x": code}}),
        "state of the task": saved({**old(), "task_state": [code]}),
        "protocol 2": pickle.dumps({"model": code}, protocol=2),
        "protocol 5": pickle.dumps({"model": code}, protocol=5),
        "class": saved({**old(), "args": argparse.Action}),
    }


@pytest.mark.parametrize("forced", ["0", "1"])
@pytest.mark.parametrize("kind", pickles(""))
def test_pickles_are_not_run(tmp_path, monkeypatch, kind, forced):
    """Not even where PyTorch's own switch asks for it."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    path = tmp_path / "c.pt"
    path.write_bytes(pickles(tmp_path / "PWNED")[kind])
    with pytest.raises(ValueError, match="holds more than weights and settings") as error:
        read_checkpoint(path)
    assert "trust" not in str(error.value)
    assert not (tmp_path / "PWNED").exists()


def test_older_pytorch_reads_data_only(tmp_path):
    """Where weights_only is not there, or does not know settings."""
    for legacy in (True, False):
        content = saved(old(), _use_new_zipfile_serialization=not legacy)
        found = load_with_few_classes(io.BytesIO(content))
        assert found["args"].arch == "transformer_lm_wiki103"
        assert torch.equal(*(state["model"]["decoder.layers.1.fc1.weight"] for state in (found, old())))
    for name, content in pickles(tmp_path / "PWNED").items():
        with pytest.raises(pickle.UnpicklingError):
            load_with_few_classes(io.BytesIO(content))
        assert not (tmp_path / "PWNED").exists(), name
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), scripted)
    scripted.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="torch.jit"):
        load_with_few_classes(scripted)

"""A whole comparison, with a recorded text in place of a model: what runs, what is kept, what is refused."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml

from tests.tuning.small import LONG, recorded, tuned_of
from trime_fairseq.comparison import compare, read_arguments
from trime_fairseq.comparison.measure import footnote
from trime_fairseq.files import Lock, whole_file
from trime_fairseq.tuning import MemoryAxes
from trime_fairseq.tuning.report import remarks

COMMAND = "trime-compare c.yaml"


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Plots take seconds, and have tests of their own.
    monkeypatch.setattr("trime_fairseq.comparison.run.draw", lambda *unused: [])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dict.txt").write_text("a 12\nb 5\nc 1\n")
    for name in ("bin/valid.idx", "bin/valid.bin", "bin/test.idx", "bin/test.bin", "s_vals.npy", "s.ip"):
        (tmp_path / name).write_text("x")
    for name in "abc":
        (tmp_path / f"{name}.pt").write_text(name)
    store = {"dstore_filename": "s", "indexfile": "s.ip", "k": 5}
    models = {
        "plain": {"checkpoint": ["a.pt", "b.pt"], "memories": ["none", "cache 6"]},
        "other": {"checkpoint": "c.pt", "memories": ["local", "knn"], "datastore": store},
    }
    content = {"data": "bin", "evaluation": "--cpu --memory-impl naive", "models": models}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_arguments(["c.yaml"])


class Model:
    """Records what it is asked for. ``stop_at``: the pass that is killed."""

    def __init__(self, stop_at=None, damage=None):
        self.passes, self.checked = [], []
        self.stop_at, self.damage = stop_at, damage

    def record(self, arguments, families, axes):
        if len(self.passes) == self.stop_at:
            raise KeyboardInterrupt
        self.passes.append(arguments)
        assert all(family.exact_tails for family in families)
        assert all(family.memory_impl == "naive" for family in families)
        found = recorded(families, MemoryAxes(*axes))
        return (self.damage(found) if self.damage else found), None

    def check(self, arguments, families, axes):
        self.checked.append(arguments)


def run(comparison, model):
    return compare(comparison, model.record, model.check, COMMAND)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "comparison").rglob("*.*"))}


ARGUMENTS = {
    f"{path} {subset}": f"bin --path {path} --gen-subset {subset} --cpu".split()
    for path in ("a.pt", "b.pt", "c.pt")
    for subset in ("valid", "test")
}
SEARCH = "--dstore-filename s --indexfile s.ip".split()
ALL = [[*words, *(SEARCH if words[2] == "c.pt" else [])] for words in ARGUMENTS.values()]


def test_two_passes_of_each_checkpoint(comparison, tmp_path):
    model = Model()
    text = run(comparison, model)
    assert model.passes == ALL
    assert model.checked == ALL[::2]
    assert "| plain | cache 6 |" in text
    assert "14 tokens of test in 4 samples. Settings are tuned on 14 tokens of valid" in text
    assert text.strip().endswith(f"Command: {COMMAND}")
    assert (tmp_path / "comparison" / "comparison.md").read_text() == text
    assert not (tmp_path / "comparison" / ".lock").exists()

    again = Model()
    before = files(tmp_path)
    assert run(comparison, again) == text
    assert again.passes == again.checked == []
    assert files(tmp_path) == before


@pytest.mark.parametrize("stop_at", range(6))
def test_killed_in_any_pass(comparison, tmp_path, stop_at):
    killed, after = Model(stop_at), Model()
    with pytest.raises(KeyboardInterrupt):
        run(comparison, killed)
    kept = files(tmp_path)
    text = run(comparison, after)
    assert killed.passes + after.passes == ALL
    # Nothing that was there was written anew.
    assert kept.items() <= files(tmp_path).items()
    # What needs no second look is not checked either.
    assert len(after.checked) == (3 - stop_at // 2 if stop_at < 4 else 0)
    assert "| other | knn |" in text


STORE_FILES = ("s-fp16_keys.npy", "s_vals.npy", "s.json", "s.ip", "s.ip.json")


@pytest.mark.parametrize("change", ["checkpoint", "text", "flags", "memories", "damage", *STORE_FILES])
def test_only_what_changed_is_measured_again(comparison, tmp_path, change, caplog):
    run(comparison, Model())
    plain, other = comparison.models
    if change == "checkpoint":
        (tmp_path / "b.pt").write_text("new")
        expected = ALL[2:4]
    elif change == "text":
        (tmp_path / "bin" / "test.bin").write_text("new")
        expected = ALL
    elif change == "flags":
        comparison = replace(
            comparison, models=(plain, replace(other, evaluation=(*other.evaluation, "--fp16")))
        )
        expected = [[*words[:6], "--fp16", *words[6:]] for words in ALL[4:]]
    elif change == "memories":
        comparison = replace(comparison, models=(replace(plain, memories=plain.memories[:1]), other))
        expected = ALL[:4]
    elif change in STORE_FILES:
        (tmp_path / change).write_text("more")
        expected = ALL[4:]
    else:
        for path in (tmp_path / "comparison" / "checkpoints").glob("other-*.json"):
            path.write_text(path.read_text()[:-40])
        expected = ALL[4:]
    model = Model()
    run(comparison, model)
    assert model.passes == expected
    assert "it is measured again" in caplog.text


def test_another_command_at_the_same_time(comparison, tmp_path):
    (tmp_path / "comparison").mkdir()
    lock = Lock(str(tmp_path / "comparison" / ".lock"))
    assert lock.acquire()
    model = Model()
    with pytest.raises(ValueError, match="--output comparison: another trime-compare writes there: wait"):
        run(comparison, model)
    lock.release()
    assert model.passes == model.checked == []


def test_no_folder_can_be_made(comparison, tmp_path):
    (tmp_path / "comparison").write_text("a file")
    with pytest.raises(ValueError, match="--output comparison"):
        run(comparison, Model())


@pytest.mark.parametrize("tuned", [False, True])
def test_losses_that_are_not_finite(comparison, tmp_path, tuned):
    """Neither kept nor shown."""

    def damage(record):
        return replace(record, token_lse=torch.full_like(record.token_lse, torch.nan))

    if tuned:
        with pytest.raises(KeyboardInterrupt):
            run(comparison, Model(stop_at=1))
    with pytest.raises(ValueError, match="plain, checkpoint 1 of 2, none: the loss is not finite: is a.pt"):
        run(comparison, Model(damage=damage))
    assert len(files(tmp_path)) == int(tuned)


def test_a_token_of_probability_0(comparison, tmp_path):
    def damage(record):
        return replace(
            record, target_logit=record.target_logit.clone().index_fill_(0, torch.tensor(3), -torch.inf)
        )

    with pytest.raises(
        ValueError, match="none: the loss is not finite: a token has probability 0, with these"
    ):
        run(comparison, Model(damage=damage))
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["comparison.md", "tuned.json"])
def test_a_full_disk(comparison, tmp_path, name, monkeypatch):
    """What was measured is there, and used by the same command again."""

    def full(path, *arguments, **options):
        if path.endswith(name) and "elsewhere" not in path:
            raise OSError(28, "No space left on device", path)
        return whole_file(path, *arguments, **options)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with monkeypatch.context() as patched:
        patched.setattr("trime_fairseq.comparison.run.whole_file", full)
        patched.setattr("trime_fairseq.files.json_file.whole_file", full)
        with pytest.raises(ValueError, match="^--output comparison.*: No space left on device; ") as error:
            run(comparison, Model())
    again = Model()
    if name == "tuned.json":
        assert "the result was written to" in str(error.value)
        (kept,) = (tmp_path / "elsewhere").rglob("*.json")
        (tmp_path / "comparison" / "checkpoints").mkdir()
        shutil.move(kept, tmp_path / "comparison" / "checkpoints" / kept.name)
    else:
        assert "all that was measured is in comparison/checkpoints: make room and run" in str(error.value)
    assert "| other | knn |" in run(comparison, again)
    assert again.passes == (ALL[1:] if name == "tuned.json" else [])


def test_remarks_of_tuning_are_footnotes():
    """Without grids, which this command does not have; the same in all rows."""
    values = {"softmax_temp": (0.25, 0.5, 1.0), "mem_size": (0, 2, 6)}
    tuned = tuned_of(LONG, lambda config: config.joint_temp - config.mem_size + 9, **values)
    some = {place: setting for place, setting in tuned.tried.items() if place != (1.0, 0)}
    found = [footnote(remark) for remark in remarks(replace(tuned, tried=some))]
    turns = "settings took turns, from the best of the others, until nothing changed"
    assert found == [
        "--softmax-temp 0.25 is the lowest that was tried",
        "--mem-size 6 is the most that was allowed: more may be better",
        f"not all combinations were tried: {turns}",
    ]

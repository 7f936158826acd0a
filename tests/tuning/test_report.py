"""Table, remarks, picture and the command for the test set."""

import json
import math
import sys
import warnings
from dataclasses import replace

import pytest

from trime_fairseq.tuning import read_request
from trime_fairseq.tuning.plot import draw
from trime_fairseq.tuning.report import command_for_test, content, remarks, table

from .small import FAMILIES, KNNLM, LOCAL, LONG, MODEL, tuned_of

SIZES = {"softmax_temp": (1.0, 2.0, 4.0), "mem_size": (0, 64, 128)}


def bowl(temperature, size):
    """Lowest at a temperature and a size."""
    return lambda config: (
        5 + abs(math.log2(config.softmax_temp / temperature)) + 0.001 * abs(config.mem_size - size)
    )


def test_table_begins_with_the_best():
    tuned = tuned_of(LONG, bowl(2, 64), **SIZES)
    lines = table(tuned, tuned.settings[:2]).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        *("Loss (bits)", "Perplexity", "--softmax-temp", "--mem-size")
    ]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["5.0000", "32.00", "2", "64"]
    assert len(lines) == 4


def test_the_best_stands_first_where_the_neighbours_have_no_weight():
    """Of settings that differ in idle values only one is shown, and it is not lost with its twins."""
    tuned = tuned_of(
        replace(KNNLM, lmbda=0.0), lambda config: 8 - config.k / 10, softmax_temp=(1.0, 2.0), k=(1, 5)
    )
    (best,) = tuned.settings
    assert best.loss == 7.5
    row = table(tuned, tuned.settings).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["7.5000", "181.02", "-", "-", "0"]


@pytest.mark.parametrize(
    ("temperature", "size", "expected"),
    [
        (2, 64, []),
        (1, 64, ["--softmax-temp 1 is the lowest that was tried: widen --grid-softmax-temp"]),
        (4, 64, ["--softmax-temp 4 is the highest that was tried: widen --grid-softmax-temp"]),
        (2, 128, ["--mem-size 128 is the most that was allowed: more may be better"]),
        (2, 0, ["--mem-size 0: a long-term memory does not help"]),
    ],
)
def test_remarks_on_limits(temperature, size, expected):
    assert remarks(tuned_of(LONG, bowl(temperature, size), **SIZES)) == expected


def test_no_remarks_on_what_was_given():
    assert remarks(tuned_of(LOCAL, bowl(1, 0), softmax_temp=(1.0,))) == []
    idle = tuned_of(replace(KNNLM, lmbda=0.0), lambda config: config.k, softmax_temp=(1.0, 2.0), k=(1, 5))
    assert remarks(idle) == []


def test_remarks_on_weights():
    tuned = tuned_of(FAMILIES["knnlm and cache"], lambda config: 1.0, **SIZES, k=(5,), interp_temp=(1.0,))
    place = next(iter(tuned.tried))
    tuned.tried[place] = tuned.best._replace(
        config=replace(tuned.best.config, lmbda=0.0, cache_lmbda=1.0), loss=0.5
    )
    fresh = replace(tuned)
    assert "--lmbda 0: the neighbours do not help" in remarks(fresh)
    assert "--cache-lmbda 1: the memory needs no model" in remarks(fresh)


def test_a_remark_where_settings_took_turns():
    tuned = tuned_of(LONG, bowl(2, 64), **SIZES)
    del tuned.tried[4.0, 0]
    assert remarks(replace(tuned)) == [
        "8 of 9 combinations were tried: settings took turns, from the best of the others, until nothing "
        "changed"
    ]


def test_command_for_the_test_set():
    request = read_request(["my data", *MODEL.split()[1:], *"--use-local --use-long --mem-size 128".split()])
    best = replace(LOCAL, exact_tails=False, softmax_temp=1.19)
    assert command_for_test(request, best, "/package") == (
        "fairseq-eval-lm 'my data' --path model.pt --batch-size 8 --gen-subset test --use-local "
        "--softmax-temp 1.19 --task trime_language_modeling --user-dir /package"
    )
    store = "--use-external --dstore-filename d --indexfile i --task t --user-dir u --use-interp"
    request = read_request([*MODEL.split(), *store.split()])
    best = replace(FAMILIES["interpolated"], softmax_temp=2.0, interp_temp=3.0, lmbda=0.25)
    command = command_for_test(request, best, "/package")
    assert "--dstore-filename d --indexfile i --task t --gen-subset test --exact-tails" in command
    assert "--use-external --k 5 --use-interp --interp-temp 3.0 --lmbda 0.25 --user-dir u" in command
    command = command_for_test(request, replace(best, lmbda=0.0), "/package")
    assert "interp" not in command
    assert "lmbda" not in command


def test_content_of_the_file():
    request = read_request([*MODEL.split(), *"--use-local --use-long --mem-size 128".split()])
    tuned = tuned_of(LONG, bowl(2, 64), **SIZES)
    found = json.loads(json.dumps(content(request, tuned, {"tokens": 10, "ppl": 512.0}, "command")))
    assert found["best"] == {"loss": 5.0, "ppl": 32.0, "softmax_temp": 2.0, "mem_size": 64}
    assert found["settings"][0] == found["best"]
    assert len(found["settings"]) == 9
    assert found["without_memory"] == {"loss": 9.0, "ppl": 512.0}
    assert [row["mem_size"] for row in found["by_size"]] == [0, 64, 128]
    assert (found["tokens"], found["test_command"], found["flags"]) == (10, "command", MODEL.split())
    assert "ppl" not in found
    infinite = tuned_of(LOCAL, lambda config: math.inf, softmax_temp=(1.0, 2.0))
    assert content(request, infinite, {}, "")["best"]["loss"] is None


PICTURES = {
    "sizes": (LONG, bowl(2, 64), SIZES),
    "one": (LOCAL, bowl(2, 0), {"softmax_temp": (1.0, 2.0, 3.0)}),
    "defaults": (replace(FAMILIES["knnlm and cache"], mem_size=2048), bowl(0.7, 512), {"k": (1, 2, 4)}),
    "infinite": (
        LOCAL,
        lambda config: math.inf if config.softmax_temp < 2 else 6.0,
        {"softmax_temp": (1.0, 2.0)},
    ),
    "no gain": (LOCAL, lambda config: 9.0, {"softmax_temp": (1.0, 2.0)}),
    "only size 0 and one more": (LONG, bowl(1, 0), {"softmax_temp": (1.0,), "mem_size": (0, 6)}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture(name, tmp_path):
    family, loss, values = PICTURES[name]
    if name == "defaults":
        values = {**{"softmax_temp": (0.25, 0.5, 1.0, 2.0), "mem_size": (0, 64, 512, 2048)}, **values}
        values["interp_temp"] = (1.0, 3.36)
    path = tmp_path / "tuning.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw(tuned_of(family, loss, **values), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["tuning.png"]


def test_no_picture(tmp_path, monkeypatch, caplog):
    assert not draw(tuned_of(LOCAL, bowl(1, 0), softmax_temp=(1.0,)), str(tmp_path / "tuning.png"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not draw(tuned_of(LONG, bowl(2, 64), **SIZES), str(tmp_path / "tuning.png"))
    assert "needs matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())

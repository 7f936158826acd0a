"""Ranking, table, picture and the command for the test set."""

import json
import math
import sys

import pytest
import torch

from tests.commands import REFERENCE
from trime_fairseq.tuning import Axes, read_request
from trime_fairseq.tuning.plot import draw, plotted_axes, through_best
from trime_fairseq.tuning.report import command_for_test, distinct, edges, ranked, table

from .grids import CASES, KS, MODEL, NEIGHBOR_FLAGS, NONE, TEMPS


def points_of(axes, loss):
    nll = [loss(point) * math.log(2) * 10 for point in axes.points()]
    return ranked(axes, torch.tensor(nll, dtype=torch.float64).view(axes.shape), 10)


def test_ranking_and_table():
    axes = Axes((1.0, 2.0, 3.0), NONE, (8,), NONE, NONE)
    points = points_of(axes, lambda point: abs(point["softmax_temp"] - 2.2))
    assert [point["softmax_temp"] for point in points] == [2.0, 3.0, 1.0]
    assert points[1]["ppl"] == pytest.approx(2**0.8)
    lines = table(axes, points[:2]).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        *("Loss (bits)", "Perplexity", "--softmax-temp", "--k")
    ]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["0.2000", "1.15", "2.0", "8"]
    assert len(lines) == 4


def test_points_that_repeat_another_are_shown_once():
    axes = CASES["interpolated"][0]
    points = points_of(axes, lambda point: point["lmbda"])
    shown = distinct(axes, points)
    assert len(points) - len(shown) == len(TEMPS) * len(KS)
    assert points[0] in shown
    assert [point for point in shown if point["lmbda"]] == [point for point in points if point["lmbda"]]


def test_remarks_on_edges():
    axes = Axes((1.0, 2.0, 3.0), (0, 512), (8, 16), (5.0, 10.0), (0.0, 0.5))
    best = {"softmax_temp": 2.0, "mem_size": 512, "k": 8, "interp_temp": 10.0, "lmbda": 0.5}
    assert edges(axes, best) == [
        "--mem-size 512 is the largest of its grid: widen --grid-mem-size",
        "--k 8 is the smallest of its grid: widen --grid-k",
        "--interp-temp 10.0 is the largest of its grid: widen --grid-interp-temp",
        "--lmbda 0.5 is the largest of its grid: widen --grid-lmbda",
    ]
    # There is nothing beyond a memory or a weight of 0, nor does a temperature matter then.
    assert edges(axes, {**best, "mem_size": 0, "k": 16, "lmbda": 0.0}) == [
        "--k 16 is the largest of its grid: widen --grid-k"
    ]
    assert edges(Axes((1.0,), NONE, NONE, NONE, NONE), {"softmax_temp": 1.0}) == []


def test_command_for_the_test_set(tmp_path):
    flags = f"--use-local --grid-softmax-temp 1,2 --grid-mem-size 0,8 --eval-file {tmp_path}/e"
    request = read_request(["my data", *MODEL.split()[1:], *flags.split()])
    assert command_for_test(request, {"softmax_temp": 2.0, "mem_size": 0}, "/package") == (
        "fairseq-eval-lm 'my data' --path model.pt --batch-size 8 --use-local --gen-subset test "
        "--softmax-temp 2.0 --task trime_language_modeling --user-dir /package"
    )
    request = read_request(f"{MODEL} {NEIGHBOR_FLAGS} --task t --k 9 --user-dir u --grid-lmbda 0,1".split())
    point = {"softmax_temp": 1.0, "k": 9, "interp_temp": 1.0, "lmbda": 0.0}
    ending = " --gen-subset test --softmax-temp 1.0 --k 9 --user-dir u"
    assert command_for_test(request, point, "/package").endswith("--task t" + ending)
    assert "--use-interp --interp-temp 1.0 --lmbda 1.0 --user-dir u" in command_for_test(
        request, {**point, "lmbda": 1.0}, "/package"
    )


def bowl(point):
    """Lowest at temperature 2 and k 16; the temperature matters more than the memory size."""
    return abs(point["softmax_temp"] - 2) + 0.01 * point["mem_size"] + 0.001 * abs(point["k"] - 16)


def test_axes_of_the_picture():
    axes = Axes((1.0, 2.0), (0, 8), (4, 8, 16, 32), NONE, NONE)
    points = points_of(axes, bowl)
    assert plotted_axes(axes, points) == ("k", "softmax_temp")
    cells = through_best(axes, points, ("k", "softmax_temp"))
    assert len(cells) == 8
    assert cells[8, 1.0] == pytest.approx(2**1.008)  # at memory size 0
    assert plotted_axes(Axes((1.0,), NONE, (4, 8), NONE, NONE), points) == ("k",)


@pytest.mark.parametrize(
    "axes",
    [
        Axes((1.0, 2.0), (0, 8), (4, 8, 16, 32), NONE, NONE),
        Axes((1.0, 2.0, 3.0), (0,), (16,), NONE, NONE),
    ],
)
def test_picture(axes, tmp_path):
    path = tmp_path / "tuning.png"
    assert draw(axes, points_of(axes, bowl), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["tuning.png"]


def test_no_picture(tmp_path, monkeypatch, caplog):
    single = Axes((1.0,), (0,), (16,), NONE, NONE)
    assert not draw(single, points_of(single, bowl), str(tmp_path / "tuning.png"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    axes = Axes((1.0, 2.0), (0,), (16,), NONE, NONE)
    assert not draw(axes, points_of(axes, bowl), str(tmp_path / "tuning.png"))
    assert "needs matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())


ROWS = json.loads((REFERENCE / "evaluation.json").read_text())


STORE = (
    f"--dstore-filename {REFERENCE}/datastore/dstore --indexfile {REFERENCE}/datastore/knn.index.ip "
    "--dstore-size 20000 --dstore-fp16 --faiss-metric-type ip --no-load-keys"
)

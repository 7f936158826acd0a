"""Plots: without warnings, with labels that do not overlap, the same bytes for the same results."""

import warnings
from itertools import combinations

import numpy as np
import pytest

pyplot = pytest.importorskip("matplotlib.pyplot")

from matplotlib.text import Text  # noqa: E402

from trime_fairseq.comparison.plots import PLOTS, draw  # noqa: E402
from trime_fairseq.comparison.plots.bars import occurrence  # noqa: E402
from trime_fairseq.comparison.plots.frequency import draw_frequency, gain, name  # noqa: E402
from trime_fairseq.comparison.plots.labels import spread  # noqa: E402
from trime_fairseq.comparison.plots.size import curve, curves, draw_size, levels  # noqa: E402
from trime_fairseq.comparison.plots.style import styles  # noqa: E402
from trime_fairseq.comparison.table import make_table  # noqa: E402

from .made_up import BY_FREQUENCY, ORDINARY, TOKENS, compared  # noqa: E402

CROWDED = (
    *ORDINARY,
    *((f"TrimeLM {number}", {"local + long 512": 96.0 + 0.01 * number}, 1) for number in range(8)),
    *((f"plain {number}", {"none": 120.0, "cache 512": 97.0}, 1) for number in range(6)),
    ("a name that is far too long for a label at the end of a line, $x^2$", {"cache 512": 96.5}, 1),
)


def table(*models):
    comparison, results = compared(*models)
    return make_table(comparison, results), results[models[0][0]][0]


@pytest.mark.parametrize("models", [ORDINARY, CROWDED, ORDINARY[2:], (("a", {"local": 9.0}, 1),)])
def test_files(models, tmp_path):
    rows, result = table(*models)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = draw(rows, result, str(tmp_path))
    has_sizes = any("512" in row.memory or "256" in row.memory for row in rows)
    expected = [plot for plot in PLOTS if has_sizes or plot != "size"]
    assert written == [str(tmp_path / f"{plot}.png") for plot in expected]
    assert {path.name for path in tmp_path.iterdir()} == {f"{plot}.png" for plot in expected}
    assert not pyplot.get_fignums()
    before = [(tmp_path / f"{plot}.png").read_bytes() for plot in expected]
    draw(rows, result, str(tmp_path))
    assert [(tmp_path / f"{plot}.png").read_bytes() for plot in expected] == before


def test_nothing_to_draw_leaves_no_old_file(tmp_path):
    rows, result = table(*ORDINARY)
    draw(rows, result, str(tmp_path))
    assert draw(rows[:1], result, str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(tmp_path, monkeypatch, caplog):
    rows, result = table(*ORDINARY)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert draw(rows, result, str(tmp_path)) == []
    assert "pip install matplotlib" in caplog.text


@pytest.mark.parametrize("drawing", ["size", "frequency"])
@pytest.mark.parametrize("models", [ORDINARY, CROWDED])
def test_labels_do_not_overlap(drawing, models):
    rows, _ = table(*models)
    figure, plot = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    if drawing == "size":
        assert draw_size(plot, rows)
    else:
        assert draw_frequency(plot, rows, BY_FREQUENCY)
    figure.draw_without_rendering()
    # Without the thin lines that join them.
    texts = [Text.get_window_extent(text) for text in plot.texts]
    assert len(texts) >= 4
    for first, second in combinations(texts, 2):
        assert not first.overlaps(second)
    # None over a line, none outside of the figure.
    right, whole = plot.get_window_extent().x1, figure.bbox
    for text in texts:
        assert text.x0 > right
        assert text.x1 <= whole.x1
        assert whole.y0 <= text.y0 < text.y1 <= whole.y1
    pyplot.close(figure)


def test_spread_keeps_order_distance_and_bounds():
    random = np.random.default_rng(1)
    for _ in range(50):
        wanted = random.uniform(0, 1, 8).tolist()
        found = spread(wanted, 0.1, 0.0, 1.0)
        order = np.argsort(wanted, kind="stable")
        placed = np.array(found)[order]
        assert (np.diff(placed) >= 0.1 - 1e-9).all()
        assert placed[0] >= -1e-9
        assert placed[-1] <= 1 + 1e-9
    assert spread([0.2, 0.5, 0.9], 0.1, 0.0, 1.0) == pytest.approx([0.2, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.45, 0.55])
    assert spread([0.5] * 4, 0.5, 0.0, 1.0) == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert spread([], 0.1, 0.0, 1.0) == []


def test_lines_and_levels():
    rows, _ = table(*ORDINARY, ("other", {"none": 120.0, "cache 64": 110.0, "cache 512": 100.0}, 1))
    assert [(row.model, row.memory) for row in curves(rows)] == [
        ("plain LM", "cache 512"),
        ("TrimeLM", "local + long 512"),
        ("TrimeLM_ext", "local + long 256 + external"),
        ("other", "cache 512"),
    ]
    # The cache without long-term memory begins its line; TrimeLM is not shown without memory.
    assert [(row.model, row.memory) for row in levels(rows)] == [
        ("plain LM", "none"),
        ("plain LM", "knn"),
        ("other", "none"),
    ]
    line = curve(curves(rows)[1])
    assert list(line) == [0, 64, 128, 256, 512]
    mean, least, most = line[512]
    assert (least, most) == (pytest.approx(96.0), pytest.approx(96 * 1.02))
    assert least < mean < most


def test_styles():
    rows, _ = table(*ORDINARY)
    found = styles(rows, rows)
    colors = {model: {found[key].color for key in found if key[0] == model} for model, _, _ in ORDINARY}
    assert all(len(color) == 1 for color in colors.values())
    (grey,) = colors["plain LM"]
    assert grey[1:3] == grey[3:5] == grey[5:7]
    assert len(set.union(*colors.values())) == 3
    assert len(set(found.values())) == len(found)


def test_numbers_of_plots():
    rows, _ = table(*ORDINARY)
    (local,) = [row for row in rows if row.memory == "local"]
    assert gain(local, 5, BY_FREQUENCY) == pytest.approx(0.3 - 0.04 * 5)
    assert occurrence(local, sum(TOKENS)) == (pytest.approx(0.3), pytest.approx(-0.05), 0.5)
    assert [name(bin) for bin in (0, 1, 2, 3, 5, 7, 11, 13, 12)] == [
        *("0", "1–2", "3–9", "10–29", "100–299", "1–3k", "100–300k", "1–3M", "300k–1M"),
    ]

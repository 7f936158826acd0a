"""trime-tune: the losses of a grid against loops, published results and separate evaluations."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch

from tests.commands import REFERENCE, TASK, evaluate, run
from trime_fairseq.cli import tune
from trime_fairseq.datastore.retriever import Neighbors
from trime_fairseq.memories import Batch, PrecedingText
from trime_fairseq.results import Totals
from trime_fairseq.settings import MemorySettings
from trime_fairseq.tuning import Axes, GridScorer, read_request
from trime_fairseq.tuning.plot import draw, plotted_axes, through_best
from trime_fairseq.tuning.report import command_for_test, distinct, edges, rank, table

NONE = (None,)
KS, TEMPS, INTERP_TEMPS, LMBDAS = (1, 2, 5), (0.7, 1.3), (0.5, 2.0), (0.0, 0.25, 0.6)
LENGTHS = [3, 4]  # evaluated tokens of the two rows of a batch
TOKENS, DIM, NEIGHBORS = sum(LENGTHS), 4, 5


def neighbors():
    """Of tokens 0 and 4 none, of token 2 only three; the first two of token 1 tie, one is positive."""
    torch.manual_seed(1)
    scores = torch.randn(TOKENS, NEIGHBORS).sort(descending=True).values
    tokens = torch.randint(0, 3, (TOKENS, NEIGHBORS))
    for row, found in ((0, 0), (4, 0), (2, 3)):
        scores[row, found:], tokens[row, found:] = -math.inf, -1
    scores[1, 1] = scores[1, 0]
    tokens[1, :2] = torch.tensor([0, 1])
    return Neighbors(scores, tokens, tokens)


def summed(axes, settings, at_once=0, skip_bos=False, batches=1):
    """What a scorer sums over batches: the grid, and its settings' own total."""
    torch.manual_seed(2)
    token_lse, target_logit = torch.randn(TOKENS) + 4, torch.randn(TOKENS)
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    totals = Totals()
    scorer = GridScorer(axes, settings, totals, pad=1, skip_bos=skip_bos, at_once=at_once)
    queries = torch.randn(TOKENS, DIM)
    batch = Batch({}, queries, torch.arange(TOKENS), queries, targets)
    scorer._lengths = LENGTHS
    for _ in range(batches):
        memories = scorer._memories(batch, neighbors())
        parts = scorer._combine(token_lse, target_logit, memories)
        scorer._add_to_totals(*parts, LENGTHS)
    return scorer.nll(), totals.finish(), (token_lse.tolist(), target_logit.tolist(), targets.tolist())


def by_loops(axes, tokens, token_lse, target_logit, targets, knnlm=False):
    """Negative log-likelihoods of the grid in Python floats, from probabilities."""
    scores, values, _ = (x.tolist() for x in neighbors())
    result = []
    for point in axes.points():
        nll = 0.0
        for i in tokens:
            found = [(s, v) for s, v in zip(scores[i][: point["k"]], values[i]) if v >= 0]
            weights = (0.0, 0.0)
            if not knnlm:
                scaled = [(math.exp(s / DIM**0.5 / point["softmax_temp"]), v) for s, v in found]
                weights = tuple(sum(e for e, v in scaled if v in w) for w in ({0, 1, 2}, {targets[i]}))
            p = (math.exp(target_logit[i]) + weights[1]) / (math.exp(token_lse[i]) + weights[0])
            if found and "lmbda" in point:
                temperature = point["softmax_temp"] if knnlm else point["interp_temp"]
                alone = [(math.exp(s / temperature), v) for s, v in found]
                q = sum(e for e, v in alone if v == targets[i]) / sum(e for e, _ in alone)
                p = (1 - point["lmbda"]) * p + point["lmbda"] * q
            nll -= math.log(p)
        result.append(nll)
    return torch.tensor(result, dtype=torch.float64).view(axes.shape)


EXTERNAL = MemorySettings(use_external=True, softmax_temp=1.3, k=5)
CASES = {
    "joint": (Axes(TEMPS, NONE, KS, NONE, NONE), EXTERNAL),
    "interpolated": (
        Axes(TEMPS, NONE, KS, INTERP_TEMPS, LMBDAS),
        replace(EXTERNAL, use_interp=True, interp_temp=0.5, lmbda=0.6),
    ),
    "knnlm": (
        Axes(TEMPS, NONE, KS, NONE, LMBDAS),
        MemorySettings(knnlm=True, softmax_temp=1.3, k=5, lmbda=0.25),
    ),
}


@pytest.mark.parametrize("at_once", [0, 40])
@pytest.mark.parametrize("skip_bos", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_sums_of_a_grid_by_loops(case, skip_bos, at_once):
    axes, settings = CASES[case]
    nll, own, scores = summed(axes, settings, at_once, skip_bos)
    tokens = [i for i in range(TOKENS) if not skip_bos or i not in (0, LENGTHS[0])]
    expected = by_loops(axes, tokens, *scores, knnlm=settings.knnlm)
    assert nll.shape == axes.shape
    assert nll.dtype == torch.float64
    torch.testing.assert_close(nll, expected, rtol=1e-6, atol=0)
    # What fairseq reports is the point of the settings.
    assert own.tokens == len(tokens)
    assert own.nll == pytest.approx(expected[axes.position(settings)].item(), rel=1e-6)


def test_batches_add_up():
    axes, settings = CASES["interpolated"]
    once, thrice = (summed(axes, settings, batches=count)[0] for count in (1, 3))
    torch.testing.assert_close(thrice, 3 * once)


def test_a_target_without_probability_is_the_loss_of_its_points_only():
    axes = Axes((1.3,), NONE, (5,), (0.5,), (0.6, 1.0))
    settings = replace(EXTERNAL, use_interp=True, interp_temp=0.5, lmbda=0.6)
    points = rank(axes, summed(axes, settings)[0], TOKENS)
    assert [point["lmbda"] for point in points] == [0.6, 1.0]
    assert points[0]["ppl"] < points[1]["ppl"] == math.inf


def test_a_memory_of_size_0_says_nothing_and_leaves_the_others_as_they_are():
    torch.manual_seed(3)
    grid, single = PrecedingText((0, 4)), PrecedingText((4,))
    for ids in ([0, 1], [2, 3]):
        queries, targets = torch.randn(TOKENS, DIM), torch.randint(0, 3, (TOKENS,))
        sample = {"sample_ids": ids, "spans": [(0, count) for count in LENGTHS]}
        batch = Batch(sample, queries, torch.arange(TOKENS), queries, targets)
        found, expected = grid.read_and_add(batch, TEMPS), single.read_and_add(batch, TEMPS)
        for (nothing, four), (alone,) in zip(found, expected):
            assert all(torch.isneginf(sums).all() for sums in nothing)
            torch.testing.assert_close(four, alone)
    assert torch.isfinite(alone[0]).all()


def test_settings_off_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"--k 7 is not in the grid"):
        GridScorer(CASES["joint"][0], replace(EXTERNAL, k=7), Totals(), pad=1)


MODEL = "DATA --path model.pt --batch-size 8"
NEIGHBOR_FLAGS = "--use-local --use-external --dstore-filename d --indexfile i"


def test_ordinary_flags_of_a_grid():
    words = f"{MODEL} {NEIGHBOR_FLAGS} --softmax-temp 1.2 --k 7 --eval-file e --user-dir u --keep-order "
    words += "--grid-k 64,16 32 --grid-mem-size 0,512 --grid-softmax-temp 1.3,1.2 --grid-lmbda=0.1,0"
    request = read_request(words.split())
    assert request.axes == Axes((1.2, 1.3), (0, 512), (16, 32, 64), (1.0,), (0.0, 0.1))
    assert request.others == (*f"{MODEL} {NEIGHBOR_FLAGS} --keep-order".split(),)
    assert (request.subset, request.eval_file, request.user_dir) == ("valid", "e", "u")
    assert " ".join(request.arguments(request.ordinary, "valid")) == (
        f"{MODEL} {NEIGHBOR_FLAGS} --keep-order --gen-subset valid --softmax-temp 1.2 --use-long "
        "--mem-size 512 --k 64 --use-interp --interp-temp 1.0 --lmbda 0.0"
    )
    alone = read_request(f"{MODEL} --use-local --grid-mem-size 0 --gen-subset test".split())
    assert " ".join(alone.arguments(alone.ordinary, "test")) == (
        f"{MODEL} --use-local --gen-subset test --softmax-temp 1.0"
    )


WRONG = {
    "": "nothing to tune: pass --grid-softmax-temp",
    "--use-local --grid-k 4": "--grid-k is of the neighbours: pass --use-external",
    "--use-local --grid-lmbda 0.1": "--grid-lmbda is of the neighbours: pass --use-external",
    "--grid-softmax-temp 1": "--grid-softmax-temp is of memories: pass --use-local",
    "--use-external --grid-mem-size 8": "--grid-mem-size adds to the local memory: pass --use-local",
    "--use-external --grid-interp-temp 5": "--grid-interp-temp needs .* --grid-lmbda",
    "--knnlm --lmbda 0.1 --grid-interp-temp 5": "--knnlm is --grid-softmax-temp",
    "--knnlm --lmbda 0.1 --grid-mem-size 5": "--knnlm has no long-term memory",
    "--knnlm --grid-k 4": "--lmbda, .* is needed",
    "--use-local --mem-size 8 --grid-softmax-temp 1": "--mem-size .* pass --use-long",
    "--use-external --lmbda 0.1 --grid-k 4": "--lmbda and --interp-temp are for --use-interp",
    "--use-local --mode li --cache-lmbda 0.1 --grid-softmax-temp 1": "--mode li and --cache-lmbda are not",
    "--use-local --mode lm --grid-softmax-temp 1": "--mode lm is the model without memory",
    "--use-local --grid-softmax-temp 1 --num-shards 2": "--num-shards: a grid is tuned by one process",
    "--use-local --grid-softmax-temp 1 --distributed-world-size 2": "--distributed-world-size: a grid",
    "--use-local --grid-softmax-temp 1 --save-knnlm-dstore": "--save-knnlm-dstore: not in tuning",
    "--use-local --grid-softmax-temp 0,1": "--grid-softmax-temp takes positive numbers, not '0,1'",
    "--use-local --grid-softmax-temp inf": "--grid-softmax-temp takes positive numbers, not 'inf'",
    "--use-external --grid-k 1.5": "--grid-k takes positive numbers of neighbours, not '1.5'",
    "--use-external --grid-lmbda 0.5,2": r"--grid-lmbda takes numbers in \[0, 1\], not '0.5,2'",
    "--use-local --grid-mem-size ,": "--grid-mem-size takes numbers of tokens",
}


@pytest.mark.parametrize("flags", WRONG)
def test_grids_that_do_not_suit_the_memories(flags, capsys):
    with pytest.raises(ValueError, match=WRONG[flags]):
        read_request([*MODEL.split(), *flags.split()])
    # The command says so in one line, and reads no model: there is none.
    assert tune.main([*MODEL.split(), *flags.split()]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_model_must_be_named():
    with pytest.raises(ValueError, match="--path CHECKPOINT is missing"):
        read_request("DATA --use-local --grid-softmax-temp 1".split())


def ranked(axes, loss):
    nll = [loss(point) * math.log(2) * 10 for point in axes.points()]
    return rank(axes, torch.tensor(nll, dtype=torch.float64).view(axes.shape), 10)


def test_ranking_and_table():
    axes = Axes((1.0, 2.0, 3.0), NONE, (8,), NONE, NONE)
    points = ranked(axes, lambda point: abs(point["softmax_temp"] - 2.2))
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
    points = ranked(axes, lambda point: point["lmbda"])
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
    points = ranked(axes, bowl)
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
    assert draw(axes, ranked(axes, bowl), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["tuning.png"]


def test_no_picture(tmp_path, monkeypatch, caplog):
    single = Axes((1.0,), (0,), (16,), NONE, NONE)
    assert not draw(single, ranked(single, bowl), str(tmp_path / "tuning.png"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    axes = Axes((1.0, 2.0), (0,), (16,), NONE, NONE)
    assert not draw(axes, ranked(axes, bowl), str(tmp_path / "tuning.png"))
    assert "needs matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())


ROWS = json.loads((REFERENCE / "evaluation.json").read_text())
STORE = (
    f"--dstore-filename {REFERENCE}/datastore/dstore --indexfile {REFERENCE}/datastore/knn.index.ip "
    "--dstore-size 20000 --dstore-fp16 --faiss-metric-type ip --no-load-keys"
)
WINDOW = "--tokens-per-sample 128 --context-window 96 --batch-size 32"
ALL = f"{WINDOW} {STORE} --use-local --use-external --probe 32"


def published(*flags):
    """Loss of the one published evaluation of the checkpoint with these flags."""
    rows = [row for row in ROWS if row["checkpoint"] == "word-trime_ext"]
    (row,) = [row for row in rows if all(flag in row["flags"] for flag in flags)]
    return row["loss_base2"]


def tuned(flags, output):
    """Output and JSON file of a run on a reference checkpoint."""
    model = REFERENCE / "checkpoints" / "word-trime_ext" / "checkpoint_best.pt"
    words = [REFERENCE / "data" / "word", *TASK, "--cpu", "--path", model, *flags.split()]
    log = run(sys.executable, "-m", "trime_fairseq.cli.tune", *words, "--output", output)
    return log, json.loads((output / "tuning.json").read_text())


def loss_at(result, **point):
    (found,) = [p["loss"] for p in result["points"] if all(p[name] == point[name] for name in point)]
    return found


@pytest.mark.process
def test_a_grid_has_the_losses_of_separate_evaluations(tmp_path):
    grid = (
        "--grid-softmax-temp 1.1 1.25 --grid-mem-size 0,512,2048 --grid-k 128,64 --grid-interp-temp 5,10.5 "
    )
    grid += "--grid-lmbda 0,0.3"
    log, result = tuned(f"{ALL} {grid}", tmp_path / "out")
    losses = [point["loss"] for point in result["points"]]
    assert len(losses) == 2 * 3 * 2 * 2 * 2
    assert losses == sorted(losses)
    assert result["best"] == result["points"][0]
    assert (result["subset"], result["tokens"]) == ("valid", 20783)
    assert set(result["stage_seconds"]) == {"model", "search", "combination"}
    assert (tmp_path / "out" / "tuning.png").stat().st_size > 10_000

    largest = {"softmax_temp": 1.25, "mem_size": 2048, "k": 128, "interp_temp": 10.5}
    rows = {0: "--k 128 --no-load-keys --dstore", 0.3: "--lmbda 0.3"}
    for lmbda, flags in rows.items():
        expected = published("--use-long --mem-size 2048", flags)
        assert loss_at(result, **largest, lmbda=lmbda) == pytest.approx(expected, rel=1e-5)
    flags = "--use-long --mem-size 512 --softmax-temp 1.1 --k 64 --use-interp --interp-temp 5 --lmbda 0.3"
    alone = evaluate(tmp_path, "word-trime_ext", f"{ALL} {flags}")
    point = dict(softmax_temp=1.1, mem_size=512, k=64, interp_temp=5.0, lmbda=0.3)
    assert loss_at(result, **point) == pytest.approx(alone["loss"], rel=1e-5)

    assert f"{losses[0]:.4f} | " in log
    assert f"\n{result['test_command']}\n" in log
    assert "--gen-subset test" in result["test_command"]
    assert "--mem-size 2048 is the largest of its grid: widen --grid-mem-size" in log


@pytest.mark.process
def test_a_grid_of_the_plain_knnlm(tmp_path):
    grid = "--grid-softmax-temp 5,10 --grid-lmbda 0,0.25 --grid-k 16,64"
    log, result = tuned(f"{WINDOW} {STORE} --knnlm --probe 16 {grid} --gen-subset valid --show 3", tmp_path)
    expected = published("--knnlm", "--no-load-keys", "knn.index.ip")
    assert loss_at(result, softmax_temp=10.0, k=64, lmbda=0.25) == pytest.approx(expected, rel=1e-5)
    plain = published("--mode lm")
    assert loss_at(result, softmax_temp=5.0, k=16, lmbda=0.0) == pytest.approx(plain, rel=1e-5)
    assert "3 best of 8 settings on valid, 20,783 tokens" in log

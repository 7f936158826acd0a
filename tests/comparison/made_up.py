"""Results that no model has produced: for tables and plots."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trime_fairseq.comparison import Comparison, Model, read_memory
from trime_fairseq.comparison.frequencies import BINS
from trime_fairseq.comparison.result import CheckpointResult, RowResult, SizePoint

SAMPLES = 40
TOKENS = tuple(range(80, 80 + SAMPLES))
# In bins of counts from 10 on.
BY_FREQUENCY = tuple(sum(TOKENS) // 6 if 5 <= bin < 11 else 0 for bin in range(len(BINS)))
SIZES = (0, 64, 128, 256, 512)


def row_result(memory: str, ppl: float, seed: int = 0, remarks: Sequence[str] = ()) -> RowResult:
    """A row whose samples differ from each other, alike in all rows, and a little from other rows."""
    hard = np.random.default_rng(0).normal(1, 0.2, SAMPLES)
    own = np.random.default_rng([seed, len(memory)]).normal(1, 0.01, SAMPLES)
    nll = np.array(TOKENS) * hard * own
    nll *= math.log(ppl) * sum(TOKENS) / nll.sum()
    setting = {"exact_tails": True, "mode": "lm"}
    parts = read_memory(memory)
    shares = dict.fromkeys((), 0.0)
    if parts.parts:
        names = {"local": "local", "cache": "local", "external": "external", "knn": "neighbours"}
        shares = {names[part]: 0.1 for part in parts.parts if part in names}
        shares |= {"long": 0.15} if parts.size else {}
        setting = {"exact_tails": True, "use_local": True, "softmax_temp": 1.19}
        setting |= {"use_long": True, "mem_size": parts.size} if parts.size else {}
        setting |= {"mode": "li", "cache_lmbda": 0.125} if "cache" in parts.parts else {}
    sizes = [size for size in SIZES if size <= parts.size] if parts.size else []
    return RowResult(
        memory=memory,
        setting=setting,
        flags=tuple(f"--{name}" for name in setting),
        remarks=tuple(remarks),
        tuned_loss=math.log(ppl + 1),
        nll=tuple(nll.tolist()),
        mass=sum(shares.values()),
        shares=shares,
        gain_by_frequency=tuple(
            count * (0.3 - 0.04 * bin) * bool(parts.parts) for bin, count in enumerate(BY_FREQUENCY)
        ),
        gain_inside=0.3 * sum(TOKENS) / 2,
        gain_outside=-0.05 * sum(TOKENS) / 2,
        tokens_inside=sum(TOKENS) // 2,
        by_size=tuple(
            SizePoint(size, math.log(ppl + 1), math.log(ppl + 4 - 4 * size / max(sizes))) for size in sizes
        ),
    )


def checkpoint_result(*rows: RowResult) -> CheckpointResult:
    measured = {"date": "2026-01-01", "hardware": "a processor, 1 thread", "versions": "this 1, that 2"}
    return CheckpointResult("text", TOKENS, 5000, BY_FREQUENCY, "train.bin", rows, measured)


def model(name: str, memories: Sequence[str], checkpoints: int = 1) -> Model:
    files = tuple(f"{name}-{number}.pt" for number in range(checkpoints))
    return Model(name, files, tuple(map(read_memory, memories)), (), ())


def compared(
    *models: tuple[str, dict[str, float], int],
) -> tuple[Comparison, dict[str, list[CheckpointResult]]]:
    """Of (name, perplexity by memory, number of checkpoints); the first row is the baseline."""
    made = tuple(model(name, list(ppls), count) for name, ppls, count in models)
    results = {
        name: [
            checkpoint_result(
                *(row_result(memory, ppl * (1 + 0.01 * seed), seed) for memory, ppl in ppls.items())
            )
            for seed in range(count)
        ]
        for name, ppls, count in models
    }
    return Comparison("data", made, (made[0].name, made[0].memories[0])), results


ORDINARY = (
    ("plain LM", {"none": 112.0, "cache": 104.0, "cache 512": 97.0, "knn": 103.0}, 1),
    ("TrimeLM", {"none": 140.0, "local": 101.0, "local + long 512": 96.0}, 3),
    ("TrimeLM_ext", {"local + long 256 + external": 94.0}, 1),
)


def with_remarks(result: CheckpointResult, *remarks: str) -> CheckpointResult:
    """The same with remarks in its last row."""
    *rows, last = result.rows
    return replace(result, rows=(*rows, replace(last, remarks=remarks)))

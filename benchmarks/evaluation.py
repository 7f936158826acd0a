"""Cost of memory scoring in evaluation: each batch is scored by every scorer in turn, so the ratios, medians
over batches, hold however the machine's speed drifts.

    python benchmarks/evaluation.py [--data DIR --checkpoint FILE --tokens-per-sample N --context-window N]
    python benchmarks/evaluation.py --shape wiki103-247M [--batch-sizes 1 8] [--max-batches N] [--no-fp16]

Compared are fairseq's own SequenceScorer (the plain model) and this project's scorer without memory, with
local memory, and with local and long-term memory, at several batch sizes. "Memories" is the share of the
scorer's time that is not spent in the model and its softmax.

With --shape it is a model of that recipe of train_scripts with random weights, on random text, with the sizes
of the published evaluation. Only batches with a full context window are scored, of which the first warms up;
the long-term memory is full from the start, with random keys that stand for the text before.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import common
import torch

common.quiet()

import shapes  # noqa: E402
from fairseq import checkpoint_utils, options, sequence_scorer, tasks  # noqa: E402
from fairseq import utils as fairseq_utils  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402

import trime_fairseq.tasks  # noqa: E402, F401  (registers what --user-dir skips, once imported)
from trime_fairseq.evaluation import MemoryConfig, MemoryScorer  # noqa: E402
from trime_fairseq.evaluation.stages import StageTimes  # noqa: E402

CUDA = torch.cuda.is_available()
SOFTMAX_BATCH = 1024


class Cost(NamedTuple):
    """What a scorer took, for each batch that counts."""

    seconds: list[float]
    peak_bytes: list[int]


def main() -> None:
    args = arguments()
    task, model, dataset = load(args)
    rows: list[Any] = []
    for batch_size in args.batch_sizes:
        costs, memories, tokens = score(args, task, model, dataset, batch_size)
        for name, cost in costs.items():
            rate = statistics.median(n / s for n, s in zip(tokens, cost.seconds))
            stock, plain = (ratio(cost, costs[other]) for other in ("fairseq, plain", "ours, plain"))
            row = [batch_size, name, f"{rate:,.0f}", f"{stock:.2f}", f"{plain - 1:+.1%}"]
            row.append(f"{memories[name]:.1%}" if name in memories else "")
            rows.append([*row, f"{max(cost.peak_bytes) / 1e9:.2f}"] if CUDA else row)
    header = [
        "batch size",
        "scorer",
        "tokens/s",
        "time / fairseq's plain",
        "time over ours, plain",
        "memories",
    ]
    title = (
        f"Evaluation, segments of {args.tokens_per_sample:,} tokens with {args.context_window:,} of context, "
        f"long-term memory of {args.mem_size:,}"
    )
    if args.shape:
        title = f"{args.shape}, {'fp16' if args.fp16 else 'float32'}, random weights and text. {title}"
    name = f"evaluation-{args.shape}" if args.shape else "evaluation"
    common.report(title, [*header, "peak GB"] if CUDA else header, rows, name)


def arguments() -> argparse.Namespace:
    """The command line; a shape has defaults of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common.add_model_flags(parser, "word-trime")
    parser.add_argument(
        "--shape", choices=shapes.NAMES, help="a recipe of train_scripts, with random weights"
    )
    parser.add_argument("--subset", default="valid")
    parser.add_argument("--mem-size", type=int, default=1024)
    parser.add_argument("--max-batches", type=int, default=400)
    parser.add_argument("--fp16", action=argparse.BooleanOptionalAction, default=False)
    shape = parser.parse_args().shape
    if shape:
        parser.set_defaults(**shapes.evaluation_flags(shape), subset="valid", fp16=CUDA)
        # On two cores a batch of the largest model takes each scorer ten seconds.
        parser.set_defaults(batch_sizes=[1, 8] if CUDA else [1], max_batches=50 if CUDA else 9)
    args = parser.parse_args()
    if shape:
        new = (args.tokens_per_sample - args.context_window) * max(args.batch_sizes)
        # Before the batches that are scored stands their context, in whole batches.
        args.data = shapes.write_data(shape, args.subset, args.context_window + new * (args.max_batches + 1))
    return args


def load(args: argparse.Namespace) -> Any:
    words = [args.data, "--user-dir", str(common.ROOT / "trime_fairseq"), "--path", args.checkpoint]
    words += ["--task", "trime_language_modeling", "--sample-break-mode", "none"]
    words += ["--tokens-per-sample", str(args.tokens_per_sample - args.context_window)]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_eval_lm_parser(), words))
    task = tasks.setup_task(cfg.task)
    if args.shape:
        torch.manual_seed(1)
        model = task.build_model(shapes.parse(shapes.recipe(args.shape)).model)
    else:
        (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([args.checkpoint], task=task)
    if args.fp16:
        model.half()
    if CUDA:
        model.cuda()
    model.prepare_for_inference_(cfg)
    model.eval()
    task.load_dataset(args.subset)
    return task, model, task.dataset(args.subset)


def score(args: Any, task: Any, model: Any, dataset: Any, batch_size: int) -> Any:
    """Costs of each scorer over the same batches, the share of it in memories of those that say so, and the
    evaluated tokens of each batch."""
    local = MemoryConfig(use_local=True)
    long = MemoryConfig(use_local=True, use_long=True, mem_size=args.mem_size)
    pad = task.target_dictionary.pad()
    stock = sequence_scorer.SequenceScorer(task.target_dictionary, SOFTMAX_BATCH)
    ours = {
        "ours, plain": MemoryScorer(MemoryConfig(), pad),
        "ours, local": MemoryScorer(local, pad),
        "ours, local + long": MemoryScorer(long, pad),
    }
    work: dict[str, Callable[[Any], Any]] = {
        "fairseq, plain": lambda batch: stock.generate([model], batch),
        **{name: partial(scored, scorer, model) for name, scorer in ours.items()},
    }
    costs = {name: Cost([], []) for name in work}
    tokens: list[int] = []
    run = task.eval_lm_dataloader(
        dataset,
        max_tokens=10**9,
        batch_size=batch_size,
        max_positions=model.max_positions(),
        context_window=args.context_window,
    )
    # The first batches have less context, and warm up.
    new = batch_size * (args.tokens_per_sample - args.context_window)
    left_out = -(-args.context_window // new) if args.shape else 0
    warm_up = 1 if args.shape else min(5, len(run) // 4)
    for number, batch in enumerate(run.batches, -left_out):
        if number >= args.max_batches:
            break
        if number < 0:
            continue
        if number == 0 and args.shape:
            fill(ours["ours, local + long"], args, task, model, batch)
        if CUDA:
            batch = fairseq_utils.move_to_cuda(batch)
        if number == warm_up:
            for scorer in ours.values():
                scorer.times = StageTimes()
        order = list(work)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            cost = measured(work[name], batch)
            if number >= warm_up:
                costs[name].seconds.append(cost[0])
                costs[name].peak_bytes.append(cost[1])
        tokens += [batch["ntokens"]] * (number >= warm_up)
        if args.shape and tokens:
            last = ", ".join(f"{name} {cost.seconds[-1]:.3f} s" for name, cost in costs.items())
            print(f"batch {number} of size {batch_size}: {last}", file=sys.stderr, flush=True)
    return costs, {name: share_of_memories(scorer) for name, scorer in ours.items()}, tokens


def scored(scorer: MemoryScorer, model: Any, batch: dict[str, Any]) -> Any:
    return scorer.generate([model], batch, SOFTMAX_BATCH)


def fill(scorer: MemoryScorer, args: Any, task: Any, model: Any, batch: dict[str, Any]) -> None:
    """Random keys as long-term memory before a batch, of the length of true ones, which went through a layer
    norm."""
    weight = next(model.parameters())
    keys = torch.randn(args.mem_size, task.key_dimension).to(weight)
    preceding = scorer.preceding_text
    assert preceding is not None
    tokens = shapes.draw(args.shape, args.mem_size, seed=2).to(weight.device)
    # A batch at a time, because its size decides on that of the buffer.
    for part in zip(keys.split(batch["ntokens"]), tokens.split(batch["ntokens"])):
        preceding.memory.append(*part)
        preceding.memory.forget()
    preceding.last_id = batch["sample_ids"][0] - 1


def measured(work: Callable[[Any], Any], batch: dict[str, Any]) -> Any:
    """Seconds that a batch takes, and peak memory on the device, model included."""
    common.synchronize()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work(batch)
    common.synchronize()
    seconds = time.perf_counter() - started
    return seconds, torch.cuda.max_memory_allocated() if CUDA else 0


def share_of_memories(scorer: MemoryScorer) -> float:
    seconds = scorer.times.seconds()
    return seconds["combination"] / sum(seconds.values())


def ratio(cost: Cost, other: Cost) -> float:
    return statistics.median(a / b for a, b in zip(cost.seconds, other.seconds))


if __name__ == "__main__":
    main()

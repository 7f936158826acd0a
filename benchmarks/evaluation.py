"""Cost of memory scoring in evaluation: each batch is scored by every scorer in turn, so the ratios hold
however the machine's speed drifts.

    python benchmarks/evaluation.py [--data DIR --checkpoint FILE --tokens-per-sample N --context-window N]

Compared are fairseq's own SequenceScorer (the plain model) and this project's scorer without memory, with
local memory, and with local and long-term memory, at several batch sizes.
"""

import argparse
import time
from typing import Any, Dict, List

import common
import torch

common.quiet()

from fairseq import checkpoint_utils, options, tasks  # noqa: E402
from fairseq import utils as fairseq_utils  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402
from fairseq.sequence_scorer import SequenceScorer  # noqa: E402

from trime_fairseq.results import Totals  # noqa: E402
from trime_fairseq.scoring import TrimeScorer  # noqa: E402
from trime_fairseq.settings import MemorySettings  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common.add_model_flags(parser, "word-trime")
    parser.add_argument("--subset", default="valid")
    parser.add_argument("--mem-size", type=int, default=1024)
    parser.add_argument("--max-batches", type=int, default=400)
    parser.add_argument("--fp16", action="store_true")
    args = parser.parse_args()

    task, model, dataset = load(args)
    rows: List[Any] = []
    for batch_size in args.batch_sizes:
        seconds, tokens = score(args, task, model, dataset, batch_size)
        stock, plain = seconds["fairseq, plain"], seconds["ours, plain"]
        for name, value in seconds.items():
            rows.append(
                (
                    batch_size,
                    name,
                    f"{tokens / value:,.0f}",
                    f"{value / stock:.2f}",
                    f"{value / plain - 1:+.1%}",
                )
            )
    header = ("batch size", "scorer", "tokens/s", "time / fairseq's plain", "time over ours, plain")
    title = (
        f"Evaluation, segments of {args.tokens_per_sample} tokens with {args.context_window} of context, "
        f"long-term memory of {args.mem_size:,}"
    )
    common.report(title, header, rows, "evaluation")


def load(args: argparse.Namespace) -> Any:
    words = [args.data, "--user-dir", str(common.ROOT / "trime_fairseq"), "--path", args.checkpoint]
    words += ["--task", "trime_language_modeling", "--sample-break-mode", "none"]
    words += ["--tokens-per-sample", str(args.tokens_per_sample - args.context_window)]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_eval_lm_parser(), words))
    task = tasks.setup_task(cfg.task)
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([args.checkpoint], task=task)
    if args.fp16:
        model.half()
    if torch.cuda.is_available():
        model.cuda()
    model.prepare_for_inference_(cfg)
    model.eval()
    task.load_dataset(args.subset)
    return task, model, task.dataset(args.subset)


def score(args: Any, task: Any, model: Any, dataset: Any, batch_size: int) -> Any:
    """Seconds per scorer over the same batches, and the evaluated tokens."""
    local = MemorySettings(use_local=True)
    long = MemorySettings(use_local=True, use_long=True, mem_size=args.mem_size)
    pad = task.target_dictionary.pad()
    scorers = {
        "fairseq, plain": SequenceScorer(task.target_dictionary, 1024),
        "ours, plain": TrimeScorer(MemorySettings(), Totals(), pad, 1024),
        "ours, local": TrimeScorer(local, Totals(), pad, 1024),
        "ours, local + long": TrimeScorer(long, Totals(), pad, 1024),
    }
    seconds: Dict[str, float] = dict.fromkeys(scorers, 0.0)
    tokens = 0
    batches = task.eval_lm_dataloader(
        dataset,
        max_tokens=10**9,
        batch_size=batch_size,
        max_positions=model.max_positions(),
        context_window=args.context_window,
    )
    for number, batch in enumerate(batches):
        if number >= args.max_batches:
            break
        if torch.cuda.is_available():
            batch = fairseq_utils.move_to_cuda(batch)
        # The first batches have less context, and warm up.
        counted = number >= 5 or number >= len(batches) // 4
        tokens += batch["ntokens"] * counted
        order = list(scorers)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            common.synchronize()
            started = time.perf_counter()
            scorers[name].generate([model], batch)
            common.synchronize()
            seconds[name] += (time.perf_counter() - started) * counted
    return seconds, tokens


if __name__ == "__main__":
    main()

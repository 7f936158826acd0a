"""External memory: what writing a datastore costs, and evaluation with it against Faiss alone.

    python benchmarks/datastore.py [--data DIR --checkpoint FILE ...]

Writing: runs of fairseq-eval-lm in turn, in this process, with and without --save-knnlm-dstore. Search: every
batch is scored without memory, then with the neighbours of each token and interpolation, and its queries are
searched by Faiss alone.
"""

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import common
import torch

common.quiet()

from evaluation import load  # noqa: E402
from fairseq import utils as fairseq_utils  # noqa: E402

from trime_fairseq.cli import build_index  # noqa: E402
from trime_fairseq.datastore import Retriever, gpus_for_index, open_datastore, open_index  # noqa: E402
from trime_fairseq.evaluation import EvaluationConfig, MemoryConfig, MemoryScorer, ScorerParts  # noqa: E402
from trime_fairseq.evaluation import evaluate as evaluate_in_process  # noqa: E402

OUT = common.ROOT / "benchmarks" / "out" / "datastore"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common.add_model_flags(parser, "word-trime_ext")
    parser.add_argument("--subset", default="valid", help="searched; the training subset is stored")
    parser.add_argument("--max-batches", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ncentroids", type=int, default=512)
    parser.add_argument("--code-size", type=int, default=32)
    parser.add_argument("--k", type=int, default=256)
    parser.add_argument("--probe", type=int, default=32)
    parser.add_argument("--fp16", action="store_true")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    measure_writing(args)
    index = build(args)
    measure_search(args, index)


def measure_writing(args: argparse.Namespace) -> None:
    """Tokens/s of the same evaluation with and without a datastore to write."""
    speeds: dict[str, list[float]] = {"plain evaluation": [], "with --save-knnlm-dstore": []}
    for _ in range(args.rounds):
        for name, found in speeds.items():
            shutil.rmtree(OUT, ignore_errors=True)
            OUT.mkdir(parents=True)
            saving = dict(save_knnlm_dstore=True, dstore_mmap=str(OUT / "dstore"), dstore_fp16=True)
            found.append(evaluate(args, saving if "save" in name else {}))
    plain = statistics.median(speeds["plain evaluation"])
    rows = [
        (name, f"{statistics.median(found):,.0f}", f"{statistics.median(found) / plain:.2f}")
        for name, found in speeds.items()
    ]
    store = open_datastore(str(OUT / "dstore"))
    title = f"Writing a datastore of {store.rows:,} keys of dimension {store.dimension}"
    common.report(title, ("run", "tokens/s", "ratio"), rows, "datastore-writing")


def evaluate(args: argparse.Namespace, saving: dict[str, Any]) -> float:
    """Tokens/s of an evaluation of the training text."""
    result = evaluate_in_process(
        args.checkpoint,
        args.data,
        EvaluationConfig(tokens_per_sample=args.tokens_per_sample, **saving),
        gen_subset="train",
        context_window=args.context_window,
        batch_size=32,
        max_tokens=1_000_000,
        fp16=args.fp16,
        cpu=not torch.cuda.is_available(),
    )
    return result.tokens_per_second


def build(args: argparse.Namespace) -> Path:
    """The index of the datastore; prints its time."""
    started = time.perf_counter()
    words = ["--dstore_mmap", str(OUT / "dstore"), "--faiss_index", str(OUT / "knn"), "--dist", "ip"]
    words += ["--ncentroids", str(args.ncentroids), "--code_size", str(args.code_size)]
    if build_index.main(words + (["--use_gpu"] if gpus_for_index() else [])):
        sys.exit("the index was not built")
    print(f"Index built in {time.perf_counter() - started:.0f} s\n")
    return OUT / "knn.ip"


def measure_search(args: argparse.Namespace, path: Path) -> None:
    """Tokens/s of plain evaluation, of evaluation with external memory, and of Faiss alone."""
    task, model, dataset = load(args)
    store = open_datastore(str(OUT / "dstore"))
    retriever = Retriever(open_index(str(path)), store, k=args.k, probe=args.probe, devices=gpus_for_index())
    external = MemoryConfig(
        use_external=True, k=args.k, softmax_temp=1.25, use_interp=True, interp_temp=10.5, lmbda=0.3
    )
    rows: list[Any] = []
    for batch_size in args.batch_sizes:
        seconds, tokens = search(args, task, model, dataset, batch_size, external, retriever)
        alone = seconds["Faiss alone"]
        for name, value in seconds.items():
            rows.append((batch_size, name, f"{tokens / value:,.0f}", f"{alone / value:.2f}"))
    title = (
        f"Evaluation with {store.rows:,} keys, {args.ncentroids} lists, {args.code_size} bytes, k {args.k}, "
        f"probe {args.probe}, with interpolation"
    )
    common.report(title, ("batch size", "", "tokens/s", "of Faiss alone"), rows, "datastore-search")


def search(
    args: Any, task: Any, model: Any, dataset: Any, batch_size: int, settings: Any, retriever: Retriever
) -> Any:
    """Seconds over the same batches, and the evaluated tokens."""
    pad = task.target_dictionary.pad()
    seconds = {"plain evaluation": 0.0, "with external memory": 0.0, "Faiss alone": 0.0}
    taken: list[torch.Tensor] = []

    class Recording(Retriever):
        def __init__(self) -> None:
            pass

        def search(self, queries: torch.Tensor) -> Any:
            taken[:] = [queries]
            return retriever.search(queries)

    plain = MemoryScorer(MemoryConfig(), pad)
    external = MemoryScorer(settings, pad, ScorerParts(retriever=Recording()))
    run = task.eval_lm_dataloader(
        dataset,
        max_tokens=10**9,
        batch_size=batch_size,
        max_positions=model.max_positions(),
        context_window=args.context_window,
    )
    tokens = 0
    work = {
        "plain evaluation": lambda batch: plain.generate([model], batch, 1024),
        "with external memory": lambda batch: external.generate([model], batch, 1024),
        "Faiss alone": lambda batch: retriever.search_faiss(taken[0].float().contiguous()),
    }
    for number, batch in enumerate(run.batches):
        if number >= args.max_batches:
            break
        if torch.cuda.is_available():
            batch = fairseq_utils.move_to_cuda(batch)
        counted = number >= 4
        tokens += batch["ntokens"] * counted
        for name, do in work.items():
            common.synchronize()
            started = time.perf_counter()
            do(batch)
            common.synchronize()
            seconds[name] += (time.perf_counter() - started) * counted
    return seconds, tokens


if __name__ == "__main__":
    main()

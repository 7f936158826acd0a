"""Translation with a datastore: tokens/s of generation against plain decoding, and where the time goes.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/translation.py [--keys 250000 --k 8 32 ...]

The model is that of the tests, or one of the paper's shape with random weights. The datastore is made up: the
keys of the tests' datastore, or random ones, again and again with noise. Every batch is translated in turn
without memory and with each index and k.
"""

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

common.quiet()

from fairseq import checkpoint_utils, options, tasks, utils  # noqa: E402
from fairseq.dataclass.utils import convert_namespace_to_omegaconf  # noqa: E402

from trime_fairseq.cli import build_index  # noqa: E402
from trime_fairseq.datastore import Retriever  # noqa: E402
from trime_fairseq.evaluation import register  # noqa: E402
from trime_fairseq.generation import LAMBDA_TYPES, Mixture, ModelMemory, attach_memories  # noqa: E402

OUT = common.ROOT / "benchmarks" / "out" / "translation"
MT = common.REFERENCE / "mt"
CHECKPOINT = MT / "checkpoint" / "checkpoint_best.pt"
# Of the keys of each shape.
WIDTHS = {"reference": 64, "iwslt14": 512}
IWSLT14 = "--arch transformer_iwslt_de_en --share-decoder-input-output-embed --decoder-normalize-before"
# Of a key's own spread in each dimension.
NOISE = 0.3

Memory = tuple[Retriever, Mixture]
# Columns of the table: methods whose time they are of.
PARTS = {
    "Faiss": (Retriever, "search_faiss"),
    "search, Faiss included": (Retriever, "search"),
    "mixture": (Mixture, "log_probs"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=WIDTHS, default="reference")
    parser.add_argument("--subset", default="valid")
    parser.add_argument("--keys", type=int, default=250_000)
    parser.add_argument(
        "--index",
        nargs="+",
        default=["IVF4096,PQ64/32", "IVF1024,PQ16/8", "IVF1024,PQ32x4fs/8"],
        help="factory string of Faiss, and the number of lists to visit",
    )
    parser.add_argument("--dist", default="ip", choices=("ip", "l2"))
    parser.add_argument("--k", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--lambda-type", default="trime", choices=LAMBDA_TYPES)
    parser.add_argument("--temperature", type=float, default=15.0)
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where Python spends the time instead")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    make_store(args)
    measure(args)


def make_store(args: argparse.Namespace) -> None:
    """Writes the made-up keys and their tokens."""
    values = np.fromfile(MT / "datastore" / "vals.npy", dtype=np.int64)
    draw = np.random.default_rng(1)
    width = WIDTHS[args.shape]
    if args.shape == "reference":
        stored = np.fromfile(MT / "datastore" / "keys.npy", dtype=np.float16)
        keys = stored.reshape(-1, width).astype(np.float32)
    else:
        keys = draw.standard_normal((len(values), width), dtype=np.float32)
    rows = draw.integers(0, len(keys), args.keys)
    noise = draw.standard_normal((args.keys, width), dtype=np.float32)
    (keys[rows] + NOISE * keys.std(axis=0) * noise).astype(np.float16).tofile(OUT / "store-fp16_keys.npy")
    values[rows].tofile(OUT / "store_vals.npy")


def build(args: argparse.Namespace, factory: str) -> str:
    """The index of the made-up datastore; one of an earlier run is the same."""
    name = OUT / f"{args.shape}-{args.keys}-{factory}"
    if not Path(f"{name}.{args.dist}").exists():
        words = ["--dstore_mmap", str(OUT / "store"), "--dstore_size", str(args.keys), "--dstore_fp16"]
        words += ["--dimension", str(WIDTHS[args.shape]), "--faiss_index", str(name), "--dist", args.dist]
        words += ["--num_training_keys", "40000"] if args.shape != "reference" else []
        if build_index.main([*words, "--factory", factory]):
            sys.exit("the index was not built")
    return f"{name}.{args.dist}"


def load(args: argparse.Namespace) -> tuple[Any, Any, Any, list[Any]]:
    """Task, model, the generator's settings and all batches of the subset."""
    register()
    words = [str(MT / "data"), "--task", "trime_translation", "--path", str(CHECKPOINT)]
    words += ["--gen-subset", args.subset, "--beam", str(args.beam), "--max-tokens", str(args.max_tokens)]
    words += "--lenpen 0.6 --max-len-a 1.2 --max-len-b 10 --required-batch-size-multiple 1".split()
    words += ["--use-knn-datastore", "--dstore-filename", str(OUT / "store"), "--dstore-fp16"]
    words += ["--dstore-size", str(args.keys), "--indexfile", "of each row", "--no-load-keys"]
    words += ["--knn-temperature-value", str(args.temperature), "--knn-lambda-type", args.lambda_type]
    words += ["--knn-lambda-value", "0.2"] if args.lambda_type == "fix" else []
    words += ["--knn-sim-func", "do_not_recomp_l2"] if args.dist == "l2" else []
    parsed = options.parse_args_and_arch(options.get_generation_parser(), words)
    config = convert_namespace_to_omegaconf(parsed)
    task = tasks.setup_task(config.task)
    if args.shape == "reference":
        (model,), _ = checkpoint_utils.load_model_ensemble([str(CHECKPOINT)], task=task)
    else:
        torch.manual_seed(1)
        shape = options.parse_args_and_arch(
            options.get_training_parser(), [str(MT / "data"), *IWSLT14.split()]
        )
        model = task.build_model(convert_namespace_to_omegaconf(shape).model).eval()
    if torch.cuda.is_available():
        model.cuda()
    model.prepare_for_inference_(config)
    task.load_dataset(args.subset)
    batches = task.get_batch_iterator(
        dataset=task.dataset(args.subset),
        max_tokens=args.max_tokens,
        max_positions=utils.resolve_max_positions(task.max_positions(), model.max_positions()),
        required_batch_size_multiple=1,
    ).next_epoch_itr(shuffle=False)
    samples = list(batches)
    if torch.cuda.is_available():
        samples = [utils.move_to_cuda(sample) for sample in samples]
    return task, model, config, samples


def memories(args: argparse.Namespace, task: Any, model: Any) -> dict[str, Memory]:
    """Retriever and mixture of each row but the first."""
    found: dict[str, Memory] = {}
    for index in args.index:
        factory, _, probe = index.rpartition("/")
        for k in args.k:
            config = replace(task.config, indexfile=build(args, factory), k=k, probe=int(probe))
            attach_memories([model], config, task.target_dictionary, "en", 1.0)
            memory = ModelMemory.of(model)
            assert memory is not None
            found[f"{factory}, probe {probe}, k {k}"] = memory.retriever, memory.mixture
            memory.detach()
    return found


@contextmanager
def timed(kind: type, method: str) -> Iterator[list[float]]:
    """Seconds of each call of a method."""
    call, seconds = getattr(kind, method), list[float]()

    def timing(*args: Any, **options: Any) -> Any:
        common.synchronize()
        started = time.perf_counter()
        result = call(*args, **options)
        common.synchronize()
        seconds.append(time.perf_counter() - started)
        return result

    setattr(kind, method, timing)
    try:
        yield seconds
    finally:
        setattr(kind, method, call)


def measure(args: argparse.Namespace) -> None:
    task, model, config, samples = load(args)
    opened = memories(args, task, model)
    task.config = replace(task.config, use_knn_datastore=False)
    generator = task.build_generator([model], config.generation)

    def translate(sample: Any) -> tuple[int, int]:
        """Tokens of the best hypotheses; steps of the longest one that was finished."""
        found = task.inference_step(generator, [model], sample)
        lengths = [[len(one["tokens"]) for one in hypotheses] for hypotheses in found]
        return sum(one[0] for one in lengths), max(map(max, lengths))

    if args.profile:
        for name, memory in opened.items():
            profile(name, lambda: [translate(sample) for sample in samples], model, memory)
        return
    names = ["plain", *opened]
    seconds, tokens, steps = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    parts: dict[str, dict[str, float]] = {name: dict.fromkeys(PARTS, 0.0) for name in names}
    for number, sample, name in product(range(args.rounds + 1), samples, names):
        attached = ModelMemory(model, *opened[name]) if name in opened else None
        with ExitStack() as stack:
            spent = {part: stack.enter_context(timed(*method)) for part, method in PARTS.items()}
            common.synchronize()
            started = time.perf_counter()
            length, longest = translate(sample)
            common.synchronize()
            whole = time.perf_counter() - started
        if attached is not None:
            attached.detach()
        if number == 0:
            continue  # warms up
        seconds[name] += whole
        tokens[name] += length
        steps[name] += longest
        for part, calls in spent.items():
            parts[name][part] += sum(calls)
    rows = []
    plain = tokens["plain"] / seconds["plain"]
    for name in names:
        speed, step = tokens[name] / seconds[name], 1000 * seconds[name] / steps[name]
        shares = [f"{value / seconds[name]:.0%}" for value in parts[name].values()]
        rows.append((name, f"{speed:,.0f}", f"{speed / plain:.2f}", f"{step:.2f}", *shares))
    sentences = sum(len(sample["id"]) for sample in samples)
    title = (
        f"Translation of {sentences} sentences, model {args.shape}, beam {args.beam}, {args.keys:,} keys, "
        f"{args.dist}, {args.lambda_type}"
    )
    header = ("memory", "tokens/s", "ratio", "ms a step", *PARTS)
    common.report(title, header, rows, f"translation-{args.shape}")


def profile(name: str, work: Callable[[], Any], model: Any, memory: Memory) -> None:
    """Where Python spends the time of a pass over the subset."""
    attached = ModelMemory(model, *memory)
    work()
    watch = cProfile.Profile()
    watch.runcall(work)
    attached.detach()
    print(f"### {name}\n")
    pstats.Stats(watch).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()

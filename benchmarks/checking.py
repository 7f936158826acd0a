"""What it costs to check files, against reading them once.

    python benchmarks/checking.py [--rows N]

trime-datastore verify against reading the files of the datastore; the check of a binarised text against
fairseq's own opening of it; reading a checkpoint as data against torch.load. All files are made by this
command, and are in the page cache.
"""

import argparse
import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import torch

common.quiet()

from fairseq.data import data_utils  # noqa: E402
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder  # noqa: E402

from trime_fairseq.data.text_files import check_text  # noqa: E402
from trime_fairseq.datastore import DatastoreWriter, Manifest, verify  # noqa: E402
from trime_fairseq.models.reading import read_checkpoint  # noqa: E402

OUT = common.ROOT / "benchmarks" / "out" / "checking"
DIMENSION, TYPES, LINE = 512, 50_000, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the datastore, 1,032 bytes each")
    parser.add_argument("--lines", type=int, default=10_000_000, help=f"of the text, {LINE} tokens each")
    parser.add_argument("--weights", type=int, default=150_000_000, help="of the checkpoint, float32")
    args = parser.parse_args()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    try:
        rows = [of_datastore(args.rows), of_text(args.lines), of_checkpoint(args.weights)]
    finally:
        shutil.rmtree(OUT)
    header = ("files", "GB", "baseline", "its seconds", "seconds", "seconds per GB", "over baseline")
    common.report("Checking files", header, rows, "checking")


def row(name: str, files: list[Path], baseline: str, stock: Callable, ours: Callable) -> tuple:
    """The faster of two runs of each, in turn."""
    seconds = {function: min(timed(function) for _ in range(2)) for function in (stock, ours)}
    size = sum(file.stat().st_size for file in files) / 1e9
    found = seconds[ours]
    ratio = f"{found / seconds[stock]:.2f}"
    return (
        name,
        f"{size:.2f}",
        baseline,
        f"{seconds[stock]:.2f}",
        f"{found:.2f}",
        f"{found / size:.2f}",
        ratio,
    )


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def read(files: list[Path]) -> None:
    for file in files:
        with file.open("rb") as source:
            while source.read(1 << 22):
                pass


def of_datastore(rows: int) -> tuple:
    draw, prefix = np.random.default_rng(1), str(OUT / "dstore")
    manifest = Manifest(
        rows=rows, dimension=DIMENSION, key_dtype="float16", keys_stored=True, key_type="last_ffn_input",
        dictionary_hash=None, checkpoint=None, checkpoint_hash=None, data_hash=None, subset="train",
        sample_break_mode="none", tokens_per_sample=512, context_window=0, context_full_only=False,
    )  # fmt: skip
    writer = DatastoreWriter(prefix, manifest, 0, rows, 0)
    block = draw.standard_normal((min(rows, 100_000), DIMENSION), np.float32).astype(np.float16)
    for begin in range(0, rows, len(block)):
        part = block[: rows - begin]
        writer.write(begin, part, draw.integers(0, TYPES, len(part)))
    writer.finish()
    writer.close()
    files = sorted(OUT.glob("dstore*.npy"))

    def check() -> None:
        wrong = [finding.text for finding in verify(prefix) if finding.is_problem]
        assert not wrong, wrong

    return row("datastore (verify)", files, "reading them", lambda: read(files), check)


def of_text(lines: int) -> tuple:
    path = str(OUT / "text")
    builder = MMapIndexedDatasetBuilder(f"{path}.bin", dtype=np.uint16)
    tokens = torch.randint(4, TYPES, (LINE,))
    for _ in range(lines):
        builder.add_item(tokens)
    builder.finalize(f"{path}.idx")
    files = [Path(f"{path}.bin"), Path(f"{path}.idx")]

    def check() -> None:
        assert check_text(path, TYPES) == lines * LINE

    opening = "fairseq's opening"
    return row("text", files, opening, lambda: data_utils.load_indexed_dataset(path, None, "mmap"), check)


def of_checkpoint(weights: int) -> tuple:
    path = OUT / "checkpoint.pt"
    model = {f"decoder.{number}": torch.randn(weights // 10) for number in range(10)}
    torch.save({"args": Namespace(arch="transformer_lm"), "model": model}, path)

    def load() -> None:
        torch.load(path, map_location="cpu", weights_only=True)

    with torch.serialization.safe_globals([Namespace]):
        return row("checkpoint", [path], "torch.load", load, lambda: read_checkpoint(str(path)))


if __name__ == "__main__":
    main()

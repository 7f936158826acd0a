"""The result of an evaluation: totals over all tokens and shards, the log line and the JSON file."""

import json
import logging
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional

import torch
import torch.distributed as dist
from torch import Tensor

logger = logging.getLogger(__name__)

# What is summed over tokens: negative log-likelihood (nats), mass on memories, target's share from memory.
_SUMS = ("nll", "mem_mass", "mem_share")


class Totals:
    """Float64 sums over the evaluated tokens, kept where they are computed (no host synchronisation)."""

    def __init__(self) -> None:
        self.tokens = 0
        self._sums: Optional[Tensor] = None
        self._started = time.perf_counter()

    def start(self) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def add(self, sums: Tensor, tokens: int) -> None:
        """Adds float64 [3] sums over ``tokens`` tokens: see the fields of :class:`ShardResult`."""
        self._sums = sums if self._sums is None else self._sums + sums
        self.tokens += tokens

    def finish(self) -> "ShardResult":
        """The sums of this process, and of all processes where several evaluate together."""
        sums = self._sums.tolist() if self._sums is not None else [0.0] * len(_SUMS)
        seconds = time.perf_counter() - self._started
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            row = torch.tensor([*sums, float(self.tokens)], dtype=torch.float64, device=device)
            dist.all_reduce(row)
            slowest = torch.tensor([seconds], dtype=torch.float64, device=device)
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            *sums, tokens = row.tolist()
            return ShardResult(int(tokens), slowest.item(), *sums)
        return ShardResult(self.tokens, seconds, *sums)


@dataclass
class ShardResult:
    """Sums over the evaluated tokens of one or all shards.

    Attributes:
        tokens: number of evaluated tokens.
        seconds: wall-clock time of the slowest shard.
        nll: negative log-likelihood, in nats.
        mem_mass: share of the distribution on memories, summed over tokens.
        mem_share: share of the target's probability that came from memory, summed over tokens.
    """

    tokens: int
    seconds: float
    nll: float
    mem_mass: float
    mem_share: float

    def report(self) -> Dict[str, Any]:
        """Loss in bits per token, perplexity, speed and means, with the sums they come from."""
        tokens = max(self.tokens, 1)
        loss = self.nll / tokens / math.log(2)
        return {
            "loss": loss,
            "ppl": 2.0**loss,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / self.seconds if self.seconds > 0 else 0.0,
            "seconds": self.seconds,
            "nll_nats": self.nll,
            "mem_mass": self.mem_mass / tokens,
            "mem_share": self.mem_share / tokens,
        }

    @classmethod
    def merge(cls, reports: List[Dict[str, Any]]) -> "ShardResult":
        """Of the reports of shards that were evaluated one by one or side by side."""
        return cls(
            tokens=sum(report["tokens"] for report in reports),
            seconds=max(report["seconds"] for report in reports),
            nll=math.fsum(report["nll_nats"] for report in reports),
            mem_mass=math.fsum(report["mem_mass"] * report["tokens"] for report in reports),
            mem_share=math.fsum(report["mem_share"] * report["tokens"] for report in reports),
        )


@dataclass
class Evaluation:
    """One run of ``fairseq-eval-lm``, from its first batch to its result.

    Args:
        description: what was evaluated and how; goes into the JSON file as it is, and shards of one
            evaluation are recognised by it.
        eval_file: where to write the result as JSON, if anywhere.
        num_shards, shard_id: this process's part of the samples.
    """

    description: Dict[str, Any]
    eval_file: Optional[str] = None
    num_shards: int = 1
    shard_id: int = 0
    totals: Totals = field(default_factory=Totals)

    def finish(self) -> None:
        """Logs the loss of all tokens and writes the JSON file.

        Shards that are evaluated by separate commands (``--num-shards``) write one file each; whoever
        finds the files of all the others there writes the result of the whole.
        """
        result = self.totals.finish()
        together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if together and dist.get_rank() != 0:
            return
        report = {**result.report(), **self.description}
        if self.num_shards == 1 or together:
            self._log(report, "all")
            if self.eval_file:
                write_json(self.eval_file, {**report, "num_shards": self.num_shards})
            return
        self._log(report, f"shard {self.shard_id} of {self.num_shards}:")
        if self.eval_file:
            write_json(self._shard_file(self.shard_id), report)
            self._merge_shards(self.eval_file)

    def _log(self, report: Dict[str, Any], which: str) -> None:
        unit = "subword token, fairseq's line is per word; " if report.get("post_process") else ""
        logger.info(
            f"TRIME: {which} {report['tokens']:,} tokens, {report['tokens_per_second']:,.0f} tokens/s: "
            f"Loss (base 2): {report['loss']:.4f}, Perplexity: {report['ppl']:.2f}, {unit}"
            f"mass on memories {report['mem_mass']:.3f}, share of the target's {report['mem_share']:.3f}"
        )

    def _shard_file(self, shard_id: int) -> str:
        return f"{self.eval_file}.shard-{shard_id}-of-{self.num_shards}"

    def _merge_shards(self, eval_file: str) -> None:
        reports = []
        for shard_id in range(self.num_shards):
            try:
                with open(self._shard_file(shard_id), encoding="utf-8") as file:
                    report = json.load(file)
            except FileNotFoundError:
                logger.info(f"TRIME: {eval_file} will be written when shard {shard_id} is done as well")
                return
            differing = [k for k, value in self.description.items() if report.get(k) != value]
            if differing:
                logger.warning(
                    f"TRIME: {self._shard_file(shard_id)} is of another evaluation ({', '.join(differing)} "
                    "differ); not merged"
                )
                return
            reports.append(report)
        merged = {**ShardResult.merge(reports).report(), **self.description}
        self._log(merged, f"all {self.num_shards} shards,")
        write_json(eval_file, {**merged, "num_shards": self.num_shards})


class EvaluationIterator:
    """The batches of an evaluation; when they are through, the evaluation is finished."""

    def __init__(self, batches: Any, evaluation: Evaluation) -> None:
        self._batches = batches
        self._evaluation = evaluation
        self.n = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        self._evaluation.totals.start()
        for batch in self._batches:
            self.n += 1
            yield batch
        self._evaluation.finish()


def check_writable(flag: str, path: str) -> None:
    """Raises ValueError if the file of a flag could not be written to ``path``; makes its folder."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{flag} {path}: {error}") from error
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{flag} {path}: cannot be written there")


def modification_time(path: Optional[str]) -> Optional[float]:
    """Seconds since 1970; None for what is not a local file."""
    return os.path.getmtime(path) if path and os.path.exists(path) else None


def write_json(path: str, content: Dict[str, Any]) -> None:
    """Writes a JSON file that is there as a whole or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
        file.write(text)
        # Temporary files are the owner's alone; results are for colleagues, too.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(file.name, 0o666 & ~umask)
    os.replace(file.name, path)

"""The result of an evaluation: totals over all tokens and shards, the log line and the JSON file."""

import json
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch
import torch.distributed as dist
from torch import Tensor

from ..files import write_json

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
        at_end: called when all batches are through; what they return goes into the report.
    """

    description: Dict[str, Any]
    eval_file: Optional[str] = None
    num_shards: int = 1
    shard_id: int = 0
    totals: Totals = field(default_factory=Totals)
    at_end: List[Callable[[], Dict[str, Any]]] = field(default_factory=list)

    def finish(self) -> None:
        """Logs the loss of all tokens and writes the JSON file.

        Shards that are evaluated by separate commands (``--num-shards``) write one file each; whoever
        finds the files of all the others there writes the result of the whole.
        """
        measured: Dict[str, Any] = {}
        for ending in self.at_end:
            measured.update(ending())
        result = self.totals.finish()
        together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if together and dist.get_rank() != 0:
            return
        if not result.tokens:
            logger.info("TRIME: nothing was left to evaluate; no result is written")
            return
        report = {**result.report(), **self.description, **measured}
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
        seconds = report.get("stage_seconds")
        if seconds:
            stages = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
            logger.info(f"TRIME: seconds per stage: {stages}, of {report['seconds']:.2f} in all")
        if "recall_at_k" in report:
            logger.info(
                f"TRIME: recall of the index: nearest key {report['recall_at_1']:.3f}, {report['k']} nearest "
                f"{report['recall_at_k']:.3f}, of {report['recall_queries']:,} searches"
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
        merged = {**ShardResult.merge(reports).report(), **self.description, **merge_measured(reports)}
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


def merge_measured(reports: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Seconds per stage, summed over shards; recall, averaged over searches."""
    merged: Dict[str, Any] = {}
    stages = [report.get("stage_seconds", {}) for report in reports]
    names = dict.fromkeys(name for seconds in stages for name in seconds)
    merged["stage_seconds"] = {name: sum(seconds.get(name, 0.0) for seconds in stages) for name in names}
    searched = [report for report in reports if report.get("recall_queries")]
    if searched:
        queries = sum(report["recall_queries"] for report in searched)
        merged["recall_queries"] = queries
        for name in ("recall_at_1", "recall_at_k"):
            merged[name] = sum(report[name] * report["recall_queries"] for report in searched) / queries
    return merged

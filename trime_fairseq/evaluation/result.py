"""The result of an evaluation: sums over all tokens, the log lines, the JSON file."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..distributed import world_size
from ..files import without_infinity
from ..flags import flag
from .units import TextUnits

logger = logging.getLogger(__name__)


class Totals:
    """Float64 sums over the evaluated tokens, kept where they are computed (no host synchronisation)."""

    def __init__(self) -> None:
        self.tokens = 0
        self._sums: Tensor | None = None
        self._started = time.perf_counter()

    @property
    def is_used(self) -> bool:
        """Whether anything was added, be it sums over no token."""
        return self._sums is not None

    def start(self) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def add(self, sums: Tensor, tokens: int) -> None:
        """Adds sums over ``tokens`` tokens, float64 [5]: negative log-likelihood with and without memories in
        nats, mass on memories, share of the target's probability that came from memories, number of tokens
        of probability 0."""
        self._sums = sums if self._sums is None else self._sums + sums
        self.tokens += tokens

    def losses(self) -> tuple[float, float]:
        """Negative log-likelihood with and without memories so far, in nats, of all processes."""
        sums = torch.zeros(2, dtype=torch.float64) if self._sums is None else self._sums[:2].clone()
        if world_size() > 1:
            sums = sums.to("cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(sums)
        with_memories, without = sums.tolist()
        return with_memories, without

    def finish(self) -> "EvaluationResult":
        """The sums of this process, or of all processes where several evaluate together."""
        sums = [0.0] * 5 if self._sums is None else self._sums.tolist()
        tokens, seconds = self.tokens, time.perf_counter() - self._started
        if world_size() > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            row = torch.tensor([*sums, float(tokens)], dtype=torch.float64, device=device)
            dist.all_reduce(row)
            slowest = torch.tensor([seconds], dtype=torch.float64, device=device)
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            *sums, counted = row.tolist()
            tokens, seconds = int(counted), slowest.item()
        nll, without_memory, mass, share, impossible = sums
        each = 1 / max(tokens, 1)
        return EvaluationResult(
            *(tokens, seconds, nll, without_memory, mass * each, share * each),
            zero_probability_tokens=int(impossible),
        )


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation of a text found.

    Attributes:
        tokens: number of evaluated tokens.
        seconds: wall-clock time, of the slowest shard.
        nll_nats, nll_nats_without_memory: negative log-likelihood of all tokens in nats, with the memories
            in use and of the model alone. With an adaptive softmax the latter is that of ``--mode lm`` only
            under ``--exact-tails``: the published scoring with memories leaves a few words uncharged.
        mem_mass: share of the distribution that lies on memories, a mean over tokens.
        mem_share: share of the target's probability that came from memories, a mean over tokens.
        description: what was evaluated, and how.
        measured: what else was measured, such as seconds per stage.
        zero_probability_tokens: number of tokens of probability 0. With any, the loss is infinite.
    """

    tokens: int
    seconds: float
    nll_nats: float
    nll_nats_without_memory: float
    mem_mass: float
    mem_share: float
    description: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    zero_probability_tokens: int = 0

    @property
    def loss(self) -> float:
        """Bits per token."""
        return self.nll_nats / max(self.tokens, 1) / math.log(2)

    @property
    def loss_without_memory(self) -> float:
        """Bits per token of the model alone."""
        return self.nll_nats_without_memory / max(self.tokens, 1) / math.log(2)

    @property
    def ppl(self) -> float:
        """Perplexity."""
        return perplexity(self.loss)

    @property
    def ppl_without_memory(self) -> float:
        """Perplexity of the model alone."""
        return perplexity(self.loss_without_memory)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def uses_memory(self) -> bool:
        """Whether any memory had a part in the loss."""
        return self.mem_mass > 0

    @property
    def units(self) -> TextUnits | None:
        """Words and bytes of a text in subwords; None of another text."""
        counted = self.measured.get("text_units")
        return None if counted is None else TextUnits(**counted)

    def as_json(self) -> dict[str, Any]:
        """The content of the JSON file; an infinite loss, which JSON does not have, is null."""
        content = {
            "loss": self.loss,
            "ppl": self.ppl,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
            "seconds": self.seconds,
            "nll_nats": self.nll_nats,
            "mem_mass": self.mem_mass,
            "mem_share": self.mem_share,
            "loss_without_memory": self.loss_without_memory,
            "ppl_without_memory": self.ppl_without_memory,
            "nll_nats_without_memory": self.nll_nats_without_memory,
            "zero_probability_tokens": self.zero_probability_tokens,
            **self.description,
            **self.measured,
            **({} if self.units is None else self.units.losses(self.nll_nats)),
        }
        return without_infinity(content)

    @classmethod
    def merge(cls, shards: Sequence[Mapping[str, Any]], description: Mapping[str, Any]) -> "EvaluationResult":
        """The whole, of the JSON of its shards."""
        tokens = sum(int(shard["tokens"]) for shard in shards)

        def mean(name: str) -> float:
            return math.fsum(float(shard[name]) * shard["tokens"] for shard in shards) / max(tokens, 1)

        def total(name: str) -> float:
            return math.fsum(math.inf if shard[name] is None else shard[name] for shard in shards)

        return cls(
            tokens=tokens,
            seconds=max(shard["seconds"] for shard in shards),
            nll_nats=total("nll_nats"),
            nll_nats_without_memory=total("nll_nats_without_memory"),
            mem_mass=mean("mem_mass"),
            mem_share=mean("mem_share"),
            description=description,
            measured=merge_measured(shards),
            zero_probability_tokens=sum(shard.get("zero_probability_tokens", 0) for shard in shards),
        )

    def log(self, which: str, compare: bool = True) -> None:
        """Logs the loss and where the time went; then, where memories were used, what they gained."""
        logger.info(
            f"TRIME: {which} {self.tokens:,} tokens, {self.tokens_per_second:,.0f} tokens/s: "
            f"Loss (base 2): {self.loss:.4f}, Perplexity: {self.ppl:.2f}, "
            f"mass on memories {self.mem_mass:.3f}, share of the target's {self.mem_share:.3f}"
        )
        if self.units is not None:
            self.units.log(self.nll_nats, self.description.get("post_process"))
        if self.zero_probability_tokens:
            logger.warning(
                f"TRIME: {self.zero_probability_tokens:,} of {self.tokens:,} tokens have probability 0, so "
                f"the loss is infinite: {self._advice()}"
            )
        seconds = self.measured.get("stage_seconds")
        if seconds:
            stages = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
            logger.info(f"TRIME: seconds per stage: {stages}, of {self.seconds:.2f} in all")
        if "recall_at_k" in self.measured:
            k, found = self.description["k"], self.measured
            logger.info(
                f"TRIME: recall of the index: nearest key {found['recall_at_1']:.3f}, {k} nearest "
                f"{found['recall_at_k']:.3f}, of {found['recall_queries']:,} searches"
            )
        if compare and self.uses_memory:
            self._log_comparison()

    def _log_comparison(self) -> None:
        logger.info(
            f"TRIME: {self.tokens:,} tokens: perplexity {self.ppl_without_memory:.2f} without memories, "
            f"{self.ppl:.2f} with; they hold {self.mem_mass:.2f} of the distribution, {self.mem_share:.2f} "
            "of the target's probability"
        )
        if self.loss > self.loss_without_memory and not self.zero_probability_tokens:
            logger.warning(f"TRIME: the memories make it worse: {self._advice()} before you judge them")

    def _advice(self) -> str:
        given = self.description
        settings = ["--softmax-temp"]
        if given.get("use_interp") or (given.get("knnlm") and given.get("mode") == "li"):
            settings.append("--interp-temp")
        settings += [flag(name) for name in ("cache_lmbda", "lmbda") if given.get(name) is not None]
        *others, last = settings
        names = f"{', '.join(others)} and {last}" if others else last
        return f"tune {names} with trime-tune"


def perplexity(loss: float) -> float:
    """Perplexity of a loss in bits per token; infinite where a float cannot hold it."""
    return 2.0**loss if loss < 1000 else math.inf


def merge_measured(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds per stage, summed over shards; recall, averaged over searches."""
    stages = [shard.get("stage_seconds", {}) for shard in shards]
    names = dict.fromkeys(name for seconds in stages for name in seconds)
    merged: dict[str, Any] = {
        "stage_seconds": {name: sum(seconds.get(name, 0.0) for seconds in stages) for name in names}
    }
    counted = [shard["text_units"] for shard in shards if shard.get("text_units")]
    if counted:
        merged["text_units"] = asdict(TextUnits.merge(counted))
    searched = [shard for shard in shards if shard.get("recall_queries")]
    if searched:
        queries = sum(shard["recall_queries"] for shard in searched)
        merged["recall_queries"] = queries
        for name in ("recall_at_1", "recall_at_k"):
            merged[name] = sum(shard[name] * shard["recall_queries"] for shard in searched) / queries
    return merged


@dataclass(frozen=True)
class Shard:
    """This process's part of the samples: the ``id``-th of ``count``."""

    count: int = 1
    id: int = 0

    def file(self, eval_file: str) -> str:
        """Where a command writes its part of the result."""
        return f"{eval_file}.shard-{self.id}-of-{self.count}"

"""What every TRIME criterion shares: the objective, the warm-up and the logging."""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from ..memory import (
    IMPLEMENTATIONS,
    Visibility,
    memory_lse,
    memory_mass,
    positive_share,
    trime_log_prob,
)
from ..models.output import run_decoder, token_scores
from ..models.representation import KEY_TYPES, RepresentationTap

# The other backends average gradients in a wrapper that expects every parameter to be used inside
# the model's own forward pass; an adaptive softmax is used outside of it, its tails not in every step.
_WORKING_DDP_BACKENDS = ("legacy_ddp", "no_c10d")


@dataclass
class TrimeCriterionConfig(FairseqDataclass):
    knn_keytype: ChoiceEnum(KEY_TYPES) = field(  # type: ignore[valid-type]
        default="last_ffn_input",
        metadata={"help": "representation that serves as query and as key of the memory"},
    )
    ce_warmup_epoch: int = field(
        default=0,
        metadata={"help": "train with plain cross-entropy in epochs 1 to N"},
    )
    exact_tails: bool = field(
        default=False,
        metadata={
            "help": "adaptive softmax: charge the words at cutoff + 1 for their place in the tail, too; "
            "the published code and adaptive_loss do not (their padding index hides them)"
        },
    )
    memory_impl: ChoiceEnum(IMPLEMENTATIONS) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "how memories are computed: chunked (PyTorch), triton (CUDA), naive (all similarities at "
            "once, for comparisons); auto is chunked, and triton on GPUs where it is faster"
        },
    )
    sentence_avg: bool = II("optimization.sentence_avg")
    ddp_backend: str = II("distributed_training.ddp_backend")
    distributed_world_size: int = II("distributed_training.distributed_world_size")


class Memory(NamedTuple):
    """Keys [M, d], the token that followed each of them [M], which of them each query sees, and the range
    of keys that have a gradient (None: all)."""

    keys: Tensor
    tokens: Tensor
    visibility: Visibility
    key_grad: Optional[Tuple[int, int]] = None


class TrimeCriterion(FairseqCriterion):
    """Base of the criterions; a subclass says which memory a token sees (:meth:`memory`).

    ``devices_per_memory`` is the number of devices that share a memory, None if the memory of a token lies
    within its segment, so that batches may be any.

    Raises:
        ValueError: for a ``--ddp-backend`` that cannot train it, or a warm-up without our task.
    """

    devices_per_memory: Optional[int] = None

    def __init__(self, cfg: TrimeCriterionConfig, task: Any) -> None:
        super().__init__(task)
        if cfg.distributed_world_size > 1 and cfg.ddp_backend not in _WORKING_DDP_BACKENDS:
            raise ValueError(
                f"--ddp-backend {cfg.ddp_backend} cannot train a TRIME criterion on several devices: "
                "use --ddp-backend legacy_ddp"
            )
        if cfg.ce_warmup_epoch > 0 and not hasattr(task, "epoch"):
            raise ValueError(
                "--ce-warmup-epoch needs a task that knows the epoch: use --task trime_language_modeling"
            )
        self.knn_keytype = cfg.knn_keytype
        self.ce_warmup_epoch = cfg.ce_warmup_epoch
        self.uncharged_tail_index = None if cfg.exact_tails else self.padding_idx
        self.memory_impl = cfg.memory_impl
        self.sentence_avg = cfg.sentence_avg

    @abstractmethod
    def memory(self, representation: Tensor, target: Tensor, sample: Dict[str, Any]) -> Callable[[], Memory]:
        """The memory of a batch, once the function that is returned is called.

        Args:
            representation: g(c), [B, L, d], with its gradient.
            target: the token that follows each context, int64 [B, L], padding included.
            sample: the whole batch.

        Returns:
            Keys, their tokens, and the visibility for the B * L queries in row order.
        """

    def forward(
        self, model: Any, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Loss in nats, summed or (not ``reduce``) per token [B * L] with 0 at padding; the number of
        tokens, or of sentences with ``--sentence-avg``; sums over the batch for the log."""
        with RepresentationTap(model.decoder, self.knn_keytype) as tap:
            output, is_features = run_decoder(model, sample["net_input"])
        target = sample["target"]
        flat_target = target.reshape(-1)
        padding = flat_target.eq(self.padding_idx)
        # In warm-up the memory is not even computed: it runs at the speed of plain training.
        warming_up = self.training and self._warming_up()
        if not warming_up:
            representation = tap.representation(output if is_features else None)
            # Keys travel between devices while the token softmax is computed.
            memory_when_there = self.memory(representation, target, sample)
        host_target = sample.get("host_target")
        token_lse, target_logit = token_scores(
            model.decoder,
            output.reshape(-1, output.size(-1)),
            is_features,
            flat_target,
            self.uncharged_tail_index,
            None if host_target is None else host_target.reshape(-1),
        )
        loss = (token_lse - target_logit).masked_fill(padding, 0.0)
        sums = {"ori_loss": loss.detach().sum()}
        if not warming_up:
            memory = memory_when_there()
            queries = representation.reshape(-1, representation.size(-1))
            all_lse, positive_lse = memory_lse(
                queries,
                memory.keys,
                flat_target,
                memory.tokens,
                memory.visibility,
                scale=queries.size(1) ** -0.5,
                key_grad=memory.key_grad,
                impl=str(self.memory_impl),
            )
            loss = -trime_log_prob(token_lse, target_logit, all_lse, positive_lse)
            loss = loss.masked_fill(padding, 0.0)
            sums["norm_loss"] = loss.detach().sum()
            mass, share = memory_mass(token_lse, all_lse), positive_share(target_logit, positive_lse)
            sums["mem_mass"] = mass.detach().masked_fill(padding, 0.0).sum()
            sums["mem_share"] = share.detach().masked_fill(padding, 0.0).sum()

        sentences = sample.get("nsentences", target.size(0))
        sample_size = sentences if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.detach().sum() if reduce else loss.detach(),
            **sums,
            "ntokens": sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        return (loss.sum() if reduce else loss), sample_size, logging_output

    def _warming_up(self) -> bool:
        return self.ce_warmup_epoch > 0 and self.task.epoch <= self.ce_warmup_epoch

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Logs, weighted by token over devices and accumulated batches: ``loss`` (what is optimised),
        ``ori_loss`` (cross-entropy) and ``norm_loss`` (TRIME) in bits per token, ``ppl`` of ``loss``;
        ``mem_mass``, the share of the distribution that lies on memories, and ``mem_share``, the share
        of the target's probability that comes from them."""
        ntokens = utils.item(sum(log.get("ntokens", 0) for log in logging_outputs))
        if not ntokens:
            return
        units = {"loss": math.log(2), "ori_loss": math.log(2), "norm_loss": math.log(2)}
        for name in ("loss", "ori_loss", "norm_loss", "mem_mass", "mem_share"):
            sums = [log[name] for log in logging_outputs if name in log]
            if sums:
                value = utils.item(sum(sums)) / ntokens / units.get(name, 1.0)
                metrics.log_scalar(name, value, ntokens, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums over tokens."""
        return True

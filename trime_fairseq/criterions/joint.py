"""What all criterions share, of language models and of translation: the warm-up, the refusals, the log."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from ..flags.bounds import Bounds, check_bounds
from ..memory import memory_mass, positive_share

# The other backends average gradients in a wrapper that expects every parameter to be used inside
# the model's own forward pass; the output projection is used outside of it, the tails of an adaptive softmax
# not in every step.
_WORKING_DDP_BACKENDS = ("legacy_ddp", "no_c10d")


@dataclass
class WarmUpConfig(FairseqDataclass):
    ce_warmup_epoch: int = field(
        default=0,
        metadata={"help": "train with plain cross-entropy in epochs 1 to N", "bounds": Bounds(0)},
    )
    ce_warmup_updates: int = field(
        default=0,
        metadata={
            "help": "train with plain cross-entropy in the first N updates, or in those of --ce-warmup-epoch "
            "if they are more",
            "bounds": Bounds(0),
        },
    )
    sentence_avg: bool = II("optimization.sentence_avg")
    ddp_backend: str = II("distributed_training.ddp_backend")
    distributed_world_size: int = II("distributed_training.distributed_world_size")


@runtime_checkable
class SteppingTask(Protocol):
    """What criterions read of a task of this package, beside what they read of any task.

    Attributes:
        epoch: the current epoch, from 1.
        update_num: the current update, from 0.
    """

    epoch: int
    update_num: int


class JointCriterion(FairseqCriterion):
    """Base of all criterions with one softmax over tokens and memories.

    Attributes:
        sees_later_tokens: whether the memory holds tokens that come later in the text; the perplexity of the
            loss is then no language model's, and is logged as ``batch_ppl``.
        warms_up: whether training begins with plain cross-entropy.

    Raises:
        ValueError: for a ``--ddp-backend`` that cannot train it, and numbers out of bounds.
    """

    sees_later_tokens = False
    task: Any

    def __init__(self, cfg: WarmUpConfig, task: Any) -> None:
        super().__init__(task)
        if cfg.distributed_world_size > 1 and cfg.ddp_backend not in _WORKING_DDP_BACKENDS:
            raise ValueError(
                f"--ddp-backend {cfg.ddp_backend} cannot train a TRIME criterion on several devices: "
                "use --ddp-backend legacy_ddp"
            )
        check_bounds(WarmUpConfig, cfg)
        self.warms_up = cfg.ce_warmup_epoch > 0 or cfg.ce_warmup_updates > 0
        self.ce_warmup_epoch = cfg.ce_warmup_epoch
        self.ce_warmup_updates = cfg.ce_warmup_updates
        self.sentence_avg = cfg.sentence_avg

    def warming_up(self) -> bool:
        """Whether this step trains with plain cross-entropy: the memory is not even computed. Validation is
        always with memories."""
        return self.training and (
            self.warms_up
            and (self.task.epoch <= self.ce_warmup_epoch or self.task.update_num < self.ce_warmup_updates)
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Logs averages per token over devices and accumulated batches.

        ``loss`` (what is optimised), ``ori_loss`` (cross-entropy) and ``norm_loss`` (TRIME) are in bits,
        ``ppl`` is that of ``loss``; named ``batch_ppl`` where tokens saw later ones. ``mem_mass`` is the
        share of the distribution that lies on memories, ``mem_share`` the share of the target's probability
        that comes from them. ``softmax_temp`` is a learnt temperature.
        """
        ntokens = utils.item(sum(log.get("ntokens", 0) for log in logging_outputs))
        if not ntokens:
            return
        units = {"loss": math.log(2), "ori_loss": math.log(2), "norm_loss": math.log(2)}
        for name in ("loss", "ori_loss", "norm_loss", "mem_mass", "mem_share", "softmax_temp"):
            sums = [log[name] for log in logging_outputs if name in log]
            if sums:
                value = utils.item(sum(sums)) / ntokens / units.get(name, 1.0)
                metrics.log_scalar(name, value, ntokens, round=3)
        name = "batch_ppl" if cls.sees_later_tokens else "ppl"
        metrics.log_derived(name, lambda meters: utils.get_perplexity(meters["loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All logged values are sums over tokens."""
        return True


def plain_sums(token_lse: Tensor, target_logit: Tensor, uncounted: Tensor | None = None) -> dict[str, Tensor]:
    """What is logged of every step: ``ori_loss``, summed over the tokens that are not ``uncounted``."""
    return {"ori_loss": _total(token_lse - target_logit, uncounted)}


def memory_sums(
    loss: Tensor,
    token_lse: Tensor,
    target_logit: Tensor,
    all_lse: Tensor,
    positive_lse: Tensor,
    uncounted: Tensor | None = None,
) -> dict[str, Tensor]:
    """What is logged of a step with memories: from its summed loss, and the four numbers of each token."""
    return {
        "norm_loss": loss.detach(),
        "mem_mass": _total(memory_mass(token_lse, all_lse), uncounted),
        "mem_share": _total(positive_share(target_logit, positive_lse), uncounted),
    }


def _total(values: Tensor, uncounted: Tensor | None) -> Tensor:
    values = values.detach()
    return (values if uncounted is None else values.masked_fill(uncounted, 0.0)).sum()

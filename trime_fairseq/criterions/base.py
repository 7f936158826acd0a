"""What every TRIME criterion shares: the objective, the warm-up and the logging."""

import logging
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from ..data.order import TrainingOrder
from ..data.planned import TrainingSample
from ..flags.bounds import Bounds, check_bounds
from ..memory import (
    Gathered,
    PendingGather,
    Visibility,
    memory_lse,
    memory_mass,
    positive_share,
    trime_log_prob,
)
from ..models.config import KeyConfig, refuse_triton_on_cpu
from ..models.output import run_decoder, token_scores
from ..models.representation import RepresentationTap
from .temperature import TrainingTemperature

logger = logging.getLogger(__name__)

# The other backends average gradients in a wrapper that expects every parameter to be used inside
# the model's own forward pass; an adaptive softmax is used outside of it, its tails not in every step.
_WORKING_DDP_BACKENDS = ("legacy_ddp", "no_c10d")


@dataclass
class TrimeCriterionConfig(KeyConfig):
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
    train_softmax_temp: str = field(
        default="1",
        metadata={
            "help": "temperature of the similarities to memories in training: a positive number, or 'learnt' "
            "with the model; checkpoints hold it, and evaluation takes it by default"
        },
    )
    sentence_avg: bool = II("optimization.sentence_avg")
    ddp_backend: str = II("distributed_training.ddp_backend")
    distributed_world_size: int = II("distributed_training.distributed_world_size")


@runtime_checkable
class TrainingTask(Protocol):
    """What criterions read of ``--task trime_language_modeling``, beside what they read of any task.

    Attributes:
        epoch: the current epoch, from 1.
        update_num: the current update, from 0.
        order: the order of batches.
    """

    epoch: int
    update_num: int
    order: TrainingOrder


class Memory(NamedTuple):
    """The keys of a batch and who sees them.

    Attributes:
        keys: [M, d].
        tokens: the token that followed each key, int64 [M].
        visibility: which keys each of the B * L positions of the batch sees, in row order.
        key_grad: the range [begin, end) of keys that have a gradient; None: all.
    """

    keys: Tensor
    tokens: Tensor
    visibility: Visibility
    key_grad: tuple[int, int] | None = None

    def wait(self) -> "Memory":
        """Itself: nothing is on its way."""
        return self


class PendingMemory(NamedTuple):
    """A memory whose keys may still travel between devices; :meth:`wait` gives it."""

    gather: Gathered | PendingGather
    visibility: Visibility

    def wait(self) -> Memory:
        keys, tokens, key_grad = self.gather.wait()
        return Memory(keys, tokens, self.visibility, key_grad)


class TrimeCriterion(FairseqCriterion):
    """Base of the criterions. A subclass says which memory a token sees: see :meth:`memory`.

    Attributes:
        devices_per_memory: number of consecutive devices that share a memory; the task then plans their
            batches together. None: memory lies within the batch, which may be any.
        sees_later_tokens: whether the memory holds tokens that come later in the text; the perplexity of the
            loss is then no language model's, and is logged as ``batch_ppl``.
        temperature: of ``--train-softmax-temp``.

    Raises:
        ValueError: for a ``--ddp-backend`` that cannot train it, a warm-up of a negative length, a
            temperature that is none, and a warm-up or another temperature than 1 without our task.
    """

    devices_per_memory: int | None = None
    sees_later_tokens = False
    task: TrainingTask

    def __init__(self, cfg: TrimeCriterionConfig, task: TrainingTask) -> None:
        super().__init__(task)
        if cfg.distributed_world_size > 1 and cfg.ddp_backend not in _WORKING_DDP_BACKENDS:
            raise ValueError(
                f"--ddp-backend {cfg.ddp_backend} cannot train a TRIME criterion on several devices: "
                "use --ddp-backend legacy_ddp"
            )
        check_bounds(TrimeCriterionConfig, cfg)
        refuse_triton_on_cpu(str(cfg.memory_impl), torch.cuda.is_available())
        self.temperature = TrainingTemperature(str(cfg.train_softmax_temp))
        self.warms_up = cfg.ce_warmup_epoch > 0 or cfg.ce_warmup_updates > 0
        if not isinstance(task, TrainingTask) and (self.warms_up or not self.temperature.is_published):
            raise ValueError(
                "--ce-warmup-epoch, --ce-warmup-updates and --train-softmax-temp need a task that knows the "
                "epoch and the update, and saves the temperature: use --task trime_language_modeling"
            )
        self.knn_keytype = cfg.knn_keytype
        self.ce_warmup_epoch = cfg.ce_warmup_epoch
        self.ce_warmup_updates = cfg.ce_warmup_updates
        self.uncharged_tail_index = None if cfg.exact_tails else self.padding_idx
        self.memory_impl = cfg.memory_impl
        self.sentence_avg = cfg.sentence_avg

    @abstractmethod
    def memory(
        self, representation: Tensor, target: Tensor, sample: TrainingSample
    ) -> Memory | PendingMemory:
        """The memory of a batch. Keys of other devices start to travel here, and are waited for once the
        token softmax is computed.

        Args:
            representation: g(c), [B, L, d], with its gradient.
            target: the token that follows each context, int64 [B, L], padding included.
            sample: the whole batch.
        """

    def forward(
        self, model: Any, sample: TrainingSample, reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Loss, sample size and log of a batch, as fairseq wants them.

        Returns:
            The loss in nats, summed, or (not ``reduce``) per token [B * L] with 0 at padding; the number
            of tokens, or of sentences with ``--sentence-avg``; sums over the batch for the log.
        """
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
            pending = self.memory(representation, target, sample)
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
            memory = pending.wait()
            queries, scale = self.temperature.scaled(representation.flatten(0, 1))
            all_lse, positive_lse = memory_lse(
                queries,
                memory.keys,
                flat_target,
                memory.tokens,
                memory.visibility,
                scale=scale,
                key_grad=memory.key_grad,
                impl=str(self.memory_impl),
            )
            loss = -trime_log_prob(token_lse, target_logit, all_lse, positive_lse)
            loss = loss.masked_fill(padding, 0.0)
            sums["norm_loss"] = loss.detach().sum()
            mass, share = memory_mass(token_lse, all_lse), positive_share(target_logit, positive_lse)
            sums["mem_mass"] = mass.detach().masked_fill(padding, 0.0).sum()
            sums["mem_share"] = share.detach().masked_fill(padding, 0.0).sum()
            temperature = self.temperature.learnt()
            if temperature is not None:
                sums["softmax_temp"] = temperature * sample["ntokens"]

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
        return self.warms_up and (
            self.task.epoch <= self.ce_warmup_epoch or self.task.update_num < self.ce_warmup_updates
        )

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As of any module; None is what fairseq saves of a criterion without parameters."""
        if state_dict is None:
            logger.info(
                "TRIME: the checkpoint has no learnt temperature: it starts at 1 (to go on with another "
                "--train-softmax-temp than before takes --reset-optimizer)"
            )
            state_dict = self.state_dict()
        return super().load_state_dict(state_dict, *args, **kwargs)

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

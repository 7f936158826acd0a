"""What the criterions of language models share: the pass of the decoder, the objective, the temperature."""

import logging
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..data.order import TrainingOrder
from ..data.planned import TrainingSample
from ..memory import (
    Gathered,
    PendingGather,
    Visibility,
    memory_lse,
    trime_log_prob,
)
from ..models.config import KeyConfig, refuse_triton_on_cpu
from ..models.output import run_decoder, token_scores
from ..models.representation import RepresentationTap
from .joint import JointCriterion, SteppingTask, WarmUpConfig, memory_sums, plain_sums
from .temperature import TrainingTemperature

logger = logging.getLogger(__name__)


@dataclass
class TrimeCriterionConfig(KeyConfig, WarmUpConfig):
    train_softmax_temp: str = field(
        default="1",
        metadata={
            "help": "temperature of the similarities to memories in training: a positive number, or 'learnt' "
            "with the model; checkpoints hold it, and evaluation takes it by default"
        },
    )


@runtime_checkable
class TrainingTask(SteppingTask, Protocol):
    """What criterions read of ``--task trime_language_modeling``.

    Attributes:
        order: the order of batches.
    """

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


class TrimeCriterion(JointCriterion):
    """Base of the criterions of language models. A subclass says which memory a token sees: see
    :meth:`memory`.

    Attributes:
        devices_per_memory: number of consecutive devices that share a memory; the task then plans their
            batches together. None: memory lies within the batch, which may be any.
        temperature: of ``--train-softmax-temp``.

    Raises:
        ValueError: as of :class:`JointCriterion`; for a temperature that is none, and a warm-up or another
            temperature than 1 without our task.
    """

    devices_per_memory: int | None = None
    task: TrainingTask

    def __init__(self, cfg: TrimeCriterionConfig, task: TrainingTask) -> None:
        super().__init__(cfg, task)
        refuse_triton_on_cpu(str(cfg.memory_impl), torch.cuda.is_available())
        self.temperature = TrainingTemperature(str(cfg.train_softmax_temp))
        if not isinstance(task, TrainingTask) and (self.warms_up or not self.temperature.is_published):
            raise ValueError(
                "--ce-warmup-epoch, --ce-warmup-updates and --train-softmax-temp need a task that knows the "
                "epoch and the update, and saves the temperature: use --task trime_language_modeling"
            )
        self.knn_keytype = cfg.knn_keytype
        self.uncharged_tail_index = None if cfg.exact_tails else self.padding_idx
        self.memory_impl = cfg.memory_impl

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
        warming_up = self.warming_up()
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
        sums = plain_sums(token_lse, target_logit, padding)
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
            sums.update(memory_sums(loss.sum(), token_lse, target_logit, all_lse, positive_lse, padding))
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

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As of any module; None is what fairseq saves of a criterion without parameters."""
        if state_dict is None:
            logger.info(
                "TRIME: the checkpoint has no learnt temperature: it starts at 1 (to go on with another "
                "--train-softmax-temp than before takes --reset-optimizer)"
            )
            state_dict = self.state_dict()
        return super().load_state_dict(state_dict, *args, **kwargs)

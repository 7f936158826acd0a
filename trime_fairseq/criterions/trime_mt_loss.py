"""``--criterion trime_mt_loss``: the memory of a target token is the other sentences of the batch."""

import math
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from ..data.host_targets import host_copy
from ..data.planned import TrainingSample
from ..distributed import rank
from ..flags.bounds import TEMPERATURE, Bounds, check_bounds
from ..memory import (
    METRICS,
    Visibility,
    nearest_lse,
    similarity_scale,
    start_counts,
    start_gather,
)
from ..models.output import count_correct, joint_loss, refuse_adaptive_softmax, run_decoder
from ..models.representation import RepresentationTap
from .joint import JointCriterion, SteppingTask, WarmUpConfig, memory_sums, plain_sums
from .target_rows import TargetRows, put, take


@dataclass
class TrimeMtConfig(WarmUpConfig):
    dist_func: ChoiceEnum(METRICS) = field(  # type: ignore[valid-type]
        default="ip",
        metadata={"help": "similarity to memories: inner product (ip), or minus the squared distance (l2)"},
    )
    temp: float = field(
        default=1.0,
        metadata={
            "help": "temperature of the similarities, which are divided by sqrt(d) as well",
            "bounds": TEMPERATURE,
        },
    )
    topk_mem: Optional[int] = field(
        default=None,
        metadata={
            "help": "the N most similar memories of a token are its memory; default: all",
            "bounds": Bounds(1),
        },
    )
    ce_warmup_ratio: Optional[float] = field(
        default=None,
        metadata={
            "help": "train with plain cross-entropy in the first updates, this share of --max-update; or in "
            "those of another warm-up if they are more",
            "bounds": Bounds(0, 1),
        },
    )
    ignore_prefix_size: int = field(
        default=0,
        metadata={
            "help": "the first N tokens of each target sentence have no loss; they are memory all the same",
            "bounds": Bounds(0),
        },
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "must be 0: this loss has no label smoothing"}
    )
    report_accuracy: bool = field(
        default=False,
        metadata={"help": "log how many targets are the best of the plain softmax, in percent"},
    )
    max_update: int = II("optimization.max_update")


@register_criterion("trime_mt_loss", dataclass=TrimeMtConfig)
class TrimeMtLoss(JointCriterion):
    """TrimeMT. A target token sees the tokens of all other target sentences, in the batches of all devices,
    or the ``--topk-mem`` most similar of them; nothing of its own sentence.

    Query and key are what the output projection is given. Keys of other devices have no gradient here.

    Raises:
        ValueError: as of :class:`JointCriterion`; naming the flag, for what this loss does not have, and for
            what needs our task; in the first step for a decoder with an adaptive softmax.
    """

    def __init__(self, cfg: TrimeMtConfig, task: Any) -> None:
        super().__init__(cfg, task)
        check_bounds(TrimeMtConfig, cfg)
        if cfg.label_smoothing:
            raise ValueError(
                f"--label-smoothing {cfg.label_smoothing}: trime_mt_loss has no label smoothing: leave it out"
            )
        self.warms_up = self.warms_up or bool(cfg.ce_warmup_ratio)
        several = cfg.distributed_world_size > 1
        if not isinstance(task, SteppingTask) and (self.warms_up or several):
            what = "on several devices" if several else "with a warm-up"
            raise ValueError(f"--criterion trime_mt_loss {what} needs --task trime_translation")
        if cfg.ce_warmup_ratio:
            if not cfg.max_update:
                raise ValueError(
                    f"--ce-warmup-ratio {cfg.ce_warmup_ratio} is a share of --max-update, which is not "
                    "given: pass it, or --ce-warmup-updates N"
                )
            of_ratio = round(cfg.ce_warmup_ratio * cfg.max_update)
            self.ce_warmup_updates = max(self.ce_warmup_updates, of_ratio)
        self.metric = str(cfg.dist_func)
        self.temperature = float(cfg.temp)
        self.topk = cfg.topk_mem
        self.ignore_prefix_size = cfg.ignore_prefix_size
        self.report_accuracy = cfg.report_accuracy

    def forward(
        self, model: Any, sample: TrainingSample, reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Loss, sample size and log of a batch, as fairseq wants them.

        Returns:
            The loss in nats, summed, or (not ``reduce``) per token [B * L] with 0 at padding; the number of
            tokens with a loss, or of sentences with ``--sentence-avg``; sums over the batch for the log.
        """
        refuse_adaptive_softmax(model.decoder)
        target, host_target = sample["target"], sample.get("host_target")
        if host_target is None:
            host_target = host_copy(target.cpu())
        rows = TargetRows.of(host_target, self.padding_idx, self.ignore_prefix_size)
        # The numbers of tokens on other devices arrive while the model runs.
        counts = None if self.warming_up() else start_counts(len(rows.tokens), target.device)
        with RepresentationTap(model.decoder, "model_output") as tap:
            output, is_features = run_decoder(model, sample["net_input"])
        flat_target = target.reshape(-1)
        scored, targets = (take(tensor, rows.scored) for tensor in (output.flatten(0, 1), flat_target))
        lses = None
        if counts is not None:
            features = tap.representation(output if is_features else None).flatten(0, 1)
            queries = scored if is_features else take(features, rows.scored)
            # Without a prefix they are the same rows.
            keys = take(features, rows.tokens) if self.ignore_prefix_size else queries
            lses = self._memory_lse(
                queries, keys, targets, take(flat_target, rows.tokens), rows, counts.wait()
            )
        loss, token_lse, target_logit = joint_loss(model.decoder, scored, is_features, targets, lses, reduce)

        sums = plain_sums(token_lse, target_logit)
        if lses is not None:
            sums.update(memory_sums(loss.sum(), token_lse, target_logit, *lses))
        if self.report_accuracy:
            sums["n_correct"] = count_correct(model.decoder, scored, is_features, targets)
        ntokens, sentences = len(rows.scored), sample.get("nsentences", target.size(0))
        sample_size = sentences if self.sentence_avg else ntokens
        if not reduce:
            loss = put(loss, rows.scored, rows.width)
        logging_output = {
            "loss": loss.detach(),
            **sums,
            "ntokens": ntokens,
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        return loss, sample_size, logging_output

    def _memory_lse(
        self,
        queries: Tensor,
        keys: Tensor,
        targets: Tensor,
        tokens: Tensor,
        rows: TargetRows,
        counts: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        """A and P of the queries, over the keys of all devices.

        Args:
            queries, targets: of the scored positions, [s, d] and [s].
            keys, tokens: of all positions of this device, [n, d] and [n].
            rows: which these are.
            counts: number of keys of each device.
        """
        memory = start_gather(keys, tokens, counts, rank()).wait()
        return nearest_lse(
            queries,
            memory.keys,
            targets,
            memory.tokens,
            Visibility.all_but(rows.intervals(before=sum(counts[: rank()])), total=sum(counts)),
            similarity_scale(queries.size(1), self.temperature),
            topk=self.topk,
            metric=self.metric,
            key_grad=memory.key_grad,
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """As of all criterions, with ``accuracy`` if ``--report-accuracy`` asks for it."""
        super().reduce_metrics(logging_outputs)
        correct = [log["n_correct"] for log in logging_outputs if "n_correct" in log]
        if correct:
            # As fairseq's own criterions do: an average over the tokens of an epoch.
            metrics.log_scalar("n_correct", utils.item(sum(correct)))
            metrics.log_scalar("total", utils.item(sum(log["ntokens"] for log in logging_outputs)))
            metrics.log_derived("accuracy", _accuracy)


def _accuracy(meters: Any) -> float:
    """In percent."""
    total = meters["total"].sum
    return round(100.0 * meters["n_correct"].sum / total, 3) if total > 0 else math.nan

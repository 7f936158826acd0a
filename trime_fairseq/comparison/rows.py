"""The sums of a row over the test text, from a record and the settings that were tuned."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ..evaluation import MemoryConfig
from ..tuning import Record, flags_of, mixture
from .contributions import occurs, shares
from .frequencies import BINS, Counts, bins_of
from .result import RowResult, SizePoint, TunedRow


@dataclass(frozen=True)
class GroupedText:
    """The N test tokens of a record, grouped.

    Attributes:
        hash: of the tokens and of how they are cut into samples.
        sample: number of the sample of each token among those that are there, int64 [N].
        bin: number of the bin of each token's frequency, int64 [N].
        tokens: of each sample.
        tokens_by_frequency: in each bin.
    """

    hash: str
    sample: Tensor
    bin: Tensor
    tokens: tuple[int, ...]
    tokens_by_frequency: tuple[int, ...]

    @classmethod
    def of(cls, record: Record, counts: Counts) -> "GroupedText":
        """Groups the tokens of a record; ``counts`` is how often each word stands in the training text."""
        digest = hashlib.sha256(record.targets.numpy().tobytes())
        digest.update(record.samples.numpy().tobytes())
        _, sample, tokens = record.samples.unique(return_inverse=True, return_counts=True)
        bin = torch.from_numpy(bins_of(counts))[record.targets]
        by_frequency = torch.bincount(bin, minlength=len(BINS))
        return cls(digest.hexdigest(), sample, bin, tuple(tokens.tolist()), tuple(by_frequency.tolist()))


def row_result(row: TunedRow, record: Record, text: GroupedText) -> RowResult:
    """Evaluates a row as it was tuned.

    Args:
        row: the best settings.
        record: of the test text, for these settings.
        text: how its tokens are grouped.
    """
    config = MemoryConfig(**row.best.setting)
    found = mixture(record, config)
    gain = (found.log_prob - (record.target_logit - record.token_lse)).double()
    inside = occurs(record, config)
    parts = shares(record, config, found.log_prob)
    return RowResult(
        memory=row.memory,
        setting=row.best.setting,
        flags=tuple(flags_of(config)),
        remarks=row.remarks,
        tuned_loss=row.best.loss,
        nll=_sums(-found.log_prob, text.sample, len(text.tokens)),
        mass=float(found.mass.double().mean()),
        shares={name: float(share.double().mean()) for name, share in parts.items()},
        gain_by_frequency=_sums(gain, text.bin, len(BINS)),
        gain_inside=float(gain[inside].sum()),
        gain_outside=float(gain[~inside].sum()),
        tokens_inside=int(inside.sum()),
        by_size=tuple(
            SizePoint(config.mem_size, setting.loss, _loss(record, config))
            for setting in row.by_size
            for config in [MemoryConfig(**setting.setting)]
        ),
    )


def _loss(record: Record, config: MemoryConfig) -> float:
    """Nats per token."""
    return -float(mixture(record, config).log_prob.double().mean())


def _sums(values: Tensor, group: Tensor, groups: int) -> tuple[float, ...]:
    """Float64 sums of values [N] by their group."""
    return tuple(torch.zeros(groups, dtype=torch.float64).index_add_(0, group, values.double()).tolist())

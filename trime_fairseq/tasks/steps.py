"""What the tasks know of a running training: epoch, update, and what its memory was worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fairseq.logging import metrics
from fairseq.tasks import FairseqTask

from ..criterions.summary import TrainingSummary


class SteppedTask(FairseqTask):
    """Base of the tasks, beside one of fairseq's.

    Attributes:
        epoch: the current epoch of a training, from 1.
        update_num: the current update, from 0.
        summary: of the losses, logged at the end.
    """

    epoch = 1
    update_num = 0
    summary: TrainingSummary

    def begin_epoch(self, epoch: int, model: Any) -> None:
        self.epoch = epoch
        self.summary.begin_epoch()

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        self.summary.begin_validation()

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        with metrics.aggregate() as meters:
            super().reduce_metrics(logging_outputs, criterion)
        if criterion.training:
            self.summary.add_update(meters)

    def post_validate(self, model: Any, stats: Any, meters: Any) -> None:
        """What fairseq calls with the log of a validation subset."""
        self.summary.add_validation(meters)


@contextmanager
def no_batch_skipped(shared: bool) -> Iterator[None]:
    """Around a step: where fairseq would skip a batch that the device has no room for, the training ends.

    Args:
        shared: whether the memory of the step is that of several devices. The others would wait for the keys
            of this one forever.

    Raises:
        RuntimeError: with the flag to change.
    """
    try:
        yield
    except RuntimeError as error:
        if shared and "out of memory" in str(error):
            raise RuntimeError(
                "no room left on the device, in a step whose memory several devices share: lower --max-tokens"
            ) from None
        raise

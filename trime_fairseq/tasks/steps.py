"""What may not happen in a step of a training."""

from collections.abc import Iterator
from contextlib import contextmanager


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

"""Takes keys from the model and writes them in a thread of its own, while the model goes on."""

import queue
import threading
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor


class RowSink(Protocol):
    """Where the rows of a datastore go, in order.

    Attributes:
        begin, end: the rows this process writes, ``begin <= row < end``.
        resume_row: the first row that is missing; rows before it may come again, and change nothing.
        key_dtype: ``float16`` or ``float32``.
    """

    begin: int
    end: int
    resume_row: int
    key_dtype: str

    def write(self, row: int, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Rows ``row``, ``row + 1``, ...: keys [n, d] of ``key_dtype``, values int64 [n]."""

    def finish(self) -> None:
        """Call once after the last row; completes the store."""

    def close(self) -> None:
        """Releases files and locks; may be called at any time."""


_Piece = tuple[Tensor, Tensor, Any]


class BackgroundSink:
    """Hands keys and values to a :class:`RowSink` in a thread.

    On an accelerator the copy to the host runs beside the model, too: nothing here waits for the device.

    Args:
        sink: it is used by the thread only.
        row: the row of the first key that will come.
        depth: number of batches that may wait; then :meth:`add` waits.
    """

    def __init__(self, sink: RowSink, row: int, depth: int = 4) -> None:
        self._sink = sink
        self._row = row
        self._dtype = torch.float16 if sink.key_dtype == "float16" else torch.float32
        self._queue: queue.Queue[_Piece | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="datastore", daemon=True)
        self._thread.start()

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Keys [n, d] and values int64 [n] of the next rows, which must not be changed afterwards.

        Raises:
            Exception: what an earlier write raised.
        """
        self._raise()
        arrived: Any = None
        if keys.is_cuda:
            keys, values = _to_host(keys.to(self._dtype)), _to_host(values)
            new_event: Any = torch.cuda.Event  # PyTorch does not type it
            arrived = new_event()
            arrived.record()
        self._queue.put((keys, values, arrived))

    def finish(self) -> None:
        """Call once after the last row: waits until everything is written, completes the store.

        Raises:
            Exception: what a write raised.
        """
        self._queue.put(None)
        self._thread.join()
        try:
            self._raise()
            self._sink.finish()
        finally:
            self._sink.close()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (piece := self._queue.get()) is not None:
            if self._error is not None:
                continue  # nobody may wait for room in the queue
            keys, values, arrived = piece
            try:
                if arrived is not None:
                    arrived.synchronize()
                self._sink.write(self._row, keys.to(self._dtype).numpy(), values.numpy())
                self._row += len(values)
            except BaseException as error:  # raised where the model runs
                self._error = error


def _to_host(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)

"""The nearest keys of a datastore, by a Faiss index."""

import importlib
import logging
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from ..distributed import world_size
from ..flags.bounds import Bounds, check_argument
from .contents import check_keys, check_values
from .datastore import Datastore, DatastoreError
from .index.checks import BUILD_AGAIN
from .index.faiss_library import faiss_error, import_faiss
from .index.files import Index

logger = logging.getLogger(__name__)

SIMILARITIES = ("ip", "l2", "cos", "do_not_recomp_l2")
# What Faiss can select on a GPU.
GPU_LIMIT = 2048
# Numbers gathered at a time where similarities are computed again from the keys.
_GATHERED = 2**24
_ON_THE_CPU = "search on the CPU (`devices`)"


class Neighbors(NamedTuple):
    """The neighbours of N queries, nearest first as the index found them.

    Attributes:
        scores: float32 [N, k], larger is nearer: inner product, cosine, or minus the squared distance;
            -inf where the index found less than k.
        tokens: the token that followed each key, int64 [N, k]; -1 where there is none.
        rows: their rows in the datastore, int64 [N, k]; -1 where there is none.
    """

    scores: Tensor
    tokens: Tensor
    rows: Tensor


class Retriever:
    """Searches the neighbours of queries.

    The index stays on the CPU, or is spread over GPUs, where queries and results never leave the device.

    Args:
        index: over the keys of ``store``; see :func:`~.index.files.open_index`.
        store: the datastore; its values are held in memory.
        k: number of neighbours.
        probe: lists that an inverted-file index visits; None as the index says.
        similarity: how scores are computed: None takes those of Faiss, but computes L2 distances again
            from the keys; ``ip``, ``l2`` and ``cos`` compute them from the keys; ``do_not_recomp_l2``
            takes Faiss's approximate distances.
        load_keys: False where the keys shall not be read, even if ``store`` has them.
        keys_in_memory: read all keys into memory.
        devices: numbers of the GPUs that hold the index; none for the CPU.
        vocabulary: number of symbols of the model's dictionary, if it is known.

    Raises:
        DatastoreError: if k exceeds the store or what a GPU can, keys are missing that are needed, or what
            the store holds is damaged or another's (:mod:`~.contents`).
    """

    def __init__(
        self,
        index: Index,
        store: Datastore,
        *,
        k: int,
        probe: int | None = None,
        similarity: str | None = None,
        load_keys: bool = True,
        keys_in_memory: bool = False,
        devices: tuple[int, ...] = (),
        vocabulary: int | None = None,
    ) -> None:
        for name, number in (("k", k), ("probe", probe)):
            if number is not None:
                check_argument(name, number, Bounds(1), DatastoreError)
        if k > store.rows:
            raise DatastoreError(f"`k` {k:,} exceeds the datastore {store.prefix} of {store.rows:,} rows")
        if devices and max(k, probe or 0) > GPU_LIMIT:
            raise DatastoreError(
                f"`k` {k} and `probe` {probe} exceed the {GPU_LIMIT} that Faiss takes on a GPU: lower them, "
                f"or {_ON_THE_CPU}"
            )
        if devices:
            # From now on searches take and return tensors. (PyTorch 1.12 lacks what this module needs.)
            importlib.import_module("faiss.contrib.torch_utils")
        self.metric, self.k = index.metric, k
        self._similarity = "l2" if similarity is None and self.metric == "l2" else similarity
        self._keys: NDArray[Any] | None = None
        if self._similarity in ("ip", "l2", "cos"):
            if store.keys is None or not load_keys:
                missing = "not stored:" if load_keys else "not loaded: leave out `load_keys`, or"
                raise DatastoreError(
                    f"`similarity` {self._similarity} computes similarities from the keys, which are "
                    f"{missing} pass `similarity` do_not_recomp_l2 (L2 only)"
                )
            self._keys = np.array(store.keys) if keys_in_memory else store.keys
            check_keys(index, store)
        largest = check_values(store, vocabulary)
        _set_probe(index.faiss, probe)
        self._indexes = _to_devices(index.faiss, devices) if devices else [index.faiss]
        self._prefix = store.prefix
        home = torch.device("cuda", devices[0]) if devices else torch.device("cpu")
        # Made narrow while it is read: of 100M tokens the file's int64 would take 800 MB.
        values = np.array(store.values, dtype=np.int32 if largest < 2**31 else np.int64)
        self._values = torch.from_numpy(values).to(home)

    @property
    def reads_keys(self) -> bool:
        """Whether scores are computed from the keys."""
        return self._keys is not None

    def search(self, queries: Tensor) -> Neighbors:
        """The neighbours of queries [N, d], on their device; one search for all of them."""
        device = queries.device
        # Faiss reads host memory at once: only copies between GPUs may still be under way.
        wanted = queries.float().to(self._values.device, non_blocking=self._values.is_cuda)
        if self.metric == "cos":
            wanted = functional.normalize(wanted)
        scores, rows = self.search_faiss(wanted.contiguous())
        if self.metric == "l2":
            scores = -scores
        self._check_found(scores, rows)
        tokens = self._values[rows.clamp_min(0)].long()
        if self._keys is not None:
            scores = self._from_keys(queries.float(), rows).to(scores.device)
            self._check_found(scores, rows)
        missing = rows < 0
        return Neighbors(
            scores.masked_fill(missing, -torch.inf).to(device, non_blocking=True),
            tokens.masked_fill(missing, -1).to(device, non_blocking=True),
            rows.to(device, non_blocking=True),
        )

    def _check_found(self, scores: Tensor, rows: Tensor) -> None:
        """Checks what Faiss returned, on the CPU only: a GPU would have to be waited for. The ids of most
        indexes were checked when they were opened."""
        if rows.is_cuda or scores.is_cuda or not len(rows):
            return
        first, last = int(rows.min()), int(rows.max())
        if first < -1 or last >= len(self._values):
            raise DatastoreError(
                f"the index found rows from {first:,} to {last:,} of {len(self._values):,}: it is damaged; "
                f"{BUILD_AGAIN}"
            )
        if bool((~scores.isfinite() & (rows >= 0)).any()):
            raise DatastoreError(
                "scores of neighbours are no numbers: the keys of the text, of the datastore "
                f"{self._prefix} or of its index hold NaN, infinity or a number that is too large; "
                f"trime-datastore verify {self._prefix} tells about the latter two"
            )

    def search_faiss(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """What Faiss itself gives, its scores float32 [N, k] and rows int64 [N, k], for contiguous queries
        float32 [N, d] on the device of the index."""
        found: list[tuple[Tensor, Tensor]] = []
        for index in self._indexes:
            if not queries.is_cuda:
                try:
                    scores, rows = map(torch.from_numpy, index.search(queries.numpy(), self.k))
                except RuntimeError as error:
                    raise DatastoreError(
                        f"Faiss cannot search the index ({faiss_error(error)}): verify it, or build it again"
                    ) from error
                found.append((scores, rows))
                continue
            # Faiss's GPU indexes take queries that lie on their own device, and work in the order of
            # its current stream.
            with torch.cuda.device(index.getDevice()):
                scores, rows = index.search(queries.to("cuda"), self.k)
                found.append((scores.to(queries.device), rows.to(queries.device)))
        if len(found) == 1:
            return found[0]
        return nearest_of(found, self.k, largest=self.metric != "l2")

    def _from_keys(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Exact similarities [N, k] in float32, of keys that are read where they lie."""
        assert self._keys is not None
        step = max(1, _GATHERED // (self.k * queries.size(1)))
        pieces = []
        for query, row in zip(torch.split(queries, step), torch.split(rows.clamp_min(0).cpu(), step)):
            keys = torch.from_numpy(self._keys[row.numpy()]).to(query.device).float()
            if self._similarity == "l2":
                pieces.append(-(keys - query.unsqueeze(1)).square().sum(-1))
                continue
            if self._similarity == "cos":
                keys, query = functional.normalize(keys, dim=-1), functional.normalize(query)
            pieces.append(torch.bmm(keys, query.unsqueeze(2)).squeeze(2))
        return torch.cat(pieces)


def nearest_of(found: list[tuple[Tensor, Tensor]], k: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The k best of the (scores, rows) [N, k] that parts of an index found, best first."""
    scores, rows = (torch.cat(pieces, 1) for pieces in zip(*found))
    worst = -torch.inf if largest else torch.inf
    best, column = scores.masked_fill(rows < 0, worst).topk(k, dim=1, largest=largest)
    return best, rows.gather(1, column)


def gpus_for_index() -> tuple[int, ...]:
    """The GPUs for the index: all but the model's where there are several; where several processes evaluate
    together, each one's own."""
    faiss = import_faiss()
    count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if count == 0 or not torch.cuda.is_available():
        return ()
    own = torch.cuda.current_device()
    if world_size() > 1 or count == 1:
        return (own,)
    return tuple(device for device in range(count) if device != own)


def _set_probe(index: Any, probe: int | None) -> None:
    faiss = import_faiss()
    if probe is None:
        return
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        logger.info("TRIME: the index has no inverted lists, probe has no effect on it")
    else:
        lists.nprobe = min(probe, lists.nlist)


def _to_devices(index: Any, devices: tuple[int, ...]) -> list[Any]:
    faiss = import_faiss()
    options = faiss.GpuMultipleClonerOptions()
    options.useFloat16 = True
    options.shard = len(devices) > 1
    resources = [faiss.StandardGpuResources() for _ in devices]
    try:
        spread = faiss.index_cpu_to_gpu_multiple_py(resources, index, options, list(devices))
    except RuntimeError as error:
        raise DatastoreError(
            f"the index does not go onto the GPU ({str(error).splitlines()[-1]}): {_ON_THE_CPU}"
        ) from error
    parts = [spread]
    if len(devices) > 1 and hasattr(spread, "at"):
        if spread.successive_ids:
            raise DatastoreError(f"an index without lists is not spread over GPUs: {_ON_THE_CPU}")
        parts = [faiss.downcast_index(spread.at(number)) for number in range(len(devices))]
    if not all(hasattr(part, "getDevice") for part in parts):
        raise DatastoreError(f"Faiss keeps a part of this index on the CPU: {_ON_THE_CPU}")
    parts[0].owner = (spread, resources)  # the parts live as long as the whole
    return parts

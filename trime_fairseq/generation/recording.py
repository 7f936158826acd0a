"""Writes the datastore of a translation: target tokens of a text, and the features that predict them.

The stock ``fairseq-generate`` runs it: it asks the task for batches, and a generator for hypotheses. The
batches are a :class:`RecordedText`, and its ``scorer`` stores instead of translating.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, iterators
from numpy.typing import NDArray

from ..data.pair_files import PairFiles
from ..data.text_order import contiguous_shard
from ..datastore import BackgroundSink, Manifest, RowSink
from ..evaluation.recorder import KeyRecorder, RowRanges
from ..evaluation.result import Shard
from ..files import file_hash, symbols_hash, text_hash
from ..models.output import run_decoder
from ..models.representation import RepresentationTap, key_dimension
from .config import TranslationMemoryConfig
from .memory import check_decoder

logger = logging.getLogger(__name__)

#: What search and datastore take as keys.
KEY_TYPE = "model_output"


class RecordedText:
    """The batches of a text that are missing in its datastore; it ends the command when they are through.

    Rows are in the order of ``sentences``, and in a sentence from left to right: they do not depend on the
    size of batches, and each shard has a range of its own.

    Args:
        dataset: fairseq's, of sentence pairs.
        batches: all batches of the text, each an array of numbers of sentences.
        shard: the part of this process.
        limit: number of rows, if not all; the first ones.

    Attributes:
        sentences: their numbers in the order of rows, int64 [S].
        rows: number of rows of the whole datastore.
        scorer: after :meth:`write_to`; stores what it is given.
        n: number of batches so far, as fairseq's progress bar reads it.

    Raises:
        ValueError: if there is nothing to store.
    """

    scorer: "RecordingScorer"

    def __init__(
        self, dataset: Any, batches: Sequence[NDArray[np.int64]], shard: Shard, limit: int | None = None
    ) -> None:
        if dataset.tgt_sizes is None:
            raise ValueError(
                "--save-knnlm-dstore: --gen-subset has no target sentences, whose tokens a datastore holds"
            )
        if not batches:
            raise ValueError(
                "--save-knnlm-dstore: no sentence of --gen-subset fits the positions of the model"
            )
        self._dataset = dataset
        self._shard = shard
        self.sentences = np.concatenate(batches).astype(np.int64)
        self._lengths = dataset.tgt_sizes[self.sentences].astype(np.int64)
        self._plan = RowRanges(self._lengths, np.zeros_like(self._lengths), limit=limit)
        self.rows = self._plan.rows
        # From here on batches hold places in the order of rows.
        ends = np.cumsum([len(batch) for batch in batches]).tolist()
        places = [list(range(end - len(batch), end)) for batch, end in zip(batches, ends)]
        self._batches = contiguous_shard(places, shard.count, shard.id)
        if not self._batches:
            raise ValueError(
                f"--num-shards {shard.count}: the text has {len(batches)} batches, so --shard-id {shard.id} "
                f"has none of them: pass at most {len(batches)}, or a smaller --max-tokens"
            )
        self._iterator: Any = ()
        self.n = 0

    def content_hash(self) -> str:
        """Of numbers and lengths of the sentences, in the order of rows."""
        sizes = (self._dataset.src_sizes[self.sentences], self._lengths)
        columns = [array.tolist() for array in (self.sentences, *sizes)]
        return text_hash("\n".join(map(str, zip(*columns))))

    def write_to(
        self,
        name: str,
        build_sink: Callable[[int, int], RowSink],
        num_workers: int = 0,
        buffer_size: int = 0,
    ) -> None:
        """Opens the datastore, and prepares the batches that it lacks.

        Args:
            name: of the datastore, for the log.
            build_sink: takes the rows [begin, end) of this process.
            num_workers, buffer_size: of fairseq's iterator.

        Raises:
            DatastoreError: for a datastore that cannot be written or continued.
        """
        begin, end = self._plan.range(self._batches)
        sink = build_sink(begin, end)
        missing, row = self._plan.missing(self._batches, sink.resume_row)
        if sink.resume_row >= end:
            logger.info(f"TRIME: rows {begin:,} to {end:,} of {name} are there already")
        elif sink.resume_row > begin:
            logger.warning(f"TRIME: continuing {name} at row {sink.resume_row:,} of {end:,}")
        else:
            logger.info(f"TRIME: writing rows {begin:,} to {end:,} to {name}")
        self._done = f"TRIME: rows {begin:,} to {end:,} are in {name}, one for each target token"
        recorder = KeyRecorder(BackgroundSink(sink, row), 0, end - row)
        self.scorer = RecordingScorer(recorder, self._dataset, self.sentences)
        epochs = iterators.EpochBatchIterator(
            dataset=self._dataset,
            collate_fn=self._dataset.collater,
            batch_sampler=[self.sentences[batch].tolist() for batch in missing],
            num_workers=num_workers,
            buffer_size=buffer_size,
        )
        # Newer fairseqs would keep the workers for another epoch.
        epochs.persistent_workers = False
        self._iterator = epochs.next_epoch_itr(shuffle=False)

    def next_epoch_itr(self, shuffle: bool = False) -> "RecordedText":
        """As of fairseq's iterators; the order of a datastore is fixed."""
        return self

    def __len__(self) -> int:
        return len(self._iterator)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the batches, then completes the datastore, or the part of this shard.

        Raises:
            SystemExit: at the end, without an error: fairseq would go on to report translations and their
                BLEU, and there are none.
        """
        for batch in self._iterator:
            self.n += 1
            yield batch
        self.scorer.recorder.finish()
        logger.info(self._done)
        sys.exit(0)


class RecordingScorer:
    """In place of fairseq's generator: takes the keys of a batch, and has no hypotheses.

    Args:
        recorder: gets keys and tokens, in the order of rows.
        dataset: of sentence pairs.
        sentences: their numbers in the order of rows, int64 [S].
    """

    def __init__(self, recorder: KeyRecorder, dataset: Any, sentences: NDArray[np.int64]) -> None:
        self.recorder = recorder
        self._lengths = dataset.tgt_sizes
        self._left_pad = bool(dataset.left_pad_target)
        self._place = np.full(len(dataset), -1)
        self._place[sentences] = np.arange(len(sentences))

    @torch.no_grad()
    def generate(self, models: Sequence[Any], sample: dict[str, Any], **options: Any) -> list[Any]:
        """Stores a batch in teacher forcing.

        Args:
            models: one model.
            sample: the batch; it comes back without ``id``, so that fairseq prints no sentence of it.
            options: of a generator; without effect.

        Returns:
            No hypotheses.
        """
        (model,) = models
        model.eval()
        with RepresentationTap(model.decoder, KEY_TYPE) as tap:
            output, is_features = run_decoder(model, sample["net_input"])
        keys = tap.representation(output if is_features else None)
        target = sample["target"]
        positions = self._positions(sample["id"].cpu().numpy(), target.size(1)).to(target.device)
        self.recorder.add((), keys.reshape(-1, keys.size(-1))[positions], target.reshape(-1)[positions])
        sample["id"] = sample["id"][:0]
        return []

    def _positions(self, sentences: NDArray[np.int64], width: int) -> torch.Tensor:
        """Of the tokens of a batch among its positions [B x width], in the order of rows, int64 [N]."""
        found = []
        for row in np.argsort(self._place[sentences]):
            length = int(self._lengths[sentences[row]])
            first = int(row) * width + (width - length if self._left_pad else 0)
            found.append(torch.arange(first, first + length))
        return torch.cat(found)


def recorded_dimension(model: Any, path: str | None) -> int:
    """d of the keys of a model.

    Raises:
        ValueError: for a decoder whose keys cannot be taken, or would never be searched.
    """
    try:
        check_decoder(model.decoder)
        return key_dimension(model.decoder, KEY_TYPE)
    except ValueError as error:
        raise ValueError(f"--save-knnlm-dstore: --path {path}: {error}") from None


def record_text(
    config: TranslationMemoryConfig,
    dataset: Any,
    batches: Sequence[NDArray[np.int64]],
    dimension: int,
    dictionary: Dictionary,
    files: PairFiles,
    build_sink: Callable[[Manifest, int, int, Shard], RowSink],
    *,
    num_workers: int = 0,
    buffer_size: int = 0,
) -> RecordedText:
    """The text whose datastore the flags ask for, with the datastore open.

    Args:
        config: checked, with ``save_knnlm_dstore``.
        dataset, batches: of the whole text, see :class:`RecordedText`.
        dimension: of the keys.
        dictionary: of the target language.
        files: of the text.
        build_sink: takes the rows [begin, end) of a shard.
        num_workers, buffer_size: of fairseq's iterator.

    Raises:
        ValueError: if there is nothing to store.
        DatastoreError: for a datastore that cannot be written or continued.
    """
    shard = Shard(config.num_shards, config.shard_id)
    text = RecordedText(dataset, batches, shard, config.dstore_size)
    manifest = Manifest(
        rows=text.rows,
        dimension=dimension,
        key_dtype="float16" if config.dstore_fp16 else "float32",
        keys_stored=True,
        key_type=KEY_TYPE,
        dictionary_hash=symbols_hash(dictionary.symbols),
        checkpoint=config.path,
        checkpoint_hash=file_hash(config.path),
        data_hash=files.pair_hash(),
        subset=files.subset,
        languages=f"{files.source}-{files.target}",
        sentences=len(text.sentences),
        sentences_hash=text.content_hash(),
        num_shards=shard.count,
    )
    name = str(config.dstore_mmap)
    text.write_to(name, lambda begin, end: build_sink(manifest, begin, end, shard), num_workers, buffer_size)
    return text

"""Sets an evaluation up: batches, memories, the datastore it writes; all checks before the model runs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, iterators

from ..data.context_window import ContextWindowDataset
from ..data.provenance import data_folders, text_files_hash
from ..data.text_order import consecutive_batches, contiguous_shard, keep_short_enough
from ..datastore import BackgroundSink, Manifest, RecallSample, Retriever, RowSink
from ..distributed import is_distributed, rank, world_size
from ..files import check_writable, file_hash, modification_time, symbols_hash
from ..models.config import refuse_triton_on_cpu
from .capacity import check_memory_size
from .config import EvaluationConfig, MemoryConfig, part_of
from .datastore_config import flags_named
from .external import KeySource, open_external
from .recorder import KeyRecorder, RowRanges
from .result import Shard
from .run import EvaluationRun
from .scorer import MemoryScorer, ScorerParts
from .shards import check_shard_files
from .units import UnitCounter

logger = logging.getLogger(__name__)

Batches = list[list[int]]
Ending = Callable[[], Mapping[str, Any]]


class Task(Protocol):
    """What an evaluation needs of a task: who scores, and where the keys go that a datastore keeps.

    Attributes:
        trained_softmax_temp: temperature of the memories in the checkpoint's training; None where it does
            not say.
    """

    trained_softmax_temp: float | None

    def build_scorer(
        self,
        config: MemoryConfig,
        pad: int,
        parts: ScorerParts,
    ) -> MemoryScorer:
        """See :class:`MemoryScorer`."""

    def build_sink(self, manifest: Manifest, begin: int, end: int, shard: Shard) -> RowSink:
        """For the rows [begin, end) of the datastore that ``manifest`` describes."""


class EvaluationSetup:
    """Checks the flags of an evaluation against checkpoint and data, and prepares its run.

    Args:
        task: builds scorer and sink.
        config: the flags; ``tokens_per_sample`` without the context window.
        dictionary: of the text.
        key_dimension: d of the model's representation.
        dataset: the samples.
        shard: the part of this process.
        context_window: tokens of context.
        max_positions: of the model.
        no_more_positions: the model cannot run on longer inputs, as it can where positions are computed.

    Raises:
        ValueError: for flags that contradict the checkpoint or the data.
    """

    def __init__(
        self,
        task: Task,
        config: EvaluationConfig,
        dictionary: Dictionary,
        key_dimension: int,
        dataset: FairseqDataset,
        shard: Shard,
        context_window: int,
        max_positions: int | None,
        no_more_positions: bool = False,
    ) -> None:
        self.task, self.dictionary = task, dictionary
        self.config = config.with_softmax_temp(task.trained_softmax_temp)
        if config.softmax_temp is None and config.joint_memory:
            value = self.config.softmax_temp
            logger.info(f"TRIME: --softmax-temp {value:g}, the default for this checkpoint")
        self.key_dimension = key_dimension
        self.shard = shard
        self.context_window = context_window
        _check_shard(shard)
        if config.joint_memory:
            refuse_triton_on_cpu(config.memory_impl, torch.cuda.is_available() and not config.cpu)
        self.tokens_per_sample = config.tokens_per_sample + context_window
        if max_positions is not None and self.tokens_per_sample > max_positions:
            raise ValueError(
                f"--tokens-per-sample {self.tokens_per_sample} exceeds the {max_positions} positions the "
                f"checkpoint was trained with: pass --tokens-per-sample {max_positions} or less"
            )
        longest = max_positions
        if longest is not None and no_more_positions:
            longest -= bool(config.add_bos_token)
        kept, left_out = keep_short_enough(dataset.sizes, longest)
        if not len(kept):
            raise _all_left_out(config, len(left_out), max_positions, longest)
        # fairseq keeps sizes in 16 bits where they fit: their sums and products would not.
        self.lengths = dataset.sizes[kept].astype(np.int64)
        self._left_out = _report_left_out(dataset.sizes[left_out].sum(), self.lengths.sum(), len(left_out))
        self.samples = ContextWindowDataset(
            *(dataset, kept, self.lengths, config.tokens_per_sample, context_window, dictionary.pad()),
            begins_with_bos=bool(config.add_bos_token),
        )

        folder = data_folders(config.data)[0]
        self._units = UnitCounter.for_text(
            dictionary, config.post_process, folder, skip_bos=bool(config.add_bos_token)
        )

    def start(
        self, max_tokens: int | None, batch_size: int | None, num_workers: int, buffer_size: int
    ) -> EvaluationRun:
        """The batches of this shard, with the scorer that belongs to them."""
        config, at_end = self.config, list[Ending]()
        batches = self._batches(max_tokens or 36000, batch_size)
        if config.eval_file and self.shard.count > 1 and not is_distributed():
            check_writable("--eval-file", self.shard.file(config.eval_file))
            check_shard_files(config.eval_file, self.shard)
        if config.use_long and config.joint_memory:
            check_memory_size(config, int(self.lengths.sum()), self.key_dimension)
        if self.shard.count > 1 and config.use_long:
            logger.warning(
                f"TRIME: {self.shard.count} contiguous shards; the long-term memory of each starts empty"
            )
        recorder = retriever = recall = None
        if config.save_knnlm_dstore:
            batches, recorder = self._record(batches, at_end)
        tokens = int(sum(self.lengths[batch].sum() for batch in batches))
        if config.searches:
            retriever, recall = self._open_external(tokens, at_end)
        scorer = self.task.build_scorer(
            part_of(config, MemoryConfig),
            self.dictionary.pad(),
            ScorerParts(config.add_bos_token, retriever, recorder, recall, tokens),
        )
        at_end.append(lambda: {"stage_seconds": scorer.times.seconds()})
        epochs = iterators.EpochBatchIterator(
            dataset=self.samples,
            collate_fn=self.samples.collater,
            batch_sampler=batches,
            num_workers=num_workers,
            buffer_size=buffer_size,
        )
        # Newer fairseqs would keep the workers for another epoch: after evaluate(), processes that wait for
        # nothing, and a pause of seconds when they are collected as garbage.
        epochs.persistent_workers = False
        batch_iterator = epochs.next_epoch_itr(shuffle=False)
        return EvaluationRun(
            *(batch_iterator, scorer, self._describe(), config.eval_file, self.shard, at_end, self._units)
        )

    def _batches(self, max_tokens: int, batch_size: int | None) -> Batches:
        costs = self.lengths
        if batch_size is None:
            positions = range(len(self.lengths))
            samples = self.samples
            costs = [samples.context_length(p) + samples.evaluated_length(p) for p in positions]
        batches = consecutive_batches(costs, max_tokens, batch_size)
        of_shard = contiguous_shard(batches, self.shard.count, self.shard.id)
        if not of_shard and not is_distributed():
            raise ValueError(
                f"--num-shards {self.shard.count}: the text has {len(batches)} batches, so --shard-id "
                f"{self.shard.id} has none of them: pass at most {len(batches)}, or a smaller --batch-size"
            )
        return of_shard

    def _open_external(self, tokens: int, at_end: list[Ending]) -> tuple[Retriever, RecallSample | None]:
        config = self.config
        use_gpu = torch.cuda.is_available() and not config.cpu
        words = symbols_hash(self.dictionary.symbols), config.path, len(self.dictionary)
        model = KeySource(self.key_dimension, config.knn_keytype, *words)
        retriever, store, metric = open_external(config, model, use_gpu)
        if not config.check_recall:
            return retriever, None
        with flags_named():
            recall = RecallSample(store, metric, config.check_recall, tokens)
        at_end.append(recall.report)
        return retriever, recall

    def _record(self, batches: Batches, at_end: list[Ending]) -> tuple[Batches, KeyRecorder]:
        """Opens the datastore to write: the batches still missing in it, and who takes their keys."""
        config, window = self.config, self.context_window
        preceding = np.cumsum(self.lengths) - self.lengths
        reach = np.array([self.samples.context_length(p) for p in range(len(self.lengths))])
        full = window if config.context_full_only else 0
        plan = RowRanges(self.lengths, np.minimum(reach, preceding), full, config.dstore_size)
        begin, end = plan.range(batches)
        sink = self.task.build_sink(self._manifest(plan.rows), begin, end, self.shard)
        missing, row = plan.missing(batches, sink.resume_row)
        if sink.resume_row >= end:
            logger.info(f"TRIME: rows {begin:,} to {end:,} of {config.dstore_mmap} are there already")
        elif sink.resume_row > begin:
            logger.warning(
                f"TRIME: continuing {config.dstore_mmap} at row {sink.resume_row:,} of {end:,}; the loss "
                "will be of the rest only"
            )
        else:
            logger.info(f"TRIME: writing rows {begin:,} to {end:,} to {config.dstore_mmap}")
        recorder = KeyRecorder(BackgroundSink(sink, row), full, end - row)

        def finish() -> dict[str, Any]:
            recorder.finish()
            written = {"datastore": config.dstore_mmap, "datastore_rows": plan.rows}
            return {**written, "resumed_at_row": row} if row > begin else written

        at_end.append(finish)
        return missing, recorder

    def _manifest(self, rows: int) -> Manifest:
        config = self.config
        return Manifest(
            rows=rows,
            dimension=self.key_dimension,
            key_dtype="float16" if config.dstore_fp16 else "float32",
            keys_stored=True,
            key_type=config.knn_keytype,
            dictionary_hash=symbols_hash(self.dictionary.symbols),
            checkpoint=config.path,
            checkpoint_hash=file_hash(config.path),
            data_hash=text_files_hash(config.data, config.gen_subset),
            subset=config.gen_subset,
            sample_break_mode=config.sample_break_mode,
            tokens_per_sample=self.tokens_per_sample,
            context_window=self.context_window,
            context_full_only=config.context_full_only,
            num_shards=self.shard.count,
        )

    def _describe(self) -> dict[str, Any]:
        config = self.config
        description = {
            "checkpoint": config.path,
            "checkpoint_written": modification_time(config.path),
            "data": config.data,
            "subset": config.gen_subset,
            "sample_break_mode": config.sample_break_mode,
            "tokens_per_sample": self.tokens_per_sample,
            "context_window": self.context_window,
            "fp16": config.fp16,
            "post_process": config.post_process,
            **{
                entry.name: getattr(config, entry.name)
                for entry in fields(MemoryConfig)
                if entry.name != "_name"
            },
            **self._left_out,
        }
        if config.searches:
            for name in ("dstore_filename", "indexfile", "probe", "knn_sim_func", "no_load_keys"):
                description[name] = getattr(config, name)
        return description


def _all_left_out(
    config: EvaluationConfig, samples: int, max_positions: int | None, longest: int | None
) -> ValueError:
    if longest != max_positions:
        fix = f"--add-bos-token takes one of them: pass --tokens-per-sample {longest} or less"
    else:
        fix = "try --sample-break-mode none"
    return ValueError(
        f"all {samples:,} samples of --gen-subset {config.gen_subset} are longer than the {max_positions} "
        f"positions of the model: {fix}"
    )


def _check_shard(shard: Shard) -> None:
    """fairseq mixes --num-shards with the processes it starts, one per visible GPU by default."""
    if is_distributed() and (shard.count, shard.id) != (world_size(), rank()):
        raise ValueError(
            "--num-shards is for separate commands, of one process each: pass --distributed-world-size 1"
        )


def _report_left_out(left_out: int, kept: int, samples: int) -> dict[str, Any]:
    share = float(left_out) / max(int(left_out) + int(kept), 1)
    if samples:
        logger.warning(
            f"TRIME: {samples:,} samples ({left_out:,} tokens, {share:.1%} of the subset) are longer "
            "than the model's positions and are left out of the loss"
        )
    return {"left_out_samples": samples, "left_out_tokens": int(left_out), "left_out_share": share}

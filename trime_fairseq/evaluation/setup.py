"""Sets an evaluation up: batches, memories, the datastore it writes; all checks before the model runs."""

import logging
from dataclasses import asdict
from typing import Any, Dict, List, Optional

import numpy as np
import torch
import torch.distributed as dist
from fairseq.data import FairseqDataset, iterators

from ..data.context_window import ContextWindowDataset
from ..data.provenance import text_files_hash
from ..data.text_order import consecutive_batches, contiguous_shard, keep_short_enough
from ..datastore import BackgroundSink, DatastoreWriter, Manifest, RecallSample
from ..files import file_hash, modification_time, text_hash
from .eval_lm import substitutes
from .external import Querying, open_external
from .recorder import KeyRecorder, RowPlan
from .result import Evaluation, EvaluationIterator
from .scorer import Extras, TrimeScorer, score_next_with

logger = logging.getLogger(__name__)


class EvaluationSetup:
    """One run of ``fairseq-eval-lm`` with this project's task.

    Args:
        task: with its flags, dictionary and ``key_dimension``.
        dataset: the samples.
        num_shards, shard_id: the part of this process.
        context_window: tokens of context.
        max_positions: of the model.

    Raises:
        ValueError: for flags that contradict the checkpoint or the data.
    """

    def __init__(
        self,
        task: Any,
        dataset: FairseqDataset,
        num_shards: int,
        shard_id: int,
        context_window: int,
        max_positions: Optional[int],
    ) -> None:
        self.task, self.flags = task, task.args
        self.num_shards, self.shard_id = num_shards, shard_id
        self.context_window = context_window
        _check_shards(num_shards, shard_id)
        longest = self.flags.tokens_per_sample + context_window
        if max_positions is not None and longest > max_positions:
            raise ValueError(
                f"--tokens-per-sample {longest} exceeds the {max_positions} positions the checkpoint was "
                f"trained with: pass --tokens-per-sample {max_positions} or less"
            )
        kept, left_out = keep_short_enough(dataset.sizes, max_positions)
        if not len(kept):
            raise ValueError(
                f"all {len(left_out):,} samples of --gen-subset {self.flags.gen_subset} are longer than the "
                f"{max_positions} positions of the model: try --sample-break-mode none"
            )
        self.lengths = dataset.sizes[kept]
        self._skipped = _report_left_out(dataset.sizes[left_out].sum(), self.lengths.sum(), len(left_out))
        pad = task.source_dictionary.pad()
        self.samples = ContextWindowDataset(
            dataset, kept, self.lengths, self.flags.tokens_per_sample, context_window, pad
        )

    def start(
        self, max_tokens: Optional[int], batch_size: Optional[int], num_workers: int, buffer_size: int
    ) -> EvaluationIterator:
        """The batches; the next scorer that fairseq builds belongs to them."""
        positions = range(len(self.lengths))
        costs = self.lengths
        if batch_size is None:
            costs = [self.samples.context_length(p) + self.lengths[p] for p in positions]
        batches = contiguous_shard(
            consecutive_batches(costs, max_tokens or 36000, batch_size), self.num_shards, self.shard_id
        )
        if self.num_shards > 1 and self.task.memory_settings.use_long:
            logger.warning(
                f"TRIME: {self.num_shards} contiguous shards; the long-term memory of each starts empty"
            )
        evaluation = Evaluation(
            {**self._describe(), **self._skipped}, self.flags.eval_file, self.num_shards, self.shard_id
        )
        extras = Extras()
        if self.flags.save_knnlm_dstore:
            batches = self._record(batches, extras, evaluation)
        if self.task.memory_settings.searches:
            self._open_external(batches, extras, evaluation)
        evaluation.at_end.append(lambda: {"stage_seconds": extras.times.seconds()})
        self._hook_scorer(evaluation, extras)
        batch_iterator = iterators.EpochBatchIterator(
            dataset=self.samples,
            collate_fn=self.samples.collater,
            batch_sampler=batches,
            num_workers=num_workers,
            buffer_size=buffer_size,
        ).next_epoch_itr(shuffle=False)
        return EvaluationIterator(batch_iterator, evaluation)

    def _hook_scorer(self, evaluation: Evaluation, extras: Extras) -> None:
        scorer = substitutes().scorer or TrimeScorer

        def make_scorer(target_dictionary: Any, softmax_batch: int = 0, **unused: Any) -> Any:
            return scorer(
                self.task.memory_settings,
                evaluation.totals,
                target_dictionary.pad(),
                softmax_batch,
                skip_bos=getattr(self.flags, "add_bos_token", False),
                extras=extras,
            )

        score_next_with(make_scorer)

    def _open_external(self, batches: List[List[int]], extras: Extras, evaluation: Evaluation) -> None:
        use_gpu = torch.cuda.is_available() and not self.flags.cpu
        model = Querying(
            self.task.key_dimension,
            str(self.flags.knn_keytype),
            self._dictionary_hash(),
            self.flags.path,
        )
        extras.retriever, store, metric = open_external(self.flags, model, use_gpu)
        if self.flags.check_recall:
            tokens = int(sum(self.lengths[p] for batch in batches for p in batch))
            extras.recall = RecallSample(store, metric, self.flags.check_recall, tokens)
            evaluation.at_end.append(extras.recall.report)

    def _record(self, batches: List[List[int]], extras: Extras, evaluation: Evaluation) -> List[List[int]]:
        """Opens the datastore to write; the batches that are still missing in it."""
        window = self.context_window
        preceding = np.cumsum(self.lengths) - self.lengths
        reach = np.array([self.samples.context_length(p) for p in range(len(self.lengths))])
        full = window if self.flags.context_full_only else 0
        plan = RowPlan(self.lengths, np.minimum(reach, preceding), full, self.flags.dstore_size)
        begin, end = plan.range(batches)
        manifest = self._manifest(plan.rows)
        make_sink = substitutes().sink
        if make_sink is not None:
            sink = make_sink(manifest)
        else:
            sink = DatastoreWriter(self.flags.dstore_mmap, manifest, begin, end, self.shard_id)
        missing, row = plan.missing(batches, sink.resume_row)
        if sink.resume_row >= end:
            logger.info(f"TRIME: rows {begin:,} to {end:,} of {self.flags.dstore_mmap} are there already")
        elif sink.resume_row > begin:
            logger.warning(
                f"TRIME: continuing {self.flags.dstore_mmap} at row {sink.resume_row:,} of {end:,}; the loss "
                "will be of the rest only"
            )
        else:
            logger.info(f"TRIME: writing rows {begin:,} to {end:,} to {self.flags.dstore_mmap}")
        extras.recorder = KeyRecorder(BackgroundSink(sink, row), full, end - row)

        def finish() -> Dict[str, Any]:
            assert extras.recorder is not None
            extras.recorder.finish()
            written = {"datastore": self.flags.dstore_mmap, "datastore_rows": plan.rows}
            return {**written, "resumed_at_row": row} if row > begin else written

        evaluation.at_end.append(finish)
        return missing

    def _manifest(self, rows: int) -> Manifest:
        flags = self.flags
        return Manifest(
            rows=rows,
            dimension=self.task.key_dimension,
            key_dtype="float16" if flags.dstore_fp16 else "float32",
            keys_stored=True,
            key_type=str(flags.knn_keytype),
            dictionary_hash=self._dictionary_hash(),
            checkpoint=flags.path,
            checkpoint_hash=file_hash(flags.path),
            data_hash=text_files_hash(flags.data, flags.gen_subset),
            subset=flags.gen_subset,
            sample_break_mode=str(flags.sample_break_mode),
            tokens_per_sample=flags.tokens_per_sample + self.context_window,
            context_window=self.context_window,
            context_full_only=flags.context_full_only,
            num_shards=self.num_shards,
        )

    def _dictionary_hash(self) -> str:
        return text_hash("\n".join(self.task.target_dictionary.symbols))

    def _describe(self) -> Dict[str, Any]:
        flags = self.flags
        retrieval = ("dstore_filename", "indexfile", "probe", "knn_sim_func", "no_load_keys")
        description = {
            "checkpoint": flags.path,
            "checkpoint_written": modification_time(flags.path),
            "data": flags.data,
            "subset": flags.gen_subset,
            "sample_break_mode": str(flags.sample_break_mode),
            "tokens_per_sample": flags.tokens_per_sample + self.context_window,
            "context_window": self.context_window,
            "fp16": flags.fp16,
            "post_process": flags.post_process,
            **asdict(self.task.memory_settings),
        }
        if self.task.memory_settings.searches:
            for name in retrieval:
                value = getattr(flags, name)
                description[name] = str(value) if name == "knn_sim_func" and value is not None else value
        return description


def _check_shards(num_shards: int, shard_id: int) -> None:
    """fairseq mixes --num-shards with the processes it starts, one per visible GPU by default."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    if (num_shards, shard_id) != (dist.get_world_size(), dist.get_rank()):
        raise ValueError(
            "--num-shards is for separate commands, of one process each: pass --distributed-world-size 1"
        )


def _report_left_out(left_out: int, kept: int, samples: int) -> Dict[str, Any]:
    share = float(left_out) / max(int(left_out) + int(kept), 1)
    if samples:
        logger.warning(
            f"TRIME: {samples:,} samples ({left_out:,} tokens, {share:.1%} of the subset) are longer "
            "than the model's positions and are left out of the loss"
        )
    return {"left_out_samples": samples, "left_out_tokens": int(left_out), "left_out_share": share}

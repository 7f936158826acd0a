"""``--task trime_language_modeling``: the order of training batches, and memories in evaluation."""

import logging
import math
import os
import sys
from dataclasses import asdict
from typing import Any, Dict, Optional

import numpy as np
import torch.distributed as dist
from fairseq import utils
from fairseq.data import FairseqDataset, iterators
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingTask

from ..checkpoints import check_cutoffs, refuse_other_dictionary
from ..data import (
    ContextWindowDataset,
    TrainingOrder,
    consecutive_batches,
    contiguous_shard,
    export_segments,
    keep_short_enough,
    planned_iterator,
)
from ..results import Evaluation, EvaluationIterator, check_writable, modification_time
from ..scoring import TrimeScorer, score_next_with
from ..settings import MemorySettings
from .config import TrimeLanguageModelingConfig

logger = logging.getLogger(__name__)


@register_task("trime_language_modeling", dataclass=TrimeLanguageModelingConfig)
class TrimeLanguageModelingTask(LanguageModelingTask):
    """Language modelling. In training, batches in the order that flags and criterion ask for; in
    ``fairseq-eval-lm`` samples keep text order and are scored with the memories that the flags ask for.

    Raises:
        ValueError: by :meth:`setup_task`, :meth:`build_model` and :meth:`eval_lm_dataloader`, for
            flags that contradict each other, the checkpoint or the data; before the model runs.
    """

    def __init__(self, args: Any, dictionary: Any, output_dictionary: Any = None, targets: Any = None):
        super().__init__(args, dictionary, output_dictionary, targets)
        self.memory_settings = MemorySettings.from_config(args)
        self.order = TrainingOrder.from_config(args)
        self.epoch = 1
        self.update_num = 0
        self._devices_per_memory: Optional[int] = None

    @classmethod
    def setup_task(cls, args: Any, **kwargs: Any) -> "TrimeLanguageModelingTask":
        if args.context_window < 0:
            raise ValueError(f"--context-window must not be negative: {args.context_window}")
        if args.tokens_per_sample <= 0:
            window = args.context_window
            raise ValueError(
                f"--context-window {window} leaves no token of --tokens-per-sample "
                f"{args.tokens_per_sample + window} to evaluate: --tokens-per-sample counts both"
            )
        # Other commands take ensembles; fairseq-eval-lm would only say that the file does not exist.
        evaluates = "eval" in os.path.basename(sys.argv[0])
        if evaluates and args.path and len(utils.split_paths(args.path)) > 1:
            raise ValueError(f"--path {args.path}: one model expected, not an ensemble")
        if args.eval_file:
            check_writable("--eval-file", args.eval_file)
        task: TrimeLanguageModelingTask = super().setup_task(args, **kwargs)
        if args.output_segments_to_file:
            task._export_segments(args.output_segments_to_file)
            sys.exit(0)
        return task

    def _export_segments(self, path: str) -> None:
        check_writable("--output-segments-to-file", path)
        if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            return  # the first process writes
        self.load_dataset(self.args.train_subset, combine=True)
        segments = self.dataset(self.args.train_subset)
        export_segments(segments, self.target_dictionary, path)
        logger.info(f"TRIME: wrote {len(segments):,} training segments to {path}; nothing is trained")

    def build_model(self, args: Any, from_checkpoint: bool = False) -> Any:
        num_types = len(self.source_dictionary)
        check_cutoffs(
            num_types,
            getattr(args, "adaptive_input_cutoff", None),
            getattr(args, "adaptive_softmax_cutoff", None),
        )
        model = super().build_model(args, from_checkpoint)
        refuse_other_dictionary(model, num_types)
        return model

    def build_criterion(self, *args: Any, **kwargs: Any) -> Any:
        if self.memory_settings.use_local:
            raise ValueError(
                "--use-local and --use-long are flags of fairseq-eval-lm; in training the --criterion "
                "says which memory a token sees"
            )
        self.order.check(self.args.data)
        criterion = super().build_criterion(*args, **kwargs)
        self._devices_per_memory = getattr(criterion, "devices_per_memory", None)
        if self._devices_per_memory is None and self.order.is_own:
            self._devices_per_memory = self.order.devices_per_memory
        return criterion

    def build_generator(self, *args: Any, **kwargs: Any) -> Any:
        if self.memory_settings.use_local:
            raise ValueError(
                "--use-local and --use-long are flags of fairseq-eval-lm; generation has no memory"
            )
        return super().build_generator(*args, **kwargs)

    def begin_epoch(self, epoch: int, model: Any) -> None:
        self.epoch = epoch

    def train_step(
        self,
        sample: Any,
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        self.update_num = update_num
        try:
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        except RuntimeError as error:
            if "out of memory" in str(error) and (self._devices_per_memory or 1) > 1:
                # fairseq would skip the batch here, while the other devices wait for its keys forever.
                raise RuntimeError(
                    "no room left on the device, in a step whose memory several devices share: "
                    "lower --max-tokens"
                ) from None
            raise

    def get_batch_iterator(self, dataset: Any, *args: Any, **options: Any) -> iterators.EpochBatchIterator:
        """fairseq's own, unless flags or criterion ask for another order of batches: text order, that of
        ``--predefined-batches``, or at random with known batches on the other devices. Validation keeps text
        order then."""
        if self._devices_per_memory is None:
            return super().get_batch_iterator(dataset, *args, **options)
        renewed = [options.pop(name, False) for name in ("disable_iterator_cache", "update_epoch_batch_itr")]
        reuse = self.can_reuse_epoch_itr(dataset) and not any(renewed)
        if reuse and dataset in self.dataset_to_epoch_iter:
            return self.dataset_to_epoch_iter[dataset]
        iterator = self._planned_iterator(dataset, *args, **options)
        if reuse:
            self.dataset_to_epoch_iter[dataset] = iterator
        return iterator

    def _planned_iterator(
        self,
        dataset: Any,
        max_tokens: Optional[int] = None,
        max_sentences: Optional[int] = None,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
        required_batch_size_multiple: int = 1,
        seed: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        skip_remainder_batch: bool = False,
        **unused: Any,
    ) -> iterators.EpochBatchIterator:
        trains = dataset is self.datasets.get(self.args.train_subset)
        order = self.order.segments(dataset, seed) if trains else np.arange(len(dataset))
        if max_positions is not None:
            order = self.filter_indices_by_size(order, dataset, max_positions, ignore_invalid_inputs)
        wanted = self._devices_per_memory or 1
        group_size = math.gcd(wanted, num_shards)
        if group_size < wanted:
            # fairseq-validate, by default: one process for what several have trained.
            logger.warning(
                f"TRIME: the memory is that of {group_size} devices, not of {wanted}: raise --max-tokens "
                f"{wanted // group_size} times for the same memory"
            )
        logger.info(
            f"TRIME: {len(order):,} segments in {'training' if trains else 'validation'} order, "
            f"memory of {group_size} of {num_shards} devices"
        )
        return planned_iterator(
            dataset,
            order,
            group_size,
            shuffle=trains and not self.order.keep_order,
            begins_with_bos=getattr(self.args, "add_bos_token", False),
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            seed=seed,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
            data_buffer_size=data_buffer_size,
            skip_remainder_batch=skip_remainder_batch,
        )

    def eval_lm_dataloader(
        self,
        dataset: FairseqDataset,
        max_tokens: Optional[int] = 36000,
        batch_size: Optional[int] = None,
        max_positions: Optional[int] = None,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 1,
        data_buffer_size: int = 10,
        context_window: int = 0,
    ) -> "EvaluationIterator":
        """Batches of consecutive samples in text order, each with its context window.

        Shards are contiguous. With ``batch_size``, ``max_tokens`` bounds the evaluated tokens of a
        batch, as in stock; without it, it bounds the model input, context included.
        """
        longest = self.args.tokens_per_sample + context_window
        if max_positions is not None and longest > max_positions:
            raise ValueError(
                f"--tokens-per-sample {longest} exceeds the {max_positions} positions the checkpoint was "
                f"trained with: pass --tokens-per-sample {max_positions} or less"
            )
        self._check_shards(num_shards, shard_id)
        kept, left_out = keep_short_enough(dataset.sizes, max_positions)
        if not len(kept):
            raise ValueError(
                f"all {len(left_out):,} samples of --gen-subset {self.args.gen_subset} are longer than the "
                f"{max_positions} positions of the model: try --sample-break-mode none"
            )
        lengths = dataset.sizes[kept]
        skipped = self._report_left_out(dataset.sizes[left_out].sum(), lengths.sum(), len(left_out))
        windowed = ContextWindowDataset(
            dataset,
            kept,
            lengths,
            self.args.tokens_per_sample,
            context_window,
            self.source_dictionary.pad(),
        )
        costs = lengths
        if batch_size is None:
            costs = [windowed.context_length(p) + lengths[p] for p in range(len(kept))]
        batches = consecutive_batches(costs, max_tokens or 36000, batch_size)
        if num_shards > 1 and self.memory_settings.use_long:
            logger.warning(
                f"TRIME: {num_shards} contiguous shards; the long-term memory of each starts empty"
            )
        evaluation = Evaluation(
            {**self._describe(context_window), **skipped}, self.args.eval_file, num_shards, shard_id
        )
        self._hook_scorer(evaluation)
        batch_iterator = iterators.EpochBatchIterator(
            dataset=windowed,
            collate_fn=windowed.collater,
            batch_sampler=contiguous_shard(batches, num_shards, shard_id),
            num_workers=num_workers,
            buffer_size=data_buffer_size,
        ).next_epoch_itr(shuffle=False)
        return EvaluationIterator(batch_iterator, evaluation)

    def _hook_scorer(self, evaluation: Evaluation) -> None:
        def make_scorer(target_dictionary: Any, softmax_batch: int = 0, **unused: Any) -> TrimeScorer:
            return TrimeScorer(
                self.memory_settings,
                evaluation.totals,
                target_dictionary.pad(),
                softmax_batch,
                skip_bos=getattr(self.args, "add_bos_token", False),
            )

        score_next_with(make_scorer)

    @staticmethod
    def _check_shards(num_shards: int, shard_id: int) -> None:
        """fairseq mixes --num-shards with the processes it starts, one per visible GPU by default."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        if (num_shards, shard_id) != (dist.get_world_size(), dist.get_rank()):
            raise ValueError(
                "--num-shards is for separate commands, of one process each: pass --distributed-world-size 1"
            )

    def _report_left_out(self, left_out: int, kept: int, samples: int) -> Dict[str, Any]:
        share = float(left_out) / max(int(left_out) + int(kept), 1)
        if samples:
            logger.warning(
                f"TRIME: {samples:,} samples ({left_out:,} tokens, {share:.1%} of the subset) are longer "
                "than the model's positions and are left out of the loss"
            )
        return {
            "left_out_samples": samples,
            "left_out_tokens": int(left_out),
            "left_out_share": share,
        }

    def _describe(self, context_window: int) -> Dict[str, Any]:
        return {
            "checkpoint": self.args.path,
            "checkpoint_written": modification_time(self.args.path),
            "data": self.args.data,
            "subset": self.args.gen_subset,
            "sample_break_mode": str(self.args.sample_break_mode),
            "tokens_per_sample": self.args.tokens_per_sample + context_window,
            "context_window": context_window,
            "fp16": self.args.fp16,
            "post_process": self.args.post_process,
            **asdict(self.memory_settings),
        }

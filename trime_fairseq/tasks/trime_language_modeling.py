"""``--task trime_language_modeling``: the order of training batches, and memories in evaluation."""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from fairseq.data import FairseqDataset, iterators
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingTask
from omegaconf import DictConfig

from ..criterions.base import TrimeCriterion
from ..criterions.summary import TrainingSummary
from ..data.host_targets import KnownHostTargets
from ..data.order import TrainingOrder
from ..data.provenance import data_folders, text_files_hash
from ..data.subset import load_subset
from ..datastore import DatastoreWriter, Manifest, RowSink
from ..evaluation.config import EvaluationConfig, MemoryConfig, part_of
from ..evaluation.datastore_config import flags_named
from ..evaluation.result import Shard
from ..evaluation.run import EvaluationRun
from ..evaluation.scorer import MemoryScorer, ScorerParts
from ..evaluation.setup import EvaluationSetup
from ..evaluation.units import take_over_post_process
from ..models.checkpoints import (
    architecture,
    check_cutoffs,
    cutoffs_in_use,
    refuse_other_dictionary,
)
from ..models.guard import compare_with
from ..models.positions import check_positions, check_room_for_bos
from ..models.traits import ModelTraits
from .batches import planned_batches
from .checks import check_flags, flag_of_subset, is_command, read_dictionary, refuse_memories
from .config import TrimeLanguageModelingConfig
from .segments import write_segments
from .state import check_saved_dictionary, saved_state, saved_temperature, without_ours
from .steps import SteppedTask, no_batch_skipped
from .training_flags import check_training_flags

logger = logging.getLogger(__name__)


@register_task("trime_language_modeling", dataclass=TrimeLanguageModelingConfig)
class TrimeLanguageModelingTask(SteppedTask, LanguageModelingTask):
    """Language modelling. In training, batches in the order that flags and criterion ask for; in
    ``fairseq-eval-lm`` samples keep text order and are scored with the memories that the flags ask for.

    Raises:
        ValueError: by :meth:`setup_task`, :meth:`build_model` and :meth:`eval_lm_dataloader`, for
            flags that contradict each other, the checkpoint or the data; before the model runs.
    """

    def __init__(self, args: Any, dictionary: Any, output_dictionary: Any = None, targets: Any = None):
        super().__init__(args, dictionary, output_dictionary, targets)
        self.config = part_of(args, EvaluationConfig)
        self.order = TrainingOrder.from_config(args)
        self.traits = ModelTraits()  # of the model that is built
        # Of the memories in the training of the checkpoint; None where it does not say.
        self.trained_softmax_temp: float | None = None
        self._criterion: TrimeCriterion | None = None
        self.summary = TrainingSummary()
        self._devices_per_memory: int | None = None
        self._host_targets = KnownHostTargets()
        # True in fairseq-validate, whose settings are those of a training that has ended.
        self._validates_only = False
        compare_with(self)

    @classmethod
    def setup_task(cls, args: Any, **kwargs: Any) -> "TrimeLanguageModelingTask":
        check_flags(TrimeLanguageModelingConfig, args)
        if is_command("train") and isinstance(args, DictConfig):
            check_training_flags(cast(DictConfig, args._get_root()))
        task: TrimeLanguageModelingTask = super().setup_task(args, **kwargs)
        task._validates_only = bool(kwargs.get("from_checkpoint"))
        if is_command("eval"):
            take_over_post_process(args, task.config.post_process)
        if args.output_segments_to_file:
            write_segments(
                *(args.output_segments_to_file, task._training_segments, task.target_dictionary, args.data),
                lambda: text_files_hash(args.data, args.train_subset),
                tokens_per_sample=args.tokens_per_sample,
                sample_break_mode=str(args.sample_break_mode),
            )
            sys.exit(0)
        return task

    @classmethod
    def setup_dictionary(cls, args: Any, **kwargs: Any) -> Any:
        return read_dictionary(
            lambda: super(TrimeLanguageModelingTask, cls).setup_dictionary(args, **kwargs),
            os.path.join(data_folders(args.data)[0], "dict.txt"),
        )

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> Any:
        """Loads a subset as fairseq does, after checking its files.

        Raises:
            FileNotFoundError: if there is no such subset.
            ValueError: with file and flag, if it is damaged or empty.
        """
        folders = data_folders(self.args.data)
        folder = folders[(epoch - 1) % len(folders)]
        if len(folders) > 1 and is_command("eval"):
            logger.warning(f"TRIME: DATA names {len(folders)} folders: fairseq evaluates the first, {folder}")
        load_subset(
            lambda: super(TrimeLanguageModelingTask, self).load_dataset(split, epoch, combine, **kwargs),
            *(self.datasets, self.args, folder, self.source_dictionary),
            *(split, flag_of_subset(split, self.args.train_subset), combine),
        )

    def _training_segments(self) -> Any:
        self.load_dataset(self.args.train_subset, combine=True)
        return self.dataset(self.args.train_subset)

    def build_model(self, args: Any, from_checkpoint: bool = False) -> Any:
        num_types = len(self.source_dictionary)
        check_cutoffs(num_types, *cutoffs_in_use(args))
        name = architecture(args)
        whose = f"--path {self.config.path} ({name})" if from_checkpoint else f"--arch {name}"
        try:
            model = super().build_model(args, from_checkpoint)
        except AttributeError as error:
            if "supported_targets" not in str(error):
                raise
            raise ValueError(f"{whose}: it is no language model") from None
        refuse_other_dictionary(model, num_types)
        if not from_checkpoint and is_command("train"):
            check_positions(model, str(self.args.sample_break_mode), self.args.tokens_per_sample)
        self.traits = ModelTraits.of(model, str(self.args.knn_keytype), whose)
        if self._no_room_for_bos and str(self.args.sample_break_mode) != "eos":
            check_room_for_bos(model, self.args.tokens_per_sample)
        return model

    @property
    def key_dimension(self) -> int:
        """d of the keys of the model that is built; 0 where it has none."""
        return self.traits.key_dimension

    @property
    def _no_room_for_bos(self) -> bool:
        """True if the token of ``--add-bos-token`` takes one of the model's positions."""
        return self.traits.learned_positions and bool(self.args.add_bos_token)

    def build_criterion(self, *args: Any, **kwargs: Any) -> Any:
        refuse_memories(
            self.config, "of fairseq-eval-lm only; in training the --criterion says which memory a token sees"
        )
        order = replace(self.order, predefined_batches=None) if self._validates_only else self.order
        order.check(self.args.data, self.args.train_subset)
        criterion = super().build_criterion(*args, **kwargs)
        if isinstance(criterion, TrimeCriterion):
            self.traits.check_keys()
            self._criterion = criterion
            self._devices_per_memory = criterion.devices_per_memory
            self.summary = TrainingSummary(criterion.sees_later_tokens)
            if self.trained_softmax_temp is not None:
                # fairseq-validate reads the state of the task, but not that of the criterion.
                criterion.temperature.continue_from(self.trained_softmax_temp)
        if self._devices_per_memory is None and self.order.is_own:
            self._devices_per_memory = self.order.devices_per_memory
        return criterion

    def build_generator(self, *args: Any, **kwargs: Any) -> Any:
        refuse_memories(self.config, "of fairseq-eval-lm only; generation has no memory")
        return super().build_generator(*args, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """What fairseq writes into checkpoints for the task."""
        temperature = None if self._criterion is None else self._criterion.temperature
        return {**super().state_dict(), **saved_state(self.dictionary.symbols, temperature)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.check_state(state_dict)
        self.trained_softmax_temp = saved_temperature(state_dict)
        super().load_state_dict(without_ours(state_dict))

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if a checkpoint with this state of its task does not fit the dictionary."""
        check_saved_dictionary(state, self.dictionary.symbols)

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
        with no_batch_skipped((self._devices_per_memory or 1) > 1):
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def get_batch_iterator(self, dataset: Any, *args: Any, **options: Any) -> iterators.EpochBatchIterator:
        """fairseq's own, unless flags or criterion ask for another order of batches: text order, that of
        ``--predefined-batches``, or at random with known batches on the other devices. Validation keeps text
        order then."""
        if self._no_room_for_bos and isinstance(options.get("max_positions"), int):
            options["max_positions"] -= 1
        if self._devices_per_memory is None:
            # Only the trainer's iterator of training says how steps are shuffled.
            trains = dataset is self.datasets.get(self.args.train_subset) and "grouped_shuffling" in options
            keep = not options.get("disable_iterator_cache")
            return super().get_batch_iterator(self._host_targets.of(dataset, trains, keep), *args, **options)
        renewed = [options.pop(name, False) for name in ("disable_iterator_cache", "update_epoch_batch_itr")]
        reuse = self.can_reuse_epoch_itr(dataset) and not any(renewed)
        if reuse and dataset in self.dataset_to_epoch_iter:
            return self.dataset_to_epoch_iter[dataset]
        trains = not self._validates_only and dataset is self.datasets.get(self.args.train_subset)
        iterator = planned_batches(
            *(dataset, self.order, self._devices_per_memory, trains, self.filter_indices_by_size),
            *args,
            begins_with_bos=bool(self.args.add_bos_token),
            **options,
        )
        if reuse:
            self.dataset_to_epoch_iter[dataset] = iterator
        return iterator

    def eval_lm_dataloader(
        self,
        dataset: FairseqDataset,
        max_tokens: int | None = 36000,
        batch_size: int | None = None,
        max_positions: int | None = None,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 1,
        data_buffer_size: int = 10,
        context_window: int = 0,
    ) -> EvaluationRun:
        """Batches of consecutive samples in text order, each with its context window.

        Shards are contiguous. With ``batch_size``, ``max_tokens`` bounds the evaluated tokens of a
        batch, as in stock; without it, it bounds the model input, context included.
        """
        if self.config.needs_keys:
            self.traits.check_keys()
        setup = EvaluationSetup(
            self,
            # Not as it was at the beginning: fairseq takes the context window off --tokens-per-sample later.
            replace(part_of(self.args, EvaluationConfig), post_process=self.config.post_process),
            self.target_dictionary,
            self.key_dimension,
            dataset,
            Shard(num_shards, shard_id),
            context_window,
            max_positions,
            self.traits.learned_positions,
        )
        return setup.start(max_tokens, batch_size, num_workers, data_buffer_size)

    def build_scorer(self, config: MemoryConfig, pad: int, parts: ScorerParts) -> MemoryScorer:
        """Who scores an evaluation. Arguments as of :class:`MemoryScorer`; subclasses may build others."""
        return MemoryScorer(config, pad, parts)

    def build_sink(self, manifest: Manifest, begin: int, end: int, shard: Shard) -> RowSink:
        """Where the rows [begin, end) of the datastore go that ``manifest`` describes."""
        with flags_named():
            return DatastoreWriter(str(self.config.dstore_mmap), manifest, begin, end, shard.id)

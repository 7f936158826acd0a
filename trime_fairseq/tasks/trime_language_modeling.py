"""``--task trime_language_modeling``: the order of training batches, and memories in evaluation."""

import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import FairseqDataset, iterators
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingTask

from ..bm25.batches import order_hash
from ..criterions.base import TrimeCriterion
from ..criterions.summary import TrainingSummary
from ..data.export import export_segments
from ..data.host_targets import HostTargets
from ..data.order import TrainingOrder, planned_iterator
from ..data.predefined import check_one_folder
from ..data.provenance import data_folders, text_files_hash
from ..data.subset import load_subset
from ..datastore import DatastoreWriter, Manifest, RowSink
from ..distributed import rank
from ..evaluation.config import EvaluationConfig, MemoryConfig, part_of
from ..evaluation.datastore_config import flags_named
from ..evaluation.result import Shard
from ..evaluation.run import EvaluationRun
from ..evaluation.scorer import MemoryScorer, ScorerParts
from ..evaluation.setup import EvaluationSetup
from ..evaluation.units import take_over_post_process
from ..files import check_writable
from ..flags import flag
from ..flags.bounds import Bounds, check_bounds
from ..models.checkpoints import (
    architecture,
    check_cutoffs,
    cutoffs_in_use,
    refuse_other_dictionary,
)
from ..models.guard import compare_with
from ..models.positions import check_room_for_bos, positions_are_learned
from ..models.representation import key_dimension
from .config import TrimeLanguageModelingConfig
from .state import check_saved_dictionary, saved_state, saved_temperature, without_ours

logger = logging.getLogger(__name__)


def _is_command(*parts: str) -> bool:
    """True if the name of the running command holds one of ``parts``."""
    return any(part in os.path.basename(sys.argv[0]) for part in parts)


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
        self.config = part_of(args, EvaluationConfig)
        self.order = TrainingOrder.from_config(args)
        self.key_dimension = 0  # of the model that is built, where it has keys
        self._no_keys = ""  # why it has none
        # Of the memories in the training of the checkpoint; None where it does not say.
        self.trained_softmax_temp: float | None = None
        self.epoch = 1
        self.update_num = 0
        self._criterion: TrimeCriterion | None = None
        self._summary = TrainingSummary()
        self._devices_per_memory: int | None = None
        self._host_targets: dict[Any, HostTargets] = {}
        # Of fairseq-validate, whose settings are those of a training that has ended.
        self._validates_only = False
        compare_with(self)
        self._learned_positions = False  # of the model that is built

    @classmethod
    def setup_task(cls, args: Any, **kwargs: Any) -> "TrimeLanguageModelingTask":
        check_bounds(TrimeLanguageModelingConfig, args)
        window = args.context_window
        # fairseq has taken the window off, and counts in 32 bits.
        problem = Bounds(1, 2**31 - 1).problem(args.tokens_per_sample + window)
        if problem:
            raise ValueError(f"--tokens-per-sample {problem}")
        if args.tokens_per_sample <= 0:
            raise ValueError(
                f"--context-window {window} leaves no token of --tokens-per-sample "
                f"{args.tokens_per_sample + window} to evaluate: --tokens-per-sample counts both"
            )
        if _is_command("eval") and not args.path:
            raise ValueError("--path FILE is needed: the checkpoint to evaluate")
        # Other commands take ensembles; fairseq-eval-lm would only say that the file does not exist.
        if _is_command("eval") and args.path and len(utils.split_paths(args.path)) > 1:
            raise ValueError(f"--path {args.path}: one model expected, not an ensemble")
        part_of(args, EvaluationConfig).check()
        folder = utils.split_paths(args.data)[0]
        if not os.path.isfile(os.path.join(folder, "dict.txt")):
            raise ValueError(
                f"DATA {folder} holds no dict.txt: make it with fairseq-preprocess --destdir {folder}"
            )
        task: TrimeLanguageModelingTask = super().setup_task(args, **kwargs)
        task._validates_only = bool(kwargs.get("from_checkpoint"))
        if _is_command("eval"):
            take_over_post_process(args, task.config.post_process)
        if args.output_segments_to_file:
            task._export_segments(args.output_segments_to_file)
            sys.exit(0)
        return task

    @classmethod
    def setup_dictionary(cls, args: Any, **kwargs: Any) -> Any:
        try:
            return super().setup_dictionary(args, **kwargs)
        except OSError:
            raise
        except Exception as error:  # fairseq's own are of several kinds, and name no file
            path = os.path.join(data_folders(args.data)[0], "dict.txt")
            raise ValueError(f"{path} is no dictionary of fairseq-preprocess, or damaged: {error}") from None

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> Any:
        """fairseq's own, once the files are checked.

        Raises:
            FileNotFoundError: if there is no such subset.
            ValueError: with file and flag, if it is damaged or empty.
        """
        folders = data_folders(self.args.data)
        folder = folders[(epoch - 1) % len(folders)]
        if len(folders) > 1 and _is_command("eval"):
            logger.warning(f"TRIME: DATA names {len(folders)} folders: fairseq evaluates the first, {folder}")
        load_subset(
            lambda: super(TrimeLanguageModelingTask, self).load_dataset(split, epoch, combine, **kwargs),
            *(self.datasets, self.args, folder, self.source_dictionary),
            *(split, self._flag_of(split), combine),
        )

    def _flag_of(self, subset: str) -> str:
        """The flag that names a subset."""
        if _is_command("eval", "generate"):
            return "--gen-subset"
        return "--train-subset" if subset == self.args.train_subset else "--valid-subset"

    def _export_segments(self, path: str) -> None:
        check_writable("--output-segments-to-file", path)
        check_one_folder(self.args.data)
        if rank() > 0:
            return  # the first process writes
        self.load_dataset(self.args.train_subset, combine=True)
        segments = self.dataset(self.args.train_subset)
        export_segments(
            segments,
            self.target_dictionary,
            path,
            data_hash=text_files_hash(self.args.data, self.args.train_subset),
            tokens_per_sample=self.args.tokens_per_sample,
            sample_break_mode=str(self.args.sample_break_mode),
        )
        logger.info(f"TRIME: wrote {len(segments):,} training segments to {path}; nothing is trained")

    def build_model(self, args: Any, from_checkpoint: bool = False) -> Any:
        num_types = len(self.source_dictionary)
        check_cutoffs(num_types, *cutoffs_in_use(args))
        model = super().build_model(args, from_checkpoint)
        refuse_other_dictionary(model, num_types)
        self._learned_positions = positions_are_learned(model)
        if self._no_room_for_bos and str(self.args.sample_break_mode) != "eos":
            check_room_for_bos(model, self.args.tokens_per_sample)
        try:
            self.key_dimension, self._no_keys = key_dimension(model.decoder, str(self.args.knn_keytype)), ""
        except ValueError as error:
            name = architecture(args)
            whose = f"--path {self.config.path} ({name})" if from_checkpoint else f"--arch {name}"
            self._no_keys = f"{whose}: {error}"
        return model

    def _check_keys(self) -> None:
        """Raises ValueError if the model has no representation to take keys from."""
        if self._no_keys:
            raise ValueError(self._no_keys)

    @property
    def _no_room_for_bos(self) -> bool:
        """True if the token of ``--add-bos-token`` takes one of the model's positions."""
        return self._learned_positions and bool(self.args.add_bos_token)

    def build_criterion(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_memories("in training the --criterion says which memory a token sees")
        order = replace(self.order, predefined_batches=None) if self._validates_only else self.order
        order.check(self.args.data, self.args.train_subset)
        criterion = super().build_criterion(*args, **kwargs)
        if isinstance(criterion, TrimeCriterion):
            self._check_keys()
            self._criterion = criterion
            self._devices_per_memory = criterion.devices_per_memory
            self._summary = TrainingSummary(criterion.sees_later_tokens)
            if self.trained_softmax_temp is not None:
                # fairseq-validate reads the state of the task, but not that of the criterion.
                criterion.temperature.continue_from(self.trained_softmax_temp)
        if self._devices_per_memory is None and self.order.is_own:
            self._devices_per_memory = self.order.devices_per_memory
        return criterion

    def build_generator(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_memories("generation has no memory")
        return super().build_generator(*args, **kwargs)

    def _refuse_memories(self, why: str) -> None:
        names = ("use_local", "use_external", "knnlm", "save_knnlm_dstore")
        given = [flag(name) for name in names if getattr(self.config, name)]
        if given:
            raise ValueError(f"{' and '.join(given)}: of fairseq-eval-lm only; {why}")

    def begin_epoch(self, epoch: int, model: Any) -> None:
        self.epoch = epoch
        self._summary.begin_epoch()

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        self._summary.begin_validation()

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        with metrics.aggregate() as meters:
            super().reduce_metrics(logging_outputs, criterion)
        if criterion.training:
            self._summary.add_update(meters)

    def post_validate(self, model: Any, stats: Any, meters: Any) -> None:
        """What fairseq calls with the log of a validation subset."""
        self._summary.add_validation(meters)

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
        if self._no_room_for_bos and isinstance(options.get("max_positions"), int):
            options["max_positions"] -= 1
        if self._devices_per_memory is None:
            # Only the trainer's iterator of training says how steps are shuffled.
            trains = dataset is self.datasets.get(self.args.train_subset) and "grouped_shuffling" in options
            wrapped = self._host_targets.get((dataset, trains)) or HostTargets(dataset, whole=not trains)
            # Where fairseq keeps no iterator it lets go of the data, too.
            if not options.get("disable_iterator_cache"):
                self._host_targets[dataset, trains] = wrapped
            return super().get_batch_iterator(wrapped, *args, **options)
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
        max_tokens: int | None = None,
        max_sentences: int | None = None,
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
        trains = not self._validates_only and dataset is self.datasets.get(self.args.train_subset)
        order = self.order.segments(dataset, seed) if trains else np.arange(len(dataset))
        list_hash = order_hash(order) if trains and self.order.predefined_batches else None
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
            shuffle=trains and self.order.moves_steps,
            list_hash=list_hash,
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
            self._check_keys()
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
            self._learned_positions,
        )
        return setup.start(max_tokens, batch_size, num_workers, data_buffer_size)

    def build_scorer(self, config: MemoryConfig, pad: int, parts: ScorerParts) -> MemoryScorer:
        """Who scores an evaluation. Arguments as of :class:`MemoryScorer`; subclasses may build others."""
        return MemoryScorer(config, pad, parts)

    def build_sink(self, manifest: Manifest, begin: int, end: int, shard: Shard) -> RowSink:
        """Where the rows [begin, end) of the datastore go that ``manifest`` describes."""
        with flags_named():
            return DatastoreWriter(str(self.config.dstore_mmap), manifest, begin, end, shard.id)

"""``--task trime_translation``: the order of training sentences, and memories in generation."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from fairseq.data import iterators
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import EVAL_BLEU_ORDER, TranslationTask
from omegaconf import DictConfig

from ..criterions.joint import JointCriterion
from ..criterions.summary import TrainingSummary
from ..data.pair_files import PairFiles
from ..data.pairs import load_pairs
from ..data.provenance import data_folders
from ..data.sentence_batches import KnownSentenceBatches
from ..data.sentence_order import SentenceOrder, sentence_iterator
from ..datastore import DatastoreWriter, Manifest, RowSink
from ..datastore.layout import folder_prefix
from ..evaluation.config import part_of
from ..evaluation.datastore_config import flags_named
from ..evaluation.result import Shard
from ..generation import TranslationMemoryConfig, attach_memories
from ..generation.recording import RecordedText, record_text, recorded_dimension
from ..models.checkpoints import architecture, refuse_other_dictionary
from ..models.guard import compare_with
from .checks import flag_of_subset, is_command, read_dictionary, refuse_memories
from .segments import write_segments
from .state import check_saved_dictionaries, saved_state, without_ours
from .steps import SteppedTask, no_batch_skipped
from .subwords import subwords_of
from .training_flags import check_training_flags
from .translation_checks import check_translation_flags, dictionary_files
from .translation_config import TrimeTranslationConfig


@register_task("trime_translation", dataclass=TrimeTranslationConfig)
class TrimeTranslationTask(SteppedTask, TranslationTask):
    """Translation: what ``fairseq-train``, ``fairseq-generate`` and ``fairseq-interactive`` ask of a task.

    In training, batches in the order of ``--predefined-batches``; no batch of any command leaves sentences
    out. In generation, models search the datastore that the flags ask for.

    Raises:
        ValueError: by :meth:`setup_task`, :meth:`build_model` and :meth:`build_criterion`, for flags that
            contradict each other, the checkpoint or the data; before the model runs.
    """

    def __init__(self, cfg: Any, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.config = part_of(cfg, TranslationMemoryConfig)
        self.summary = TrainingSummary()
        self._criterion: Any = None
        self._batches = KnownSentenceBatches()
        # Of a datastore that is written: dimension of its keys, and the text.
        self._key_dimension = 0
        self._recorded: RecordedText | None = None
        # True in fairseq-validate, whose settings are those of a training that has ended.
        self._validates_only = is_command("validate")
        compare_with(self)

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "TrimeTranslationTask":
        check_translation_flags(TrimeTranslationConfig, cfg)
        config = part_of(cfg, TranslationMemoryConfig)
        if not is_command("generate"):
            refuse_memories(config, "of fairseq-generate only, which reads references", ["save_knnlm_dstore"])
        if is_command("train"):
            config.refuse_memory(
                "of fairseq-generate and fairseq-interactive; a model in training has no datastore"
            )
        config.check()
        if is_command("train") and isinstance(cfg, DictConfig):
            check_training_flags(cast(DictConfig, cfg._get_root()))
        task: TrimeTranslationTask = super().setup_task(cfg, **kwargs)
        task._validates_only |= bool(kwargs.get("from_checkpoint"))
        if cfg.output_segments_to_file:
            write_segments(
                *(cfg.output_segments_to_file, task._target_sentences, task.tgt_dict, cfg.data),
                lambda: task._files(cfg.train_subset).target_hash(),
                post_process=subwords_of(task.tgt_dict, cfg.eval_bleu_remove_bpe),
            )
            sys.exit(0)
        return task

    @classmethod
    def load_dictionary(cls, filename: str) -> Any:
        return read_dictionary(
            lambda: super(TrimeTranslationTask, cls).load_dictionary(filename),
            filename,
        )

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> Any:
        """Loads a subset as fairseq does, after checking its files.

        Raises:
            FileNotFoundError: if there is no such subset.
            ValueError: with file and flag, if it is damaged or empty.
        """
        impl = self.cfg.dataset_impl
        load_pairs(
            lambda: super(TrimeTranslationTask, self).load_dataset(split, epoch, combine, **kwargs),
            *(
                self.datasets,
                self._files(split, epoch),
                (self.src_dict, self.tgt_dict),
                flag_of_subset(split, self.cfg.train_subset),
            ),
            impl=None if impl is None else str(impl),
            combine=combine,
            # Without references there are translations, but neither losses nor an export.
            with_target=not is_command("generate", "interactive"),
        )

    def _files(self, split: str, epoch: int = 1) -> PairFiles:
        folders = data_folders(self.cfg.data)
        if split != self.cfg.train_subset:
            folders = folders[:1]
        folder = folders[(epoch - 1) % len(folders)]
        return PairFiles(folder, split, self.cfg.source_lang, self.cfg.target_lang)

    def _target_sentences(self) -> Any:
        self.load_dataset(self.cfg.train_subset, combine=True)
        return self.dataset(self.cfg.train_subset)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        model = super().build_model(cfg, from_checkpoint)
        if not hasattr(model, "encoder") or not hasattr(model, "decoder"):
            raise ValueError(f"--arch {architecture(cfg)}: it is no translation model")
        source, target = self._dictionary_files
        refuse_other_dictionary(model, len(self.src_dict), source, "encoder")
        refuse_other_dictionary(model, len(self.tgt_dict), target)
        if self.config.save_knnlm_dstore:
            self._key_dimension = recorded_dimension(model, self.config.path)
        return model

    def build_criterion(self, *args: Any, **kwargs: Any) -> Any:
        order = self._order
        if order is not None:
            order.check(self.cfg.data, self._files(self.cfg.train_subset))
        self._criterion = super().build_criterion(*args, **kwargs)
        return self._criterion

    @property
    def _order(self) -> SentenceOrder | None:
        """The order of training sentences; None: fairseq's."""
        path = None if self._validates_only else self.cfg.predefined_batches
        return None if path is None else SentenceOrder(path)

    @property
    def _dictionary_files(self) -> tuple[str, str]:
        return dictionary_files(self.cfg.source_lang, self.cfg.target_lang)

    def build_generator(
        self,
        models: Any,
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: Any = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """fairseq's own, of models that search a datastore if the flags ask for it; or what writes one."""
        if self._recorded is not None:
            return self._recorded.scorer
        if self.config.use_knn_datastore:
            scores = getattr(args, "score_reference", False)
            divided_by = 1.0 if scores else float(getattr(args, "temperature", 1.0))
            attach_memories(models, self.config, self.target_dictionary, self.cfg.target_lang, divided_by)
        return super().build_generator(
            models,
            args,
            seq_gen_cls=seq_gen_cls,
            extra_gen_cls_kwargs=extra_gen_cls_kwargs,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        )

    def get_batch_iterator(self, dataset: Any, *args: Any, **options: Any) -> iterators.EpochBatchIterator:
        """fairseq's own, which leaves no sentence out here; or in the order of ``--predefined-batches``, if
        these are the batches of a training."""
        if dataset not in self.datasets.values():
            # The lines of fairseq-interactive, new ones each time.
            return super().get_batch_iterator(dataset, *args, **options)
        # Only the trainer's iterator of training says how steps are shuffled.
        trains = dataset is self.datasets.get(self.cfg.train_subset) and "grouped_shuffling" in options
        group_size = options.get("num_shards", 1) if options.get("grouped_shuffling") else 1
        gathers = isinstance(self._criterion, JointCriterion)
        batches = self._batches.of(dataset, trains, group_size, gathers)
        if self.config.save_knnlm_dstore:
            # Sentences of equal length in their order, whatever the seed.
            dataset.shuffle = False
            return self._record(dataset, super().get_batch_iterator, batches, *args, **options)
        if not trains or self._order is None:
            iterator = super().get_batch_iterator(batches, *args, **options)
            if is_command("generate"):
                # Newer fairseqs would keep the workers for another epoch, which does not come.
                iterator.persistent_workers = False
            return iterator
        renewed = [options.pop(name, False) for name in ("disable_iterator_cache", "update_epoch_batch_itr")]
        if batches in self.dataset_to_epoch_iter and not any(renewed):
            return self.dataset_to_epoch_iter[batches]
        options.pop("grouped_shuffling")
        iterator = sentence_iterator(batches, self._order, self.filter_indices_by_size, *args, **options)
        if not any(renewed):
            self.dataset_to_epoch_iter[batches] = iterator
        return iterator

    def _record(self, dataset: Any, iterator: Callable[..., Any], *args: Any, **options: Any) -> RecordedText:
        """The batches of a text whose datastore is written, with the scorer that writes it."""
        if options.pop("num_shards", 1) > 1:
            raise ValueError("--save-knnlm-dstore: pass --num-shards N --shard-id I for several processes")
        self._recorded = record_text(
            self.config,
            dataset,
            iterator(*args, **{**options, "shard_id": 0}).frozen_batches,
            self._key_dimension,
            self.tgt_dict,
            self._files(self.config.gen_subset),
            self.build_sink,
            num_workers=options.get("num_workers", 0),
            buffer_size=options.get("data_buffer_size", 0),
        )
        return self._recorded

    def build_sink(self, manifest: Manifest, begin: int, end: int, shard: Shard) -> RowSink:
        """Where the rows [begin, end) of the datastore go that ``manifest`` describes."""
        with flags_named():
            return DatastoreWriter(
                folder_prefix(str(self.config.dstore_mmap)), manifest, begin, end, shard.id
            )

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
        with no_batch_skipped(isinstance(criterion, JointCriterion)):
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> Any:
        """fairseq's own; a rank without sentences translates nothing for ``--eval-bleu``."""
        if sample["ntokens"] or not self.cfg.eval_bleu:
            return super().valid_step(sample, model, criterion)
        loss, sample_size, log = FairseqTask.valid_step(self, sample, model, criterion)
        names = ["sys_len", "ref_len"]
        names += [f"{name}_{order}" for name in ("counts", "totals") for order in range(EVAL_BLEU_ORDER)]
        return loss, sample_size, {**log, **{f"_bleu_{name}": 0 for name in names}}

    def state_dict(self) -> dict[str, Any]:
        """What fairseq writes into checkpoints for the task."""
        ours = saved_state(self.tgt_dict.symbols, None, self.src_dict.symbols)
        return {**super().state_dict(), **ours}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.check_state(state_dict)
        super().load_state_dict(without_ours(state_dict))

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if a checkpoint with this state of its task does not fit the dictionaries."""
        source, target = self._dictionary_files
        check_saved_dictionaries(state, (source, self.src_dict.symbols), (target, self.tgt_dict.symbols))

"""``trime-build-index --streaming``: index and values straight from the model, without storing keys."""

import argparse
from collections.abc import Callable, Sequence

from ..datastore import DatastoreError, IndexConfig, Manifest, RowSink, StreamingIndex
from ..datastore.layout import folder_prefix
from ..evaluation import run_eval_lm
from ..generation.generate import run_generate
from ..tasks.trime_language_modeling import TrimeLanguageModelingTask
from ..tasks.trime_translation import TrimeTranslationTask
from .flags import task_of

Sink = Callable[[Manifest], RowSink]


def stream(
    args: argparse.Namespace, evaluation: Sequence[str], config: Callable[[int, str], IndexConfig]
) -> None:
    """Runs the model over its text, by default over the training subset.

    Args:
        args: of ``trime-build-index``.
        evaluation: DATA, ``--path`` and the other arguments of ``fairseq-eval-lm``; or those of
            ``fairseq-generate``, with ``--task trime_translation`` among them.
        config: the index asked for, of the dimension of the keys and the metric that they were made for.

    Raises:
        DatastoreError: for arguments that do not go together, and for everything that
            :class:`StreamingIndex` refuses.
    """
    if args.do_train_only or args.starting_point:
        raise DatastoreError("--streaming goes through the whole text: no --do_train_only, --starting_point")
    for flag in ("--num-shards", "--distributed-world-size"):
        if any(word.split("=")[0] == flag for word in evaluation):
            raise DatastoreError(f"--streaming is one process: leave out {flag}")

    translates = task_of(evaluation) == "trime_translation"
    prefix = folder_prefix(args.dstore_mmap) if translates else args.dstore_mmap

    def sink(manifest: Manifest) -> RowSink:
        return StreamingIndex(
            prefix,
            manifest,
            config(manifest.dimension, manifest.metric),
            args.faiss_index,
            chunk=args.num_keys_to_add_at_a_time,
            probe=args.probe,
            use_gpu=args.use_gpu,
        )

    words = [*evaluation, "--save-knnlm-dstore", "--dstore-mmap", args.dstore_mmap]
    if not any(word.split("=")[0] == "--gen-subset" for word in evaluation):
        words += ["--gen-subset", "train"]
    if args.dstore_size is not None:
        words += ["--dstore-size", str(args.dstore_size)]
    if args.dstore_fp16:
        words.append("--dstore-fp16")
    _stream_translations(words, sink) if translates else _stream_text(words, sink)


def _stream_text(words: Sequence[str], sink: Sink) -> None:
    class StreamingTask(TrimeLanguageModelingTask):
        def build_sink(self, manifest: Manifest, *unused: object) -> RowSink:
            return sink(manifest)

    run_eval_lm(words, StreamingTask)


def _stream_translations(words: Sequence[str], sink: Sink) -> None:
    class StreamingTask(TrimeTranslationTask):
        def build_sink(self, manifest: Manifest, *unused: object) -> RowSink:
            return sink(manifest)

    try:
        run_generate(words, StreamingTask)
    except SystemExit as ended:  # there are no translations, of which fairseq would report
        if ended.code:
            raise

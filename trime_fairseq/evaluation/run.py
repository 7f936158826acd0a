"""One run of ``fairseq-eval-lm``, from its first batch to its result."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fairseq.sequence_scorer import SequenceScorer

from ..distributed import rank, world_size
from .result import EvaluationResult, Shard
from .scorer import MemoryScorer
from .shards import merge_shard_files, write_result
from .units import UnitCounter

logger = logging.getLogger(__name__)

# Where a batch names its scorer.
_SCORER = "trime_scorer"
# Runs that are being iterated. One that failed half-way may end later, in the middle of the next.
_open = 0
_stock: Callable[..., Any] = SequenceScorer.generate


@contextmanager
def handed_on() -> Iterator[None]:
    """While it is open, fairseq's ``SequenceScorer`` hands batches that name a scorer to that one.

    ``fairseq-eval-lm`` offers no place for another scorer. So the method is replaced, for batches of an
    :class:`EvaluationRun` only, and not for longer than they come.
    """
    global _open, _stock
    if not _open:
        _stock, SequenceScorer.generate = SequenceScorer.generate, _generate
    _open += 1
    try:
        yield
    finally:
        _open -= 1
        if not _open:
            SequenceScorer.generate = _stock


def _generate(scorer: Any, models: Sequence[Any], sample: Mapping[str, Any], **options: Any) -> Any:
    if _SCORER in sample:
        return sample[_SCORER].generate(models, sample, scorer.softmax_batch)
    return _stock(scorer, models, sample, **options)


class EvaluationRun:
    """The batches of an evaluation, as fairseq iterates them; when they are through, it has a result.

    While it is iterated, and only then, fairseq's scorer hands its batches to ``scorer``.

    Args:
        batches: fairseq's iterator.
        scorer: scores them.
        description: what is evaluated, and how. Shards of one evaluation are recognised by it.
        eval_file: where to write the result as JSON, if anywhere.
        shard: this process's part of the samples.
        at_end: functions to call after the last batch; what they return belongs to the result.
        units: counts words and bytes, where that can be done.

    Attributes:
        batches: as given; iterated by themselves they are batches like any other.
        n: number of batches so far, as fairseq's progress bar reads it.
        result: of all tokens, or of this shard; None before the end.
    """

    def __init__(
        self,
        batches: Any,
        scorer: MemoryScorer,
        description: Mapping[str, Any],
        eval_file: str | None,
        shard: Shard,
        at_end: Sequence[Callable[[], Mapping[str, Any]]] = (),
        units: UnitCounter | None = None,
    ) -> None:
        self.batches = batches
        self.scorer = scorer
        self._description = description
        self._eval_file = eval_file
        self._shard = shard
        self._at_end = at_end if units is None else [*at_end, units.report]
        self._units = units
        self.n = 0
        self.result: EvaluationResult | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.scorer.totals.start()
        with handed_on():
            for batch in self.batches:
                self.n += 1
                if self._units is not None:
                    self._units.add(batch)
                yield {**batch, _SCORER: self.scorer}
        self._finish()

    def _finish(self) -> None:
        """Logs the loss of all tokens and writes the JSON file.

        Shards that are evaluated by separate commands (``--num-shards``) write one file each; whoever
        finds the files of all the others there writes the result of the whole.

        Raises:
            ValueError: for a loss that is no number, before anything is completed, and for a file that cannot
                be written.
            SystemExit: without an error, if nothing was left to evaluate: fairseq would print a perplexity
                of 1.
        """
        self.scorer.refuse_nan()
        measured: dict[str, Any] = {}
        for ending in self._at_end:
            measured.update(ending())
        result = replace(self.scorer.totals.finish(), description=self._description, measured=measured)
        self.result = result
        if not result.tokens:
            self._end_without_result()
            return
        together = world_size() > 1
        if together and rank() != 0:
            return
        if self._shard.count == 1 or together:
            result.log("all", compare=self.scorer.judges)
            if self._eval_file:
                write_result(self._eval_file, {**result.as_json(), "num_shards": self._shard.count})
            return
        result.log(f"shard {self._shard.id} of {self._shard.count}:", compare=False)
        if self._eval_file:
            write_result(self._shard.file(self._eval_file), result.as_json(), follow_links=False)
            merge_shard_files(result, self._eval_file, self._shard.count)

    def _end_without_result(self) -> None:
        if self.scorer.totals.is_used:
            raise ValueError("--gen-subset holds no token to evaluate (--add-bos-token counts no first ones)")
        logger.info("TRIME: nothing was left to evaluate: there is no loss, and no result is written")
        if self.scorer.parts.recorder is not None:
            sys.exit(0)

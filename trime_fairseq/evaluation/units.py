"""Words and bytes of an evaluated text in subwords, and the loss per word and per byte."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from fairseq.data import Dictionary

from ..data.context_window import EvaluationSample
from ..distributed import world_size
from .spelling import PieceTables, check_post_process, find_scheme, speller

logger = logging.getLogger(__name__)

# What fairseq's own eval_lm knows; "subword_nmt" it takes for the end of a symbol.
_OF_FAIRSEQ = ("@@ ", "subword_nmt")
_FAIRSEQS_LINE = {
    None: "",
    "@@ ": "; fairseq's line counts a word twice where a sample ends within it",
    "subword_nmt": "; fairseq's line stays per token (pass '@@ ' for its own count of words)",
}


@dataclass(frozen=True)
class TextUnits:
    """What was counted in the evaluated tokens of a text in subwords.

    Attributes:
        scheme: how the text was cut, as in :mod:`trime_fairseq.evaluation.spelling`.
        words: those whose first token was evaluated. A word stands between white space.
        line_ends: ``</s>``, which fairseq-preprocess adds to each line.
        bytes: of the text in UTF-8, with the mark of subwords undone, one for each space and line end.
        unknown: tokens whose text is not known, as ``<unk>``.
        first, leading: first tokens of lines, and those of them that begin with white space.
    """

    scheme: str
    words: int
    line_ends: int
    bytes: int
    unknown: int
    first: int
    leading: int

    @property
    def text_bytes(self) -> int:
        """Bytes without the space that sentencepiece puts at the beginning of each line, not of the text."""
        begins_all = self.leading == self.first
        prefixed = self.scheme == "sentencepiece" or (self.scheme == "\u2581" and begins_all)
        return self.bytes - self.leading if prefixed else self.bytes

    def losses(self, nll_nats: float) -> dict[str, Any]:
        """The fields of the result: counts, bits per word (a line end is one) and per byte; None where tokens
        are unknown, so that nobody can tell."""
        known = not self.unknown
        words, size = self.words + self.line_ends, self.text_bytes
        bits = nll_nats / math.log(2)
        per_word = bits / words if known and words else None
        return {
            "words": self.words if known else None,
            "line_ends": self.line_ends,
            "bytes": size if known else None,
            "unknown_tokens": self.unknown,
            "loss_per_word": per_word,
            "ppl_per_word": 2.0**per_word if per_word is not None and per_word < 1000 else None,
            "loss_per_byte": bits / size if known and size else None,
        }

    def log(self, nll_nats: float, post_process: str | None) -> None:
        """Logs the losses, and what fairseq's own last line is of."""
        found = self.losses(nll_nats)
        fairseqs = _FAIRSEQS_LINE.get(post_process, "; fairseq's line is per token")
        if found["loss_per_word"] is None or found["loss_per_byte"] is None:
            logger.info(
                f"TRIME: {self.unknown:,} tokens are <unk> or no {_name(self.scheme)}, so the loss per word "
                f"and per byte is not known{fairseqs}"
            )
            return
        ppl = "" if found["ppl_per_word"] is None else f" (perplexity {found['ppl_per_word']:.2f})"
        logger.info(
            f"TRIME: {found['words']:,} words and {found['line_ends']:,} line ends, {found['bytes']:,} bytes "
            f"of {_name(self.scheme)}: {found['loss_per_word']:.4f} bits per word or line end{ppl}, "
            f"{found['loss_per_byte']:.4f} bits per byte{fairseqs}"
        )

    @classmethod
    def is_one(cls, content: Any) -> bool:
        """Whether a value of JSON is what :func:`dataclasses.asdict` makes of these counts."""
        if not isinstance(content, dict) or set(content) != {entry.name for entry in fields(cls)}:
            return False
        scheme, *counts = (content[entry.name] for entry in fields(cls))
        return isinstance(scheme, str) and all(type(n) is int and 0 <= n < 2**63 for n in counts)

    @classmethod
    def merge(cls, parts: Sequence[Mapping[str, Any]]) -> "TextUnits":
        """Of the parts of a text, each as :func:`dataclasses.asdict` gives it."""
        scheme, *counts = (entry.name for entry in fields(cls))
        return cls(parts[0][scheme], *(sum(int(part[name]) for part in parts) for name in counts))


def _name(scheme: str) -> str:
    return f"'{scheme}' subwords" if scheme in ("@@", "\u2581") else f"{scheme} subwords"


class UnitCounter:
    """Counts words and bytes while batches are evaluated, on the CPU.

    Args:
        scheme: of the text.
        tables: of its types.
        eos: the line end.
        skip_bos: the first token of each sample is ``--add-bos-token``'s.
    """

    def __init__(self, scheme: str, tables: PieceTables, eos: int, skip_bos: bool = False) -> None:
        self.scheme, self.tables, self.eos, self.skip_bos = scheme, tables, eos, skip_bos
        self._sums = np.zeros(len(fields(TextUnits)) - 1, np.int64)

    @classmethod
    def for_text(
        cls, dictionary: Dictionary, post_process: str | None, folder: str, skip_bos: bool = False
    ) -> "UnitCounter | None":
        """None where nothing says that the tokens are subwords.

        Raises:
            ValueError: for an unknown ``--post-process``, or if what it needs is not there.
        """
        if post_process is not None:
            check_post_process(post_process)
        special = {dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk()}
        symbols = list(dictionary.symbols)
        own = [symbol for number, symbol in enumerate(symbols) if number not in special]
        scheme = find_scheme(own, post_process, folder)
        if scheme is None:
            return None
        spell = speller(scheme, own, folder)
        pieces = [None if number in special else spell(symbol) for number, symbol in enumerate(symbols)]
        return cls(scheme, PieceTables.of(pieces, dictionary.eos()), dictionary.eos(), skip_bos)

    def add(self, batch: EvaluationSample) -> None:
        """Counts the evaluated tokens of a batch, each with the token before it."""
        source, target = batch["net_input"]["src_tokens"].numpy(), batch["target"].numpy()
        spans = [(row, first + self.skip_bos, last) for row, (first, last) in enumerate(batch["spans"])]
        before, here = (
            np.concatenate([tokens[row, first:last] for row, first, last in spans])
            for tokens in (source, target)
        )
        tables, line_begins = self.tables, before == self.eos
        begun = tables.opens[here]
        first = line_begins & (here != self.eos)
        self._sums += [
            int(tables.inner[here].sum()) + int((begun & tables.closed[before]).sum()),
            int((here == self.eos).sum()),
            int(tables.size[here].sum()) + int((begun & tables.space[before]).sum()),
            # Before a shard or a gap may lie one that is not counted here, and a word that it began.
            int(tables.unknown[here].sum()) or int(tables.unknown[before].any()),
            int(first.sum()),
            int((first & tables.white[here]).sum()),
        ]

    def report(self) -> dict[str, Any]:
        """What belongs to the result: of all processes that evaluate together."""
        counts = torch.from_numpy(self._sums)
        if world_size() > 1:
            counts = counts.to("cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(counts)
        return {"text_units": asdict(TextUnits(self.scheme, *counts.tolist()))}


def take_over_post_process(config: Any, value: str | None) -> None:
    """Keeps a ``--post-process`` from fairseq's ``eval_lm`` that only this package knows: it would refuse it.

    Args:
        config: of the task, a part of the command's whole configuration.
        value: the flag.

    Raises:
        ValueError: if it is unknown.
    """
    if value is None:
        return
    check_post_process(value)
    whole = config._get_parent() if hasattr(config, "_get_parent") else None
    if value not in _OF_FAIRSEQ and whole is not None:
        whole.common_eval.post_process = None

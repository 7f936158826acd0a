"""Samples in text order, each preceded by the tokens before it."""

from typing import Any, TypedDict

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class EvaluationSample(TypedDict, total=False):
    """A batch of evaluation: fairseq's fields, and two that stay on the CPU.

    Attributes:
        id: of each sample, int64 [B].
        nsentences, ntokens: samples, and evaluated tokens.
        net_input: arguments of the model.
        target: int64 [B, T], padding over the context.
        start_indices: the first evaluated position of each row.
        sample_ids: ``id`` as plain numbers.
        spans: the first and the last + 1 evaluated position of each row.
    """

    id: Tensor
    nsentences: int
    ntokens: int
    net_input: dict[str, Tensor]
    target: Tensor
    start_indices: list[int]
    sample_ids: list[int]
    spans: list[tuple[int, int]]


class ContextWindowDataset(FairseqDataset):
    """The samples ``kept`` of a language-modelling dataset, each behind up to ``context_window`` tokens
    of the text before it.

    Gives the inputs of fairseq's ``LMContextWindowDataset``, but an item depends on its position alone:
    the tokens before it are read again where they are not at hand. So the context is right with any number
    of loader workers and shards. It is the end of the concatenation of all kept samples before the item.

    Args:
        dataset: items with ``id``, ``source`` and ``target`` (fairseq's ``MonolingualDataset``).
        kept: indices into ``dataset`` in text order; position ``p`` of this dataset is ``kept[p]``.
        lengths: number of tokens of each kept sample.
        tokens_per_sample: tokens of a full sample; a longer one gets less context, never more than
            ``tokens_per_sample + context_window`` together unless it is longer by itself.
        context_window: tokens of context, 0 or more.
        pad: padding symbol.
        begins_with_bos: samples are one token longer than ``lengths`` says (``--add-bos-token``).
    """

    def __init__(
        self,
        dataset: FairseqDataset,
        kept: NDArray[np.int64],
        lengths: NDArray[np.int64],
        tokens_per_sample: int,
        context_window: int,
        pad: int,
        begins_with_bos: bool = False,
    ) -> None:
        self.dataset = dataset
        self.kept = kept
        self.lengths = lengths
        self.tokens_per_sample = tokens_per_sample
        self.context_window = context_window
        self.pad = pad
        self.begins_with_bos = begins_with_bos
        # (position, last tokens up to and including it): consecutive positions need not read back.
        self._tail: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.kept)

    def context_length(self, position: int) -> int:
        """An upper bound of the context of a sample; all but the first samples reach it."""
        room = self.tokens_per_sample + self.context_window - self.evaluated_length(position)
        return max(0, min(self.context_window, room))

    def evaluated_length(self, position: int) -> int:
        """Positions of the model's input that are a sample's own."""
        return int(self.lengths[position]) + self.begins_with_bos

    def __getitem__(self, position: int) -> dict[str, Any]:
        item = self.dataset[self.kept[position]]
        preceding = self._preceding(position)
        context = preceding[max(0, len(preceding) - self.context_length(position)) :]
        if self.context_window:
            tail = torch.cat([preceding, item["source"]])
            self._tail = (position, tail[-self.context_window :])
        return {
            "id": int(item["id"]),
            "source": torch.cat([context, item["source"]]),
            "target": item["target"],
            "start": len(context),
        }

    def _preceding(self, position: int) -> Tensor:
        if self._tail[0] == position - 1:
            return self._tail[1]
        pieces: list[Tensor] = []
        missing = self.context_window
        while missing > 0 and position > 0:
            position -= 1
            pieces.append(self.dataset[self.kept[position]]["source"][-missing:])
            missing -= len(pieces[-1])
        return torch.cat(pieces[::-1]) if pieces else self._tail[1][:0]

    def collater(self, samples: list[dict[str, Any]]) -> EvaluationSample:
        """A batch of the items ``samples``; empty without any."""
        if not samples:
            return {}
        spans = [(s["start"], s["start"] + len(s["target"])) for s in samples]
        targets = [torch.cat([s["target"].new_full((s["start"],), self.pad), s["target"]]) for s in samples]
        return {
            "id": torch.tensor([s["id"] for s in samples]),
            "nsentences": len(samples),
            "ntokens": sum(last - first for first, last in spans),
            "net_input": {
                "src_tokens": pad_sequence(
                    [s["source"] for s in samples], batch_first=True, padding_value=self.pad
                ),
                "src_lengths": torch.tensor([len(s["source"]) for s in samples]),
            },
            "target": pad_sequence(targets, batch_first=True, padding_value=self.pad),
            "start_indices": [first for first, _ in spans],
            "sample_ids": [s["id"] for s in samples],
            "spans": spans,
        }

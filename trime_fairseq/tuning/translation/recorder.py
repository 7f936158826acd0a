"""A stand-in for fairseq's generator, which reads references instead of translating."""

from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from ...datastore import Retriever
from ...models.representation import RepresentationTap
from ..progress import Progress
from .record import ReferenceRecord


class ReferenceRecorder:
    """Keeps what a model and the neighbours say of every token of the references, in teacher forcing.

    Args:
        retriever: searches the datastore, for as many neighbours as any setting needs.
        dictionary: of the target language.
        sentences: how many there are.
    """

    def __init__(self, retriever: Retriever, dictionary: Dictionary, sentences: int) -> None:
        self._retriever, self._pad = retriever, dictionary.pad()
        #: What fairseq asks for.
        self.eos = dictionary.eos()
        self._progress = Progress(sentences, "references")
        self._sentences = self._dimension = 0
        self._pieces: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def generate(self, models: Any, sample: Any, **unused: Any) -> list[list[dict[str, Any]]]:
        """What fairseq calls with a batch; returns the references.

        Raises:
            ValueError: if there are none.
        """
        targets = sample["target"]
        if targets is None:
            raise ValueError("the text has no references, and tuning compares with them: binarise both sides")
        (model,) = models
        model.eval()
        with RepresentationTap(model.decoder, "model_output") as tap:
            logits = model(**sample["net_input"])[0]
        features = tap.representation()
        counted = targets != self._pad
        found = self._retriever.search(features[counted])
        self._pieces.append(
            (
                logits.float().logsumexp(-1)[counted].cpu(),
                logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)[counted].float().cpu(),
                found.scores.cpu(),
                found.tokens.int().cpu(),
                targets[counted].cpu(),
            )
        )
        self._dimension = features.size(-1)
        self._sentences += len(targets)
        self._progress.add(len(targets))
        return [[_reference(row[row != self._pad])] for row in targets]

    def record(self) -> ReferenceRecord:
        """All tokens; call after the last batch.

        Raises:
            ValueError: if there was no batch.
        """
        if not self._pieces:
            raise ValueError("there is no sentence to tune on: --gen-subset is empty")
        token_lse, target_logit, scores, tokens, targets = map(torch.cat, zip(*self._pieces))
        return ReferenceRecord(
            *(token_lse, target_logit, scores, tokens, targets), self._dimension, self._sentences
        )


def _reference(tokens: Tensor) -> dict[str, Any]:
    zeros = torch.zeros(len(tokens))
    return {
        "tokens": tokens,
        "score": 0.0,
        "attention": None,
        "alignment": None,
        "positional_scores": zeros,
    }

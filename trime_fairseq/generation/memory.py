"""A memory beside one model: its distribution over the next token becomes that of model and neighbours."""

import types
from contextlib import ExitStack
from typing import Any

import torch
from fairseq.models import FairseqDecoder
from torch import Tensor

from ..datastore import Retriever
from ..models.representation import RepresentationTap
from .mixture import Mixture

# Of rows x vocabulary that are mixed at a time.
_MIXED = 2**24


class ModelMemory:
    """Adds neighbours to what a model says of the next token.

    fairseq's generators and scorers run the decoder, then ask ``model.get_normalized_probs`` for its
    distribution. This attribute of one model is replaced: neighbours of the decoder's features are searched,
    once for all hypotheses of a step, and join. Beam search, sampling, constraints, ensembles, scoring of
    references: all stay fairseq's own.

    Args:
        model: of fairseq, with a decoder that :func:`check_decoder` accepts.
        retriever: searches the datastore.
        mixture: how neighbours join.
        config: the settings that both were made from, to tell whether another generator wants others.
    """

    def __init__(self, model: Any, retriever: Retriever, mixture: Mixture, config: Any = None) -> None:
        self.retriever, self.mixture, self.config = retriever, mixture, config
        #: What the generator divides logits by (``--temperature``) before it asks.
        self.divided_by = 1.0
        self._tap = RepresentationTap(model.decoder, "model_output")
        self._undo = ExitStack()
        self._undo.enter_context(self._tap)
        model.get_normalized_probs = self.get_normalized_probs
        self._undo.callback(delattr, model, "get_normalized_probs")

    @classmethod
    def of(cls, model: Any) -> "ModelMemory | None":
        """The memory that a model has already."""
        method = vars(model).get("get_normalized_probs")
        owner = method.__self__ if isinstance(method, types.MethodType) else None
        return owner if isinstance(owner, cls) else None

    def detach(self) -> None:
        """Gives the model back as it was."""
        self._undo.close()

    @torch.no_grad()
    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        """What fairseq calls, with the decoder's output.

        Args:
            net_output: its first item are the logits of the last forward pass, [B, L, V], or [B, 1, V] of its
                last positions.
            log_probs: whether logarithms are wanted.
            sample: not used.

        Returns:
            float32 [B, L, V].

        Raises:
            RuntimeError: if the logits are not those of the last forward pass.
        """
        logits = net_output[0]
        features = self._tap.representation()
        batch, length, vocabulary = logits.shape
        if length == 1:
            # Of a decoder that is not incremental fairseq keeps the last position.
            features = features[:, -1:]
        if features.shape[:2] != (batch, length):
            raise RuntimeError(
                f"logits of {batch} x {length} positions, but features of {tuple(features.shape[:2])}: the "
                "memory needs those of one forward pass"
            )
        found = self.retriever.search(features.reshape(batch * length, -1))
        rows = max(1, _MIXED // vocabulary)
        pieces = [
            self.mixture.log_probs(logits, scores, tokens, self.divided_by)
            for logits, scores, tokens in zip(
                *(t.split(rows) for t in (logits.reshape(-1, vocabulary), found.scores, found.tokens))
            )
        ]
        result = (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).view(net_output[0].shape)
        return result if log_probs else result.exp_()


def check_decoder(decoder: Any) -> None:
    """Raises ValueError for a decoder whose distribution is not the softmax of logits over all tokens."""
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise ValueError(
            "its decoder has an adaptive softmax, without logits of all tokens: a memory needs a model that "
            "was trained without --adaptive-softmax-cutoff"
        )
    kind = type(decoder)
    names = ("get_normalized_probs", "get_normalized_probs_scriptable")
    if any(getattr(kind, name, None) is not getattr(FairseqDecoder, name) for name in names):
        raise ValueError(
            f"its {kind.__name__} computes probabilities in a way of its own: no memory can join"
        )

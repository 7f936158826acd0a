"""Runs a decoder and scores target tokens, with an adaptive softmax, a plain one or one of its own."""

from typing import Any

import numpy as np
from fairseq.models.transformer import TransformerDecoderBase
from numpy.typing import NDArray
from torch import Tensor, nn

from ..memory import adaptive_token_scores, linear_token_scores, plain_token_scores


def run_decoder(model: Any, net_input: dict[str, Any]) -> tuple[Tensor, bool]:
    """Runs the model without the projection to the vocabulary, where the decoder is one of fairseq's.

    Returns:
        The decoder's output [B, L, *]; and True if it is the features [B, L, d], False if it is the logits,
        which decoders with a forward pass of their own give.
    """
    decoder = model.decoder
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return model(**net_input)[0], True
    if getattr(type(decoder), "forward", None) is TransformerDecoderBase.forward:
        return model(**net_input, features_only=True)[0], True
    return model(**net_input)[0], False


def token_scores(
    decoder: Any,
    output: Tensor,
    is_features: bool,
    target: Tensor,
    uncharged_tail_index: int | None = None,
    host_target: NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:
    """a and b of the objective, float32 (float64 for float64) of shape [N].

    Args:
        decoder: of the model that ran.
        output, is_features: from :func:`run_decoder`; any N rows of its output, [N, *].
        target: int64 [N].
        uncharged_tail_index, host_target: of :func:`trime_fairseq.memory.adaptive_token_scores`.
    """
    adaptive_softmax = getattr(decoder, "adaptive_softmax", None)
    if adaptive_softmax is not None:
        return adaptive_token_scores(adaptive_softmax, output, target, uncharged_tail_index, host_target)
    if not is_features:
        return plain_token_scores(output, target)
    projection = _linear_projection(decoder)
    if projection is None:
        return plain_token_scores(decoder.output_layer(output), target)
    return linear_token_scores(output, projection.weight, projection.bias, target)


def _linear_projection(decoder: Any) -> nn.Linear | None:
    """The projection to the vocabulary, if nothing else happens between features and logits."""
    projection = getattr(decoder, "output_projection", None)
    if type(decoder).output_layer is not TransformerDecoderBase.output_layer:
        return None
    if type(projection) is not nn.Linear or projection._forward_pre_hooks or projection._forward_hooks:
        return None
    return projection

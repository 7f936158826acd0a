"""Runs a decoder and scores target tokens, with an adaptive softmax, a plain one or one of its own."""

from typing import Any

import numpy as np
import torch
from fairseq.models.transformer import TransformerDecoderBase
from numpy.typing import NDArray
from torch import Tensor, nn

from ..memory import (
    adaptive_token_scores,
    linear_joint_loss,
    linear_token_scores,
    plain_token_scores,
    trime_log_prob,
)
from ..memory.numerics import accumulation_dtype

# Tokens whose logits are held at a time where only the best one of each is asked for.
_ROWS = 1024


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


def joint_loss(
    decoder: Any,
    output: Tensor,
    is_features: bool,
    target: Tensor,
    lses: tuple[Tensor, Tensor] | None,
    summed: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss over tokens and memories, and a and b of the objective, of a decoder without adaptive softmax.

    Args:
        decoder, output, is_features, target: as of :func:`token_scores`.
        lses: A and P of the objective, [N] each; None: without memories, which is cross-entropy.
        summed: one loss, or one per token.

    Returns:
        The loss in nats, [] or [N]; a and b, [N]. Gradients go through the loss.
    """
    if lses is None:
        nothing = output.new_full((len(output),), -torch.inf, dtype=accumulation_dtype(output.dtype))
        lses = nothing, nothing
    projection = _linear_projection(decoder) if is_features else None
    if summed and projection is not None:
        return linear_joint_loss(output, projection.weight, projection.bias, target, *lses)
    token_lse, target_logit = token_scores(decoder, output, is_features, target)
    loss = -trime_log_prob(token_lse, target_logit, *lses)
    return loss.sum() if summed else loss, token_lse, target_logit


def count_correct(decoder: Any, output: Tensor, is_features: bool, target: Tensor) -> Tensor:
    """How many targets have the largest logit, int64 [] on the device. Arguments as of :func:`joint_loss`."""
    correct = torch.zeros((), dtype=torch.int64, device=target.device)
    with torch.no_grad():
        for part, column in zip(output.split(_ROWS), target.split(_ROWS)):
            logits = decoder.output_layer(part) if is_features else part
            correct += (logits.argmax(-1) == column).sum()
    return correct


def refuse_adaptive_softmax(decoder: Any) -> None:
    """Raises ValueError, naming the flags, for a decoder with an adaptive softmax."""
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise ValueError(
            "--adaptive-softmax-cutoff, given or set by --arch: trime_mt_loss cannot train a model with an "
            "adaptive softmax: leave it out, or take an --arch without it"
        )


def _linear_projection(decoder: Any) -> nn.Linear | None:
    """The projection to the vocabulary, if nothing else happens between features and logits."""
    projection = getattr(decoder, "output_projection", None)
    if type(decoder).output_layer is not TransformerDecoderBase.output_layer:
        return None
    if type(projection) is not nn.Linear or projection._forward_pre_hooks or projection._forward_hooks:
        return None
    return projection

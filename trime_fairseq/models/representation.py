"""Captures the representation g(c), which is query and key of the memory, without changing the model."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import Tensor, nn

KEY_TYPES = ("last_ffn_input", "model_output")


def key_dimension(decoder: Any, key_type: str) -> int:
    """d of the representation ``key_type`` of a fairseq ``TransformerDecoder``."""
    if key_type == "last_ffn_input":
        last = list(decoder.layers._modules.values())[-1]
        return int(getattr(last, "embed_dim", 0) or last.fc1.in_features)
    return int(decoder.output_embed_dim)


class RepresentationTap:
    """Context manager that captures g(c) in one forward pass of a transformer decoder.

        with RepresentationTap(model.decoder, "last_ffn_input") as tap:
            net_output = model(**sample["net_input"])
        representation = tap.representation()

    ``last_ffn_input`` (the published choice) is the input of the feed-forward block of the last layer
    that ran, after its layer norm; ``model_output`` is what the output projection is given. Hooks and
    the changes below last for the ``with`` block only.

    ``--checkpoint-activations`` runs layers without gradients, and what is captured inside would carry
    none. So the tapped layer runs without it, and the activations of this one layer are kept.

    Args:
        decoder: a fairseq ``TransformerDecoder``.
        key_type: one of :data:`KEY_TYPES`.

    Raises:
        ValueError: if ``key_type`` is unknown.
        RuntimeError: by :meth:`representation`, if the forward pass never reached the tapped module.
    """

    def __init__(self, decoder: Any, key_type: str) -> None:
        if key_type not in KEY_TYPES:
            raise ValueError(f"--knn-keytype {key_type!r}: one of {', '.join(KEY_TYPES)}")
        self._decoder = decoder
        self._key_type = key_type
        self._captured: Tensor | None = None
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> "RepresentationTap":
        for layer in self._tapped_layers():
            handle = layer.fc1.register_forward_pre_hook(self._capture)
            self._undo.append(handle.remove)
            self._run_without_checkpointing(layer)
        if self._key_type == "model_output" and self._decoder.adaptive_softmax is None:
            projection: nn.Module = self._decoder.output_projection
            self._undo.append(projection.register_forward_pre_hook(self._capture).remove)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._undo:
            self._undo.pop()()

    def representation(self, features: Tensor | None = None) -> Tensor:
        """g(c) of shape [B, L, d], in the dtype of the model, with its gradient in training.

        Args:
            features: the decoder's output [B, L, d] where the model did not project it to the
                vocabulary (adaptive softmax, or ``features_only``); it is ``model_output`` itself.
        """
        if self._key_type == "model_output":
            captured = features if features is not None else self._captured
        else:
            captured = None if self._captured is None else self._captured.transpose(0, 1)
        self._captured = None
        if captured is None:
            raise RuntimeError(
                f"--knn-keytype {self._key_type}: the forward pass did not reach the module it is taken from"
            )
        return captured

    def _capture(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._captured = inputs[0]

    def _tapped_layers(self) -> list[Any]:
        if self._key_type != "last_ffn_input":
            return []
        # Not iterated directly: with --decoder-layerdrop that would draw which layers to drop.
        layers = list(self._decoder.layers._modules.values())
        # With layer drop the last layer may not run; the last one that does overwrites the others.
        return layers if getattr(self._decoder, "decoder_layerdrop", 0) > 0 else layers[-1:]

    def _run_without_checkpointing(self, layer: Any) -> None:
        if hasattr(layer, "precheckpoint_forward"):
            checkpointed = layer.forward
            layer.forward = layer.precheckpoint_forward
            self._undo.append(lambda: setattr(layer, "forward", checkpointed))

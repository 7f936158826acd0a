"""Captures the representation g(c), which is query and key of the memory, without changing the model."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from fairseq.models.lstm import LSTMDecoder
from torch import Tensor, nn

KEY_TYPES = ("last_ffn_input", "model_output")


def key_dimension(decoder: Any, key_type: str) -> int:
    """d of the representation ``key_type`` of a decoder.

    Raises:
        ValueError: if it has no such representation; says what it has.
    """
    dimension = _dimension(decoder, key_type)
    if dimension is not None:
        return dimension
    others = [other for other in KEY_TYPES if _dimension(decoder, other) is not None]
    if others:
        raise ValueError(f"it has no --knn-keytype {key_type}: pass --knn-keytype {others[0]}")
    raise ValueError("it has no representation to take keys from: use it without memories (--mode lm)")


def _dimension(decoder: Any, key_type: str) -> int | None:
    if key_type == "last_ffn_input":
        layers = _layers(decoder)
        if not layers or not isinstance(getattr(layers[-1], "fc1", None), nn.Module):
            return None
        return int(getattr(layers[-1], "embed_dim", 0) or layers[-1].fc1.in_features)
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return int(getattr(decoder, "output_embed_dim", 0) or decoder.adaptive_softmax.input_dim)
    projection = _projection(decoder)
    if projection is not None:
        return int(getattr(decoder, "output_embed_dim", 0) or projection.in_features)  # type: ignore[arg-type]
    if _projects_by_method(decoder):
        return int(decoder.embed_tokens.embedding_dim)
    return None


def _layers(decoder: Any) -> list[Any]:
    # Not iterated directly: with --decoder-layerdrop that would draw which layers to drop.
    layers = getattr(decoder, "layers", None)
    return list(layers._modules.values()) if isinstance(layers, nn.Module) else []


def _projection(decoder: Any) -> nn.Module | None:
    """The module that makes logits: of a transformer, a convolutional decoder or an LSTM."""
    for name in ("output_projection", "fc3", "fc_out"):
        module = getattr(decoder, name, None)
        if isinstance(module, nn.Module):
            return module
    return None


def _projects_by_method(decoder: Any) -> bool:
    """Whether it is an LSTM that makes logits with the weights of its input."""
    return isinstance(decoder, LSTMDecoder) and decoder.share_input_output_embed


class RepresentationTap:
    """Context manager that captures g(c) in one forward pass of a decoder.

        with RepresentationTap(model.decoder, "last_ffn_input") as tap:
            net_output = model(**sample["net_input"])
        representation = tap.representation()

    ``last_ffn_input`` (the published choice) is the input of the feed-forward block of the last layer
    that ran, after its layer norm; ``model_output`` is what the output projection is given, which LSTMs and
    convolutional decoders have, too. Hooks and
    the changes below last for the ``with`` block only.

    ``--checkpoint-activations`` runs layers without gradients, and what is captured inside would carry
    none. So the tapped layer runs without it, and the activations of this one layer are kept.

    Args:
        decoder: one of fairseq's.
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
        if self._key_type == "model_output" and getattr(self._decoder, "adaptive_softmax", None) is None:
            projection = _projection(self._decoder)
            if projection is not None:
                self._undo.append(projection.register_forward_pre_hook(self._capture).remove)
            elif _projects_by_method(self._decoder):
                self._capture_from_method()
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

    def _capture_from_method(self) -> None:
        decoder, project = self._decoder, self._decoder.output_layer

        def output_layer(features: Tensor) -> Tensor:
            self._captured = features
            logits: Tensor = project(features)
            return logits

        decoder.output_layer = output_layer
        self._undo.append(lambda: delattr(decoder, "output_layer"))

    def _tapped_layers(self) -> list[Any]:
        if self._key_type != "last_ffn_input":
            return []
        layers = [layer for layer in _layers(self._decoder) if hasattr(layer, "fc1")]
        # With layer drop the last layer may not run; the last one that does overwrites the others.
        return layers if getattr(self._decoder, "decoder_layerdrop", 0) > 0 else layers[-1:]

    def _run_without_checkpointing(self, layer: Any) -> None:
        if hasattr(layer, "precheckpoint_forward"):
            checkpointed = layer.forward
            layer.forward = layer.precheckpoint_forward
            self._undo.append(lambda: setattr(layer, "forward", checkpointed))

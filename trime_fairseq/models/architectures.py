"""``--arch`` names of the published models that stock fairseq lacks (``transformer_lm_wiki103`` it has)."""

from argparse import Namespace

from fairseq.models import register_model_architecture
from fairseq.models.transformer_lm import base_lm_architecture


def _default(args: Namespace, **values: object) -> None:
    for name, value in values.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


@register_model_architecture("transformer_lm", "transformer_lm_wiki103_150M")
def transformer_lm_wiki103_150M(args: Namespace) -> None:
    """The 150M model of WikiText-103 with segments of 150 tokens: 16 layers of width 410.

    All bands of the adaptive input have the full width (factor 1): 150M parameters with 267,744 types.
    Unlike in fairseq's ``transformer_lm_wiki103`` there is a last layer norm, the projections of the adaptive
    softmax are not those of the input, and it has no dropout.
    """
    _default(
        args,
        decoder_layers=16,
        decoder_embed_dim=410,
        decoder_ffn_embed_dim=2100,
        decoder_attention_heads=10,
        adaptive_input=True,
        adaptive_input_cutoff="20000,60000",
        adaptive_input_factor=1.0,
        adaptive_softmax_cutoff="20000,60000",
        adaptive_softmax_factor=1.0,
        dropout=0.3,
        attention_dropout=0.1,
        activation_dropout=0.1,
        tie_adaptive_weights=True,
    )
    base_lm_architecture(args)


@register_model_architecture("transformer_lm", "transformer_lm_enwik8")
def transformer_lm_enwik8(args: Namespace) -> None:
    """The 38M character-level model of enwik8: 12 layers of width 512.

    The softmax over some 200 bytes is a plain one with tied embeddings, unless adaptive input or an
    adaptive softmax is asked for: published checkpoints carry those settings themselves.
    """
    _default(
        args,
        decoder_layers=12,
        decoder_embed_dim=512,
        decoder_ffn_embed_dim=2048,
        decoder_attention_heads=8,
        dropout=0.3,
        attention_dropout=0.1,
        activation_dropout=0.1,
    )
    if not getattr(args, "adaptive_input", False) and not getattr(args, "adaptive_softmax_cutoff", None):
        _default(args, share_decoder_input_output_embed=True)
    base_lm_architecture(args)

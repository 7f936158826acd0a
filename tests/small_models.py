"""Language models of a few thousand parameters, built by fairseq."""

from argparse import Namespace
from types import SimpleNamespace

import torch
from fairseq.models.transformer_lm import TransformerLanguageModel, base_lm_architecture


def build(dictionary, **settings):
    small = dict(
        decoder_layers=3,
        decoder_embed_dim=16,
        decoder_ffn_embed_dim=24,
        decoder_attention_heads=2,
        dropout=0.0,
        tokens_per_sample=8,
        share_decoder_input_output_embed=True,
    )
    args = Namespace(**{**small, **settings})
    base_lm_architecture(args)
    torch.manual_seed(1)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return TransformerLanguageModel.build_model(args, task)

"""Token scores of decoders that are not quite fairseq's."""

import pytest
import torch
from fairseq.models.transformer import TransformerDecoder

from tests.criterions.test_base import make, sample_of
from tests.small_models import build
from trime_fairseq.memory import plain_token_scores, token_scores
from trime_fairseq.models.output import run_decoder
from trime_fairseq.models.output import token_scores as output_scores


def scores_of(model, batch):
    output, is_features = run_decoder(model, batch["net_input"])
    rows = output.reshape(-1, output.size(-1))
    return output_scores(model.decoder, rows, is_features, batch["target"].reshape(-1)), is_features


def expected_of(model, batch):
    logits = model(**batch["net_input"])[0]
    return plain_token_scores(logits.reshape(-1, logits.size(-1)), batch["target"].reshape(-1))


class SoftCapped(TransformerDecoder):
    """Changes the logits after the projection."""

    def forward(self, prev_output_tokens, **unused):
        logits, extra = super().forward(prev_output_tokens, **unused)
        return 3 * torch.tanh(logits / 3), extra


class Scaled(TransformerDecoder):
    def output_layer(self, features):
        return 0.5 * super().output_layer(features)


@pytest.mark.parametrize("kind", [TransformerDecoder, SoftCapped, Scaled])
def test_scores_are_those_of_the_model(dictionary, kind):
    model, batch = build(dictionary).eval(), sample_of(dictionary, 7, 7)
    model.decoder.__class__ = kind
    scores, is_features = scores_of(model, batch)
    assert is_features == (kind is not SoftCapped)
    torch.testing.assert_close(scores, expected_of(model, batch))
    # The criterion optimises what the model computes.
    loss = make(dictionary)(model, batch)[2]["ori_loss"]
    a, b = expected_of(model, batch)
    torch.testing.assert_close(loss, (a - b).sum())


def test_hooks_of_the_projection_run(dictionary):
    model, batch = build(dictionary).eval(), sample_of(dictionary, 7)
    model.decoder.output_projection.register_forward_hook(lambda module, inputs, output: 2 * output)
    torch.testing.assert_close(scores_of(model, batch)[0], expected_of(model, batch))


def test_a_large_vocabulary_has_no_logits(dictionary, monkeypatch):
    """Neither the projection's module nor the whole product is called."""
    model, batch = build(dictionary).eval(), sample_of(dictionary, 7)
    expected = expected_of(model, batch)
    monkeypatch.setattr(token_scores, "_MOST_KEPT", 0)
    monkeypatch.setattr(model.decoder.output_projection, "forward", None)
    torch.testing.assert_close(scores_of(model, batch)[0], expected)
    make(dictionary)(model, batch)[0].backward()
    assert model.decoder.embed_tokens.weight.grad.abs().sum() > 0
    assert make(dictionary, knn_keytype="model_output")(model, batch)[0].isfinite()

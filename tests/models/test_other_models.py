"""Models that are no transformers: which keys they have, and the loss that comes of them."""

import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.models.fconv_lm import FConvLanguageModel
from fairseq.models.lightconv_lm import LightConvLanguageModel
from fairseq.models.lightconv_lm import base_lm_architecture as lightconv
from fairseq.models.lstm_lm import LSTMLanguageModel
from fairseq.models.lstm_lm import base_architecture as lstm

from tests import oracle
from tests.criterions.test_base import make, sample_of
from tests.small_models import build
from trime_fairseq.models.representation import RepresentationTap, key_dimension


def other(kind, dictionary, **settings):
    given = dict(tokens_per_sample=8, criterion="trime_loss", decoder_embed_dim=12)
    args = Namespace(**{**given, **settings})
    if kind is LSTMLanguageModel:
        args.decoder_out_embed_dim = 12
        lstm(args)
    elif kind is LightConvLanguageModel:
        lightconv(args)
    torch.manual_seed(1)
    names = ("dictionary", "source_dictionary", "target_dictionary", "output_dictionary")
    return kind.build_model(args, SimpleNamespace(**dict.fromkeys(names, dictionary)))


MODELS = {
    "fconv_lm": (FConvLanguageModel, dict(decoder_layers="[(16, 3)]")),
    "fconv_lm, adaptive softmax": (
        FConvLanguageModel,
        dict(decoder_layers="[(16, 3)]", adaptive_softmax_cutoff="6,12", criterion="adaptive_loss"),
    ),
    "lstm_lm": (LSTMLanguageModel, {}),
    "lstm_lm, wider": (LSTMLanguageModel, dict(decoder_hidden_size=20)),
    "lstm_lm, tied": (
        LSTMLanguageModel,
        dict(decoder_hidden_size=20, share_decoder_input_output_embed=True),
    ),
}


@pytest.fixture(params=MODELS)
def model(request, dictionary):
    kind, settings = MODELS[request.param]
    model = other(kind, dictionary, **settings).eval().double()
    for parameter in model.parameters():
        parameter.data *= 4  # similarities of some size
    return model


def test_loss_is_the_definition(model, dictionary):
    """Against the probability by explicit loops, from the model's own logits and representations."""
    batch, d = sample_of(dictionary, 6), key_dimension(model.decoder, "model_output")
    with RepresentationTap(model.decoder, "model_output") as tap:
        output = model(**batch["net_input"])
    adaptive_softmax = model.decoder.adaptive_softmax
    keys = tap.representation(None if adaptive_softmax is None else output[0])
    assert keys.shape == (1, 6, d)
    # The first band of an adaptive softmax is normalised together with the memories.
    logits = output[0] if adaptive_softmax is None else adaptive_softmax.head(output[0])
    norms = torch.logsumexp(logits, -1)[0].tolist()
    log_probs = model.get_normalized_probs(output, log_probs=True)[0].tolist()
    keys, target, expected = keys[0].tolist(), batch["target"][0].tolist(), 0.0
    for t, word in enumerate(target):
        scores = [oracle.similarity(keys[t], keys[j], 1 / math.sqrt(d)) - norms[t] for j in range(t)]
        expected -= math.log(oracle.trime_probability(log_probs[t], word, scores, target[:t]))
    loss, _, log = make(dictionary, knn_keytype="model_output", exact_tails=True)(model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.item() != pytest.approx(log["ori_loss"].item(), rel=1e-4)
    assert "output_layer" not in vars(model.decoder)


def test_what_has_no_such_keys_says_what_works(model):
    with pytest.raises(ValueError, match="no --knn-keytype last_ffn_input: pass --knn-keytype model_output"):
        key_dimension(model.decoder, "last_ffn_input")


@pytest.fixture
def lightconv_lm(dictionary):
    small = dict(
        dropout=0.0,
        attention_dropout=0.0,
        share_decoder_input_output_embed=True,
        no_token_positional_embeddings=False,
        decoder_conv_type="lightweight",
        weight_softmax=True,
        relu_dropout=0.0,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_embed_dim=20,
    )
    return other(LightConvLanguageModel, dictionary, **small, decoder_kernel_size_list=[3])


@pytest.mark.parametrize("key_type", ["last_ffn_input", "model_output"])
def test_light_convolutions_have_both(lightconv_lm, key_type):
    decoder = lightconv_lm.decoder
    with RepresentationTap(decoder, key_type) as tap:
        lightconv_lm(torch.arange(4, 12).view(2, 4))
    assert key_dimension(decoder, key_type) == 12
    assert tap.representation().shape == (2, 4, 12)


def test_what_has_no_output_of_its_own_says_what_works(lightconv_lm):
    lightconv_lm.decoder.output_projection = None
    with pytest.raises(ValueError, match="no --knn-keytype model_output: pass --knn-keytype last_ffn_input"):
        key_dimension(lightconv_lm.decoder, "model_output")


@pytest.mark.parametrize("key_type", ["last_ffn_input", "model_output"])
def test_transformers_have_both(dictionary, key_type):
    assert key_dimension(build(dictionary).decoder, key_type) == 16


@pytest.mark.parametrize("decoder", [torch.nn.Linear(2, 2), None, build])
def test_what_has_no_keys_at_all(decoder):
    with pytest.raises(ValueError, match="use it without memories"):
        key_dimension(decoder, "model_output")

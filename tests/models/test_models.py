"""The representation tap on real fairseq decoders, and the architectures."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.transformer_lm import TransformerLanguageModel

from tests.small_models import build
from trime_fairseq.models.architectures import transformer_lm_enwik8, transformer_lm_wiki103_150M
from trime_fairseq.models.representation import RepresentationTap


def tapped(model, tokens, key_type, **kwargs):
    with RepresentationTap(model.decoder, key_type) as tap:
        output = model(tokens, **kwargs)[0]
    features = output if kwargs.get("features_only") else None
    return tap.representation(features), output


def test_last_ffn_input_is_what_the_last_block_computes_from(dictionary):
    """Recomputing the last block from the captured input gives the model's output."""
    model = build(dictionary, no_decoder_final_norm=True).eval()
    layer, tokens = model.decoder.layers[-1], torch.arange(4, 12).view(2, 4)
    residual = []
    handle = layer.final_layer_norm.register_forward_pre_hook(lambda _, x: residual.append(x[0]))
    g, features = tapped(model, tokens, "last_ffn_input", features_only=True)
    handle.remove()
    recomputed = residual[0].transpose(0, 1) + layer.fc2(torch.relu(layer.fc1(g)))
    assert g.shape == (2, 4, 16)
    torch.testing.assert_close(recomputed, features)


@pytest.mark.parametrize("final_norm", [True, False])
def test_model_output_is_the_input_of_the_projection(dictionary, final_norm):
    model = build(dictionary, no_decoder_final_norm=not final_norm).eval()
    tokens = torch.arange(4, 12).view(2, 4)
    g, logits = tapped(model, tokens, "model_output")
    torch.testing.assert_close(model.decoder.output_layer(g), logits)
    again, _ = tapped(model, tokens, "model_output", features_only=True)
    torch.testing.assert_close(again, g)


@pytest.mark.parametrize("key_type", ["last_ffn_input", "model_output"])
def test_gradients_survive_activation_checkpointing(dictionary, key_type):
    """Same loss and same gradients with and without --checkpoint-activations."""
    tokens, gradients = torch.arange(4, 12).view(2, 4), []
    for checkpointed in (False, True):
        model = build(dictionary, checkpoint_activations=checkpointed).train()
        g, logits = tapped(model, tokens, key_type)
        assert g.requires_grad
        (g.pow(3).sum() + logits.sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad, msg=name)
    # The loss of g alone must reach the tapped layer.
    assert gradients[0]["decoder.layers.2.self_attn.q_proj.weight"].abs().sum() > 0


def test_layer_drop_takes_the_last_layer_that_ran(dictionary):
    model = build(dictionary, decoder_layerdrop=0.5).train()
    tokens, chosen = torch.arange(4, 12).view(2, 4), set()
    ran = []
    for number, layer in model.decoder.layers._modules.items():
        layer.fc1.register_forward_pre_hook(lambda _, x, number=number: ran.append((number, x[0])))
    for seed in range(12):
        torch.manual_seed(seed)
        ran.clear()
        with RepresentationTap(model.decoder, "last_ffn_input") as tap:
            model(tokens)
        if not ran:
            with pytest.raises(RuntimeError, match="did not reach"):
                tap.representation()
            continue
        chosen.add(ran[-1][0])
        assert torch.equal(tap.representation(), ran[-1][1].transpose(0, 1))
    assert len(chosen) > 1


def test_the_tap_leaves_no_trace(dictionary):
    model = build(dictionary, checkpoint_activations=True)
    forward = model.decoder.layers[-1].forward
    with pytest.raises(KeyError), RepresentationTap(model.decoder, "last_ffn_input"):
        assert model.decoder.layers[-1].forward is not forward
        raise KeyError
    assert model.decoder.layers[-1].forward is forward
    assert not model.decoder.layers[-1].fc1._forward_pre_hooks
    with pytest.raises(ValueError, match="--knn-keytype 'first'"):
        RepresentationTap(model.decoder, "first")


def parameters(dictionary_size, architecture):
    words = Dictionary()
    for number in range(dictionary_size - len(words)):
        words.add_symbol(str(number))
    args = Namespace(tokens_per_sample=150)
    architecture(args)
    task = SimpleNamespace(source_dictionary=words, target_dictionary=words)
    with torch.device("meta") if hasattr(torch.device, "__enter__") else torch.no_grad():
        model = TransformerLanguageModel.build_model(args, task)
    # As fairseq counts them: tied ones once.
    return args, sum(p.numel() for p in model.parameters())


def test_published_architectures():
    args, count = parameters(267744, transformer_lm_wiki103_150M)
    assert 145e6 < count < 152e6
    assert (args.decoder_layers, args.decoder_embed_dim, args.decoder_attention_heads) == (16, 410, 10)
    assert (args.dropout, args.attention_dropout, args.activation_dropout) == (0.3, 0.1, 0.1)
    assert not args.no_decoder_final_norm
    assert (args.adaptive_softmax_dropout, args.tie_adaptive_proj) == (0, False)
    args, count = parameters(208, transformer_lm_enwik8)
    assert 37.5e6 < count < 38.5e6
    assert (args.decoder_layers, args.decoder_ffn_embed_dim, args.decoder_embed_dim) == (12, 2048, 512)


def test_settings_given_by_the_user_win_over_the_architecture():
    args = Namespace(decoder_layers=2, dropout=0.0, adaptive_input=True)
    transformer_lm_enwik8(args)
    assert (args.decoder_layers, args.dropout, args.share_decoder_input_output_embed) == (2, 0.0, False)

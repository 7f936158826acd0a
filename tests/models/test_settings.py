"""Settings of checkpoints are literals, or plain text that nobody evaluates."""

import argparse
import datetime

import pytest
from fairseq.models import ARCH_CONFIG_REGISTRY
from omegaconf import OmegaConf

from trime_fairseq.models.literals import is_code, literal
from trime_fairseq.models.settings import check_settings, check_sizes

CALL = "__import__('os').system('touch PWNED')"


@pytest.mark.parametrize(
    "text",
    [
        *("20000,60000", "[(1, 64), (2, 128)]", "(0.9, 0.98)", "[True, False]", "-1", "1e-3", "None"),
        *(
            "[(850, 6)] * 3 + [(850, 1)] * 1",
            "[(512,10,5)] + [(512,3,2)] * 4",
            "{'a': [1, -2]}",
            " [1]",
            "'x'",
        ),
    ],
)
def test_literals_are_what_python_makes_of_them(text):
    assert literal(text) == eval(text)
    assert not is_code(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            CALL,
            f"[{CALL}]",
            f"[(1,4)][{CALL}:]",
            f" \t{CALL}",
            "[x for x in (1, 2)]",
            "lambda: 1",
            "(x := 3)",
        ),
        *("[0 for os.y.__getitem__ in [1]]", "f'{x}'", "x[0]", "{1: [y() for y in z]}", "(yield)"),
    ],
)
def test_code_is_no_literal(text):
    assert is_code(text)
    with pytest.raises(ValueError, match="no literal"):
        literal(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "os",
            "a.b",
            "1 + 'a'",
            "[1] * 1000000",
            "[1] * 99 * 99 * 99",
            "[1] + (2,)",
            "2 ** 9",
            "1 if 1 else 2",
        ),
        *("[" * 3000 + "]" * 3000, "-" * 3999 + "1", "", "\0", "[1, *x]", "9" * 5000),
        *("import os", "{**x}", "[1] * [2]"),
    ],
)
def test_neither_literal_nor_code(text):
    assert not is_code(text) or len(text) > 100
    with pytest.raises(ValueError, match="literal"):
        literal(text)


def forms(**settings):
    """The same settings as old and new checkpoints hold them."""
    group = {"_name": "transformer_lm", **settings}
    return [
        argparse.Namespace(**settings),
        {"model": group, "task": {"data": "x"}},
        OmegaConf.create({"model": group}, flags={"allow_objects": True}),
        {"model": argparse.Namespace(**settings)},
        {"deep": [{"list": (group,)}]},
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("character_filters", f"[(1,4)][{CALL}:]", "sets character_filters to .*expects tuples of integers"),
        ("character_filters", "[1.5]", "expects tuples of integers"),
        ("character_filters", "os", "expects tuples of integers"),
        ("decoder_layers", f"[(8, 3)] * {CALL}", "expects tuples of integers"),
        ("encoder_layers", "[(512, 3)] * 100000", "expects tuples of integers"),
        ("conv_feature_layers", "[(512, '10')]", "expects tuples of integers"),
        ("decoder_attention", "[True, 'x']", "expects truth values"),
        ("adaptive_softmax_cutoff", CALL, "sets adaptive_softmax_cutoff to .*expects integers"),
        ("adaptive_input_cutoff", "'abc'", "expects integers"),
        ("pipeline_balance", CALL, "expects integers"),
        ("adam_betas", f"({CALL}, 0.9)", "expects numbers"),
        ("adafactor_eps", "open('x')", "expects numbers"),
        ("lr", CALL, "expects numbers"),
        ("xformers_att_config", f"{{'a': {CALL}}}", "expects a mapping"),
        ("model_overrides", CALL, "expects a mapping"),
        ("wer_args", f"('a', {CALL})", "expects a literal"),
        ("of_another_code", CALL, "looks like code: nothing of it is run"),
        ("of_another_code", ["a", f"[{CALL}]"], "looks like code"),
        ("of_another_code", "x" * 5000, "looks like code"),
        ("dropout", "${oc.env:HOME}", "must not refer to others"),
        ("save_dir", "a/${oc.decode:'[1]'}", "must not refer to others"),
        ("tokenizer", {"x": ["${y}"]}, "must not refer to others"),
        ("dropout", CALL.encode(), "sets dropout to bytes, which is no plain data"),
        ("character_filters", bytearray(b"[1]"), "bytearray, which is no plain data"),
        ("dropout", datetime.date(2020, 1, 1), "date, which is no plain data"),
    ],
)
def test_refused(name, value, message):
    for settings in forms(**{name: value}) if not isinstance(value, datetime.date) else forms(x=[value])[:1]:
        with pytest.raises(ValueError, match=message):
            check_settings(settings)
    # What the user replaces is not used.
    if not isinstance(value, dict):
        check_settings(argparse.Namespace(**{name: value}), replaced=[name])


def test_groups_with_the_name_of_a_flag_are_not_replaced():
    for group in (
        {"wer_args": CALL},
        argparse.Namespace(wer_args=CALL),
        OmegaConf.create({"wer_args": CALL}),
    ):
        with pytest.raises(ValueError, match="sets wer_args to"):
            check_settings({"criterion": group}, replaced=["criterion"])


def test_accepted():
    for settings in forms(
        character_filters="[(1, 64), (2, 128)]",
        decoder_layers="[(850, 6)] * 3 + [(850, 1)]",
        encoder_layers=6,
        decoder_attention="False",
        adaptive_softmax_cutoff="20000,60000",
        adaptive_input_cutoff=None,
        adam_betas="(0.9, 0.98)",
        lr=[0.25],
        data="wiki (1)/bin",
        save_dir="runs/lr(0.1)[2]",
        criterion="trime_loss",
        distributed_init_method="tcp://localhost:1234",
        optimizer_overrides="{}",
        empty="",
    ):
        check_settings(settings)


def test_the_settings_of_fairseqs_own_architectures():
    """They are expressions in part."""
    for name in ("fconv_lm_dauphin_wikitext103", "fconv_lm_dauphin_gbw", "fconv", "lightconv_lm", "lstm_lm"):
        args = argparse.Namespace(attention_dropout=0.0, max_source_positions=512, max_target_positions=512)
        ARCH_CONFIG_REGISTRY[name](args)
        check_settings(args)


def test_containers_without_end():
    nested = []
    nested.append(nested)
    with pytest.raises(ValueError, match="too deeply"):
        check_settings({"x": nested})


@pytest.mark.parametrize("leaf", [["a"], []])
@pytest.mark.parametrize("make", [dict, OmegaConf.create])
def test_containers_that_hold_each_other_many_times(leaf, make):
    settings = make({"noise": leaf})
    shared = settings["noise"]
    for _ in range(30):
        shared = [shared] * 10
    content = settings._content if make is OmegaConf.create else settings
    content["noise"] = shared
    with pytest.raises(ValueError, match="sets noise and others to more than 100,000 values"):
        check_settings(settings)


@pytest.mark.parametrize("name", ["decoder_attention_heads", "max_target_positions"])
@pytest.mark.parametrize("value", [0, -2, float("nan")])
def test_numbers_that_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"sets {name} to {value}"):
        check_sizes({"model": {name: value}}, 40, 9000)


def test_sizes():
    check_sizes(argparse.Namespace(decoder_embed_dim=512, decoder_layers=6, encoder_embed_dim=None), 40, 9000)
    for name, value in (("decoder_ffn_embed_dim", 2**31), ("decoder_layers", 10**9), ("x_dim", float("nan"))):
        with pytest.raises(ValueError, match=f"sets {name} to .*does not fit its 9,000 weights"):
            check_sizes({"model": {name: value}}, 40, 9000)

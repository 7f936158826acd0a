"""trime-tune --task trime_translation on the reference model, against published translations and scores."""

import json
import shlex
import sys

import pytest
import torch

from tests.commands import run
from tests.generation.translations import CHECKPOINT, MT, RUNS, make_folder, printed, search_flags
from tests.generation.translations import TASK as TRANSLATION
from tests.trusted import load_trusted

pytestmark = pytest.mark.process

BEAM = RUNS["vanilla_beam4"]["flags"]
FIX, SCORED = "fix_l2_flat_k8_l0.3_t20_beam4", "scored_fix_l2_flat_k8_l0.3_t20"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("datastore"))


def tuning(flags, checkpoint=CHECKPOINT, data=MT / "data"):
    words = [data, *TRANSLATION, "--source-lang", "es", "--target-lang", "en", "--cpu", "--path", checkpoint]
    text = "--gen-subset test --tokenizer moses --remove-bpe"
    return [sys.executable, "-m", "trime_fairseq.cli.tune", *words, *text.split(), *flags.split()]


def memory(folder, name, **changed):
    """The flags of a published run, but those that are tuned."""
    return search_flags(folder, RUNS[name]["overrides"] | changed)


def bleu_of(name):
    return float(RUNS[name]["result"].split("BLEU = ")[1].split()[0])


def loss_of(name):
    """Bits per token of references that were scored."""
    rows = [row["positional"] for row in RUNS[name]["sentences"].values()]
    return -sum(map(sum, rows)) / sum(map(len, rows))


def test_losses_and_bleu_are_the_published_ones(folder, tmp_path):
    flags = f"{BEAM} {memory(folder, FIX)} --decode 1 --output {tmp_path}/out"
    log = run(*tuning(flags.replace("--k 8", "--grid-k 4,8")))
    found = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert (found["sentences"], found["subset"]) == (60, "test")
    assert found["without_memory"]["loss"] == pytest.approx(loss_of("scored_vanilla"), abs=1e-4)
    assert found["without_memory"]["bleu"] == pytest.approx(bleu_of("vanilla_beam4"), abs=0.006)
    (at_8,) = [row for row in found["settings"] if row["k"] == 8]
    assert at_8["loss"] == pytest.approx(loss_of(SCORED), abs=1e-4)
    assert len(found["decoded"]) == 1
    if found["best"]["k"] == 8:
        assert found["best"]["bleu"] == pytest.approx(bleu_of(FIX), abs=0.006)
    assert "settings that were chosen on the test set say nothing" in log
    assert f"\n{found['test_command']}\n" in log
    # What is printed is for people: nothing of fairseq's.
    assert "Generate test with" not in log
    assert "Namespace" not in log


@pytest.mark.slow
def test_the_command_at_the_end_gives_the_best_bleu(folder, tmp_path):
    """Of the published form, which is decoded as it is published."""
    name = "trime_ip_flat_k16_t15_beam4"
    flags = f"{BEAM} {memory(folder, name)} --decode 2 --output {tmp_path}/out"
    run(*tuning(flags.replace("--k 16", "--grid-k 8,16")))
    found = json.loads((tmp_path / "out" / "tuning.json").read_text())
    (published,) = [row for row in found["decoded"] if row["k"] == 16]
    assert published["bleu"] == pytest.approx(bleu_of(name), abs=0.006)
    again = run(*shlex.split(found["test_command"]))
    assert len(printed(again)) == 60
    assert f"BLEU = {found['best']['bleu']:.2f} " in again


def test_damage_is_one_line(folder, tmp_path):
    broken = load_trusted(CHECKPOINT)
    for value in broken["model"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(broken, tmp_path / "nan.pt")
    flags = f"{BEAM} {memory(folder, FIX)} --output {tmp_path}/out"
    last = run(*tuning(flags, tmp_path / "nan.pt"), fails=True).splitlines()[-1]
    assert last.startswith("trime-tune: error: ")
    assert "NaN" in last or "no numbers" in last
    assert not (tmp_path / "out" / "tuning.json").exists()
    flags = flags.replace(f"{folder}/flat_l2", f"{folder}/none")
    last = run(*tuning(flags), fails=True).splitlines()[-1]
    assert last.startswith("trime-tune: error: ")
    assert "none" in last

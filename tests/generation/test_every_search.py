"""Every way of generating that fairseq has, without a datastore, with one and with several."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from fairseq.tasks.translation import TranslationTask
from fairseq.token_generation_constraints import pack_constraints

from tests.generation.translations import BEAM, batch_of, make_folder, open_task
from trime_fairseq.generation import ModelMemory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("datastore"))


MODES = {
    "beam": BEAM,
    "greedy": {**BEAM, "beam": 1},
    "sampling": dict(sampling=True, sampling_topk=10, beam=2, max_len_b=15),
    "nucleus": dict(sampling=True, sampling_topp=0.9, beam=2, max_len_b=15, temperature=0.7),
    "diverse": dict(BEAM, diverse_beam_groups=2, diverse_beam_strength=0.5),
    "siblings": dict(BEAM, diversity_rate=0.5),
    "prefix": BEAM,
    "constraints": dict(BEAM, constraints="ordered"),
    "no repeats": dict(BEAM, no_repeat_ngram_size=2),
    "alignment": dict(BEAM, print_alignment="hard"),
    "score": dict(score_reference=True),
}


def translate(task, models, generation, mode, stock=False):
    """Tokens and scores of all hypotheses of a small batch."""
    build = TranslationTask.build_generator if stock else type(task).build_generator
    generator = build(task, models, Namespace(**generation))
    sample = batch_of(task, 4)
    options = {}
    if mode == "prefix":
        options["prefix_tokens"] = sample["target"][:, :3]
    if mode == "constraints":
        options["constraints"] = pack_constraints([[row[1:3]] for row in sample["target"]])
    torch.manual_seed(1)
    found = task.inference_step(generator, models, sample, **options)
    return [(one["tokens"].tolist(), one["positional_scores"].tolist()) for row in found for one in row]


@pytest.mark.parametrize("mode", MODES)
def test_every_way_of_generating(folder, mode):
    """Nothing changes without a datastore, nor with one whose neighbours have no weight; with one it does."""
    plain, models = open_task(None)
    stock = translate(plain, models, MODES[mode], mode, stock=True)
    assert translate(plain, models, MODES[mode], mode) == stock
    without, models = open_task(folder, knn_lambda_type="fix", knn_lambda_value=0.0)
    assert translate(without, models, MODES[mode], mode) == stock
    task, models = open_task(folder, knn_lambda_type="trime", knn_temperature_value=2.0)
    found = translate(task, models, MODES[mode], mode)
    assert found != stock
    assert all(np.isfinite(scores).all() for _, scores in found)
    if mode == "constraints":
        for row, (tokens, _) in zip(batch_of(task, 4)["target"], found[::4]):
            assert set(row[1:3].tolist()) <= set(tokens)
    if mode == "prefix":
        for row, (tokens, _) in zip(batch_of(task, 4)["target"], found[::4]):
            assert tokens[:3] == row[:3].tolist()


@pytest.mark.parametrize("mode", ["beam", "score"])
def test_ensemble(folder, mode):
    """One memory for each model: two equal models with equal datastores are one of them; with another
    datastore the average is another."""
    task, models = open_task(folder)
    (alone, ensemble) = ([], [])
    for tokens, scores in translate(task, models, MODES[mode], mode):
        alone.append((tokens, pytest.approx(scores, abs=1e-4)))
    task, models = open_task(
        folder, 2, dstore_filename=f"{folder}/store:{folder}/store", indexfile=both(folder)
    )
    ensemble = translate(task, models, MODES[mode], mode)
    assert ensemble == alone
    first, second = (ModelMemory.of(model) for model in models)
    assert first is not second
    values = second.retriever._values
    second.retriever._values = values.roll(1)
    other = translate(task, models, MODES[mode], mode)
    assert other != alone


def both(folder):
    return f"{folder}/flat_ip:{folder}/flat_ip"


def test_ensemble_needs_a_datastore_for_each_model(folder):
    task, models = open_task(folder, 2)
    with pytest.raises(ValueError, match="names 1 datastores for 2 models of --path"):
        task.build_generator(models, Namespace(**BEAM))

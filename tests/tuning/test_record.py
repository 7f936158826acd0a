"""A record has what separate evaluations find."""

from dataclasses import replace

import pytest
import torch

from trime_fairseq.evaluation import MemoryConfig
from trime_fairseq.tuning import Record, mixture, without_memory
from trime_fairseq.tuning.families import allowed_values, with_values
from trime_fairseq.tuning.storage import allocate

from .small import AXES, BATCH, FAMILIES, LENGTHS, LOCAL, LONG, WORDS, evaluated, recorded

WEIGHTS = {"lmbda": 0.3, "cache_lmbda": 0.45}


def settings_of(family):
    """A few complete settings of a family: all values of its axes occur."""
    values = list(allowed_values(family, AXES).items())
    for number in range(max(len(found) for _, found in values)):
        place = {name: found[min(number, len(found) - 1)] for name, found in values}
        weights = {name: WEIGHTS[name] for name in family.weight_names}
        yield replace(with_values(family, place), **weights)


@pytest.fixture(scope="module")
def everything():
    """One record for all families."""
    return recorded(list(FAMILIES.values()))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixture_is_that_of_a_separate_evaluation(name, everything):
    for config in settings_of(FAMILIES[name]):
        scorer, log_prob = evaluated(config)
        found = mixture(everything, config)
        torch.testing.assert_close(found.log_prob, log_prob, rtol=1e-5, atol=1e-6)
        result = scorer.totals.finish()
        assert found.mass.mean().item() == pytest.approx(result.mem_mass, rel=1e-5)
        assert found.share.mean().item() == pytest.approx(result.mem_share, rel=1e-5)
        plain = mixture(everything, without_memory(config)).log_prob.double().sum().item()
        assert -plain == pytest.approx(result.nll_nats_without_memory, rel=1e-6)


def test_a_record_of_one_family_is_that_of_all(everything):
    for family in FAMILIES.values():
        alone = recorded([family])
        config = next(settings_of(family))
        torch.testing.assert_close(mixture(alone, config).log_prob, mixture(everything, config).log_prob)


def test_tokens_and_samples(everything):
    assert everything.tokens == 2 * BATCH
    assert everything.samples.tolist() == [0] * 3 + [1] * 4 + [2] * 3 + [3] * 4
    assert everything.targets.dtype == everything.samples.dtype == torch.int64
    assert everything.memories.long.all_lse.shape == (2, 2, 1, 2 * BATCH)  # nothing is kept for size 0
    kept = [i for i in range(2 * BATCH) if i % BATCH not in (0, LENGTHS[0])]
    without_first = recorded(list(FAMILIES.values()), skip_bos=True)
    assert without_first.tokens == len(kept)
    assert torch.equal(without_first.targets, everything.targets[kept])
    assert torch.equal(without_first.samples, everything.samples[kept])
    for family in FAMILIES.values():
        config = next(settings_of(family))
        found, whole = mixture(without_first, config), mixture(everything, config)
        torch.testing.assert_close(found.log_prob, whole.log_prob[kept])


@pytest.mark.parametrize("name", FAMILIES)
def test_mixtures_sum_to_one(name):
    """The last token of the text may be any word, while everything before it is the same."""
    records = [recorded([FAMILIES[name]], word=word) for word in range(WORDS)]
    for config in settings_of(FAMILIES[name]):
        words = [mixture(record, config) for record in records]
        assert sum(found.log_prob[-1].exp().item() for found in words) == pytest.approx(1, abs=1e-6)
        # What all words have from memories is the mass on memories.
        shares = sum((found.log_prob[-1].exp() * found.share[-1]).item() for found in words)
        assert shares == pytest.approx(words[0].mass[-1].item(), abs=1e-6)


def test_what_is_not_on_record_is_refused(everything):
    with pytest.raises(ValueError, match=r"--softmax-temp 1 is not on record, but 0.7, 1.3"):
        mixture(everything, LOCAL)
    with pytest.raises(ValueError, match=r"--mem-size 5 is not on record, but 0, 2, 6"):
        mixture(everything, replace(LONG, softmax_temp=0.7, mem_size=5))
    with pytest.raises(ValueError, match="--use-long is not on record"):
        mixture(recorded([LOCAL]), replace(LONG, softmax_temp=0.7))
    with pytest.raises(ValueError, match="another --exact-tails"):
        mixture(everything, MemoryConfig(use_local=True, softmax_temp=0.7))


def test_records_of_large_texts_lie_in_a_file(monkeypatch):
    monkeypatch.setattr(
        "trime_fairseq.tuning.recording_scorer.allocate", lambda shapes: allocate(shapes, 100)
    )
    config = next(settings_of(FAMILIES["interpolated"]))
    in_file = recorded([FAMILIES["interpolated"]])
    monkeypatch.undo()
    assert type(in_file) is Record
    torch.testing.assert_close(
        mixture(in_file, config).log_prob, mixture(recorded([FAMILIES["interpolated"]]), config).log_prob
    )


def test_room_in_memory_and_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for most in (0, 10**6):
        tensors = allocate([(2, 3), (4,)], most)
        assert [tuple(tensor.shape) for tensor in tensors] == [(2, 3), (4,)]
        for number, tensor in enumerate(tensors):
            tensor.fill_(number)
        assert [tensor.unique().tolist() for tensor in tensors] == [[0.0], [1.0]]
        assert not list(tmp_path.iterdir())  # it has no name
    with pytest.raises(ValueError, match="set TMPDIR to a larger folder"):
        allocate([(2**50,)])

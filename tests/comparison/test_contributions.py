"""What each memory contributes, and what is summed over the test text, from a record of a small text."""

from dataclasses import replace

import pytest
import torch

from tests.tuning.small import BATCH, FAMILIES, WORDS, recorded
from tests.tuning.test_record import settings_of
from trime_fairseq.comparison.contributions import occurs, shares
from trime_fairseq.comparison.frequencies import BINS
from trime_fairseq.comparison.measure import setting_of
from trime_fairseq.comparison.result import TunedRow, TunedSetting
from trime_fairseq.comparison.rows import GroupedText, row_result
from trime_fairseq.tuning import mixture, without_memory

PARTS_OF = {
    "local": {"local"},
    "long": {"local", "long"},
    "external": {"local", "long", "external"},
    "interpolated": {"local", "long", "external", "neighbours"},
    "cache": {"local"},
    "long cache": {"local", "long"},
    "cache of neighbours": {"local", "external"},
    "knnlm": {"neighbours"},
    "knnlm and cache": {"local", "long", "neighbours"},
}


@pytest.fixture(scope="module")
def record():
    return recorded(list(FAMILIES.values()))


@pytest.mark.parametrize("name", FAMILIES)
def test_shares_sum_to_that_of_all_memories(record, name):
    for config in settings_of(FAMILIES[name]):
        found = mixture(record, config)
        parts = shares(record, config, found.log_prob)
        assert set(parts) == PARTS_OF[name] - ({"long"} if not config.use_long else set())
        for share in parts.values():
            assert ((share >= 0) & (share <= 1 + 1e-6)).all()
        torch.testing.assert_close(sum(parts.values()), found.share, rtol=1e-5, atol=1e-6)
        # Where the target is in no memory, none of them contributes; where one contributes, it is there.
        torch.testing.assert_close(occurs(record, config), sum(parts.values()) > 0)


def test_model_alone(record):
    config = without_memory(FAMILIES["long"])
    assert shares(record, config, mixture(record, config).log_prob) == {}
    assert not occurs(record, config).any()


def test_weights_at_their_ends(record):
    config = next(settings_of(FAMILIES["knnlm and cache"]))
    for weights in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        config = replace(config, cache_lmbda=weights[0], lmbda=weights[1])
        found = mixture(record, config)
        kept = found.log_prob > -torch.inf
        parts = shares(record, config, found.log_prob)
        torch.testing.assert_close(sum(parts.values())[kept], found.share[kept], rtol=1e-5, atol=1e-6)


def test_sums_of_a_row(record):
    counts = torch.arange(WORDS).numpy() ** 3  # 0, 1, 8, 27, ...
    text = GroupedText.of(record, counts)
    assert text.tokens == (3, 4, 3, 4)
    assert len(text.tokens_by_frequency) == len(BINS)
    by_word = torch.bincount(record.targets, minlength=WORDS).tolist()
    assert list(text.tokens_by_frequency[:4]) == by_word[:4]

    config, smaller = list(settings_of(FAMILIES["long"]))[::-1][:2]
    tuned = [TunedSetting(setting_of(found), 5.0) for found in (config, smaller)]
    row = row_result(TunedRow("local + long 6", tuned[0], (tuned[1], tuned[0]), ("limit",)), record, text)
    log_prob, mass, _ = mixture(record, config)
    plain = mixture(record, without_memory(config)).log_prob
    assert row.nll == tuple(
        pytest.approx(-log_prob[record.samples == sample].sum().item(), rel=1e-6) for sample in range(4)
    )
    gain = log_prob - plain
    for word in range(4):
        expected = gain[record.targets == word].sum().item()
        assert row.gain_by_frequency[word] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    inside = occurs(record, config)
    assert 0 < row.tokens_inside == inside.sum() < 2 * BATCH
    assert row.gain_inside == pytest.approx(gain[inside].sum().item(), rel=1e-5)
    assert row.gain_inside + row.gain_outside == pytest.approx(gain.sum().item(), rel=1e-5)
    assert row.mass == pytest.approx(mass.mean().item(), rel=1e-6)
    assert [point.mem_size for point in row.by_size] == [smaller.mem_size, config.mem_size]
    assert row.by_size[1].test_loss == pytest.approx(-log_prob.mean().item(), rel=1e-6)
    assert (row.tuned_loss, row.remarks) == (5.0, ("limit",))


def test_texts_that_differ(record):
    """In their tokens, or in how they are cut into samples."""
    counts = torch.ones(WORDS, dtype=torch.int64).numpy()
    hashes = {GroupedText.of(record, counts).hash, GroupedText.of(record, counts * 2).hash}
    assert len(hashes) == 1
    hashes.add(GroupedText.of(replace(record, samples=record.samples // 2), counts).hash)
    hashes.add(GroupedText.of(replace(record, targets=record.targets.flip(0)), counts).hash)
    assert len(hashes) == 3

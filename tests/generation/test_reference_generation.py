"""Every generation and scoring of the published code, through the real fairseq-generate."""

import pytest

from tests.commands import run
from tests.generation.translations import RUNS, generation, make_folder, printed, search_flags

pytestmark = pytest.mark.process

DAILY = ("fix_l2_flat_k8_l0.3_t20_beam4", "trime_ip_flat_k8_t2_beam4", "forced_trime_ip_flat_k16_t15")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("datastore"))


def flags_of(name, folder):
    row = RUNS[name]
    return row["flags"] + " " + (search_flags(folder, row["overrides"]) if row["overrides"] else "")


def compare(found, name, scores=1e-4):
    """Hypotheses equal, scores to 1e-4, log-probabilities of tokens to 0.001."""
    expected = RUNS[name]["sentences"]
    assert found.keys() == expected.keys()
    for sentence, row in expected.items():
        if "hypo" in row:
            assert found[sentence]["hypo"] == row["hypo"], sentence
        assert found[sentence]["score"] == pytest.approx(row["score"], rel=scores, abs=1e-4), sentence
        if "positional" in row:
            assert found[sentence]["positional"] == pytest.approx(row["positional"], abs=1e-3), sentence


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DAILY else pytest.mark.slow) for name in RUNS]
)
def test_of_the_published_code(name, folder):
    output = run(*generation(flags_of(name, folder)))
    compare(printed(output), name)
    if RUNS[name].get("result"):
        assert RUNS[name]["result"] in output


@pytest.mark.slow
def test_scoring_of_references_is_forced_decoding(folder):
    """The published code cannot score whole sentences with this mixture: it was given them as prefixes."""
    name = "forced_trime_ip_flat_k8_t2"
    flags = "--score-reference --batch-size 4 --required-batch-size-multiple 1 "
    compare(printed(run(*generation(flags + search_flags(folder, RUNS[name]["overrides"])))), name)

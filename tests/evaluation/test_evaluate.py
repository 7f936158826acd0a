"""evaluate() in Python: the same as the command, and what it says about memories."""

import logging
import multiprocessing

import pytest

from tests.commands import REFERENCE, ROOT, evaluate_here, evaluation_command, run
from tests.commands import evaluate as evaluate_by_command
from tests.played import PlayedTask
from trime_fairseq.evaluation import EvaluationConfig, MemoryConfig, evaluate, run_eval_lm
from trime_fairseq.evaluation.in_process import without_our_folder
from trime_fairseq.files import PACKAGE

CHECKPOINT = str(REFERENCE / "checkpoints" / "word-trime" / "checkpoint_best.pt")
LOCAL = "--context-window 96 --use-local --batch-size 8"


@pytest.fixture
def log(caplog):
    """What is logged, without the lines before the result."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name.endswith(".result")]


def test_the_published_loss():
    row = dict(sample_break_mode="complete", gen_subset="test", tokens_per_sample=128, context_window=96)
    before = set(multiprocessing.active_children())
    result = evaluate(
        CHECKPOINT, str(REFERENCE / "data" / "word"), MemoryConfig(use_local=True, softmax_temp=1.17), **row
    )
    # Of evaluation.json.
    assert result.tokens == 6324
    assert result.loss == pytest.approx(6.732471, rel=1e-5)
    # No loader's worker stays behind.
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.process
@pytest.mark.parametrize("kind", [pytest.param(MemoryConfig, marks=pytest.mark.slow), EvaluationConfig])
def test_what_the_command_finds(kind, small, tmp_path):
    memories = dict(use_local=True, use_long=True, mem_size=256, softmax_temp=1.1)
    others = dict(context_window=96, gen_subset="valid", max_tokens=1024, cpu=True)
    if kind is EvaluationConfig:
        memories["tokens_per_sample"] = 128
    else:
        others["tokens_per_sample"] = 128
    result = evaluate(CHECKPOINT, str(small), kind(**memories), **others)
    flags = "--context-window 96 --use-local --use-long --mem-size 256 --softmax-temp 1.1"
    found = evaluate_by_command(tmp_path, flags=flags, data=small)
    timed = {"seconds", "tokens_per_second", "stage_seconds"}
    assert found.pop("log").count(f"Loss (base 2): {result.loss:.4f}") == 2
    expected = {**result.as_json(), "num_shards": 1}
    assert found.keys() == expected.keys() >= timed
    for name in found.keys() - timed:
        assert found[name] == expected[name], name
    assert found["tokens_per_second"] > 0
    assert found["checkpoint"] == CHECKPOINT


@pytest.mark.slow
def test_loss_without_memory_is_that_of_the_plain_model():
    """Of the reference text, where the words are that published results leave uncharged."""
    flags = "--context-window 96 --batch-size 8"
    plain = evaluate_here("word-trime", f"{flags} --mode lm", task=PlayedTask)
    exact = evaluate_here("word-trime", f"{flags} --use-local --exact-tails", task=PlayedTask)
    assert not plain.uses_memory
    assert plain.loss_without_memory == plain.loss
    assert exact.loss_without_memory == pytest.approx(plain.loss, rel=1e-9)
    assert exact.ppl_without_memory == pytest.approx(plain.ppl, rel=1e-9)
    assert exact.loss < plain.loss
    # Both losses are lower by what those words would cost.
    published = evaluate_here("word-trime", f"{flags} --use-local", task=PlayedTask)
    uncharged = (exact.loss - published.loss) * exact.tokens
    assert 40 < uncharged < 70
    of_plain = (exact.loss_without_memory - published.loss_without_memory) * exact.tokens
    assert of_plain == pytest.approx(uncharged, rel=0.2)


def test_the_last_line_compares(small, log):
    result = evaluate_here("word-trime", LOCAL, small)
    assert log()[-1] == (
        f"TRIME: {result.tokens:,} tokens: perplexity {result.ppl_without_memory:.2f} without memories, "
        f"{result.ppl:.2f} with; they hold {result.mem_mass:.2f} of the distribution, "
        f"{result.mem_share:.2f} of the target's probability"
    )
    assert result.ppl < result.ppl_without_memory


def test_memories_that_make_it_worse(small, log):
    result = evaluate_here("word-trime", f"{LOCAL} --softmax-temp 0.2", small)
    assert result.ppl > result.ppl_without_memory
    assert f"{result.ppl:.2f} with; they hold" in log()[-2]
    assert "make it worse" in log()[-1]
    assert "trime-tune" in log()[-1]


class Trained(PlayedTask):
    """Of a checkpoint that says at which temperature it was trained."""

    def build_model(self, *args, **options):
        self.trained_softmax_temp = 1.3
        return super().build_model(*args, **options)


def test_default_temperature_is_that_of_training(small, caplog):
    caplog.set_level(logging.INFO)
    default = evaluate_here("word-trime", LOCAL, small, Trained)
    assert "TRIME: --softmax-temp 1.3, the default for this checkpoint" in caplog.messages
    assert default.description["softmax_temp"] == 1.3
    assert default.loss == evaluate_here("word-trime", f"{LOCAL} --softmax-temp 1.3", small, Trained).loss
    one = evaluate_here("word-trime", LOCAL, small, PlayedTask)
    assert one.description["softmax_temp"] == 1.0
    assert one.loss == evaluate_here("word-trime", f"{LOCAL} --softmax-temp 1", small, Trained).loss
    assert one.loss != default.loss


@pytest.mark.parametrize("flags", ["", "--mode lm --use-local"])
def test_without_memories_nothing_is_compared(small, log, flags):
    evaluate_here("word-trime", f"--context-window 96 --batch-size 8 {flags}", small)
    assert "all" in log()[0]
    assert not [line for line in log() if "without memories" in line or "worse" in line]


def test_user_dir_through_a_link(small, tmp_path):
    (tmp_path / "linked").symlink_to(ROOT / "trime_fairseq")
    words = [str(word) for word in evaluation_command("word-trime", LOCAL, small)[1:]]
    words[words.index("--user-dir") + 1] = str(tmp_path / "linked")
    assert run_eval_lm(words).uses_memory
    words.remove("--user-dir")
    words[words.index(str(tmp_path / "linked"))] = f"--user-dir={tmp_path / 'linked'}"
    assert run_eval_lm(words).uses_memory


@pytest.mark.parametrize("flags", ["--use-long --mem-size 5", "--use-local --softmax-temp 0"])
def test_fairseq_is_as_before(small, flags):
    """Also after an evaluation that could not be."""
    from fairseq.sequence_scorer import SequenceScorer
    from fairseq.tasks import TASK_REGISTRY

    stock, task = SequenceScorer.generate, TASK_REGISTRY["trime_language_modeling"]
    with pytest.raises(ValueError, match="--use-local|--softmax-temp"):
        evaluate_here("word-trime", flags, small)
    assert SequenceScorer.generate is stock
    assert TASK_REGISTRY["trime_language_modeling"] is task


@pytest.mark.process
def test_the_log_has_no_noise_of_imports(small):
    """Nothing that fairseq says about Hydra, once this package is there."""
    output = run(*evaluation_command("word-trime", LOCAL, small))
    output = output.split("fairseq_cli.eval_lm", 1)[1]
    for noise in ("version_base", "is validated against ConfigStore", "strict flag", "pin_memory"):
        assert noise not in output


def test_our_own_folder_is_left_out_however_it_is_spelt(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(PACKAGE)
    monkeypatch.chdir(ROOT)
    for words in (
        ["--user-dir", PACKAGE],
        ["--user-dir=trime_fairseq"],
        ["--user-dir", str(tmp_path / "link")],
    ):
        assert without_our_folder(["data", *words, "--cpu"]) == ["data", "--cpu"]
    assert without_our_folder(["--user-dir", "other"]) == ["--user-dir", "other"]

"""The real fairseq-eval-lm: everything that must not change the loss, what must, and bad input."""

import json
import re
import sys
from functools import partial

import pytest
from fairseq.data.indexed_dataset import MMapIndexedDataset

from tests.commands import evaluate, evaluation_command, needs_half_on_cpu, run, run_ranks

pytestmark = pytest.mark.process

LONG = "--context-window 96 --use-local --use-long --mem-size 512 --softmax-temp 1.1"
COMPLETE = LONG + " --sample-break-mode complete --gen-subset test"


LOCAL = "--context-window 96 --use-local --batch-size 8"


@pytest.fixture
def measure(tmp_path, small):
    """The result for flags, and a checkpoint other than word-trime."""
    return partial(evaluate, tmp_path, data=small)


@pytest.fixture(scope="module")
def local(tmp_path_factory, small):
    """The result of LOCAL."""
    return evaluate(tmp_path_factory.mktemp("local"), flags=LOCAL, data=small)


@pytest.fixture(scope="module")
def one_at_a_time(tmp_path_factory, small):
    """Loss of one sample at a time, for flags; evaluated once."""
    known = {}

    def loss(flags):
        if flags not in known:
            folder = tmp_path_factory.mktemp("single")
            known[flags] = evaluate(folder, "word-trime_long", flags + " --batch-size 1", small)
        return known[flags]

    return loss


@pytest.mark.parametrize(
    "flags", [LONG, pytest.param(COMPLETE, marks=pytest.mark.slow)], ids=["none", "complete"]
)
@pytest.mark.parametrize(
    "change",
    [
        "--batch-size 7",
        "--batch-size 64 --max-tokens 4096 --softmax-batch 100",
        pytest.param("--num-workers 3 --batch-size 2", marks=pytest.mark.slow),
    ],
)
def test_same_loss(measure, one_at_a_time, flags, change):
    single = one_at_a_time(flags)
    result = measure("word-trime_long", f"{flags} {change}")
    assert result["tokens"] == single["tokens"]
    assert result["loss"] == pytest.approx(single["loss"], rel=1e-6)
    assert result["mem_mass"] == pytest.approx(single["mem_mass"], rel=1e-5)


def tokens_of(text, subset="valid"):
    return sum(map(len, MMapIndexedDataset(str(text / subset))))


def test_shards_are_contiguous_and_add_up(tmp_path, small, local):
    """Without long-term memory shards lose nothing: their sum is the whole, context windows included."""
    file = tmp_path / "sharded.json"
    command = evaluation_command("word-trime", LOCAL, small)
    logs = [run(*command, "--eval-file", file, "--num-shards", 3, "--shard-id", shard) for shard in (2, 0, 1)]
    merged = json.loads(file.read_text())
    assert merged["tokens"] == local["tokens"] == tokens_of(small)
    for name in ("loss", "loss_without_memory", "ppl_without_memory"):
        assert merged[name] == pytest.approx(local[name], rel=1e-7)
    assert merged["num_shards"] == 3
    assert "will be written when shard 0 is done" in logs[0]
    assert f"all 3 shards, {tokens_of(small):,} tokens" in logs[2]
    parts = [json.loads((tmp_path / f"sharded.json.shard-{i}-of-3").read_text()) for i in range(3)]
    assert sum(part["tokens"] for part in parts) == tokens_of(small)
    assert max(part["tokens"] for part in parts) - min(part["tokens"] for part in parts) <= 2 * 8 * 32


@pytest.mark.slow
def test_shard_files_of_another_evaluation_are_not_merged(tmp_path, small):
    file = tmp_path / "sharded.json"
    for shard, flags in enumerate(["--softmax-temp 1.0", "--softmax-temp 1.5"]):
        command = evaluation_command("word-trime", f"--use-local {flags}", small)
        log = run(*command, "--eval-file", file, "--num-shards", 2, "--shard-id", shard)
    assert "is of another evaluation (softmax_temp differ)" in log
    assert not file.exists()


@pytest.mark.slow
def test_distributed_evaluation_reports_all_tokens(tmp_path, small, local):
    file = tmp_path / "distributed.json"
    outputs = run_ranks([*evaluation_command("word-trime", LONG, small), "--eval-file", file], 2)
    assert "the long-term memory of each starts empty" in outputs[0]
    outputs = run_ranks([*evaluation_command("word-trime", LOCAL, small), "--eval-file", file], 2)
    result = json.loads(file.read_text())
    assert result["tokens"] == local["tokens"]
    for name in ("loss", "loss_without_memory"):
        assert result[name] == pytest.approx(local[name], rel=1e-7)
    assert f"TRIME: all {tokens_of(small):,} tokens" in outputs[0]


def test_plain_mode_is_the_stock_task(measure, small):
    """Without memories ours must be what fairseq's own task and scorer print."""
    command = evaluation_command("word-trime", "--context-window 96 --batch-size 1", small)
    stock = run(*["language_modeling" if word == "trime_language_modeling" else word for word in command])
    expected = re.search(r"Loss \(base 2\): ([\d.]+)", stock).group(1)
    result = measure(flags="--context-window 96 --batch-size 8")
    assert f"{result['loss']:.4f}" == expected
    assert result["mem_mass"] == 0


@pytest.mark.slow
def test_memory_flags_do_nothing_in_plain_mode(measure):
    plain = measure(flags="--mode lm --use-local")
    assert plain["loss"] == pytest.approx(measure(flags="")["loss"], rel=1e-9)


@pytest.mark.slow
def test_linear_interpolation(measure, small):
    """Weight 0 is the plain model; a small weight of the cache lowers the loss of a plain model."""
    plain = measure(flags="--context-window 96")
    zero = measure(flags="--context-window 96 --use-local --mode li --cache-lmbda 0")
    some = measure(flags="--context-window 96 --use-local --mode li --cache-lmbda 0.1")
    assert zero["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert zero["mem_mass"] == zero["mem_share"] == 0
    # The first token of the text has no memory.
    assert some["mem_mass"] == pytest.approx(0.1 * (1 - 1 / tokens_of(small)))
    assert 0.05 < some["mem_share"] < 0.5
    assert some["loss"] < plain["loss"] - 0.05


@pytest.mark.slow
def test_key_types_differ(measure):
    losses = [
        measure(flags=f"--use-local --knn-keytype {kind} --softmax-temp 2")["loss"]
        for kind in ("last_ffn_input", "model_output")
    ]
    assert abs(losses[0] - losses[1]) > 0.01


def test_word_probabilities_are_those_of_the_loss(measure):
    result = measure(flags="--context-window 96 --use-local --output-word-probs")
    lines = re.findall(r"^.*eval_lm.*\d+ (\S+ \[-.*)$", result["log"], re.MULTILINE)
    values = re.findall(r" \[(-?\d+\.\d+)\]", "\n".join(lines))
    assert len(values) == result["tokens"]
    assert -sum(map(float, values)) == pytest.approx(result["nll_nats"], rel=1e-5)


def test_left_out_samples_are_counted(measure, small):
    result = measure(flags="--use-local --sample-break-mode complete")
    sizes = [len(line) for line in MMapIndexedDataset(str(small / "valid"))]
    left_out = [size for size in sizes if size > 128]
    assert result["tokens"] == sum(sizes) - sum(left_out)
    assert (result["left_out_samples"], result["left_out_tokens"]) == (len(left_out), sum(left_out))
    assert result["left_out_share"] == pytest.approx(sum(left_out) / sum(sizes))
    share = f"{sum(left_out):,} tokens, {result['left_out_share']:.1%} of the subset"
    message = f"{len(left_out)} samples ({share}) are longer"
    assert message in result["log"]


@pytest.mark.slow
@needs_half_on_cpu
def test_half_precision_is_close(measure):
    single = measure(flags=LONG + " --fp16 --gen-subset test")
    assert single["loss"] == pytest.approx(measure(flags=LONG + " --gen-subset test")["loss"], rel=2e-3)


@pytest.mark.slow
def test_run_as_a_module(measure, local):
    result = measure(flags=LOCAL, command=(sys.executable, "-m", "fairseq_cli.eval_lm"))
    assert result["loss"] == local["loss"]


@pytest.mark.slow
def test_beginning_of_sentence_tokens_are_not_counted(measure, small):
    """--add-bos-token: stock leaves the prepended token out of its loss, and so do we."""
    result = measure(flags="--add-bos-token --use-local --tokens-per-sample 120")
    assert result["tokens"] == tokens_of(small)
    assert f"Loss (base 2): {result['loss']:.4f}, Perplexity" in result["log"].splitlines()[-1]


# What contradicts itself is refused in test_config.py; here it is enough that such a refusal comes through.
BAD = {
    "--tokens-per-sample 256": "--tokens-per-sample 256 exceeds the 128 positions",
    "--context-window 128": "--context-window 128 leaves no token of --tokens-per-sample 128",
    "--use-local --softmax-temp 0": "--softmax-temp must be positive",
    "--context-window -1": "--context-window must not be negative",
    "--eval-file /": "--eval-file /: cannot be written there",
    "--knn-keytype first_layer": "argument --knn-keytype: invalid choice",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_flags_end_in_one_clear_error(flags):
    output = run(*evaluation_command("word-trime", flags), fails=True)
    last = output.splitlines()[-1]
    assert BAD[flags] in last
    assert last.startswith("fairseq-eval-lm: error: " if "argument" in BAD[flags] else "TRIME: error: ")
    assert "Traceback" not in output
    assert "Evaluated" not in output


def test_ensembles_are_refused():
    command = evaluation_command("word-trime", "")
    path = command.index("--path") + 1
    command[path] = f"{command[path]}:{command[path]}"
    assert "one model expected, not an ensemble" in run(*command, fails=True).splitlines()[-1]
    del command[path - 1 : path + 1]
    assert run(*command, fails=True).splitlines()[-1].startswith("TRIME: error: --path FILE is needed")


def test_separate_shards_in_several_processes_are_refused():
    command = [*evaluation_command("word-trime", ""), "--num-shards", 4, "--shard-id", 1]
    for output in run_ranks(command, 2, fails=True):
        assert "pass --distributed-world-size 1" in output


def test_data_of_another_dictionary():
    output = run(*evaluation_command("word-trime", "", data="char"), fails=True)
    assert "the adaptive cutoffs 1000,3000 exceed the dictionary of DATA (88 types)" in output
    output = run(*evaluation_command("char-trime_long", "", data="word"), fails=True)
    assert "dictionary of 88 types, DATA/dict.txt has 6,248" in output


@pytest.mark.slow
def test_generation_works_and_refuses_memories(tmp_path, small):
    command = evaluation_command("word-trime", "--sample-break-mode none", small, ("fairseq-generate",))
    # The first tokens of each sample are the prefix that generation goes on from.
    command += "--batch-size 64 --beam 1 --max-len-b 8 --prefix-size 5 --gen-subset test".split()
    command[command.index("--tokens-per-sample") + 1] = "12"
    output = run(*command, "--results-path", tmp_path)
    written = (tmp_path / "generate-test.txt").read_text()
    assert len(re.findall(r"^H-\d+", written, re.M)) > 20, output[-2000:]
    assert "generation has no memory" in run(*command, "--use-local", fails=True)
    path = command.index("--path") + 1
    command[path] = f"{command[path]}:{command[path]}"
    run(*command, "--results-path", tmp_path / "ensemble")

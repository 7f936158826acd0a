"""fairseq's commands with the task, without a memory: what they give with ``--task translation``."""

import pytest

from tests.commands import run
from tests.training.translation import MT, TASK, plain_checkpoint

pytestmark = pytest.mark.process
WITHOUT_THE_TASK = [*TASK[:-1], "translation"]
# The two runs are of the same batches only where fairseq's own task leaves nothing out.
ALL = "--required-batch-size-multiple 1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return plain_checkpoint(tmp_path_factory.mktemp("start"))


def printed(task, checkpoint, flags, command="fairseq-generate", data=MT / "data"):
    """The lines of sentences, and that of the score."""
    words = [
        command,
        data,
        *task,
        "--path",
        checkpoint,
        "--source-lang",
        "es",
        "--target-lang",
        "en",
        "--cpu",
    ]
    lines = run(*words, *flags).splitlines()
    return [line for line in lines if line[:2] in ("S-", "T-", "H-", "D-", "P-", "C-") or "BLEU" in line]


@pytest.mark.parametrize(
    "flags",
    [
        "--beam 4 --lenpen 0.6 --max-tokens 2048 --scoring sacrebleu --remove-bpe",
        pytest.param("--score-reference --max-tokens 700", marks=pytest.mark.slow),
        pytest.param("--prefix-size 3 --beam 2 --batch-size 7", marks=pytest.mark.slow),
        pytest.param("--sampling --sampling-topp 0.9 --beam 2 --nbest 2 --seed 3", marks=pytest.mark.slow),
        pytest.param("--gen-subset valid --beam 1 --num-shards 2 --shard-id 1", marks=pytest.mark.slow),
    ],
)
def test_generation_without_memory(checkpoint, flags):
    words = [*flags.split(), *ALL.split()]
    ours = printed(TASK, checkpoint, words)
    assert ours == printed(WITHOUT_THE_TASK, checkpoint, words)
    assert sum(line.startswith("H-") for line in ours) in (60, 120)
    assert any("BLEU" in line for line in ours)


@pytest.mark.slow
def test_interactive_without_memory(tmp_path, checkpoint):
    lines = tmp_path / "lines"
    lines.write_text("y dijo dios\tlight\nel cielo y la tierra\tearth\n\n", encoding="utf-8")
    flags = ["--constraints", "--beam", 4, "--buffer-size", 3, "--input", lines]
    ours = printed(TASK, checkpoint, flags, "fairseq-interactive")
    assert ours == printed(WITHOUT_THE_TASK, checkpoint, flags, "fairseq-interactive")
    assert sum("light" in line or "earth" in line for line in ours if line.startswith("H-")) == 2


def test_all_are_translated(checkpoint):
    """With fairseq's default of --required-batch-size-multiple, where its main branch leaves four out."""
    found = printed(TASK, checkpoint, ["--beam", 1])
    numbers = {int(line.partition("\t")[0][2:]) for line in found if line.startswith("H-")}
    assert numbers == set(range(60))

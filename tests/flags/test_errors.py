"""Which errors are one sentence for users, and in which programs."""

import sys
import traceback
from types import SimpleNamespace

import pytest
import torch.multiprocessing

from trime_fairseq.cli.flags import run
from trime_fairseq.datastore import DatastoreError, Retriever
from trime_fairseq.evaluation import MemoryConfig
from trime_fairseq.files import write_json
from trime_fairseq.flags import errors
from trime_fairseq.flags.errors import report_in_one_line, runs_fairseq, sentence_of

SENTENCE = "--use-long adds to the local memory: pass --use-local as well"


def ours():
    MemoryConfig(use_long=True, mem_size=1).check()


def of_the_system(folder):
    write_json(str(folder / "file" / "there.json"), 1)


def in_another_process(number):
    ours()


def caught(function, *arguments):
    with pytest.raises(Exception) as found:  # noqa: PT011
        function(*arguments)
    return found.value


def test_a_sentence_of_ours():
    assert sentence_of(caught(ours)) == SENTENCE


def test_an_argument_becomes_its_flag():
    store = SimpleNamespace(rows=3, prefix="store")
    error = caught(lambda: Retriever(None, store, k=4))
    assert isinstance(error, DatastoreError)
    assert sentence_of(error) == "--k 4 exceeds the datastore store of 3 rows"


def test_an_error_of_the_system_that_passed_through(tmp_path):
    (tmp_path / "file").touch()
    assert "file" in sentence_of(caught(of_the_system, tmp_path))


def test_an_error_of_the_system_that_others_met():
    """Too many open files in the middle of a training step: the traceback says where."""
    frames = [("fairseq_cli/train.py", 1), (f"{errors.PACKAGE}/tasks/task.py", 1)]
    for file, kind, mine in [
        ("/lib/torch/utils/data.py", OSError, False),
        ("/lib/fairseq/data/data_utils.py", PermissionError, False),
        ("/lib/fairseq/data/data_utils.py", FileNotFoundError, True),
        ("/lib/numpy/memmap.py", OSError, True),
    ]:
        assert errors._is_ours(kind, [*frames, (file, 1)]) == mine
    assert not errors._is_ours(OSError, frames[:1])


def shape_error():
    # Raised by PyTorch, at a line of this package.
    from trime_fairseq.memory import similarity_scale, trime_log_prob

    assert similarity_scale(4)
    trime_log_prob(torch.zeros(2), torch.zeros(2), torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda: {}["key"],
        lambda: int("x"),
        lambda: open("/no/such/file"),
        # Faults of this package: a wrong type, a shape that does not fit.
        lambda: MemoryConfig(mem_size="x", use_long=True, use_local=True).check(),
        shape_error,
    ],
)
def test_what_needs_a_traceback(function):
    assert sentence_of(caught(function)) is None


def test_from_a_process_of_a_device():
    """``torch.multiprocessing`` hands its traceback on as text."""
    text = "".join(traceback.format_exception(caught(ours)))
    message = f"\n\n-- Process 1 terminated with the following error:\n{text}"
    error = torch.multiprocessing.ProcessRaisedException(message, 1, 99)
    assert sentence_of(error) == SENTENCE
    message = message.replace("ValueError: ", "trime_fairseq.datastore.datastore.DatastoreError: ")
    assert sentence_of(torch.multiprocessing.ProcessRaisedException(message, 1, 99)) == SENTENCE
    for other in ("KeyError: ", "torch.cuda.OutOfMemoryError: "):
        changed = message.replace("trime_fairseq.datastore.datastore.DatastoreError: ", other)
        assert sentence_of(torch.multiprocessing.ProcessRaisedException(changed, 1, 99)) is None


@pytest.mark.slow
def test_from_a_real_process_of_a_device():
    error = caught(lambda: torch.multiprocessing.spawn(in_another_process, nprocs=1))
    assert sentence_of(error) == SENTENCE


def test_from_a_worker_of_the_loader():
    text = "".join(traceback.format_exception(caught(ours)))
    assert sentence_of(ValueError(f"Caught ValueError in worker 0.\nOriginal {text}")) == SENTENCE
    other = text.replace("trime_fairseq", "another_package")
    assert sentence_of(ValueError(f"Caught ValueError in worker 0.\nOriginal {other}")) is None
    assert sentence_of(ValueError("Original Traceback, of which nothing is left")) is None


@pytest.fixture
def hook(monkeypatch, capsys):
    """What a program prints about an error, whose name is given."""

    def printed(program, error):
        monkeypatch.setattr(sys, "excepthook", lambda *error: sys.stderr.write("the hook before\n"))
        monkeypatch.setattr(sys, "argv", [program])
        report_in_one_line()
        report_in_one_line()
        sys.excepthook(type(error), error, error.__traceback__)
        return capsys.readouterr().err

    return printed


def test_the_last_line_of_fairseqs_commands(hook, monkeypatch):
    monkeypatch.delenv(errors.DEBUG, raising=False)
    line = f"TRIME: error: {SENTENCE}\n"
    assert hook("/bin/fairseq-train", caught(ours)) == line
    assert hook("fairseq-eval-lm", caught(lambda: int("x"))) == "the hook before\n"
    monkeypatch.setenv(errors.DEBUG, "1")
    assert hook("fairseq-eval-lm", caught(ours)) == "the hook before\n" + line


@pytest.mark.parametrize("program", ["pytest", "ipykernel_launcher.py", "train.py", "trime-tune", ""])
def test_other_programs_keep_their_hook(hook, program, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())
    assert hook(program, caught(ours)) == "the hook before\n"


@pytest.mark.parametrize(
    ("argv", "main"),
    [
        ("-c", {"__spec__": SimpleNamespace(name="fairseq_cli.train")}),
        ("train.py", {"__spec__": None, "cli_main": SimpleNamespace(__module__="fairseq_cli.train")}),
        (
            "fairseq_cli/train.py",
            {"cli_main": SimpleNamespace(__module__="__main__"), "__file__": "x/fairseq_cli/train.py"},
        ),
    ],
)
def test_however_fairseq_was_started(argv, main, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**main))
    assert runs_fairseq()


def test_hydra_leaves_errors_to_the_hook(hook, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    assert hook("fairseq-hydra-train", caught(ours)).endswith(f"TRIME: error: {SENTENCE}\n")
    assert errors.os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.parametrize("debug", ["1", "0", ""])
def test_own_commands_show_the_traceback_on_demand(debug, monkeypatch, capsys):
    monkeypatch.setenv(errors.DEBUG, debug)
    assert run("trime-bm25", ours) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"trime-bm25: error: {SENTENCE}"
    assert lines[0].startswith("Traceback" if debug == "1" else "trime-bm25")

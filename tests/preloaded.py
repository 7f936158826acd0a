"""Processes of fairseq's commands that need not import fairseq again, which takes seconds each time.

They are forked by Python's own fork server, which has imported fairseq and what PyTorch imports when first
used, and nothing of this package. What they run is the function that the command's script would call, with
its arguments, environment and exit code.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import entry_points
from multiprocessing import get_context, set_start_method

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("fairseq_cli.train", "fairseq_cli.eval_lm", "faiss.contrib.torch_utils"),
        # By the first attention, and the first optimizer.
        *("torch.fx.experimental.symbolic_shapes", "torch._dynamo"),
    ]
)


def can_run(words: list[str]) -> bool:
    """Whether the command is a console script of Python, or a module that Python runs."""
    return words[:2] == [sys.executable, "-m"] or bool(_scripts(words[0]))


class Process:
    """A running command; what the tests use of ``subprocess.Popen``."""

    def __init__(self, words: list[str], cwd: str | None, environment: dict[str, str]) -> None:
        with _environment(environment):
            # The variables that PyTorch reads once are those of the fork server.
            self._output, output = _FORKS.Pipe(duplex=False)
            self._process = _FORKS.Process(target=_main, args=(words, cwd, environment, output))
            self._process.start()
        output.close()
        self._words = words

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.kill(self._process.pid, signal.SIGINT)

    def communicate(self, timeout: float = 600) -> tuple[str, None]:
        """What the command and its children wrote to both streams, when it has ended."""
        deadline = time.monotonic() + timeout
        pieces = []
        while True:
            if not self._output.poll(max(0, deadline - time.monotonic())):
                self.kill()
                raise subprocess.TimeoutExpired(self._words, timeout, b"".join(pieces))
            piece = os.read(self._output.fileno(), 1 << 16)
            if not piece:
                break
            pieces.append(piece)
        self._output.close()
        self._process.join(max(0, deadline - time.monotonic()))
        return b"".join(pieces).decode(errors="replace").replace("\r\n", "\n"), None


def _scripts(name: str):
    return entry_points(group="console_scripts", name=name)


@contextmanager
def _environment(values: dict[str, str]):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _main(words, cwd, environment, output) -> None:
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    output.close()
    # Where the tests run in the background, a shell has made them, and so this process, deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As in a process of its own: otherwise the loader's workers would come from another fork server.
    set_start_method("fork", force=True)
    os.environ.clear()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    try:
        _run(words)
    except Exception:
        # As Python itself does at the end of a program.
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def _run(words) -> None:
    if words[0] == sys.executable:
        sys.argv = words[2:]
        # "python -m" looks for modules in the current folder first.
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        (script,) = _scripts(words[0])
        sys.exit(script.load()())

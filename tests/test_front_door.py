"""What importing the package loads, and that fairseq finds the plug-in in every process it starts."""

import subprocess
import sys
from pathlib import Path

import pytest

import trime_fairseq
from tests.commands import ROOT, environment, run, training_command

NO_FAIRSEQ = "for name in ('fairseq', 'fairseq_cli', 'hydra', 'omegaconf'): sys.modules[name] = None"
INSTALL = "needs fairseq: pip install ve-fairseq (Python 3.11, 3.12) or fairseq==0.12.2 (Python 3.10)"


def python(code: str, *arguments: object, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Code in a fresh interpreter that finds this package in the current folder."""
    words = [sys.executable, *flags, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    return subprocess.run(
        [*words, *map(str, arguments)], capture_output=True, text=True, env=environment(cpu=True), timeout=300
    )


def output(code: str, *arguments: object, flags: tuple[str, ...] = ()) -> str:
    process = python(code, *arguments, flags=flags)
    assert process.returncode == 0, process.stderr[-4000:]
    return process.stdout


def test_front_door_imports_nothing():
    code = "before = set(sys.modules); import trime_fairseq; print(*set(sys.modules) - before)"
    assert output(code, flags=("-I", "-S")).split() == ["trime_fairseq"]


def test_module_tells_folder_and_version():
    def module(*arguments):
        words = [sys.executable, "-m", "trime_fairseq", *arguments]
        return subprocess.check_output(words, cwd=ROOT, text=True).strip()

    assert Path(module()) == Path(trime_fairseq.__file__).parent
    assert module("--version") == f"trime_fairseq {trime_fairseq.__version__}"


def test_lower_rooms_need_no_fairseq():
    """Every module of them, also those that are imported late."""
    code = f"""{NO_FAIRSEQ}
import importlib, pkgutil
for room in ("memory", "datastore", "bm25"):
    package = importlib.import_module(f"trime_fairseq.{{room}}")
    for module in pkgutil.walk_packages(package.__path__, f"{{package.__name__}}."):
        if "triton" not in module.name:
            importlib.import_module(module.name)
            print(module.name)
"""
    imported = output(code).split()
    assert {"trime_fairseq.memory.lse", "trime_fairseq.bm25.chain"} < set(imported)


@pytest.mark.parametrize("command", ["bm25", "build_index", "datastore"])
def test_help_does_not_load_fairseq(command):
    code = f"""
from trime_fairseq.cli.{command} import main
try:
    main(["--help"])
finally:
    print(*sys.modules)
"""
    text, _, loaded = output(code).strip().rpartition("\n")
    assert text.startswith("usage: trime-")
    assert not {"fairseq", "torch"} & set(loaded.split())


@pytest.mark.parametrize("command", ["tune", "compare"])
def test_without_fairseq_one_line_says_so(command):
    code = f"{NO_FAIRSEQ}\nfrom trime_fairseq.cli.{command} import main\nsys.exit(main(['DATA']))"
    process = python(code)
    assert process.returncode != 0
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"trime-{command}")
    assert line.endswith(INSTALL)


SPAWNED = """
import pickle
from fairseq_cli import train
with open(sys.argv[1], "rb") as file:
    cfg = pickle.load(file)
assert not [name for name in sys.modules if name.startswith("trime_fairseq")], "fairseq will register nothing"
from fairseq import criterions, models, tasks, utils
utils.import_user_module(cfg.common)
task = tasks.setup_task(cfg.task)
criterion = criterions.CRITERION_REGISTRY[cfg.criterion._name]
print(type(task).__name__, criterion.__name__, "transformer_lm_enwik8" in models.ARCH_MODEL_REGISTRY)
"""


@pytest.mark.process
@pytest.mark.slow
def test_spawned_processes_register_the_plugin(tmp_path):
    """With several GPUs fairseq sends its configuration, pickled, to fresh interpreters.

    They register a ``--user-dir`` only if nothing of it is imported yet. So the configuration must not name a
    class of this package.
    """
    file = tmp_path / "cfg.pkl"
    _, *arguments = training_command(tmp_path, "--criterion", "trime_ext_loss")
    run(sys.executable, "-m", "tests.pickled_config", file, *arguments, cwd=ROOT)
    registered = output(SPAWNED, file).splitlines()[-1]
    assert registered == "TrimeLanguageModelingTask TrimeExtLoss True"

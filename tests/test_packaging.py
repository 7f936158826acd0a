"""A source distribution, the wheel made of it, installed alone; what is in them; the versions of make."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

import trime_fairseq
from tests.commands import ROOT

COMMANDS = ["trime-bm25", "trime-build-index", "trime-compare", "trime-datastore", "trime-tune"]
BINARY = re.compile(r"\.(whl|so|pyc|pt|bin|npy|npz|png|idx)$")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        int(version("setuptools").split(".")[0]) < 77,
        reason="PyTorch 1.12 does not work with setuptools 77",
    ),
]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Made of a copy of this project, because building leaves files behind."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    unwanted = (".*", "out", "build", "dist", "site", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unwanted))
    return _build("sdist", copy)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    (project,) = folder.iterdir()
    return _build("wheel", project)


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """``bin`` of an environment that has the package and nothing that it needs."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return python.parent


def _build(kind, project):
    """As ``python -m build --no-isolation`` does it; the file."""
    code = f"from setuptools.build_meta import build_{kind}; print(build_{kind}('dist'))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return project / "dist" / done.stdout.splitlines()[-1]


def _run(folder, *words):
    done = subprocess.run([folder / words[0], *words[1:]], cwd=folder, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_module_prints_the_user_dir(installed):
    user_dir = Path(_run(installed, "python", "-m", "trime_fairseq"))
    assert installed.parent in user_dir.parents
    assert (user_dir / "tasks" / "__init__.py").exists()
    assert _run(installed, "python", "-m", "trime_fairseq", "--version").endswith(trime_fairseq.__version__)


@pytest.mark.parametrize("command", COMMANDS)
def test_version_needs_no_dependency(installed, command):
    assert trime_fairseq.__version__ in _run(installed, command, "--version")


def test_contents(sdist, wheel):
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        built = set(archive.namelist())
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "trime_fairseq/py.typed"} < source
    assert "trime_fairseq/py.typed" in built
    assert [name for name in built if name.endswith("/licenses/LICENSE")]
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trime_fairseq").rglob("*.py")}
    assert modules <= source
    assert modules <= built
    assert not [name for name in source | built if BINARY.search(name) or name.startswith("tests")]


def test_metadata(metadata):
    assert metadata["Name"] == "trime_fairseq"
    assert metadata["Version"] == trime_fairseq.__version__
    assert metadata["Author"] == "The trime_fairseq developers"
    assert metadata["License-Expression"] == "MIT"
    unconditional = [line for line in metadata.get_all("Requires-Dist") if ";" not in line]
    assert sorted(unconditional) == ["numpy", "pyyaml", "torch>=1.12", "tqdm"]


def test_bm25_needs_no_java(metadata):
    assert _required(metadata, "bm25") == {"bm25s", "scipy", "matplotlib"}
    assert _required(metadata, "lucene") == {"trime_fairseq", "pyserini"}


def test_make_pins_every_requirement(metadata):
    """Except for triton, of which PyTorch for CUDA brings its own."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {re.split("[=<]", line)[0] for line in text.splitlines()}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = {extra for names in re.findall(r'-e "\.\[(.+)\]"', makefile) for extra in names.split(",")}
    assert extras == {"fairseq", "cpu", "bm25", "lucene", "mt", "demo", "test", "docs"}
    wanted = {"torch", "numpy", "pyyaml", "tqdm"}.union(*(_required(metadata, extra) for extra in extras))
    assert wanted - pinned == {"trime_fairseq", "triton", "fairseq"}  # fairseq: pinned by the extra


def _required(metadata, extra):
    """The names that an extra adds."""
    lines = [line for line in metadata.get_all("Requires-Dist") if f'extra == "{extra}"' in line]
    return {re.match(r"[\w.-]+", line).group().lower() for line in lines}

"""Which room may import which: read from the source of every file, imports inside functions included."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trime_fairseq"

# Lowest first: a room imports rooms of lower floors, and of its own if that makes no circle.
FLOORS = (
    ("files", "distributed", "flags"),
    ("memory", "datastore", "bm25"),
    ("models", "data"),
    ("criterions",),
    ("evaluation",),
    ("generation",),
    ("tuning",),
    ("comparison",),
    ("tasks",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LOOSE = {"__init__.py", "__main__.py", "distributed.py"}
# The rooms of this floor work alone: none imports another, nothing up to here imports fairseq.
ALONE = 1
# The only files that touch commands of fairseq.
COMMANDS = {
    "fairseq_cli.eval_lm": "evaluation/eval_lm.py",
    "fairseq_cli.generate": "generation/generate.py",
}

Sources = dict[str, str]
Arrow = tuple[str, str]


def _sources() -> Sources:
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
    }


def problems(sources: Sources) -> list[str]:
    """What is wrong with a package whose files are {path inside of it: source}, a line for each arrow."""
    inside, outside = _arrows(sources)
    found = [f"{path}: no room" for path in sources if "/" not in path and path not in LOOSE]
    found += [f"{room}/: no floor" for room in {_room(path) for path in sources if "/" in path} - set(FLOOR)]
    for importer, imported in inside:
        complaint = _complaint(_room(importer), _room(imported))
        if complaint:
            found.append(f"{importer} -> {imported}: {complaint}")
    for importer, imported in outside:
        if imported.split(".")[0] in ("fairseq", "fairseq_cli") and FLOOR.get(_room(importer), 9) <= ALONE:
            found.append(f"{importer} -> {imported}: {_room(importer)} works without fairseq")
        for command, place in COMMANDS.items():
            if f"{imported}.".startswith(f"{command}.") and importer != place:
                found.append(f"{importer} -> {imported}: only {place} touches it")
    if list(_imported("__init__.py", ast.parse(sources["__init__.py"]))):
        found.append("__init__.py: the front door imports nothing")
    rooms = {(_room(importer), _room(imported)) for importer, imported in inside}
    found += _circle("circle", inside) + _circle("circle of rooms", {(a, b) for a, b in rooms if a != b})
    return sorted(found)


def _complaint(importer: str, imported: str) -> str | None:
    above, below = FLOOR.get(importer), FLOOR.get(imported)
    if importer == imported or above is None or below is None:
        return None
    if above < below:
        return f"{importer} is below {imported}"
    if above == below == ALONE:
        return f"{importer} and {imported} do not know each other"
    return None


def _room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _arrows(sources: Sources) -> tuple[set[Arrow], set[Arrow]]:
    """(importing file, imported file) of the package; (importing file, imported name) of all else."""
    files = {_dotted(path): path for path in sources}
    inside, outside = set(), set()
    for path, source in sources.items():
        for name in _imported(path, ast.parse(source)):
            if name.split(".")[0] != PACKAGE.name:
                outside.add((path, name))
                continue
            parents = [name.rsplit(".", cut)[0] if cut else name for cut in range(name.count(".") + 1)]
            # The longest name that is a file; and the packages on the way to it, which Python imports too.
            for known in [files[parent] for parent in parents if parent in files]:
                if known != path and known not in _packages_around(path, files, name):
                    inside.add((path, known))
    return inside, outside


def _packages_around(path: str, files: Sources, name: str) -> set[str]:
    """The packages in which a file lies, unless it imports a name of theirs: they are running already."""
    dotted = _dotted(path)
    around = {files[parent] for parent in files if f"{dotted}.".startswith(f"{parent}.")}
    owner = name.rpartition(".")[0]
    return around if name in files or owner not in files else around - {files[owner]}


def _dotted(path: str) -> str:
    words = [PACKAGE.name, *path.removesuffix(".py").split("/")]
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def _imported(path: str, tree: ast.Module) -> Iterator[str]:
    folder = [PACKAGE.name, *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) + 1 - node.level] if node.level else []
            base = [*base, node.module] if node.module else base
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _circle(what: str, arrows: set[Arrow]) -> list[str]:
    imports: dict[str, set[str]] = {}
    for importer, imported in sorted(arrows):
        imports.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return [f"{what}: {' -> '.join(reversed(error.args[1]))}"]
    return []


def test_rooms():
    found = problems(_sources())
    assert not found, "\n" + "\n".join(found)


def test_every_import_is_seen():
    """Against a walk that sees nothing: arrows that must be there."""
    inside, outside = _arrows(_sources())
    assert ("tasks/__init__.py", "criterions/__init__.py") in inside
    assert any(_room(a) == "criterions" and b == "memory/__init__.py" for a, b in inside)
    for command, place in COMMANDS.items():
        assert any(a == place and f"{b}.".startswith(f"{command}.") for a, b in outside)
    assert {_room(path) for path in _sources() if "/" in path} == set(FLOOR) - {"distributed"}


def test_one_arrow_upwards_is_drawn_by_fairseqs_importer():
    """``evaluate()`` registers the package, ``tasks`` included, as fairseq does for ``--user-dir``."""
    found = {path for path, source in _sources().items() if "import_tasks" in source}
    assert found == {"evaluation/in_process.py"}


HOUSE = {"__init__.py": "", "files/__init__.py": "", "memory/__init__.py": "", "datastore/__init__.py": ""}
HOUSE |= {"memory/lse.py": "", "evaluation/eval_lm.py": "import fairseq_cli.eval_lm", "data/__init__.py": ""}
HOUSE |= {"models/__init__.py": "", "cli/tune.py": "from ..evaluation import eval_lm"}


def test_house_is_in_order():
    assert problems(HOUSE) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("__init__.py", "import os", "__init__.py: the front door imports nothing"),
        ("memories.py", "", "memories.py: no room"),
        ("attic/__init__.py", "", "attic/: no floor"),
        ("memory/lse.py", "from ..datastore import x", "memory/lse.py -> datastore/__init__.py: memory and"),
        ("memory/lse.py", "from .. import evaluation", None),  # no such package, hence no file
        (
            "memory/lse.py",
            "from ..evaluation.eval_lm import run",
            "memory/lse.py -> evaluation/eval_lm.py: memory is below evaluation",
        ),
        (
            "memory/lse.py",
            "def run():\n    import trime_fairseq.evaluation.eval_lm as it",
            "memory/lse.py -> evaluation/eval_lm.py: memory is below evaluation",
        ),
        (
            "files/__init__.py",
            "from ..memory import lse",
            "files/__init__.py -> memory/lse.py: files is below memory",
        ),
        (
            "files/__init__.py",
            "import fairseq.utils",
            "files/__init__.py -> fairseq.utils: files works without fairseq",
        ),
        (
            "datastore/__init__.py",
            "def run():\n    from fairseq import utils",
            "datastore/__init__.py -> fairseq.utils: datastore works without fairseq",
        ),
        ("cli/tune.py", "from fairseq_cli import eval_lm", "cli/tune.py -> fairseq_cli.eval_lm: only"),
        (
            "cli/tune.py",
            "from fairseq_cli.eval_lm import main",
            "cli/tune.py -> fairseq_cli.eval_lm.main: only",
        ),
        ("cli/tune.py", "from fairseq_cli import train", None),
        ("cli/tune.py", "import fairseqs.eval_lm", None),
    ],
)
def test_complaints(path, source, complaint):
    found = problems({**HOUSE, path: source})
    if complaint is None:
        assert found == []
    else:
        assert any(line.startswith(complaint) for line in found), found


@pytest.mark.parametrize(
    ("changed", "circle"),
    [
        (
            {"memory/a.py": "from .b import x", "memory/b.py": "from . import a"},
            "circle: memory/a.py -> memory/b.py -> memory/a.py",
        ),
        (
            {
                "memory/a.py": "def run():\n    import trime_fairseq.memory.b",
                "memory/b.py": "from .a import y",
            },
            "circle: memory/a.py -> memory/b.py -> memory/a.py",
        ),
        (  # a name that the package's own __init__ defines
            {"memory/__init__.py": "from . import a\nx = 1", "memory/a.py": "from . import x"},
            "circle: memory/__init__.py -> memory/a.py -> memory/__init__.py",
        ),
        (  # models' __init__ imports the other file, and Python runs it on the way to models/b.py
            {
                "models/__init__.py": "from . import a",
                "models/a.py": "from ..data import x",
                "models/b.py": "",
                "data/__init__.py": "from ..models.b import y",
            },
            "circle: data/__init__.py -> models/__init__.py -> models/a.py -> data/__init__.py",
        ),
        (  # no circle of files
            {
                "models/a.py": "from ..data.b import x",
                "models/c.py": "",
                "data/b.py": "",
                "data/d.py": "from ..models.c import y",
            },
            "circle of rooms: data -> models -> data",
        ),
    ],
)
def test_circles(changed, circle):
    kind, path = circle.split(": ")
    (found,) = [line for line in problems({**HOUSE, **changed}) if line.startswith(f"{kind}: ")]
    # Where a circle starts is open.
    assert sorted(found.split(": ")[1].split(" -> ")[1:]) == sorted(path.split(" -> ")[1:])


def test_a_package_around_is_no_circle():
    """A file runs inside of its package's import; that alone is no arrow."""
    files = {"memory/__init__.py": "from . import lse", "memory/lse.py": "from . import tile"}
    assert problems({**HOUSE, **files, "memory/tile.py": "import torch"}) == []

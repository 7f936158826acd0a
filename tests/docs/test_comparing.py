"""The page on trime-compare names what there is."""

import re
import shlex

import pytest

from tests.docs.pages import DOCS, blocks_of
from trime_fairseq.comparison import read_memory, request
from trime_fairseq.comparison.arguments import get_parser
from trime_fairseq.comparison.memories import UNIONS
from trime_fairseq.files.yaml_file import read_yaml

PAGE = DOCS / "comparing.md"


def tables():
    """The first cells of each table."""
    text = PAGE.read_text(encoding="utf-8")
    return [
        [line.split("|")[1] for line in table.splitlines()[2:]]
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ]


def names(cells):
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_memories_are_all_there():
    (found,) = [names(table) for table in tables() if "`none`" in table[0]]
    assert {read_memory(name.replace("N", "8")).parts for name in found} == UNIONS


@pytest.mark.parametrize(("first", "keys"), [("data", request.KEYS), ("checkpoint", request.MODEL_KEYS)])
def test_keys_are_all_there(first, keys):
    (found,) = [names(table) for table in tables() if table[0].strip() == f"`{first}`"]
    assert sorted(found) == sorted(keys)


def test_file_and_flags_say_the_same():
    (text,) = blocks_of(PAGE, "yaml")
    content = read_yaml(text, "page")
    command = blocks_of(PAGE, "bash")[1]
    own, rest = get_parser().parse_known_args(shlex.split(command.replace("\\\n", ""))[1:])
    assert own.source == content["data"]
    assert shlex.join(rest) == content["evaluation"]
    said = [(name, value) for name, value in own.of_models]
    expected = []
    for name, model in content["models"].items():
        expected += [("model", f"{name}={model['checkpoint']}"), ("memories", ", ".join(model["memories"]))]
    assert said == expected

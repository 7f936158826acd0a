"""docs/flags.md is what the definitions of the flags say."""

import importlib.util

from tests.docs.pages import DOCS


def generator():
    spec = importlib.util.spec_from_file_location("docs_flags", DOCS / "scripts" / "flags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_of_flags_is_up_to_date():
    page = (DOCS / "flags.md").read_text(encoding="utf-8")
    assert page == generator().page(), "run `python docs/scripts/flags.py`"


def test_page_of_flags_has_the_flags():
    page = (DOCS / "flags.md").read_text(encoding="utf-8")
    flags = "--use-local --mem-size --cross-sent-ratio --memory-impl --grid-softmax-temp --if_complete"
    assert [flag for flag in flags.split() if f"| `{flag}" not in page] == []

"""Links and pictures of the pages, and the files that they name, are there."""

import re
import unicodedata
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, blocks_of, without_blocks

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_EXTERNAL = ("http://", "https://", "mailto:")
ALL_PAGES = [*PAGES, ROOT / "benchmarks" / "README.md"]


def anchors(page: Path) -> set[str]:
    """Of the headings, as forges and MkDocs make them."""
    found = set()
    for heading in _HEADING.findall(without_blocks(page)):
        text = unicodedata.normalize("NFKD", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        words = re.sub(r"[^\w\s-]", "", text.encode("ascii", "ignore").decode()).strip().lower()
        # MkDocs makes one hyphen of several, forges do not: no link should depend on it.
        found.add(re.sub(r"\s", "-", words))
    return found


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    problems = []
    for target in _LINK.findall(without_blocks(page)):
        if target.startswith(_EXTERNAL):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists():
            problems.append(f"{target}: no such file")
        elif not place.is_relative_to(ROOT):
            problems.append(f"{target}: leads out of the repository")
        # Anchors of the API are those of objects, which MkDocs checks.
        elif anchor and not anchor.startswith("trime_fairseq.") and anchor not in anchors(place):
            problems.append(f"{target}: no such heading")
    assert not problems


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert [page.name for page in DOCS.glob("*.md") if f" {page.name}\n" not in navigation] == []


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [page.name for page in DOCS.glob("*.md") if page.name != "index.md"]
    assert [name for name in pages if f"(docs/{name})" not in readme] == []


@pytest.mark.parametrize(
    "page", [DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_files_that_a_page_names_exist(page):
    package = ROOT / "trime_fairseq"
    table = r"^\| `(\w+)` \|.*$"
    text = without_blocks(page)
    missing = []
    for row in re.finditer(table, text, re.MULTILINE):
        if (package / row[1]).is_dir():
            names = re.findall(r"`(\w+\.py)`", row[0])
            missing += [f"{row[1]}/{name}" for name in names if not (package / row[1] / name).exists()]
    for name in re.findall(r"`((?:\w+/)+[\w.-]+\.(?:py|sh|md))`", text):
        if "NAME" not in name and not any((root / name).exists() for root in (ROOT, package)):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_that_commands_run_exist(page):
    """Files of the repository in the commands of a page."""
    commands = " ".join(blocks_of(page, "bash"))
    scripts = re.findall(r"(?:bash|python) ((?:\w+/)+[\w.-]+\.(?:py|sh))", commands)
    assert [script for script in scripts if not (ROOT / script).exists()] == []

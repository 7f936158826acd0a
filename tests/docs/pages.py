"""The pages as the tests read them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]

_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a page, in order."""
    return _FENCED.findall(page.read_text(encoding="utf-8"))


def blocks_of(page: Path, language: str) -> list[str]:
    return [content for kind, content in blocks(page) if kind == language]


def without_blocks(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))

"""Hook of MkDocs: pages and files outside of docs/ that the pages link to.

On a forge a link like ``../CONTRIBUTING.md`` shows the file. The site knows docs/ only: some of these files
become pages, the others are copied, and links are written anew.
"""

import os
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Outside of docs/, and what they are called on the site.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
# On the site the home page does what the README does on a forge.
HOME = "README.md"
COPIES = "source"

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages, and every other file that a page links to."""
    texts = [(page.content_string, "docs") for page in files.documentation_pages()]
    for path, name in PAGES.items():
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            text, folder = file.read(), posixpath.dirname(path)
        texts.append((text, folder))
        files.append(File.generated(config, name, content=rewritten(text, folder)))
    for text, folder in texts:
        for _, target, _ in _LINK.findall(text):
            place = in_repository(target, folder)
            copy = f"{COPIES}/{place}"
            if place and os.path.isfile(os.path.join(ROOT, place)) and copy not in files.src_uris:
                files.append(File.generated(config, copy, abs_src_path=os.path.join(ROOT, place)))
    return files


def on_page_markdown(markdown: str, **unused: Any) -> str:
    return rewritten(markdown, "docs")


def rewritten(markdown: str, folder: str) -> str:
    """The text of a page that stands in ``folder``, with links as the site needs them."""

    def link(found: Any) -> str:
        before, target, after = found.groups()
        return f"{before}{for_site(target, folder)}{after}"

    return _LINK.sub(link, markdown)


def for_site(target: str, folder: str) -> str:
    path, sign, anchor = target.partition("#")
    if not path or "://" in path or path.startswith(("mailto:", f"{COPIES}/")):
        return target
    place = posixpath.normpath(posixpath.join(folder, path))
    if place.startswith("docs/"):
        return place.removeprefix("docs/") + sign + anchor
    if place == HOME:
        return "index.md"
    if place in PAGES:
        return PAGES[place] + sign + anchor
    # A page that was made from outside of docs/ has been rewritten already.
    return target if not in_repository(target, folder) else f"{COPIES}/{place}"


def in_repository(target: str, folder: str) -> str | None:
    """The path of a linked file outside of docs/, from the root; None for all others."""
    path = target.partition("#")[0]
    if not path or "://" in path or path.startswith("mailto:"):
        return None
    place = posixpath.normpath(posixpath.join(folder, path))
    outside = not place.startswith("docs/") and place != HOME and place not in PAGES
    return place if outside and os.path.exists(os.path.join(ROOT, place)) else None

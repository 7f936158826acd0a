"""Small translation pairs: plain text, and IWSLT'14 in the form of its archive."""

import tarfile
from pathlib import Path

# Sentences that come back, so that there is something to merge.
GERMAN = ["Das Haus ist alt & groß.", "Der Hund schläft im Haus.", "„Gut“, sagte Anna's Hund."]
ENGLISH = ["The house is old & big.", "The dog sleeps in the house.", '"Good," said Anna\'s dog.']
TEST_SETS = ["TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"]


def sentences(number: int) -> list[tuple[str, str]]:
    return [(GERMAN[i % 3] + f" {i}.", ENGLISH[i % 3] + f" {i}.") for i in range(number)]


def write_pair(prefix: Path, pairs: dict[str, list[tuple[str, str]]], languages=("de", "en")) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for split, content in pairs.items():
        for side, language in enumerate(languages):
            lines = "".join(pair[side] + "\n" for pair in content)
            Path(f"{prefix}.{split}.{language}").write_text(lines, encoding="utf-8")


def write_iwslt14(folder: Path, training: list[tuple[str, str]]) -> Path:
    """The folder ``de-en`` as the archive has it; two segments in each test set."""
    place = folder / "de-en"
    place.mkdir(parents=True)
    for side, language in enumerate(("de", "en")):
        lines = ["<url>http://www.example.org/a</url>", "<keywords>talks, house</keywords>"]
        lines += ["<talkid>1</talkid>", f"<title>{training[0][side]}</title>"]
        lines += [f"<description>{training[1][side]}</description>"]
        lines += [f" {pair[side]} " for pair in training[2:]]
        (place / f"train.tags.de-en.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for number, name in enumerate(TEST_SETS):
            segments = [
                (GERMAN, ENGLISH)[side][0] + f" {number}",
                (GERMAN, ENGLISH)[side][2].replace("'", "’"),
            ]
            lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<doc docid="1" genre="lectures">']
            lines += [f'<seg id="{i}"> {text} </seg>' for i, text in enumerate(segments, 1)] + ["</doc>"]
            path = place / f"IWSLT14.{name}.de-en.{language}.xml"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


def pack(place: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(place, place.name)
    return archive

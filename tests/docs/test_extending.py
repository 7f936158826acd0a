"""The examples of docs/extending.md run as they are written."""

import re
import subprocess
import sys

import pytest

from tests.commands import REFERENCE, ROOT, TINY, environment, run
from tests.docs.pages import DOCS

TEXT = (DOCS / "extending.md").read_text(encoding="utf-8")


def example(title: str) -> str:
    return re.search(rf'^```python title="{re.escape(title)}"\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.process
@pytest.mark.slow
def test_criterion_of_ones_own_trains(tmp_path):
    plugin = tmp_path / "my_trime"
    plugin.mkdir()
    (plugin / "__init__.py").write_text(example("my_trime/__init__.py"))
    output = run(
        *(
            "fairseq-train",
            REFERENCE / "data" / "word",
            "--user-dir",
            plugin,
            "--task",
            "trime_language_modeling",
        ),
        *(
            "--criterion",
            "trime_recent_loss",
            "--recent",
            "32",
            *TINY,
            "--cpu",
            "--optimizer",
            "sgd",
            "--lr",
            "0.5",
        ),
        *("--tokens-per-sample", "128", "--max-tokens", "1024", "--max-update", "2", "--no-save"),
        *("--disable-validation", "--no-progress-bar", "--log-interval", "1"),
        cwd=ROOT,
    )
    assert "criterion: TrimeRecentLoss" in output
    assert "mem_mass" in output


@pytest.mark.slow
def test_loss_without_fairseq_prints_what_the_page_says():
    program = "import sys\nsys.modules['fairseq'] = None\n" + example("plain_loop.py")
    done = subprocess.run(
        [sys.executable, "-c", program],
        **{"env": {**environment(cpu=True), "PYTHONPATH": str(ROOT)}, "text": True, "timeout": 300},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
    )
    assert not done.returncode, done.stderr[-4000:]
    last = done.stdout.splitlines()[-1]
    (expected,) = [line for line in TEXT.splitlines() if line.startswith("step 60:")]
    numbers = re.compile(r"[\d.]+\d")
    assert numbers.sub("N", last) == numbers.sub("N", expected)
    measured, printed = ([float(n) for n in numbers.findall(line)] for line in (last, expected))
    assert measured == pytest.approx(printed, rel=0.1)

"""What a released model scores on a text: by fairseq-eval-lm its loss, by fairseq-generate its BLEU."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Of what is printed: half precision moves the fourth decimal of a loss, and the second of a perplexity.
TOLERANCE = {"loss": 0.002, "perplexity": 0.03, "bleu": 0.1}
_BLEU = re.compile(r"BLEU\w* = (\d+(?:\.\d+)?)")


def language_model(path: Path, data: Path, subset: str, flags: list[str], cpu: bool) -> dict[str, Any]:
    """Loss and perplexity by ``fairseq-eval-lm`` on one device, as its JSON file says them."""
    precision = "--cpu" if cpu else "--fp16"
    command = _command("fairseq-eval-lm", "trime_language_modeling", path, data, subset)
    command += ["--softmax-batch", "1024", "--distributed-world-size", "1", precision, *flags]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        subprocess.run([*command, "--eval-file", str(result)], check=True)
        found = json.loads(result.read_text(encoding="utf-8"))
    return {"loss": found["loss"], "perplexity": found["ppl"]}


def translation(path: Path, data: Path, subset: str, flags: list[str], cpu: bool) -> dict[str, Any]:
    """BLEU by ``fairseq-generate`` on one device, in float32 as published.

    Raises:
        ValueError: if it prints no BLEU.
    """
    command = _command("fairseq-generate", "trime_translation", path, data, subset)
    command += ["--distributed-world-size", "1", *(["--cpu"] if cpu else []), "--quiet", *flags]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", file=sys.stderr)
    found = _BLEU.findall(done.stdout)
    if not found:
        raise ValueError("fairseq-generate printed no BLEU")
    return {"bleu": float(found[-1])}


def compare(measured: dict[str, Any], expected: dict[str, float]) -> list[str]:
    """What differs, in words."""
    return [
        f"{name} {number(measured[name])}, published {value}"
        for name, value in expected.items()
        # A published number of two decimals stands for all that round to it.
        if measured[name] is None
        or abs(measured[name] - value) > max(TOLERANCE[name], 0.006 if round(value, 2) == value else 0.0)
    ]


def number(value: float | None, digits: int = 4) -> str:
    return "not finite" if value is None else f"{value:.{digits}f}"


def _command(program: str, task: str, path: Path, data: Path, subset: str) -> list[str]:
    beside_python = Path(sys.executable).parent / program
    command = [str(beside_python) if beside_python.exists() else program, str(data)]
    command += ["--user-dir", str(ROOT / "trime_fairseq"), "--task", task]
    return [*command, "--path", str(path), "--gen-subset", subset]

"""BLEU and chrF of translations of one text, with paired bootstrap tests."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESAMPLES = 1000
_SPEED = re.compile(r"Translated [\d,]+ sentences .*\(([\d.]+) sentences/s")


@dataclass(frozen=True)
class Translated:
    """What fairseq-generate printed.

    Attributes:
        hypotheses, references: by the number of the sentence, without subwords, detokenised.
        sentences_per_second: of decoding.
    """

    hypotheses: Mapping[int, str]
    references: Mapping[int, str]
    sentences_per_second: float


def read_translations(path: Path) -> Translated:
    """Reads the output of ``fairseq-generate``: its lines D and T, and its speed.

    Raises:
        ValueError: if it is not complete.
    """
    hypotheses: dict[int, str] = {}
    references: dict[int, str] = {}
    speed = None
    for line in path.read_text(encoding="utf-8").split("\n"):
        if match := re.match(r"T-(\d+)\t(.*)", line):
            references[int(match[1])] = match[2]
        elif match := re.match(r"D-(\d+)\t[^\t]*\t(.*)", line):
            hypotheses[int(match[1])] = match[2]
        elif match := _SPEED.search(line):
            speed = float(match[1])
    if speed is None or not references or hypotheses.keys() != references.keys():
        raise ValueError(
            f"{path} holds {len(hypotheses):,} translations and {len(references):,} references: "
            "it is not complete, remove it"
        )
    return Translated(hypotheses, references, speed)


def compare(rows: Mapping[str, Translated], against: Sequence[str]) -> dict[str, dict[str, Any]]:
    """BLEU and chrF of each row, and whether they differ from those of the rows ``against``.

    Args:
        rows: by name; all of one text.
        against: names of rows, at least one.

    Returns:
        By row: ``bleu``, ``chrf``, their 95 % intervals ``bleu_interval`` and ``chrf_interval``,
        ``length_ratio``, ``sentences_per_second``, and ``p_bleu`` and ``p_chrf``: the p-values of sacrebleu's
        paired bootstrap test by the name of the other row.

    Raises:
        ValueError: if the rows do not translate the same text.
    """
    first = next(iter(rows.values()))
    numbers = sorted(first.references)
    for name, row in rows.items():
        if row.references != first.references:
            raise ValueError(f"{name} was translated from another text than {next(iter(rows))}")
    references = [[first.references[number] for number in numbers]]
    hypotheses = {name: [row.hypotheses[number] for number in numbers] for name, row in rows.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in rows}
    for baseline in against:
        others = [name for name in rows if name != baseline]
        for name, results in _paired(baseline, others, hypotheses, references).items():
            same = hypotheses[name] == hypotheses[baseline]
            for metric, result in results.items():
                low, high = result.mean - result.ci, result.mean + result.ci
                found[name] |= {
                    metric: float(result.score),
                    f"{metric}_interval": [float(low), float(high)],
                }
                if name != baseline:
                    # sacrebleu's p-value of two equal systems is the least there is.
                    p_value = 1.0 if same else float(result.p_value)
                    found[name].setdefault(f"p_{metric}", {})[baseline] = p_value
    for name, row in rows.items():
        found[name]["length_ratio"] = _length_ratio(hypotheses[name], references)
        found[name]["sentences_per_second"] = row.sentences_per_second
    return found


def _paired(
    baseline: str, others: Sequence[str], hypotheses: Mapping[str, list[str]], references: list[list[str]]
) -> dict[str, dict[str, Any]]:
    """Results of sacrebleu by row and metric, those of the baseline included."""
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.significance import PairedTest

    names = [baseline, *others]
    systems = [(name, hypotheses[name]) for name in names]
    metrics = {"BLEU": BLEU(), "chrF": CHRF()}
    _, scores = PairedTest(systems, metrics, references, test_type="bs", n_samples=RESAMPLES)()
    # sacrebleu calls them BLEU and chrF2.
    by_metric = {
        metric: next(found for key, found in scores.items() if key.lower().startswith(metric))
        for metric in ("bleu", "chrf")
    }
    return {
        name: {metric: found[place] for metric, found in by_metric.items()}
        for place, name in enumerate(names)
    }


def _length_ratio(hypotheses: list[str], references: list[list[str]]) -> float:
    from sacrebleu.metrics import BLEU

    score = BLEU().corpus_score(hypotheses, references)
    return float(score.sys_len / max(score.ref_len, 1))

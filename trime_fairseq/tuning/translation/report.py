"""What tuning of a translation memory found: tables, remarks, the command for the test set, the JSON file."""

import shlex
from collections.abc import Sequence
from typing import Any

from ...evaluation.result import perplexity
from ...files import without_infinity
from ...flags import flag
from ..axis_values import grid_flag
from ..families import flags_of
from .decoding import Decoded, Quality, TunedByBleu
from .request import TranslationRequest
from .search import Tried, TunedByLoss
from .settings import Setting

_NAMES = ("knn_lambda_type", "k", "knn_temperature_value", "knn_lambda_value")
# A weight below this is as good as none.
_NO_WEIGHT = 0.01


def report(
    request: TranslationRequest, by_loss: TunedByLoss, by_bleu: TunedByBleu | None, command: str
) -> str:
    """What the command prints at its end."""
    record, best = by_loss.record, by_loss.settings[0]
    lines = [
        f"\nOn {request.subset}, {record.sentences:,} sentences of {by_loss.tokens:,} tokens: perplexity of "
        f"the references {perplexity(by_loss.loss_without_memory):.2f} without memory, {best.ppl:.2f} with "
        f"the best of {len(by_loss.tried):,} settings\n",
        f"{_loss_table(by_loss.settings[: request.show])}\n",
    ]
    if by_bleu is not None:
        lines += [
            f"BLEU {by_bleu.plain.bleu:.2f} without memory, {by_bleu.best.quality.bleu:.2f} with the best of "
            f"{len(by_bleu.decoded)} settings that were decoded\n",
            f"{_bleu_table(by_bleu)}\n",
        ]
    notes = remarks(by_loss, by_bleu)
    if notes:
        lines.append("\n".join(notes) + "\n")
    return "\n".join([*lines, f"On the test set:\n\n{command}\n"])


def remarks(by_loss: TunedByLoss, by_bleu: TunedByBleu | None) -> list[str]:
    """A line for each best value that is the first or last of its axis, and for what was not decoded."""
    found = []
    if by_bleu is not None and by_bleu.best.quality.bleu <= by_bleu.plain.bleu:
        found.append("no setting that was decoded is better than the model without memory")
    for kind in by_loss.axes.kinds:
        best = by_bleu.best_of(kind).setting if by_bleu is not None else by_loss.best_of(kind).setting
        found += [f"{kind}: {line}" for line in _at_ends(by_loss, best)]
        if by_bleu is not None and kind in by_bleu.unfinished:
            found.append(
                f"{kind}: not all settings beside the best one were decoded: a larger --decode may find a "
                "better one"
            )
    if "trime-published" in by_loss.axes.kinds:
        found.append("trime-published sums to more than 1: the loss is that of trime-normalized")
    return found


def _at_ends(by_loss: TunedByLoss, best: Setting) -> list[str]:
    found = []
    temperatures, ks = by_loss.axes.temperatures, by_loss.axes.ks
    if len(temperatures) > 1 and best.temperature in (temperatures[0], temperatures[-1]):
        end = "lowest" if best.temperature == temperatures[0] else "highest"
        name = "knn_temperature_value"
        found.append(
            f"{flag(name)} {best.temperature:g} is the {end} that was tried: widen {grid_flag(name)}"
        )
    if len(ks) > 1 and best.k == ks[-1]:
        found.append(f"--k {best.k} is the most that was allowed: more may be better")
    if best.weight is not None and by_loss.axes.weight is None and best.weight < _NO_WEIGHT:
        found.append(f"--knn-lambda-value {best.weight:g}: the neighbours do not help")
    return found


def best_setting(by_loss: TunedByLoss, by_bleu: TunedByBleu | None) -> Setting:
    """The best one by BLEU, or by loss where nothing was decoded."""
    return by_loss.settings[0].setting if by_bleu is None else by_bleu.best.setting


def command_for_test(request: TranslationRequest, setting: Setting | None, package: str) -> str:
    """The shell command that translates the test set; ``package`` is this package's folder."""
    words = ["fairseq-generate", *request.others, "--gen-subset", "test"]
    words += flags_of(setting.config(request.family)) if setting is not None else []
    words += ["--task", "trime_translation", "--user-dir", request.user_dir or package]
    return shlex.join(words)


def content(
    request: TranslationRequest, by_loss: TunedByLoss, by_bleu: TunedByBleu | None, package: str
) -> dict[str, Any]:
    """Content of the file ``tuning.json``."""
    best = best_setting(by_loss, by_bleu)
    axes, record = by_loss.axes, by_loss.record
    plain: dict[str, Any] = {
        "loss": by_loss.loss_without_memory,
        "ppl": perplexity(by_loss.loss_without_memory),
    }
    found: dict[str, Any] = {
        "checkpoint": request.path,
        "subset": request.subset,
        "sentences": record.sentences,
        "tokens": by_loss.tokens,
        "flags": list(request.others),
        "memory_flags": flags_of(request.family),
        "values": {
            "knn_lambda_type": list(axes.kinds),
            "k": list(axes.ks),
            "knn_temperature_value": list(axes.temperatures),
        },
        "without_memory": plain,
        "best": best.values,
        "best_by_loss": _row(by_loss.settings[0]),
        "remarks": remarks(by_loss, by_bleu),
        "test_command": command_for_test(request, best, package),
        "test_command_without_memory": command_for_test(request, None, package),
    }
    if by_bleu is not None:
        plain |= _quality(by_bleu.plain)
        found["best"] = _decoded(by_bleu.best)
        found["best_by_type"] = {kind: _decoded(by_bleu.best_of(kind)) for kind in axes.kinds}
        found["decoded"] = [_decoded(one) for one in by_bleu.decoded]
    return {**found, "settings": [_row(one) for one in by_loss.settings]}


def _row(one: Tried) -> dict[str, Any]:
    return without_infinity({**one.setting.values, "loss": one.loss, "ppl": one.ppl})


def _decoded(one: Decoded) -> dict[str, Any]:
    return {**_row(one.tried), **_quality(one.quality)}


def _quality(quality: Quality) -> dict[str, Any]:
    return dict(vars(quality))


def _loss_table(settings: Sequence[Tried]) -> str:
    rows = [[f"{one.loss:.4f}", f"{one.ppl:.2f}", *_cells(one.setting)] for one in settings]
    return _table(["Loss (bits)", "Perplexity", *map(flag, _NAMES)], rows)


def _bleu_table(by_bleu: TunedByBleu) -> str:
    heading = ["BLEU", "Length", "Sentences/s", "Perplexity", *map(flag, _NAMES)]
    rows = [[*_quality_cells(by_bleu.plain), "", "none", "", "", ""]]
    for one in by_bleu.decoded:
        rows.append([*_quality_cells(one.quality), f"{one.tried.ppl:.2f}", *_cells(one.setting)])
    return _table(heading, rows)


def _quality_cells(quality: Quality) -> list[str]:
    return [f"{quality.bleu:.2f}", f"{quality.length_ratio:.3f}", f"{quality.sentences_per_second:.1f}"]


def _cells(setting: Setting) -> list[str]:
    values = setting.values
    return [
        f"{value:g}" if isinstance(value, float) else str(value)
        for value in (values.get(name, "-") for name in _NAMES)
    ]


def _table(heading: list[str], rows: list[list[str]]) -> str:
    rows = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)

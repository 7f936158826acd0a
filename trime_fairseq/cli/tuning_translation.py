"""What ``trime-tune --task trime_translation`` does: the loss of all settings, then BLEU of the best."""

import logging
import os
import sys
import time
from collections.abc import Sequence

from ..evaluation.rescue import write_or_rescue
from ..files import PACKAGE, check_writable, write_json
from ..tuning.progress import Progress
from ..tuning.translation import (
    Quality,
    Setting,
    TranslationRequest,
    TunedByBleu,
    TunedByLoss,
    read_request,
    tune_by_bleu,
    tune_by_loss,
)
from ..tuning.translation.report import best_setting, command_for_test, content, report
from .translating import decode, record_references
from .tuning import warn_of_test

logger = logging.getLogger(__name__)


def tune_translation(arguments: Sequence[str]) -> None:
    """The command, with the arguments of its line.

    Raises:
        ValueError: for input that cannot be tuned, and where no loss is a number.
    """
    request = read_request(arguments)
    path = os.path.join(request.output, "tuning.json") if request.output else None
    if path:
        check_writable("--output", path)
    warn_of_test(request.subset)
    words = [*request.others, *(["--user-dir", request.user_dir] if request.user_dir else [])]
    logger.info("TRIME: one pass of model and search over the references")
    record = record_references(words, request.family, request.axes.ks[-1], request.subset)
    started = time.perf_counter()
    by_loss = tune_by_loss(record, request.axes)
    logger.info(f"TRIME: tried {len(by_loss.tried):,} settings in {time.perf_counter() - started:.1f} s")
    by_bleu = _decode(request, words, by_loss) if request.decode else None
    command = command_for_test(request, best_setting(by_loss, by_bleu), PACKAGE)
    # First: where no file can be written, this is what the work was for.
    sys.stdout.write(report(request, by_loss, by_bleu, command))
    sys.stdout.flush()
    if path:
        found = content(request, by_loss, by_bleu, PACKAGE)
        write_or_rescue("--output", path, lambda place: write_json(place, found), "the settings stand above")


def _decode(request: TranslationRequest, words: Sequence[str], by_loss: TunedByLoss) -> TunedByBleu:
    # The climb may end earlier.
    progress = Progress(1 + request.decode * len(request.axes.kinds), "settings decoded", every=0.0)
    words = [*words, "--gen-subset", request.subset]

    def decode_one(setting: Setting | None) -> Quality:
        quality = decode(words, request.family, setting)
        named = "without memory" if setting is None else _named(setting)
        logger.info(f"TRIME: BLEU {quality.bleu:.2f}, {named}")
        progress.add(1)
        return quality

    return tune_by_bleu(by_loss, decode_one, request.decode)


def _named(setting: Setting) -> str:
    weight = "" if setting.weight is None else f", weight {setting.weight:g}"
    return f"{setting.kind}, k {setting.k}, temperature {setting.temperature:g}{weight}"

"""Keeps what fairseq says about itself out of the log of an evaluation."""

import logging
import warnings

MISSING = "needs fairseq: pip install ve-fairseq (Python 3.11, 3.12) or fairseq==0.12.2 (Python 3.10)"

# Beginnings of warnings that fairseq's use of Hydra and PyTorch brings, and that no user can fix.
_OF_FAIRSEQ = (
    "hydra.experimental",
    r"\nThe version_base parameter",
    "In 'config': Usage of deprecated keyword",
    r"\n'config' is validated against ConfigStore",
    r"\nThe strict flag in the compose API",
    "'pin_memory' argument is set as true",
    "Support for mismatched key_padding_mask",
)


def import_fairseq() -> None:
    """Imports fairseq without its notes on optional packages that are not installed.

    Raises:
        ModuleNotFoundError: saying how to install fairseq, if it is not.
    """
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import fairseq  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "fairseq":
            raise
        raise ModuleNotFoundError(f"trime_fairseq.evaluation {MISSING}", name="fairseq") from error
    finally:
        logging.disable(before)
    ignore_warnings()


def ignore_warnings() -> None:
    """Hides those warnings from now on."""
    for message in _OF_FAIRSEQ:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("hydra").setLevel(logging.INFO)

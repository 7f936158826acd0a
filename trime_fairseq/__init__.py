"""TRIME as a plug-in of fairseq: ``--user-dir trime_fairseq`` registers what is imported here."""

try:
    import fairseq  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "trime_fairseq needs fairseq: pip install ve-fairseq (Python 3.11, 3.12) "
        "or fairseq==0.12.2 (Python 3.10)"
    ) from error

# fairseq imports tasks/ and models/ of a --user-dir by itself, but not criterions/.
from . import checkpoints, criterions, models, tasks

__all__ = ["checkpoints", "criterions", "models", "tasks"]

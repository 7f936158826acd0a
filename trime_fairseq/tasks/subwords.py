"""Which subwords of a translation become words again before its sentences are compared."""

from fairseq.data import Dictionary

from ..evaluation.spelling import find_scheme

# fairseq's names, by those of find_scheme.
_NAMES = {"@@": "subword_nmt", "\u2581": "sentencepiece"}


def subwords_of(dictionary: Dictionary, remove_bpe: str | None) -> str | None:
    """fairseq's name of the subwords (of its ``post_process``); None where there are none.

    Args:
        dictionary: of the sentences.
        remove_bpe: ``--eval-bleu-remove-bpe``, if it is given; otherwise the symbols tell.
    """
    if remove_bpe is not None:
        return remove_bpe
    symbols = dictionary.symbols[dictionary.nspecial :]
    return _NAMES.get(find_scheme(symbols, None, "") or "")

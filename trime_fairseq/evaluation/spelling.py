"""What the symbols of a dictionary of subwords stand for in the text: bytes, white space, parts of words."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..files import read_json

logger = logging.getLogger(__name__)

# Values of --post-process, and what they say of the text; most are fairseq's names of its --bpe.
SCHEMES = {
    "subword_nmt": "@@",
    "@@ ": "@@",
    "@@": "@@",
    "fastbpe": "@@",
    "sentencepiece": "sentencepiece",
    "characters": "characters",
    "gpt2": "gpt2",
    "hf_byte_bpe": "gpt2",
    "bytes": "bytes",
    "byte_bpe": "bytes",
}
# Where fairseq-preprocess --bpe gpt2 has left numbers, this file in DATA says what they stand for.
ENCODER = "encoder.json"

_MARK = "\u2581"
_SPACE_OF_GPT2 = "\u0120"
_WHITE = frozenset(" \t\n\r\v\f")
# Less than this share of the types is chance: a word that happens to end in "@@".
_UNMISTAKABLE = 0.05


@dataclass(frozen=True)
class Piece:
    """A symbol as text.

    Attributes:
        text: its characters, white space as such; of byte-level symbols a character for each byte.
        size: bytes, in UTF-8.
        continues: whether the next symbol goes on with the word, without a space; None where spaces are part
            of symbols.
    """

    text: str
    size: int
    continues: bool | None = None


def check_post_process(value: str) -> None:
    """Raises ValueError, with flag and choices, for a ``--post-process`` that is unknown."""
    if value not in SCHEMES:
        raise ValueError(
            f"--post-process {value} is not known in evaluation: leave it out, or pass one of "
            f"{', '.join(map(repr, SCHEMES))}"
        )


def find_scheme(symbols: Sequence[str], post_process: str | None, folder: str) -> str | None:
    """How the text was cut into subwords: what the flag says, or what the symbols show beyond doubt.

    Args:
        symbols: of the dictionary, without its special ones.
        post_process: the flag.
        folder: DATA.
    """
    if post_process is not None:
        return _scheme_of_flag(symbols, post_process)
    enough = max(1, _UNMISTAKABLE * len(symbols))
    if any(symbol.startswith(_MARK) for symbol in symbols):
        return _MARK
    if sum(symbol.endswith("@@") and symbol != "@@" for symbol in symbols) >= enough:
        return "@@"
    if sum(symbol.startswith(_SPACE_OF_GPT2) for symbol in symbols) >= enough:
        bytes_of = _byte_alphabet(256)
        if all(character in bytes_of for symbol in symbols for character in symbol):
            return "gpt2"
    if os.path.isfile(os.path.join(folder, ENCODER)) and all(map(_is_number, symbols)):
        return "gpt2"
    return None


def _scheme_of_flag(symbols: Sequence[str], post_process: str) -> str | None:
    """That of the flag, unless the symbols are not marked so: whatever was counted would be wrong."""
    scheme = SCHEMES[post_process]
    mark = {"@@": "@@", "gpt2": _SPACE_OF_GPT2}.get(scheme, _MARK)
    found = any(symbol.endswith(mark) if mark == "@@" else mark in symbol for symbol in symbols)
    if found or (scheme == "gpt2" and all(map(_is_number, symbols))):
        return scheme
    logger.warning(
        f"TRIME: --post-process {post_process}: no type of the dictionary has the mark {mark}, so all losses "
        "are per token"
    )
    return None


def _is_number(symbol: str) -> bool:
    return symbol.isdecimal() or symbol.startswith("madeupword")


def speller(scheme: str, symbols: Sequence[str], folder: str) -> Callable[[str], Piece | None]:
    """What reads a symbol of ``scheme``; it gives None for a symbol that is none.

    Raises:
        ValueError: if the numbers of GPT-2's BPE have no file that says what they stand for.
    """
    if scheme == "@@":
        return _continued
    if scheme == "bytes":
        alphabet = {**_byte_alphabet(None), _MARK: 32}
        return lambda symbol: _of_bytes(symbol, alphabet)
    if scheme != "gpt2":
        return _marked
    alphabet = _byte_alphabet(256)
    if not all(map(_is_number, symbols)):
        return lambda symbol: _of_bytes(symbol, alphabet)
    tokens = _gpt2_tokens(os.path.join(folder, ENCODER))
    return lambda symbol: _of_bytes(tokens.get(symbol), alphabet)


def _continued(symbol: str) -> Piece:
    word = symbol.removesuffix("@@")
    return Piece(word, len(word.encode()), continues=word != symbol)


def _marked(symbol: str) -> Piece:
    """With a mark for white space; sentencepiece may spell what it does not know in bytes."""
    if byte := re.fullmatch("<0x([0-9A-F]{2})>", symbol):
        return Piece(chr(int(byte[1], 16)), 1)
    text = symbol.replace(_MARK, " ")
    return Piece(text, len(text.encode()))


def _of_bytes(symbol: str | None, alphabet: dict[str, int]) -> Piece | None:
    if symbol is None or any(character not in alphabet for character in symbol):
        return None
    return Piece("".join(chr(alphabet[character]) for character in symbol), len(symbol))


def _byte_alphabet(first: int | None) -> dict[str, int]:
    """The character that stands for each byte: itself if it can be printed. The others are numbered from
    ``first`` on, as in GPT-2; or they are 256 characters further on, as in fairseq's ``bytes``."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    moved = {byte: 256 + byte if first is None else first + number for number, byte in enumerate(others)}
    return {chr(moved.get(byte, byte)): byte for byte in range(256)}


def _gpt2_tokens(path: str) -> dict[str, str]:
    """By the number that stands in the text, GPT-2's own symbol."""
    if not os.path.isfile(path):
        raise ValueError(
            f"--post-process gpt2: {path} is not there, which says what the numbers of the text stand for: "
            f"copy the {ENCODER} of the BPE to it, or leave the flag out"
        )
    numbers = read_json(path)
    if not isinstance(numbers, dict) or not all(type(number) is int for number in numbers.values()):
        raise ValueError(f"{path}: the number of each symbol expected, as in the {ENCODER} of GPT-2")
    return {str(number): token for token, number in numbers.items()}


@dataclass(frozen=True)
class PieceTables:
    """What each of the V types adds to a text, given the type before it; arrays of [V].

    Attributes:
        size: bytes of the symbol itself; of a line end 1.
        inner: words that begin within it.
        opens: whether it begins with a part of a word.
        white: whether it begins with white space.
        closed: whether a word that follows it is a new one.
        space: whether a space follows, unless the line ends.
        unknown: whether its text is not known.
    """

    size: NDArray[np.int64]
    inner: NDArray[np.int64]
    opens: NDArray[np.bool_]
    white: NDArray[np.bool_]
    closed: NDArray[np.bool_]
    space: NDArray[np.bool_]
    unknown: NDArray[np.bool_]

    @classmethod
    def of(cls, pieces: Sequence[Piece | None], eos: int) -> "PieceTables":
        """Of the pieces of all types, None where one is not known; ``eos`` is the line end."""
        count = len(pieces)
        size, inner = np.zeros((2, count), np.int64)
        opens, white, closed, space, unknown = np.zeros((5, count), np.bool_)
        tables = cls(size, inner, opens, white, closed, space, unknown)
        for symbol, piece in enumerate(pieces):
            if symbol == eos:
                tables.size[symbol], tables.closed[symbol] = 1, True
            elif piece is None:
                tables.unknown[symbol] = True
            else:
                tables._set(symbol, piece)
        return tables

    def _set(self, symbol: int, piece: Piece) -> None:
        white = [character in _WHITE for character in piece.text]
        self.size[symbol] = piece.size
        self.inner[symbol] = sum(before and not here for before, here in zip(white, white[1:]))
        self.opens[symbol] = bool(white) and not white[0]
        self.white[symbol] = bool(white) and white[0]
        if piece.continues is None:
            self.closed[symbol] = bool(white) and white[-1]
        else:
            self.closed[symbol] = self.space[symbol] = not piece.continues

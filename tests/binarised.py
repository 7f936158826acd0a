"""Small texts in every format of fairseq's data folders, and the arguments of a small model."""

from argparse import Namespace

import numpy as np
from fairseq.data import Dictionary
from fairseq.data.huffman import HuffmanCodeBuilder, HuffmanMMapIndexedDatasetBuilder
from fairseq.data.indexed_dataset import IndexedDatasetBuilder, MMapIndexedDatasetBuilder
from fairseq.models.transformer_lm import base_lm_architecture

WORDS = [f"w{number}" for number in range(40)]


def make_dictionary(words=WORDS):
    dictionary = Dictionary()
    for word in words:
        dictionary.add_symbol(word)
    return dictionary


def lines_of(count, length=9, empty_every=0):
    """Lines of ``length`` words or a few less; every so-manieth is empty."""
    random = np.random.default_rng(7)
    lines = []
    for number in range(count):
        words = random.choice(WORDS, length - number % 3)
        lines.append("" if empty_every and number % empty_every == 0 else " ".join(words))
    return lines


def write_text(folder, kind="mmap", words=WORDS, **subsets):
    """A data folder whose subsets are the given lists of lines."""
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = make_dictionary(words)
    dictionary.save(str(folder / "dict.txt"))
    for name, lines in subsets.items():
        path = folder / name
        if kind == "raw":
            path.write_text("".join(f"{line}\n" for line in lines))
            continue
        tokens = [dictionary.encode_line(line, add_if_not_exist=False) for line in lines]
        if kind.startswith("huffman"):
            _write_huffman(path, kind, dictionary, tokens)
            continue
        made = MMapIndexedDatasetBuilder(f"{path}.bin", np.uint16) if kind == "mmap" else None
        builder = made or IndexedDatasetBuilder(f"{path}.bin")
        for line in tokens:
            builder.add_item(line)
        builder.finalize(f"{path}.idx")
    return folder


def _write_huffman(path, kind, dictionary, tokens):
    counts = HuffmanCodeBuilder()
    if kind == "huffman":
        for line in tokens:
            counts.add_symbols(*(dictionary[int(token)] for token in line))
    else:
        # In the order of the dictionary, whose numbers the code then has: all that stock can read.
        for number, word in enumerate(dictionary.symbols):
            counts.increment(word, 1000 - number)
    with HuffmanMMapIndexedDatasetBuilder(str(path), counts.build_code()) as builder:
        for line in tokens:
            builder.add_item([dictionary[int(token)] for token in line])


def model_arguments(**settings):
    """What fairseq builds a model of a few thousand parameters from, for 32 positions."""
    small = dict(decoder_layers=2, decoder_embed_dim=16, decoder_ffn_embed_dim=24, decoder_attention_heads=2)
    positions = dict(tokens_per_sample=32, max_target_positions=32)
    args = Namespace(arch="transformer_lm", dropout=0.0, tpu=False, **positions, **small, **settings)
    base_lm_architecture(args)
    return args

"""A small text with all memories, recorded and evaluated; and losses that are as a test wants them."""

import itertools
import math
from dataclasses import replace

import torch

from tests.recorded import RecordedModel
from trime_fairseq.datastore import Neighbors
from trime_fairseq.evaluation import MemoryConfig, MemoryScorer, ScorerParts
from trime_fairseq.tuning import (
    MemoryAxes,
    RecordingScorer,
    Setting,
    Tuned,
    recording_config,
    without_memory,
)
from trime_fairseq.tuning.families import with_values

MODEL = "DATA --path model.pt --batch-size 8"
NEIGHBOR_FLAGS = "--use-local --use-external --dstore-filename d --indexfile i"

LENGTHS = [3, 4]  # evaluated tokens of the two rows of a batch
BATCH, DIM, WORDS, NEIGHBORS = sum(LENGTHS), 4, 6, 5
AXES = MemoryAxes((0.7, 1.3), (0, 2, 6), (1, 2, 5), (0.5, 2.0, 9.0))

LOCAL = MemoryConfig(use_local=True, exact_tails=True)
LONG = replace(LOCAL, use_long=True, mem_size=6)
KNNLM = MemoryConfig(knnlm=True, k=5, exact_tails=True)
FAMILIES = {
    "local": LOCAL,
    "long": LONG,
    "external": replace(LONG, use_external=True, k=5),
    "interpolated": replace(LONG, use_external=True, k=5, use_interp=True),
    "cache": replace(LOCAL, mode="li"),
    "long cache": replace(LONG, mode="li"),
    "cache of neighbours": replace(LOCAL, mode="li", use_external=True, k=5),
    "knnlm": KNNLM,
    "knnlm and cache": replace(LONG, mode="li", knnlm=True, k=5),
}


def neighbors(targets):
    """Of tokens 0 and 4 none, of token 2 only three; the first two of token 1 tie. Their tokens are the first
    three words."""
    generator = torch.Generator().manual_seed(1)
    count = len(targets)
    scores = 3 * torch.randn(count, NEIGHBORS, generator=generator).sort(descending=True).values
    tokens = torch.randint(0, 3, (count, NEIGHBORS), generator=generator)
    for row, found in ((0, 0), (4, 0), (2, 3)):
        if row < count:
            scores[row, found:], tokens[row, found:] = -math.inf, -1
    if count > 1:
        scores[1, 1] = scores[1, 0]
    return Neighbors(scores, tokens, tokens)


class Found:
    """A retriever that finds the same neighbours for each batch."""

    def search(self, queries):
        assert queries.size(1) == DIM
        return neighbors(queries)


def batches(count=2, word=None):
    """Models and batches of consecutive samples; of the last batch only the last token is evaluated, and is
    ``word``, if that is given."""
    generator = torch.Generator().manual_seed(2)
    for number in range(count):
        logits = torch.randn(2, 4, WORDS, generator=generator)
        keys = 2 * torch.randn(2, 4, DIM, generator=generator)
        text = torch.randint(0, 4, (2, 5), generator=generator)
        sample = {
            "net_input": {"src_tokens": text[:, :-1]},
            "target": text[:, 1:].clone(),
            "sample_ids": [2 * number, 2 * number + 1],
            "spans": [(0, length) for length in LENGTHS],
        }
        if word is not None and number == count - 1:
            logits, keys = logits[:1], keys[:1]
            sample = {**sample, "net_input": {"src_tokens": text[:1, :-1]}, "target": text[:1, 1:].clone()}
            sample["sample_ids"], sample["spans"] = [2 * number], [(3, 4)]
            sample["target"][0, 3] = word
        yield RecordedModel(logits, keys, adaptive_softmax=None), sample


def run(scorer, count=2, word=None):
    """Log-probabilities of all tokens, as fairseq gets them."""
    rows = []
    for model, sample in batches(count, word):
        rows += [hypo["positional_scores"] for (hypo,) in scorer.generate([model], sample)]
    return torch.cat(rows)


def recorded(families, axes=AXES, skip_bos=False, count=2, word=None):
    """What is recorded of the text."""
    parts = ScorerParts(skip_bos, retriever=Found(), tokens=count * BATCH)
    scorer = RecordingScorer(axes, recording_config(families, axes), 1, parts)
    run(scorer, count, word)
    return scorer.record()


def evaluated(config, skip_bos=False, count=2):
    """The scorer of a separate evaluation, and the log-probabilities it gave."""
    scorer = MemoryScorer(config, 1, ScorerParts(skip_bos, retriever=Found()))
    return scorer, run(scorer, count)


def tuned_of(family, loss, plain=9.0, **values):
    """What tuning finds where ``loss(config)`` bits is the loss of each setting; values of the axes are given
    by the names of settings."""
    tried = {}
    for place in itertools.product(*values.values()):
        config = with_values(family, dict(zip(values, place)))
        weights = {name: 0.25 for name in config.weight_names if getattr(config, name) is None}
        config = replace(config, **weights)
        tried[place] = Setting(config, loss(config))
    return Tuned(family, values, tried, Setting(without_memory(family), plain), 10)

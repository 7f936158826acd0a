"""References that were never a text: logits and neighbours of a few tokens, and BLEU as a test wants it."""

import torch

from trime_fairseq.generation import Mixture
from trime_fairseq.tuning.translation import Axes, Quality, ReferenceRecord, tune_by_loss

TOKENS, VOCABULARY, NEIGHBORS, DIMENSION = 40, 11, 6, 16
KS, TEMPERATURES = (1, 3, 6), (0.5, 1.0, 2.0, 4.0, 8.0)


class MadeUp:
    """Logits [N, V], neighbours [N, K] and targets, of which only :attr:`record` reaches the tuning."""

    def __init__(self, seed=0, helpful=0.5):
        generator = torch.Generator().manual_seed(seed)

        def random(*shape):
            return torch.randn(*shape, generator=generator)

        self.logits = 2 * random(TOKENS, VOCABULARY)
        self.targets = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
        self.scores = (8 * random(TOKENS, NEIGHBORS)).sort(descending=True).values
        tokens = torch.randint(0, VOCABULARY, (TOKENS, NEIGHBORS), generator=generator)
        right = torch.rand(TOKENS, NEIGHBORS, generator=generator) < helpful
        self.tokens = torch.where(right, self.targets.unsqueeze(1), tokens)
        # Rows with few neighbours, and with none.
        for row, found in ((0, 0), (1, 2), (7, 0)):
            self.scores[row, found:], self.tokens[row, found:] = -torch.inf, -1

    @property
    def record(self):
        return ReferenceRecord(
            self.logits.logsumexp(1),
            self.logits.gather(1, self.targets.unsqueeze(1)).squeeze(1),
            self.scores,
            self.tokens.int(),
            self.targets,
            DIMENSION,
            sentences=4,
        )

    def decoded(self, setting):
        """Log-probabilities of the targets by the decoder's own mixture of the whole vocabulary."""
        mixture = Mixture.create(setting.kind, setting.temperature, DIMENSION, setting.weight)
        k = setting.k
        log_probs = mixture.log_probs(self.logits, self.scores[:, :k], self.tokens[:, :k])
        return log_probs.gather(1, self.targets.unsqueeze(1)).squeeze(1)


def tuned(*kinds, ks=KS, temperatures=TEMPERATURES, weight=None, **options):
    return tune_by_loss(MadeUp(**options).record, Axes(kinds, ks, temperatures, weight))


class Decoder:
    """Translates with the BLEU that a function says, and remembers what it was asked for."""

    def __init__(self, bleu, plain=10.0):
        self.bleu, self.plain = bleu, plain
        self.asked = []

    def __call__(self, setting):
        self.asked.append(setting)
        bleu = self.plain if setting is None else self.bleu(setting)
        return Quality(bleu, 0.97, 50.0)

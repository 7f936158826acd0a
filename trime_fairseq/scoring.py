"""The evaluation hook: a scorer for ``fairseq-eval-lm`` that adds the memories.

Stock ``eval_lm`` builds its scorer by the module global ``SequenceScorer``; :func:`score_next_with`
is the one place that knows.
"""

import math
import sys
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from fairseq_cli import eval_lm
from torch import Tensor

from .memory import (
    LongTermMemory,
    Visibility,
    adaptive_token_scores,
    memory_lse,
    memory_mass,
    plain_token_scores,
    positive_share,
    trime_log_prob,
)
from .models.representation import RepresentationTap
from .results import Totals
from .settings import MemorySettings


def score_next_with(make_scorer: Callable[..., Any]) -> None:
    """The next scorer that ``fairseq-eval-lm`` builds is ``make_scorer(...)``; later ones are stock."""
    # Run as ``python -m fairseq_cli.eval_lm`` its globals are those of __main__.
    modules = [eval_lm]
    if hasattr(sys.modules["__main__"], "SequenceScorer"):
        modules.append(sys.modules["__main__"])
    stock = [module.SequenceScorer for module in modules]

    def make_once(*args: Any, **kwargs: Any) -> Any:
        for module, scorer in zip(modules, stock):
            module.SequenceScorer = scorer
        return make_scorer(*args, **kwargs)

    for module in modules:
        module.SequenceScorer = make_once


class TrimeScorer:
    """Log-probabilities of the evaluated tokens of consecutive samples, with local and long-term memory.

    A batch of consecutive samples gives the result of one sample at a time: keys do not depend on the
    memory, so the model runs on all rows at once and row r then sees the rows before it.

    Args:
        settings: which memories, and how they are combined.
        totals: sums over all tokens are added to it.
        pad: the padding symbol.
        softmax_batch: tokens per chunk of the token softmax; 0 for all at once.
        skip_bos: leave the first token of each sample out of ``totals``, as stock does for a
            prepended beginning-of-sentence token.
    """

    def __init__(
        self,
        settings: MemorySettings,
        totals: Totals,
        pad: int,
        softmax_batch: int = 0,
        skip_bos: bool = False,
    ) -> None:
        self.settings = settings
        self.totals = totals
        self.softmax_batch = softmax_batch or sys.maxsize
        self.skip_bos = skip_bos
        self._long_term = LongTermMemory(settings.mem_size) if settings.use_long else None
        self._last_id = -1
        # Published results with memories leave these words uncharged; those without do not.
        as_published = settings.reads_memory and settings.mode == "gn" and not settings.exact_tails
        self._uncharged_tail_index = pad if as_published else None

    @torch.no_grad()
    def generate(self, models: List[Any], sample: Dict[str, Any], **unused: Any) -> List[Any]:
        """Scores a batch of :class:`trime_fairseq.data.ContextWindowDataset`.

        Returns:
            What stock ``SequenceScorer`` returns: per row a list of one dict with ``tokens`` (the
            evaluated targets), ``positional_scores`` (their log-probabilities, float32, nats) and
            ``score`` (their mean).

        Raises:
            ValueError: for an ensemble of several models.
        """
        if len(models) != 1:
            raise ValueError(f"--path: one model expected, not an ensemble of {len(models)}")
        decoder = models[0].decoder
        models[0].eval()
        net_input, spans = sample["net_input"], sample["spans"]
        reads_memory = self.settings.reads_memory
        with RepresentationTap(decoder, self.settings.knn_keytype) as tap:
            features = models[0](**net_input, features_only=True)[0]

        width = features.size(1)
        evaluated = _flat_positions(spans, width).to(features.device, non_blocking=True)
        targets = sample["target"].reshape(-1)[evaluated]
        token_lse, target_logit = self._token_scores(decoder, _rows(features)[evaluated], targets)
        if reads_memory:
            keys = _rows(tap.representation(features))
            all_lse, positive_lse = self._memory_scores(sample, keys, evaluated, targets, width)
            log_prob, mass, share = self._combine(token_lse, target_logit, all_lse, positive_lse)
        else:
            log_prob = target_logit - token_lse
            mass = share = torch.zeros_like(log_prob)

        lengths = [last - first for first, last in spans]
        self._add_to_totals(log_prob, mass, share, lengths)
        return [
            [
                {
                    "tokens": t,
                    "score": s.mean(),
                    "positional_scores": s,
                    "attention": None,
                    "alignment": None,
                }
            ]
            for t, s in zip(targets.split(lengths), log_prob.split(lengths))
        ]

    def _token_scores(self, decoder: Any, features: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
        chunks = []
        size = min(self.softmax_batch, len(targets))
        for feature, target in zip(features.split(size), targets.split(size)):
            if decoder.adaptive_softmax is not None:
                chunks.append(
                    adaptive_token_scores(
                        decoder.adaptive_softmax, feature, target, self._uncharged_tail_index
                    )
                )
            else:
                chunks.append(plain_token_scores(decoder.output_layer(feature), target))
        if len(chunks) == 1:
            return chunks[0]
        token_lse, target_logit = zip(*chunks)
        return torch.cat(token_lse), torch.cat(target_logit)

    def _memory_scores(
        self, sample: Dict[str, Any], keys: Tensor, evaluated: Tensor, targets: Tensor, width: int
    ) -> Tuple[Tensor, Tensor]:
        """A and P over all memories in use; adds the evaluated tokens to the long-term memory."""
        scale = keys.size(1) ** -0.5 / self.settings.softmax_temp
        queries = keys[evaluated]
        # The token that followed position t of the input is the input at t + 1. (The last column
        # rolls around, but nothing sees it: there is no query after it.)
        next_tokens = sample["net_input"]["src_tokens"].roll(-1, dims=1).reshape(-1)
        visibility = Visibility.row_prefixes(width, tuple(map(tuple, sample["spans"])))
        all_lse, positive_lse = memory_lse(queries, keys, targets, next_tokens, visibility, scale)
        if self._long_term is not None:
            memory = self._long_term
            intervals, gap = self._long_term_intervals(sample)
            memory.append(queries, targets)
            visibility = Visibility.shared(intervals)
            long_all, long_positive = memory_lse(
                queries, memory.keys, targets, memory.tokens, visibility, scale
            )
            memory.forget(before=gap)
            all_lse = torch.logaddexp(all_lse, long_all)
            positive_lse = torch.logaddexp(positive_lse, long_positive)
        return all_lse, positive_lse

    def _long_term_intervals(self, sample: Dict[str, Any]) -> Tuple[Tuple[Tuple[int, int, int], ...], int]:
        """What each row sees of the long-term memory once this batch is appended to it: the last
        ``mem_size`` tokens before the row, back to where sample ids were last not consecutive. Also
        returns that place: nothing before it may be seen any more."""
        assert self._long_term is not None
        gap, end = 0, len(self._long_term)
        intervals = []
        for sample_id, (first, last) in zip(sample["sample_ids"], sample["spans"]):
            if sample_id != self._last_id + 1:
                gap = end
            self._last_id = sample_id
            intervals.append((max(gap, end - self._long_term.size), end, last - first))
            end += last - first
        return tuple(intervals), gap

    def _combine(
        self, token_lse: Tensor, target_logit: Tensor, all_lse: Tensor, positive_lse: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Log-probability of the target, share of the distribution that lies on memories, and share of the
        target's probability that comes from them."""
        if self.settings.mode == "gn":
            log_prob = trime_log_prob(token_lse, target_logit, all_lse, positive_lse)
            return log_prob, memory_mass(token_lse, all_lse), positive_share(target_logit, positive_lse)
        assert self.settings.cache_lmbda is not None
        # Where there is no memory yet, all weight is on the tokens.
        nothing = all_lse == -math.inf
        weight = torch.full_like(all_lse, self.settings.cache_lmbda).masked_fill(nothing, 0.0)
        from_memory = weight.log() + (positive_lse - all_lse).masked_fill(nothing, -math.inf)
        log_prob = torch.logaddexp(target_logit - token_lse + (1 - weight).log(), from_memory)
        return log_prob, weight, (from_memory - log_prob).exp()

    def _add_to_totals(self, log_prob: Tensor, mass: Tensor, share: Tensor, lengths: Sequence[int]) -> None:
        values = torch.stack([-log_prob, mass, share]).double()
        count = len(log_prob)
        if self.skip_bos:
            starts = torch.tensor([sum(lengths[:row]) for row in range(len(lengths))])
            values[:, starts.to(values.device)] = 0.0
            count -= len(lengths)
        self.totals.add(values.sum(1), count)


def _rows(batch: Tensor) -> Tensor:
    return batch.reshape(-1, batch.size(-1))


def _flat_positions(spans: Sequence[Tuple[int, int]], width: int) -> Tensor:
    return torch.cat(
        [torch.arange(row * width + first, row * width + last) for row, (first, last) in enumerate(spans)]
    )

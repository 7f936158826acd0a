"""The evaluation hook: a scorer for ``fairseq-eval-lm`` that adds the memories.

Stock ``eval_lm`` builds its scorer by the module global ``SequenceScorer``; :func:`score_next_with`
is the one place that knows.
"""

import math
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from fairseq_cli import eval_lm
from torch import Tensor

from ..datastore import Neighbors, RecallSample, Retriever
from ..memory import (
    interpolate,
    memory_mass,
    positive_share,
    trime_log_prob,
)
from ..models.output import run_decoder, token_scores
from ..models.representation import RepresentationTap
from .config import MemorySettings
from .memory_scores import (
    Batch,
    Grid,
    LsePair,
    PrecedingText,
    add,
    external_memory,
    local_memory,
    neighbor_log_prob,
)
from .recorder import KeyRecorder
from .result import Totals
from .stages import StageTimes


def score_next_with(make_scorer: Callable[..., Any]) -> None:
    """The next scorer that ``fairseq-eval-lm`` builds is ``make_scorer(...)``; later ones are stock."""
    # Run as ``python -m fairseq_cli.eval_lm`` its globals are those of __main__; other programs keep theirs.
    modules = [eval_lm]
    main = sys.modules["__main__"]
    if os.path.realpath(getattr(main, "__file__", None) or "") == os.path.realpath(str(eval_lm.__file__)):
        modules.append(main)
    stock = [module.SequenceScorer for module in modules]

    def make_once(*args: Any, **kwargs: Any) -> Any:
        for module, scorer in zip(modules, stock):
            module.SequenceScorer = scorer
        return make_scorer(*args, **kwargs)

    for module in modules:
        module.SequenceScorer = make_once


class Memories(NamedTuple):
    """What the memories in use say about a batch.

    Attributes:
        joint: for each temperature, size of the long-term memory and number of neighbours A and P over
            all memories; empty without memories in the softmax.
        neighbors: for each temperature of the interpolation and number of neighbours the log-probability of
            the target among the neighbours alone, and whether there are any; empty without interpolation.
    """

    joint: List[List[List[LsePair]]]
    neighbors: List[List[LsePair]]


@dataclass
class Extras:
    """What an evaluation may have beside its memory settings.

    Attributes:
        retriever: searches the external memory.
        recorder: takes the keys of all evaluated tokens.
        recall: takes a sample of the searches.
        times: seconds of the stages ``model``, ``search`` and ``combination``.
    """

    retriever: Optional[Retriever] = None
    recorder: Optional[KeyRecorder] = None
    recall: Optional[RecallSample] = None
    times: StageTimes = field(default_factory=StageTimes)


class TrimeScorer:
    """Log-probabilities of the evaluated tokens of consecutive samples, with all memories.

    A batch of consecutive samples gives the result of one sample at a time: keys do not depend on the
    memory, so the model runs on all rows at once and row r then sees the rows before it.

    Args:
        settings: which memories, and how they are combined.
        totals: sums over all tokens are added to it.
        pad: the padding symbol.
        softmax_batch: tokens per chunk of the token softmax; 0 for all at once.
        skip_bos: leave the first token of each sample out of ``totals``, as stock does for a
            prepended beginning-of-sentence token.
        extras: external memory, datastore to write, times.
    """

    def __init__(
        self,
        settings: MemorySettings,
        totals: Totals,
        pad: int,
        softmax_batch: int = 0,
        skip_bos: bool = False,
        extras: Optional[Extras] = None,
    ) -> None:
        self.settings = settings
        self.totals = totals
        self.softmax_batch = softmax_batch or sys.maxsize
        self.skip_bos = skip_bos
        self.extras = extras or Extras()
        self.grid, self.interp_temps = self._grid()
        sizes = self.grid.mem_sizes
        self._long_term = PrecedingText(sizes, settings.memory_impl) if sizes else None
        # Published results with memories leave these words uncharged; those without do not.
        as_published = settings.joint_memory and settings.mode == "gn" and not settings.exact_tails
        self._uncharged_tail_index = pad if as_published else None

    def _grid(self) -> Tuple[Grid, Tuple[float, ...]]:
        """The values to compute memories for, and the temperatures of the interpolation."""
        settings = self.settings
        sizes = (settings.mem_size,) if settings.use_long else ()
        ks = (settings.k,) if settings.searches else ()
        if settings.knnlm:
            return Grid((), sizes, ks), (settings.softmax_temp,)
        return Grid((settings.softmax_temp,), sizes, ks), (settings.interp_temp,) * settings.use_interp

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
        stage, device = self.extras.times.stage, sample["target"].device
        with stage("model", device):
            batch, token_lse, target_logit = self._run_model(models[0], sample)
        if self.extras.recorder is not None:
            assert batch is not None
            self.extras.recorder.add(sample["spans"], batch.queries, batch.targets)
        neighbors = None
        if batch is not None and self.settings.searches:
            with stage("search", device):
                neighbors = self._search(batch.queries)
        with stage("combination", device):
            memories = self._memories(batch, neighbors) if batch is not None else Memories([], [])
            log_prob, mass, share = self._combine(token_lse, target_logit, memories)
        spans = sample["spans"]
        lengths = [last - first for first, last in spans]
        self._add_to_totals(log_prob, mass, share, lengths)
        targets = _targets(sample, log_prob.device)[1] if batch is None else batch.targets
        return [
            [{"tokens": t, "score": s.mean(), "positional_scores": s, "attention": None, "alignment": None}]
            for t, s in zip(targets.split(lengths), log_prob.split(lengths))
        ]

    def _run_model(self, model: Any, sample: Dict[str, Any]) -> Tuple[Optional[Batch], Tensor, Tensor]:
        """The batch as memories see it (None where nobody asks for keys), and a and b of the tokens."""
        model.eval()
        decoder = model.decoder
        with RepresentationTap(decoder, self.settings.knn_keytype) as tap:
            output, is_features = run_decoder(model, sample["net_input"])
        evaluated, targets = _targets(sample, output.device)
        scores = self._token_scores(decoder, _rows(output)[evaluated], is_features, targets)
        token_lse, target_logit = scores
        settings = self.settings
        if not (settings.joint_memory or settings.searches or self.extras.recorder is not None):
            return None, token_lse, target_logit
        keys = _rows(tap.representation(output if is_features else None))
        return Batch(sample, keys, evaluated, keys[evaluated], targets), token_lse, target_logit

    def _token_scores(
        self, decoder: Any, outputs: Tensor, is_features: bool, targets: Tensor
    ) -> Tuple[Tensor, Tensor]:
        chunks = []
        size = min(self.softmax_batch, len(targets))
        for output, target in zip(outputs.split(size), targets.split(size)):
            chunks.append(token_scores(decoder, output, is_features, target, self._uncharged_tail_index))
        if len(chunks) == 1:
            return chunks[0]
        token_lse, target_logit = zip(*chunks)
        return torch.cat(token_lse), torch.cat(target_logit)

    def _search(self, queries: Tensor) -> Neighbors:
        assert self.extras.retriever is not None
        neighbors = self.extras.retriever.search(queries)
        if self.extras.recall is not None:
            self.extras.recall.add(queries, neighbors.rows)
        return neighbors

    def _memories(self, batch: Batch, neighbors: Optional[Neighbors]) -> Memories:
        grid, settings = self.grid, self.settings
        probs: List[List[LsePair]] = []
        if neighbors is not None and self.interp_temps:
            probs = neighbor_log_prob(neighbors, batch.targets, self.interp_temps, grid.ks)
        if not settings.joint_memory:
            return Memories([], probs)
        local: List[Any] = [None] * len(grid.temperatures)
        if settings.use_local:
            local = local_memory(batch, grid.temperatures, settings.memory_impl)
        preceding: List[List[Any]] = [[None]] * len(local)
        if self._long_term is not None:
            preceding = self._long_term.read_and_add(batch, grid.temperatures)
        external: List[List[Any]] = [[None]] * len(local)
        if neighbors is not None:
            external = external_memory(batch, neighbors, grid.temperatures, grid.ks)
        joint = [
            [
                [add(add(here, before) if here or before else None, found) for found in of_ext]
                for before in of_long
            ]
            for here, of_long, of_ext in zip(local, preceding, external)
        ]
        return Memories(joint, probs)

    def _combine(
        self, token_lse: Tensor, target_logit: Tensor, memories: Memories
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Log-probability of the target, share of the distribution that lies on memories, and share of the
        target's probability that comes from them."""
        log_prob = target_logit - token_lse
        mass = share = torch.zeros_like(log_prob)
        if memories.joint:
            all_lse, positive_lse = memories.joint[0][0][0]
            if self.settings.mode == "li":
                return self._interpolated_softmax(log_prob, all_lse, positive_lse)
            log_prob = trime_log_prob(token_lse, target_logit, all_lse, positive_lse)
            mass, share = memory_mass(token_lse, all_lse), positive_share(target_logit, positive_lse)
        if memories.neighbors:
            assert self.settings.lmbda is not None
            log_prob, mass, share = _with_neighbors(
                log_prob, mass, share, *memories.neighbors[0][0], self.settings.lmbda
            )
        return log_prob, mass, share

    def _interpolated_softmax(
        self, log_prob: Tensor, all_lse: Tensor, positive_lse: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        assert self.settings.cache_lmbda is not None
        exists = all_lse > -math.inf
        from_memory = (positive_lse - all_lse).masked_fill(~exists, -math.inf)
        nothing = torch.zeros_like(log_prob)
        return _with_neighbors(log_prob, nothing, nothing, from_memory, exists, self.settings.cache_lmbda)

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


def _targets(sample: Dict[str, Any], device: torch.device) -> Tuple[Tensor, Tensor]:
    """Positions of the evaluated tokens among the B * T of the batch, and the tokens: int64 [N]."""
    width = sample["target"].size(1)
    evaluated = _flat_positions(sample["spans"], width).to(device, non_blocking=True)
    return evaluated, sample["target"].reshape(-1)[evaluated]


def _with_neighbors(
    log_prob: Tensor, mass: Tensor, share: Tensor, other: Tensor, exists: Tensor, weight: float
) -> Tuple[Tensor, Tensor, Tensor]:
    """A distribution with its mass on memories and the share of the target's probability from them, after
    interpolation with another that is all memory."""
    result = interpolate(log_prob, other, weight, exists)
    kept = torch.full_like(mass, weight).masked_fill(~exists, 0.0)
    # What stays of the target's probability, of which ``share`` came from memory.
    rest = ((log_prob - result).exp() * (1 - kept)).masked_fill(kept == 1, 0.0)
    return result, kept + (1 - kept) * mass, 1 - rest * (1 - share)

"""Log-probabilities of the evaluated tokens, with all memories."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.context_window import EvaluationSample
from ..datastore import Neighbors, RecallSample, Retriever
from ..models.output import run_decoder, token_scores
from ..models.representation import RepresentationTap
from .axes import MemoryAxes
from .config import MemoryConfig
from .memory_scores import (
    EvaluatedBatch,
    PrecedingText,
    ScoredMemories,
    external_memory,
    local_memory,
    neighbor_scores,
)
from .mixture import Mixture, mix
from .numbers import IMPOSSIBLE, NumberWatch
from .recorder import KeyRecorder
from .result import Totals
from .stages import StageTimes


@dataclass(frozen=True)
class ScorerParts:
    """What a scorer may have beside its configuration.

    Attributes:
        skip_bos: leave the first token of each sample out of the totals, as stock does for a
            prepended beginning-of-sentence token.
        retriever: searches the external memory.
        recorder: takes the keys of all evaluated tokens.
        recall: takes a sample of the searches.
        tokens: how many tokens will be evaluated, where that is known.
    """

    skip_bos: bool = False
    retriever: Retriever | None = None
    recorder: KeyRecorder | None = None
    recall: RecallSample | None = None
    tokens: int = 0


class ScoredBatch(NamedTuple):
    """What is known of the N evaluated tokens of a batch.

    Attributes:
        sample_ids, lengths: number of each sample in the text, and how many of the tokens are its own.
        targets: int64 [N].
        token_lse, target_logit: a and b of the objective, [N].
        memories: scores of all memories along the scorer's axes.
        counted: the tokens that count for the totals, int64 on the CPU; None for all.
    """

    sample_ids: Sequence[int]
    lengths: Sequence[int]
    targets: Tensor
    token_lse: Tensor
    target_logit: Tensor
    memories: ScoredMemories
    counted: Tensor | None


class MemoryScorer:
    """Log-probabilities of the evaluated tokens of consecutive samples, with all memories.

    A batch of consecutive samples gives the result of one sample at a time: keys do not depend on the
    memory, so the model runs on all rows at once and row r then sees the rows before it.

    Args:
        config: which memories, and how they are combined.
        pad: the padding symbol.
        parts: external memory, the datastore to write.

    Attributes:
        judges: whether the result says what the memories gained; not while settings are tried out.
        totals: sums over all tokens.
        times: seconds of the stages ``model``, ``search`` and ``combination``.
    """

    judges = True

    def __init__(self, config: MemoryConfig, pad: int, parts: ScorerParts | None = None) -> None:
        self.config = config
        self.parts = parts or ScorerParts()
        self.totals = Totals()
        self.times = StageTimes()
        self.axes = self._axes()
        sizes = self.axes.mem_sizes
        tokens = self.parts.tokens
        self.preceding_text = PrecedingText(sizes, config.memory_impl, tokens) if sizes else None
        self._uncharged_tail_index = None if config.charges_tails else pad
        self._watch = NumberWatch(config)

    def _axes(self) -> MemoryAxes:
        """The values to score memories for: those of the configuration."""
        return MemoryAxes.of([self.config])

    @torch.no_grad()
    def generate(
        self, models: Sequence[Any], sample: EvaluationSample, softmax_batch: int = sys.maxsize
    ) -> list[list[dict[str, Any]]]:
        """Scores a batch of :class:`trime_fairseq.data.context_window.ContextWindowDataset`.

        Args:
            models: one model.
            sample: the batch.
            softmax_batch: tokens per chunk of the token softmax.

        Returns:
            What stock ``SequenceScorer`` returns: per row a list of one dict with ``tokens`` (the
            evaluated targets), ``positional_scores`` (their log-probabilities, float32, nats) and
            ``score`` (their mean). fairseq leaves infinite scores out of its loss, so a probability of 0 has
            the score :data:`trime_fairseq.evaluation.numbers.IMPOSSIBLE`.

        Raises:
            ValueError: for an ensemble of several models, and where a log-probability is no number.
        """
        if len(models) != 1:
            raise ValueError(f"--path: one model expected, not an ensemble of {len(models)}")
        stage, device = self.times.stage, sample["target"].device
        with stage("model", device):
            batch, targets, token_lse, target_logit = self._run_model(models[0], sample, softmax_batch)
        plain_log_prob, neighbors = target_logit - token_lse, None
        looks = self._watch.looks(device)
        if looks:
            self._watch.check_model(models[0], plain_log_prob)
        if batch is not None:
            if self.parts.recorder is not None:
                self.parts.recorder.add(batch.spans, batch.queries, batch.targets)
            if self.config.searches:
                with stage("search", device):
                    neighbors = self._search(batch.queries)
        lengths = [last - first for first, last in sample["spans"]]
        counted = self._counted(lengths)
        with stage("combination", device):
            memories = self._score_memories(batch, neighbors)
            mixture = self._combine(
                ScoredBatch(
                    *(sample["sample_ids"], lengths, targets, token_lse, target_logit, memories, counted)
                )
            )
        if looks:
            self._watch.check_memories(mixture.log_prob)
        self._add_to_totals(mixture, plain_log_prob, counted)
        scores = mixture.log_prob.clamp(min=IMPOSSIBLE)
        return [
            [{"tokens": t, "score": s.mean(), "positional_scores": s, "attention": None, "alignment": None}]
            for t, s in zip(torch.split(targets, lengths), torch.split(scores, lengths))
        ]

    def refuse_nan(self) -> None:
        """Call after the last batch, in all processes that evaluate together.

        Raises:
            ValueError: if the sums of any of them are no numbers.
        """
        self._watch.check_sums(*self.totals.losses())

    def _run_model(
        self, model: Any, sample: EvaluationSample, softmax_batch: int
    ) -> tuple[EvaluatedBatch | None, Tensor, Tensor, Tensor]:
        """The batch as memories see it (None where nobody asks for keys), targets, a and b of the tokens."""
        model.eval()
        decoder = model.decoder
        with RepresentationTap(decoder, self.config.knn_keytype) as tap:
            output, is_features = run_decoder(model, sample["net_input"])
        target = sample["target"]
        evaluated = _evaluated_positions(sample["spans"], target.size(1)).to(output.device, non_blocking=True)
        targets = target.reshape(-1)[evaluated]
        outputs = output.reshape(-1, output.size(-1))[evaluated]
        scores = []
        size = min(softmax_batch, len(targets))
        for rows, of_rows in zip(torch.split(outputs, size), torch.split(targets, size)):
            scores.append(token_scores(decoder, rows, is_features, of_rows, self._uncharged_tail_index))
        token_lse, target_logit = scores[0] if len(scores) == 1 else map(torch.cat, zip(*scores))
        if not (self.config.joint_memory or self.config.searches or self.parts.recorder is not None):
            return None, targets, token_lse, target_logit
        representation = tap.representation(output if is_features else None)
        keys = representation.reshape(-1, representation.size(-1))
        batch = EvaluatedBatch(
            sample["net_input"]["src_tokens"],
            sample["sample_ids"],
            sample["spans"],
            keys,
            keys[evaluated],
            targets,
        )
        return batch, targets, token_lse, target_logit

    def _search(self, queries: Tensor) -> Neighbors:
        assert self.parts.retriever is not None
        neighbors = self.parts.retriever.search(queries)
        if self.parts.recall is not None:
            self.parts.recall.add(queries, neighbors.rows)
        return neighbors

    def _score_memories(self, batch: EvaluatedBatch | None, neighbors: Neighbors | None) -> ScoredMemories:
        """Scores of the memories in use, along the axes."""
        if batch is None:
            return ScoredMemories()
        axes, config = self.axes, self.config
        local = long = external = alone = None
        if config.use_local and config.joint_memory:
            local = local_memory(batch, axes.temperatures, config.memory_impl)
        if self.preceding_text is not None:
            long = self.preceding_text.read_and_add(batch, axes.temperatures)
        if neighbors is not None and config.use_external:
            external = external_memory(batch, neighbors, axes.temperatures, axes.ks)
        if neighbors is not None and axes.interp_temps:
            alone = neighbor_scores(neighbors, batch.targets, axes.interp_temps, axes.ks)
        return ScoredMemories(local, long, external, alone)

    def _combine(self, batch: ScoredBatch) -> Mixture:
        """The distribution of the configuration, whose axes have one value each."""
        memories = batch.memories.at_point()
        return mix(self.config, batch.token_lse, batch.target_logit, memories.joint, memories.alone)

    def _counted(self, lengths: Sequence[int]) -> Tensor | None:
        """Which of the evaluated tokens count, int64 on the CPU; None for all."""
        if not self.parts.skip_bos:
            return None
        counts = torch.ones(sum(lengths), dtype=torch.bool)
        counts[[sum(lengths[:row]) for row in range(len(lengths))]] = False
        return counts.nonzero().squeeze(1)

    def _add_to_totals(self, mixture: Mixture, plain_log_prob: Tensor, counted: Tensor | None) -> None:
        log_prob, mass, share = mixture
        impossible = log_prob == -torch.inf
        # Of a probability of 0 nothing came from anywhere.
        share = share.masked_fill(impossible, 0.0)
        values = torch.stack([-log_prob, -plain_log_prob, mass, share, impossible.to(log_prob)]).double()
        if counted is not None:
            values = values[:, counted.to(values.device, non_blocking=True)]
        self.totals.add(values.sum(1), values.size(1))


def _evaluated_positions(spans: Sequence[tuple[int, int]], width: int) -> Tensor:
    """Positions of the evaluated tokens among those of a flattened batch, int64 [N]."""
    return torch.cat(
        [torch.arange(row * width + first, row * width + last) for row, (first, last) in enumerate(spans)]
    )

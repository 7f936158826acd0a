"""Whether neighbours in a list of segments are similar: against the order of the text and a random one.

Two measures of consecutive segments a, b. BM25 (Lucene's formula): the score of b for all words of a.
Overlap: the Jaccard similarity of their sets of rare words, |A & B| / |A | B|, 0 where there are none.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import file_hash, read_json, whole_file, write_json
from ..flags.bounds import SEED, Bounds, check_argument
from .batches import BatchesInfo, order_hash, read_order
from .engines.base import need
from .engines.bm25s import index_of, tokenized
from .segments import Segments

ORDERS = {"the list": "list", "order of the text": "text", "random order": "random"}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """How similar consecutive segments of an order are, float64 [segments - 1] each."""

    bm25: Floats
    overlap: Floats


def read_list(batch_file: str, segments: Segments) -> NDArray[np.int64]:
    """The ids of a list of predefined batches.

    Raises:
        ValueError: if it cannot be read, does not hold each segment once, or was made of other segments.
    """
    count = len(segments.texts)
    where = f"`batch_file` {batch_file}"
    others = f"but {segments.path} has {count:,}: make the list again from these segments"
    order = read_order(batch_file, where, count, others)
    info = BatchesInfo.read(batch_file)
    different = segments.info.differences(info, unknown_differs=False) if info else None
    if different:
        raise ValueError(
            f"`batch_file` {batch_file} was made of other segments than {segments.path} "
            f"(here / there: {different})"
        )
    return order


def compare(
    segments: Segments, order: NDArray[np.int64], rare: int = 200, seed: int = 1
) -> dict[str, Similarity]:
    """Similarity of consecutive segments of a list, of the text, and of a random order.

    Args:
        order: int64 [segments], ids.
        rare: words count for the overlap that occur less often than this in all segments.
        seed: of the random order.

    Raises:
        ValueError: without one of the packages bm25s, scipy and matplotlib, for fewer than two segments, or
            for impossible numbers.
    """
    check_argument("seed", seed, SEED)
    check_argument("rare", rare, Bounds(1, 2**31 - 1))
    need("matplotlib", "matplotlib")  # rather now than after minutes
    if len(segments.texts) < 2:
        raise ValueError(f"`segments_path` {segments.path} holds one segment, which has no neighbour")
    measures = _Measures(segments.texts, rare)
    shuffled = np.random.default_rng(seed).permutation(len(order))
    orders = {"list": order, "text": np.arange(len(order)), "random": shuffled}
    return {name: measures.of(orders[name]) for name in ORDERS.values()}


class _Measures:
    def __init__(self, texts: list[str], rare: int) -> None:
        sparse = need("scipy.sparse", "scipy")
        words = tokenized(texts)
        index = index_of(words)
        scores, shape = index.scores, (len(texts), len(index.scores["indptr"]) - 1)
        weights = sparse.csc_matrix((scores["data"], scores["indices"], scores["indptr"]), shape)
        self._weights = weights.tocsr()
        self._counts = _counts(words, index.vocab_dict, shape[1])
        del words
        vocabulary: dict[str, int] = {}
        counts = _counts((text.split() for text in texts), vocabulary)
        occurrences = np.asarray(counts.sum(axis=0)).ravel()
        self._rare = (counts[:, occurrences < rare] > 0).astype(np.float32)

    def of(self, order: NDArray[np.int64]) -> Similarity:
        first, second = order[:-1], order[1:]
        bm25 = self._counts[first].multiply(self._weights[second]).sum(axis=1)
        both = self._rare[first].multiply(self._rare[second]).sum(axis=1)
        sizes = np.asarray(self._rare.sum(axis=1), dtype=np.float64).ravel()
        shared = np.asarray(both, dtype=np.float64).ravel()
        either = sizes[first] + sizes[second] - shared
        overlap = np.divide(shared, either, out=np.zeros_like(either), where=either > 0)
        return Similarity(np.asarray(bm25, dtype=np.float64).ravel(), overlap)


def _counts(texts: Iterable[Sequence[str]], vocabulary: dict[str, int], width: int | None = None) -> Any:
    """Occurrences of words, a sparse matrix [texts, width]. Without a ``width`` the vocabulary grows by the
    words it lacks; with one they are left out."""
    columns, values, ends = array("i"), array("f"), [0]
    for text in texts:
        for word, count in Counter(text).items():
            column = (
                vocabulary.get(word) if width is not None else vocabulary.setdefault(word, len(vocabulary))
            )
            if column is not None:
                columns.append(column)
                values.append(count)
        ends.append(len(columns))
    shape = (len(ends) - 1, width if width is not None else len(vocabulary))
    return need("scipy.sparse", "scipy").csr_matrix(
        (np.frombuffer(values, np.float32), np.frombuffer(columns, np.int32), ends), shape
    )


def summary(similarities: dict[str, Similarity]) -> dict[str, Any]:
    """Means and quartiles of each order and measure, for JSON: None where the random order has none."""
    random = asdict(similarities["random"])
    return {
        name: {
            measure: {
                "mean": float(values.mean()),
                "times_random": _ratio(values, random[measure]),
                "quartiles": np.quantile(values, [0.25, 0.5, 0.75]).tolist(),
            }
            for measure, values in asdict(of).items()
        }
        for name, of in similarities.items()
    }


def _ratio(mine: Floats, others: Floats) -> float | None:
    return float(mine.mean() / others.mean()) if others.mean() else None


def table(summarised: dict[str, Any]) -> str:
    """The means of a :func:`summary`, and their ratios to those of a random order."""
    lines = [
        "| order | BM25 score | times random | overlap of rare words | times random |",
        "|" + " --- |" * 5,
    ]
    for label, name in ORDERS.items():
        cells = [label]
        for measure in ("bm25", "overlap"):
            of = summarised[name][measure]
            times = float("inf") if of["times_random"] is None else of["times_random"]
            cells += [f"{of['mean']:.4g}", f"{times:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report_facts(segments: Segments, order: NDArray[np.int64], rare: int, seed: int) -> dict[str, Any]:
    """What a report depends on."""
    facts = {"text_hash": segments.info.text_hash, "order_hash": order_hash(order)}
    return {"segments": len(order), "rare": rare, "seed": seed, **facts}


def write_report(similarities: dict[str, Similarity], folder: str, **facts: Any) -> dict[str, Any]:
    """``report.png``: histograms of the overlap; ``report.json``: facts, the :func:`summary`, and the hash of
    the picture. Returns the summary.

    Raises:
        ValueError, OSError: if they cannot be written.
    """
    picture, summarised = os.path.join(folder, "report.png"), summary(similarities)
    _draw(similarities, picture)
    content = {**facts, **summarised, "plot_hash": file_hash(picture)}
    # Last: it says that both are there.
    write_json(os.path.join(folder, "report.json"), content)
    return summarised


def read_report(folder: str, **facts: Any) -> dict[str, Any] | None:
    """The :func:`summary` of the report that is there; None if it is of other ``facts``, or not whole."""
    try:
        content = read_json(os.path.join(folder, "report.json"))
        picture = file_hash(os.path.join(folder, "report.png"))
        if picture is None or {**content, **facts, "plot_hash": picture} != content:
            return None
        table(content)  # as it will be printed
        return {name: content[name] for name in ORDERS.values()}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _draw(similarities: dict[str, Similarity], path: str) -> None:
    figure = need("matplotlib.figure", "matplotlib").Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    high = max(float(np.quantile(of.overlap, 0.99)) for of in similarities.values()) or 1.0
    for label, name in ORDERS.items():
        overlap = np.minimum(similarities[name].overlap, high)
        axes.hist(overlap, np.linspace(0, high, 60).tolist(), histtype="step", label=label, linewidth=1.5)
    axes.set_xlabel("overlap of the rare words of consecutive segments (the last bar: and more)")
    axes.set_ylabel("segments")
    axes.legend()
    figure.tight_layout()
    with whole_file(path, "wb") as file:
        figure.savefig(file, dpi=120, format="png")

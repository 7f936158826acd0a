"""An engine whose segments are numbers, and a search with it."""

import numpy as np

from trime_fairseq.bm25 import search_segments
from trime_fairseq.bm25.engines.base import no_hits

N, K = 23, 3


class Numbers:
    """Finds the numbers next to that of the query, itself among them; for 5 others, for 7 only itself."""

    engine = "numbers"

    def __init__(self):
        self.asked = []

    def __len__(self):
        return N

    def search(self, queries, k):
        ids, scores = no_hits(len(queries), k)
        for row, query in enumerate(queries):
            self.asked.append(int(query))
            found = sorted(range(N), key=lambda n: (abs(n - int(query)), n))[:k]
            if query == "5":
                found = [0, 1, 2, 3]
            if query == "7":
                found = [7]
            ids[row, : len(found)] = found
            scores[row, : len(found)] = np.arange(len(found), 0, -1)
        return ids, scores

    def close(self):
        pass


def search(segments, folder, searcher=None, **settings):
    settings = {"k": K, "piece": 4, "at_once": 3, **settings}
    return search_segments(segments, searcher or Numbers(), str(folder), **settings)

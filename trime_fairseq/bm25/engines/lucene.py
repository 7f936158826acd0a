"""The engine of the published recipe: Lucene, through Pyserini."""

import json
import logging
import os
import shutil
import subprocess
import sys
from typing import Any

from .base import K1, B, Hits, need, no_hits
from .java import use_java

# What to install.
PACKAGE = "trime_fairseq[lucene]"
INDEXER = (
    "import sys; from pyserini.pyclass import autoclass; "
    "autoclass('io.anserini.index.IndexCollection').main(sys.argv[1:])"
)


class Lucene:
    """Lucene's BM25 over English words, stemmed and without stop words: Pyserini's defaults."""

    name = "lucene"

    def build(self, texts: list[str], folder: str, threads: int) -> None:
        """Raises ValueError without Java or Pyserini, or with the end of Pyserini's output if it fails."""
        _need("pyserini")
        use_java()
        collection = f"{folder}.segments"
        os.makedirs(collection)
        # A thread reads a file.
        for thread in range(threads):
            path = os.path.join(collection, f"{thread}.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                for number in range(thread, len(texts), threads):
                    file.write(json.dumps({"id": str(number), "contents": texts[number]}) + "\n")
        # What "python -m pyserini.index.lucene" does, without its imports.
        command = [sys.executable, "-c", INDEXER, "-collection", "JsonCollection", "-input", collection]
        command += ["-index", folder, "-threads", str(threads)]
        command += ["-generator", "DefaultLuceneDocumentGenerator"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        shutil.rmtree(collection)
        if done.returncode:
            raise ValueError("Pyserini cannot index the segments:\n" + done.stdout[-2000:])

    def open(self, folder: str, threads: int) -> "LuceneSearcher":
        if not any(name.startswith("segments_") for name in os.listdir(folder)):
            raise ValueError(f"{folder} is no index of Lucene: run trime-bm25 index")
        use_java()
        return LuceneSearcher(folder, threads)


class LuceneSearcher:
    """See :class:`trime_fairseq.bm25.engines.base.Searcher`.

    It is Anserini's searcher, to which Pyserini's gives the way: the import of Pyserini's own brings
    Transformers, its neural encoders and an OpenAI client, none of which BM25 needs.
    """

    engine = Lucene.name

    def __init__(self, folder: str, threads: int) -> None:
        logging.getLogger("kivy").setLevel(logging.WARNING)
        # Anserini's threads are as many as Java sees processors, whatever it is asked for.
        if not _need("jnius_config").vm_running:
            _need("jnius_config").add_options(f"-XX:ActiveProcessorCount={threads}")
        java = _need("pyserini.pyclass")
        # A query has a clause for each of its words, and Lucene's own limit is 1,024.
        java.autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
        self._list, self._threads = java.JArrayList, threads
        self._error = _need("jnius").JavaException
        # A hit read field by field takes longer than its search; JSON comes over in one piece.
        self._json: Any = java.autoclass("com.fasterxml.jackson.databind.ObjectMapper")()
        document = java.autoclass("java.lang.Class").forName("org.apache.lucene.document.Document")
        self._json.configOverride(document).setIsIgnoredType(java.autoclass("java.lang.Boolean")("true"))
        try:
            self._searcher: Any = java.autoclass("io.anserini.search.SimpleSearcher")(folder)
        except self._error as error:
            raise ValueError(f"{folder} is no index of Lucene that can be read: {error}") from error
        self._searcher.set_bm25(K1, B)

    def __len__(self) -> int:
        return int(self._searcher.get_total_num_docs())

    def search(self, queries: list[str], k: int) -> Hits:
        ids, scores = no_hits(len(queries), k)
        texts, numbers = self._list(), self._list()
        for number, query in enumerate(queries):
            if query.strip():
                texts.add(query)
                numbers.add(str(number))
        try:
            found = self._searcher.batch_search(texts, numbers, k, self._threads)
        except self._error as error:
            raise ValueError(
                f"Lucene cannot search: {error}; with little memory, choose `threads` 1"
            ) from error
        try:
            for row, hits in json.loads(self._json.writeValueAsString(found)).items():
                # Lucene's ids are strings.
                ids[int(row), : len(hits)] = [int(hit["docid"]) for hit in hits]
                scores[int(row), : len(hits)] = [hit["score"] for hit in hits]
        except (ValueError, OverflowError) as error:
            message = f"`index_path` finds ids that are no segments ({error}): remove it and build it again"
            raise ValueError(message) from error
        return ids, scores

    def close(self) -> None:
        self._searcher.close()


def _need(module: str) -> Any:
    """A module of Pyserini."""
    package = PACKAGE
    if sys.version_info < (3, 11):
        package = f"a Python of 3.11 or later, and {package} in it"
    return need(module, f"{package}; or choose `engine` bm25s")

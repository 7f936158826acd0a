"""Small datastores, and ways to be killed while an index of them is built.

As a program, ``small_stores.py {build | stream} FOLDER KILL`` builds an index under FOLDER and kills itself:
``event:N`` before the N-th time a file is renamed or removed, ``seconds:S`` after S seconds.
"""

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from trime_fairseq.datastore import (  # noqa: E402
    DatastoreWriter,
    IndexConfig,
    Manifest,
    StreamingIndex,
    build_index,
    open_datastore,
)
from trime_fairseq.datastore.layout import keys_path, values_path  # noqa: E402

ROWS, DIMENSION, CHUNK = 1500, 16, 200
CONFIG = IndexConfig("l2", DIMENSION, "IVF8,PQ4", training_keys=700)


def small_rows(rows=ROWS, dtype="float16"):
    """Keys [rows, DIMENSION] and values int64 [rows]."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((rows, DIMENSION)).astype(dtype), draw.integers(0, 50, rows)


def small_manifest(**changes):
    """The manifest of ``small_rows``."""
    settings = dict(
        rows=ROWS,
        dimension=DIMENSION,
        key_dtype="float16",
        keys_stored=True,
        key_type="last_ffn_input",
        dictionary_hash="words",
        checkpoint="model.pt",
        checkpoint_hash="model",
        data_hash="text",
        subset="train",
        sample_break_mode="none",
        tokens_per_sample=64,
        context_window=32,
        context_full_only=False,
    )
    return Manifest(**{**settings, **changes})


def stored(folder, keys=None, **changes):
    """The prefix of a complete datastore of ``small_rows``, or of other keys."""
    prefix = str(Path(folder) / "dstore")
    rows, values = small_rows()
    (rows if keys is None else keys).tofile(keys_path(prefix, "float16"))
    values.tofile(values_path(prefix))
    small_manifest(**{"complete": True, **changes}).write(prefix)
    return prefix


def write(folder, **changes):
    """Writes ``small_rows`` to the store under ``folder``; the row from which it went on."""
    manifest = small_manifest(**changes)
    writer = DatastoreWriter(str(folder / "dstore"), manifest, 0, ROWS)
    try:
        keys, values = small_rows()
        first = writer.resume_row
        if first < ROWS:
            writer.write(first, keys[first:], values[first:])
        writer.finish()
    finally:
        writer.close()
    return first


def build(folder, config=CONFIG, **settings):
    """The index of the store under ``folder``."""
    store = open_datastore(str(Path(folder) / "dstore"), need_keys=True)
    return build_index(
        store, config, str(Path(folder) / "knn"), **{"chunk": CHUNK, "save_every": 0, **settings}
    )


def open_stream(folder, config=CONFIG, manifest=None, **settings):
    return StreamingIndex(
        str(Path(folder) / "dstore"),
        manifest or small_manifest(),
        config,
        str(Path(folder) / "knn"),
        **{"chunk": CHUNK, "save_every": 0, **settings},
    )


def stream(folder, config=CONFIG, pieces=None, **settings):
    """Streams ``small_rows`` in pieces of random sizes, or of ``pieces`` rows."""
    sink = open_stream(folder, config, **settings)
    try:
        keys, values = small_rows()
        sizes = random.Random(3)
        # A batch may begin before the first row that is missing.
        row = max(0, sink.resume_row - 7)
        while row < ROWS:
            end = min(ROWS, row + (pieces or sizes.randint(1, 3 * CHUNK)))
            sink.write(row, keys[row:end], values[row:end])
            row = end
        sink.finish()
    finally:
        sink.close()


RUNS = {"build": build, "stream": stream}


def finished_files(folder):
    """Contents by name of what must not depend on kills."""
    names = ("knn.l2", "dstore.json", "dstore_vals.npy")
    return {name: (Path(folder) / name).read_bytes() for name in names}


def left_over(folder):
    return sorted(
        path.name for path in Path(folder).iterdir() if "partial" in path.name or "lock" in path.name
    )


class Killed(BaseException):
    pass


def killed_at(monkeypatch, run, event):
    """Whether ``run`` was ended before the ``event``-th time that a file was renamed or removed."""
    return operations(monkeypatch, run, event) == event


def operations(monkeypatch, run, kill_at=None):
    """How often ``run`` renames or removes a file; before the time ``kill_at`` it is ended."""
    count = 0

    def counted(function):
        def call(path, *arguments):
            nonlocal count
            # The end of a process releases its locks.
            if not path.endswith(".lock"):
                count += 1
                if count == kill_at:
                    raise Killed
            return function(path, *arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with suppress(Killed):
            run()
    return count


def run_killed(kind, folder, seed):
    """Runs the program with random kills until it ends; how often it was killed, and its last output."""
    draw = random.Random(seed)
    for kills in range(30):
        # After some time it may have ended by itself; the first run does not get beyond its first files.
        how = f"seconds:{draw.uniform(0, 0.1)}" if kills % 2 else f"event:{draw.randint(1, 6)}"
        command = [sys.executable, __file__, kind, str(folder), how if kills < 8 else "never:0"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if result.returncode == 0:
            return kills, result.stderr
        assert result.returncode in (-signal.SIGKILL, -signal.SIGALRM), result.stderr
    raise AssertionError("it never ends")


def _kill(how):
    kind, number = how.split(":")
    left = int(number) if kind == "event" else -1

    def count(event, arguments):
        nonlocal left
        if event in ("os.rename", "os.remove"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    if kind == "seconds":
        signal.setitimer(signal.ITIMER_REAL, max(float(number), 1e-4))


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO)
    _kill(sys.argv[3])
    RUNS[sys.argv[1]](sys.argv[2])

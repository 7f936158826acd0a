"""The datastore and its command where fairseq is not installed, and Faiss only when it is needed."""

import subprocess
import sys

import pytest

from .small_stores import ROOT

pytest.importorskip("faiss")

BEGIN = """
import sys
sys.modules["fairseq"] = sys.modules["fairseq_cli"] = sys.modules["hydra"] = None  # importing them fails

def check(*absent):
    loaded = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
    assert not loaded & {"fairseq", "fairseq_cli", "hydra", "omegaconf", *absent}, loaded

import trime_fairseq.datastore
from trime_fairseq.cli.build_index import main
check("faiss", "torch")
"""

WRITE_BUILD_SEARCH = """
import numpy as np
from trime_fairseq.datastore import DatastoreWriter, Manifest, Retriever, open_datastore, open_index
from tests.datastore.small_stores import ROWS, small_manifest, small_rows

keys, values = small_rows()
writer = DatastoreWriter("dstore", small_manifest(metric="ip"), 0, ROWS)
for row in range(0, ROWS, 700):
    writer.write(row, keys[row : row + 700], values[row : row + 700])
writer.finish()
writer.close()
words = "--dstore-mmap dstore --faiss-index knn --factory Flat"
assert main(words.split()) == 0
check()
import torch
store = open_datastore("dstore")
found = Retriever(open_index("knn.ip"), store, k=3).search(torch.from_numpy(keys[:50]))
similarity = keys[:50].astype(np.float32) @ keys.astype(np.float32).T
assert (found.rows[:, 0].numpy() == similarity.argmax(1)).all()
assert (found.tokens.numpy() == values[found.rows.numpy()]).all()
from trime_fairseq.cli.datastore import main
assert main("verify dstore --indexfile knn.ip".split()) == main(["info", "dstore"]) == 0
check()
print("found")
"""


def run(script, folder, *arguments):
    command = [sys.executable, "-c", BEGIN + script, *arguments]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)


def test_write_build_search(tmp_path):
    done = run(WRITE_BUILD_SEARCH, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "found"


def test_help(tmp_path):
    script = """
try:
    main(["--help"])
finally:
    check("faiss", "torch")
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: trime-build-index")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            'sys.exit(main("--dstore-mmap d --faiss-index knn --streaming data --path model.pt".split()))',
            "needs fairseq: pip install ve-fairseq (Python 3.11, 3.12) or fairseq==0.12.2 (Python 3.10)",
        ),
        (
            "from tests.datastore.small_stores import stored\n"
            "stored('.')\n"
            "sys.modules['faiss'] = None\n"
            'sys.exit(main("--dstore-mmap dstore --faiss-index knn --code_size 4".split()))',
            "Faiss is not installed: pip install faiss-cpu",
        ),
    ],
    ids=["fairseq", "faiss"],
)
def test_missing_module_is_one_line(tmp_path, script, error):
    done = run(script, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("trime-build-index: error: ")
    assert error in done.stderr
    assert done.stderr.count("\n") == 1

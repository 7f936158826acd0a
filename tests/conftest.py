# ruff: noqa: E402
import logging
import os
import time

# Before PyTorch is imported: several threads of each of several processes would stand in each other's way.
for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE")):
    os.environ.setdefault(name, value)

import pytest
import torch

# Without a CUDA device the kernels run in Triton's interpreter, asked for before they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from fairseq.data import Dictionary

from tests.small_data import cut_text


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out of the daily run: pytest -m 'not slow'")


@pytest.fixture
def dictionary():
    words = Dictionary()
    for word in "abcdefghijklmnop":
        words.add_symbol(word)
    return words


@pytest.fixture(autouse=True)
def own_handlers():
    """Commands that a test runs in this process log to its own streams, which are closed when it ends."""
    before = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = before


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until the test moves it: ``clock[0] += 5``."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The reference text, of which valid and test are the first 4,000 tokens or so: for what does not depend
    on the text."""
    folder = tmp_path_factory.mktemp("small")
    cut_text(folder, 4000)
    return folder

"""Reading checkpoints of the tests' own, with all PyTorch releases."""

import inspect

import torch

# PyTorch 1.12 has no such argument; since 2.6 its default refuses the settings of checkpoints.
_WHOLE = {"weights_only": False} if "weights_only" in inspect.signature(torch.load).parameters else {}


def load_trusted(path):
    """All that a checkpoint of the tests holds, classes included."""
    return torch.load(path, **_WHOLE)

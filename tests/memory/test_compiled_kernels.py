"""The Triton kernels compile for GPUs, which need not be there for that."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.commands import ROOT

pytest.importorskip("triton", reason="needs Triton, which comes with PyTorch for CUDA")
# Of a multiprocessor: RTX 3090, H100.
SHARED_MEMORY = {86: 99 * 1024, 90: 227 * 1024}


@pytest.mark.skipif(torch.cuda.is_available(), reason="compiled for the device itself by the other tests")
@pytest.mark.slow
def test_two_blocks_share_a_multiprocessor_and_half_precision_runs_on_tensor_cores(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory.compile_kernels"],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 4
    for kernel in found:
        assert kernel["tensor_cores"], kernel
        assert 2 * kernel["shared"] <= SHARED_MEMORY[kernel["architecture"]], kernel

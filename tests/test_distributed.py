"""How long a process waits for the others of its group."""

import os
import subprocess
import sys
import time

import pytest

from tests.commands import environment, free_port
from trime_fairseq import distributed

ALONE = """
import sys
import torch.distributed as dist
from trime_fairseq.distributed import limit_waiting

limit_waiting()
limit_waiting()
rank, port = sys.argv[1:]
address = f"tcp://127.0.0.1:{port}"
if rank == "all":
    dist.init_process_group("gloo", init_method=address, world_size=1, rank=0)
    import time
    time.sleep(2)
    print("a group")
    sys.exit()
dist.init_process_group("gloo", init_method=address, world_size=2, rank=int(rank))
"""


@pytest.mark.process
def test_a_process_that_waits_for_a_dead_one():
    """Whichever it is; a group that was formed is not disturbed."""
    words = {**environment(cpu=True), distributed.GROUP_TIMEOUT: "1.5"}
    command = [sys.executable, "-c", ALONE]
    started = time.monotonic()
    processes = {
        rank: subprocess.Popen(
            [*command, rank, str(free_port())],
            env=words,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in ("0", "1", "all")
    }
    for rank, process in processes.items():
        output, errors = process.communicate(timeout=120)
        if rank == "all":
            assert (process.returncode, output.strip()) == (0, "a group")
            continue
        assert process.returncode == 1
        last = errors.splitlines()[-1]
        assert last.startswith(f"TRIME: error: rank {rank} of 2 at tcp://127.0.0.1:")
        assert "waited 1.5 s for the other processes" in last
    assert time.monotonic() - started < 100


@pytest.mark.parametrize("value", ["x", "0", "-3", "nan", "inf", "1e30"])
def test_limits_that_are_none(value, monkeypatch):
    monkeypatch.setitem(os.environ, distributed.GROUP_TIMEOUT, value)
    with pytest.raises(ValueError, match="TRIME_GROUP_TIMEOUT is a positive number of seconds, not"):
        distributed.limit_waiting()

"""How flags are named, and this process among others."""

import pytest
import torch.distributed as dist

from trime_fairseq.distributed import is_distributed, rank, world_size
from trime_fairseq.flags import flag, name_flags


def test_names_of_flags():
    assert flag("k") == "--k"
    assert flag("knn_sim_func") == "--knn-sim-func"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`k` 30,000 exceeds the datastore: lower `k`", "--k 30,000 exceeds the datastore: lower --k"),
        ("pass `mem_size` or `use_local`", "pass --mem-size or --use-local"),
        ("`rows` differ", "--dstore_size differ"),
        ("run `trime-build-index` again, not `A`", "run `trime-build-index` again, not `A`"),
        ("nothing to name", "nothing to name"),
    ],
)
def test_arguments_of_a_message_become_flags(message, expected):
    assert name_flags(message, rows="--dstore_size") == expected


def test_one_process_without_a_group():
    assert (is_distributed(), rank(), world_size()) == (False, 0, 1)


def test_a_group_of_one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert (is_distributed(), rank(), world_size()) == (True, 0, 1)
    finally:
        dist.destroy_process_group()
    assert not is_distributed()

"""Several temperatures at once, against one at a time."""

import pytest
import torch

from trime_fairseq.memory import Visibility, memory_lse, memory_lse_at_scales

SCALES = (0.05, 0.3, 2.0, 40.0)


def tensors(queries, keys, dtype=torch.float64, types=5):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(queries, 6, generator=generator, dtype=torch.float64).to(dtype),
        torch.randn(keys, 6, generator=generator, dtype=torch.float64).to(dtype),
        torch.randint(types, (queries,), generator=generator),
        torch.randint(types, (keys,), generator=generator),
    )


CASES = {
    "rows": (Visibility.row_prefixes(30, ((0, 30), (3, 20))), 60),
    "shared": (Visibility.shared(((0, 700, 200), (10, 900, 100), (900, 900, 20))), 1000),
    "nothing": (Visibility.shared(((0, 0, 7),)), 0),
}


@pytest.mark.parametrize("types", [3, 5000])
@pytest.mark.parametrize("impl", ["auto", "naive"])
@pytest.mark.parametrize("case", CASES)
def test_each_scale(case, impl, types):
    visibility, keys = CASES[case]
    given = tensors(visibility.num_queries, keys, types=types)
    before = [tensor.clone() for tensor in given]
    found = memory_lse_at_scales(*given, visibility, SCALES, impl=impl)
    for number, scale in enumerate(SCALES):
        expected = memory_lse(*given, visibility, scale, impl="naive")
        for lses, lse in zip(found, expected):
            assert lses.shape == (len(SCALES), visibility.num_queries)
            torch.testing.assert_close(lses[number], lse)
    assert all(map(torch.equal, given, before))


def test_half_precision_is_summed_in_float32():
    visibility, keys = CASES["shared"]
    given = tensors(visibility.num_queries, keys, torch.bfloat16)
    found = memory_lse_at_scales(*given, visibility, SCALES)
    for number, scale in enumerate(SCALES):
        for lses, lse in zip(found, memory_lse(*given, visibility, scale)):
            assert lses.dtype == torch.float32
            torch.testing.assert_close(lses[number], lse, rtol=1e-5, atol=1e-4)

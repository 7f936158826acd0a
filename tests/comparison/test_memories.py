"""The names of memories, and what they mean."""

import pytest

from trime_fairseq.comparison import Memory, read_memory
from trime_fairseq.evaluation import MemoryConfig

TAILS = dict(exact_tails=True)
LOCAL = dict(use_local=True, **TAILS)
EXTERNAL = dict(use_external=True, use_interp=True, k=64)
MEANINGS = {
    "none": dict(mode="lm", **TAILS),
    "local": LOCAL,
    "local + long 512": dict(use_long=True, mem_size=512, **LOCAL),
    "external": {**EXTERNAL, **TAILS},
    "local + external": {**LOCAL, **EXTERNAL},
    "local + long 8 + external": {**LOCAL, **EXTERNAL, "use_long": True, "mem_size": 8},
    "cache": dict(mode="li", **LOCAL),
    "cache 2048": dict(mode="li", use_long=True, mem_size=2048, **LOCAL),
    "knn": dict(knnlm=True, k=64, **TAILS),
    "knn + cache": dict(knnlm=True, mode="li", k=64, **LOCAL),
    "knn + cache 16": dict(knnlm=True, mode="li", k=64, use_long=True, mem_size=16, **LOCAL),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_meanings(name):
    memory = read_memory(name)
    assert str(memory) == name
    assert memory.family(64) == MemoryConfig(**MEANINGS[name])
    assert memory.searches == memory.family(64).searches
    assert memory.trained == ("local" in name or name == "external")


def test_what_does_not_matter():
    assert read_memory("  Cache 16+knn ") == read_memory("knn + cache 16")
    assert read_memory("None") == Memory()
    assert Memory().family(64, knn_keytype="last_ffn_output").knn_keytype == "last_ffn_output"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "+",
            "loc",
            "long 512",
            "local + long",
            "local + long 0",
            "local + long -3",
            "local + long 1.5",
        ),
        *(
            "local 5",
            "local + local",
            "none + local",
            "none 3",
            "cache + local",
            "cache + external",
            "cache 1 2",
        ),
        *("knn + external", "knn 64", "knn + local", "external + long 512", "cache 4 + cache 5", "local,"),
    ],
)
def test_what_is_no_memory(name):
    with pytest.raises(ValueError, match=r"no such memory: .* Memories are none, local, local \+ long N"):
        read_memory(name)

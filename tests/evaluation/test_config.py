"""Evaluation flags that contradict each other."""

import pytest

from trime_fairseq.evaluation import EvaluationConfig, MemoryConfig

# Cache and kNN-LM together.
BOTH = dict(knnlm=True, mode="li", use_local=True, cache_lmbda=0.6, lmbda=0.3, interp_temp=5.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"softmax_temp": 0.0}, "--softmax-temp must be positive"),
        ({"softmax_temp": -1.0}, "--softmax-temp must be positive"),
        ({"softmax_temp": float("nan")}, "--softmax-temp must be positive"),
        ({"use_long": True, "mem_size": 10}, "pass --use-local"),
        ({"use_local": True, "use_long": True}, "--use-long needs --mem-size N"),
        ({"use_local": True, "use_long": True, "mem_size": -5}, "--mem-size must not be negative: -5"),
        ({"use_local": True, "mem_size": 10}, "pass --use-long"),
        ({"mode": "li", "cache_lmbda": 0.1}, "--mode li interpolates with a memory"),
        ({"mode": "li", "use_local": True}, r"--cache-lmbda, .* is needed, in \[0, 1\)$"),
        ({"mode": "li", "use_local": True, "cache_lmbda": 1.1}, r"--cache-lmbda, .* in \[0, 1\), not 1.1"),
        ({"use_local": True, "cache_lmbda": 0.1}, "pass --mode li"),
        ({"use_external": True, "k": 0}, "--k must be positive"),
        ({"knnlm": True, "use_local": True, "lmbda": 0.5}, "pass --mode li to interpolate with --use-local"),
        ({"knnlm": True, "use_external": True, "lmbda": 0.5}, "--knnlm searches by itself: leave out"),
        ({"knnlm": True, "mode": "lm", "lmbda": 0.5}, "--knnlm is no --mode lm"),
        ({"knnlm": True, "interp_temp": 2.0, "lmbda": 0.5}, "takes its temperature from --softmax-temp"),
        ({"knnlm": True}, "--lmbda, .* is needed"),
        ({"use_interp": True, "lmbda": 0.5}, "pass --use-external"),
        ({"use_external": True, "use_interp": True, "lmbda": 1.5}, r"--lmbda, .* in \[0, 1\), not 1.5"),
        ({"use_external": True, "use_interp": True, "interp_temp": 0.0}, "--interp-temp must be positive"),
        ({"use_external": True, "lmbda": 0.5}, "are for --use-interp: pass it"),
        ({**BOTH, "use_external": True}, "--knnlm searches by itself: leave out"),
        ({**BOTH, "use_local": False}, "pass --use-local as well"),
        ({**BOTH, "cache_lmbda": None}, "--cache-lmbda, .* is needed"),
        ({**BOTH, "lmbda": None}, "--lmbda, .* is needed"),
        ({**BOTH, "cache_lmbda": -0.1}, "--cache-lmbda, .*, not -0.1"),
        ({**BOTH, "cache_lmbda": 0.71}, "--cache-lmbda 0.71 and --lmbda 0.3 exceed 1 together"),
        ({**BOTH, "lmbda": float("nan")}, "--lmbda, .*, not nan"),
        ({**BOTH, "mode": "gn"}, "pass --mode li to interpolate"),
        ({**BOTH, "knnlm": False}, "are for --use-interp: .*--knnlm instead"),
        # Weights that leave the model nothing, so that words have probability 0.
        ({"knnlm": True, "lmbda": 1.0}, "^--lmbda 1.0 leaves the model no weight.*pass less than 1"),
        ({"mode": "li", "use_local": True, "cache_lmbda": 1}, "^--cache-lmbda 1 leaves the model no weight"),
        ({**BOTH, "cache_lmbda": 0.7}, "^--cache-lmbda 0.7 and --lmbda 0.3 leave the model no weight"),
        # What is beyond all bounds.
        ({"use_local": True, "softmax_temp": 1e-40}, "--softmax-temp must be at least 1e-10, not 1e-40"),
        ({"softmax_temp": float("inf")}, r"--softmax-temp must be at most 1e\+10, not inf"),
        ({"interp_temp": 1e30}, r"--interp-temp must be at most 1e\+10"),
        ({"use_external": True, "k": 10**9}, "--k must be at most 1,048,576, not 1000000000"),
        ({"use_long": True, "use_local": True, "mem_size": 10**30}, "--mem-size must be at most"),
    ],
)
def test_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**flags).check()


@pytest.mark.parametrize(
    ("flags", "joint", "searches"),
    [
        ({}, False, False),
        ({"use_local": True}, True, False),
        ({"use_local": True, "use_long": True, "mem_size": 1}, True, False),
        ({"use_local": True, "mode": "lm"}, False, False),
        ({"use_local": True, "mode": "li", "cache_lmbda": 0.0}, True, False),
        ({"use_external": True, "use_interp": True, "lmbda": 0.999}, True, True),
        ({"use_external": True, "mode": "lm"}, False, False),
        ({"knnlm": True, "lmbda": 0.0}, False, True),
        (BOTH, True, True),
        ({**BOTH, "use_long": True, "mem_size": 1, "lmbda": 0.0, "cache_lmbda": 0.999}, True, True),
    ],
)
def test_what_is_used(flags, joint, searches):
    config = MemoryConfig(**flags)
    config.check()
    assert (config.joint_memory, config.searches) == (joint, searches)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"probe": 8, "no_load_keys": True}, "--probe and --no-load-keys: for external memory"),
        ({"dstore_fp16": True}, "no datastore is written or searched"),
        ({"dstore_mmap": "d"}, "pass --save-knnlm-dstore as well"),
        ({"save_knnlm_dstore": True}, "needs --dstore-mmap"),
        ({"save_knnlm_dstore": True, "dstore_mmap": "d", "knnlm": True}, "write it first"),
        ({"use_external": True, "probe": 0}, "--probe must be positive, not 0"),
        ({"use_external": True, "probe": -3}, "--probe must be positive, not -3"),
        ({"use_external": True, "probe": 2**40}, "--probe must be at most 2,147,483,647"),
        ({"use_external": True, "dstore_size": 0}, "--dstore-size must be positive, not 0"),
        ({"softmax_batch": -1}, "--softmax-batch must not be negative: -1"),
        ({"seed": -1}, "--seed must not be negative: -1"),
        ({"seed": 2**32}, "--seed must be at most 4,294,967,295"),
        ({"num_workers": -1}, "--num-workers must not be negative"),
        ({"num_workers": 10**6}, "--num-workers must be at most 1,024"),
        ({"context_window": -1}, "--context-window must not be negative"),
        # Shards that there are not.
        ({"num_shards": 0, "shard_id": 0}, "--num-shards must be positive, not 0"),
        ({"num_shards": 2, "shard_id": -1}, "--shard-id must not be negative: -1"),
        ({"num_shards": 2, "shard_id": 7}, "--shard-id 7 is none of --num-shards 2: .* 0 to 1"),
        ({"num_shards": 2, "shard_id": 2}, "--shard-id 2 is none of --num-shards 2"),
        ({"num_shards": 1, "shard_id": 1}, "--shard-id 1 is none of --num-shards 1"),
        ({"use_external": True, "check_recall": -1}, "--check-recall must not be negative: -1"),
    ],
)
def test_datastore_flags_that_would_do_nothing(flags, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**flags).check()


@pytest.mark.parametrize(
    ("flags", "trained", "used"),
    [
        ({}, 1.4, 1.4),
        ({}, None, 1.0),
        ({"softmax_temp": 1.0}, 1.4, 1.0),
        ({"use_external": True, "use_interp": True}, 1.4, 1.4),
        # Of a softmax in which the training had no part.
        ({"mode": "li"}, 1.4, 1.0),
        ({"knnlm": True}, 1.4, 1.0),
        ({"knnlm": True, "softmax_temp": 9.0}, 1.4, 9.0),
    ],
)
def test_temperature_where_no_flag_says_it(flags, trained, used):
    config = EvaluationConfig(**flags)
    assert config.with_softmax_temp(trained).softmax_temp == used
    assert MemoryConfig(**flags).joint_temp == flags.get("softmax_temp", 1.0)


def test_whose_temperature_the_neighbours_take():
    flags = dict(softmax_temp=2.0, interp_temp=3.0)
    assert MemoryConfig(knnlm=True, **flags).neighbor_temp == 2.0
    assert MemoryConfig(knnlm=True, mode="li", **flags).neighbor_temp == 3.0
    assert MemoryConfig(use_external=True, use_interp=True, **flags).neighbor_temp == 3.0


def test_an_index_that_is_named_without_its_metric(tmp_path):
    """``--faiss_index knn.index`` of trime-build-index is the file knn.index.ip."""
    name = tmp_path / "knn.index"
    flags = EvaluationConfig(use_external=True, indexfile=str(name))
    flags.check()  # that nothing is there at all is for those who open it
    (tmp_path / "knn.index.ip").touch()
    with pytest.raises(ValueError, match=r"--indexfile .*knn.index does not exist, but .*\.ip: pass that$"):
        flags.check()
    (tmp_path / "knn.index.l2").touch()
    with pytest.raises(ValueError, match=r"knn.index.l2 and .*\.ip: pass one of them"):
        flags.check()
    name.touch()
    flags.check()


@pytest.mark.parametrize("place", ["/proc/x.json", "/proc/none/x.json"])
def test_places_where_all_is_allowed_and_nothing_possible(place):
    with pytest.raises(ValueError, match=f"^--eval-file {place}: "):
        EvaluationConfig(eval_file=place).check()


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04...", b"the 3\n", b"\n[1]", b'{"format_version": 1, "rows": 5}']
)
def test_a_result_replaces_no_file_of_another_kind(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=f"^--eval-file {tmp_path}/f holds something else than the result"):
        EvaluationConfig(eval_file=str(tmp_path / "f")).check()
    assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b'{"loss": 3.0}', b'{"loss": 3.0, "tok'])
def test_a_result_replaces_an_earlier_one(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    EvaluationConfig(eval_file=str(tmp_path / "f")).check()


def test_the_result_is_not_the_manifest_of_the_store(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    flags = dict(save_knnlm_dstore=True, dstore_mmap=str(tmp_path / "s"), add_bos_token=False)
    with pytest.raises(ValueError, match="is the manifest of --dstore-mmap: choose another name"):
        EvaluationConfig(eval_file=str(tmp_path / "link" / "s.json"), **flags).check()
    EvaluationConfig(eval_file=str(tmp_path / "f.json"), **flags).check()

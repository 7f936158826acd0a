"""The flags of trime-tune: families, axes and what they must go with."""

import pytest

from trime_fairseq.cli import tune
from trime_fairseq.evaluation import MemoryConfig
from trime_fairseq.tuning import default_axes, read_request

from .small import MODEL, NEIGHBOR_FLAGS


def request(flags):
    return read_request([*MODEL.split(), *flags.split()])


def test_without_grids_the_axes_are_wide():
    found = request("--use-local --use-long --mem-size 300")
    assert found.family == MemoryConfig(use_local=True, use_long=True, mem_size=300)
    assert found.axes == default_axes([found.family])
    assert found.others == tuple(MODEL.split())
    assert (found.subset, found.path, found.show) == ("valid", "model.pt", 10)


def test_grids_narrow_the_axes():
    found = request(
        f"{NEIGHBOR_FLAGS} --keep-order --exact-tails --grid-k 64,16 32 --grid-mem-size 0,512 --user-dir u "
        "--grid-softmax-temp 1.3,1.2 --gen-subset test --output o --show 3"
    )
    assert found.axes._asdict() == {
        **{"temperatures": (1.2, 1.3), "mem_sizes": (0, 512), "ks": (16, 32, 64), "interp_temps": ()}
    }
    assert found.family == MemoryConfig(
        use_local=True, use_long=True, mem_size=512, use_external=True, k=64, exact_tails=True
    )
    assert found.others == (*MODEL.split(), *"--dstore-filename d --indexfile i --keep-order".split())
    assert (found.subset, found.user_dir, found.output, found.show) == ("test", "u", "o", 3)


def test_what_is_given_stays():
    found = request("--use-local --mode li --softmax-temp 1.5 --cache-lmbda 0.2")
    assert found.axes.temperatures == (1.5,)
    assert found.family.cache_lmbda == 0.2
    found = request(f"{NEIGHBOR_FLAGS} --use-interp --interp-temp 4 --k 3")
    assert (found.axes.interp_temps, found.axes.ks, found.family.lmbda) == ((4.0,), (1, 2, 3), None)


def test_temperature_of_the_neighbours():
    """Of the plain kNN-LM --softmax-temp is that of the neighbours, beside a cache it is the cache's."""
    found = request("--knnlm --grid-softmax-temp 5,7 --grid-k 4")
    assert (found.axes.temperatures, found.axes.interp_temps) == ((), (5.0, 7.0))
    found = request("--knnlm --use-local --mode li --grid-softmax-temp 1 --grid-interp-temp 5,7 --grid-k 4")
    assert (found.axes.temperatures, found.axes.interp_temps) == ((1.0,), (5.0, 7.0))
    assert request("--use-external --grid-interp-temp 5 --grid-k 4").family.use_interp


WRONG = {
    "": "nothing to tune: pass a memory, --use-local",
    "--use-local --grid-k 4": "--grid-k is of the neighbours: pass --use-external",
    "--use-local --grid-interp-temp 4": "--grid-interp-temp is of the neighbours: pass --use-external",
    "--use-external --grid-lmbda 0.1": "--grid-lmbda: leave it out, the best weight is solved for",
    "--use-external --grid-lmbda=0,1": "--grid-lmbda: leave it out",
    "--grid-softmax-temp 1": "nothing to tune: pass a memory",
    "--use-external --grid-mem-size 8": "--grid-mem-size adds to the local memory: pass --use-local",
    "--knnlm --grid-interp-temp 5": "--knnlm is --grid-softmax-temp",
    "--knnlm --use-local": "--knnlm is the plain kNN-LM: pass --mode li",
    "--use-local --mem-size 8": "--mem-size .* pass --use-long",
    "--use-local --use-long": "--use-long needs --mem-size",
    "--use-external --lmbda 0.1": "--lmbda and --interp-temp are for --use-interp",
    "--use-local --mode lm": "--mode lm is the model without memory",
    "--use-local --num-shards 2": "--num-shards: one process tunes",
    "--use-local --distributed-world-size 2": "--distributed-world-size: one process tunes",
    "--use-local --save-knnlm-dstore": "--save-knnlm-dstore: not in tuning",
    "--use-local --eval-file f": "--eval-file is of one evaluation: pass --output DIR",
    "--use-local --softmax-temp 1 --grid-softmax-temp 1,2": "--grid-softmax-temp: leave one of them out",
    "--use-local --grid-softmax-temp 0,1": "--grid-softmax-temp takes positive numbers, not '0,1'",
    "--use-local --grid-softmax-temp inf": "--grid-softmax-temp takes positive numbers, not 'inf'",
    "--use-local --softmax-temp -1": "--softmax-temp must be positive",
    "--use-external --grid-k 1.5": "--grid-k takes positive numbers of neighbours, not '1.5'",
    "--use-local --grid-softmax-temp 1e-40": "--grid-softmax-temp must be at least 1e-10, not 1e-40",
    "--use-external --grid-k 4,1000000000": "--grid-k must be at most 1,048,576, not 1000000000",
    "--use-local --softmax-temp nan": "--softmax-temp must be positive, not nan",
    "--use-local --show 0": "--show must be positive, not 0",
    "--use-external --use-interp --lmbda 1": "--lmbda 1.0 leaves the model no weight",
    "--use-local --grid-softmax-temp " + ",".join(map(str, range(1, 300))): (
        "--grid-softmax-temp: 299 values, at most 256 can be tried"
    ),
    "--use-local --use-external --use-interp "
    + " ".join(
        f"--grid-{name} {','.join(map(str, range(1, count + 1)))}"
        for name, count in (("softmax-temp", 200), ("interp-temp", 150), ("k", 100), ("mem-size", 15))
    ): r"45,000,000 settings \(200 of --softmax-temp x 15 of --mem-size x .* too many, at most 2,000,000",
    "--use-local --grid-mem-size ,": "--grid-mem-size takes numbers of tokens",
}


@pytest.mark.parametrize("flags", WRONG)
def test_flags_that_do_not_suit_each_other(flags, capsys):
    with pytest.raises(ValueError, match=WRONG[flags]):
        request(flags)
    # The command says so in one line, and reads no model: there is none.
    assert tune.main([*MODEL.split(), *flags.split()]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_number_of_settings_is_announced(caplog):
    caplog.set_level("INFO")
    request("--use-local --use-long --mem-size 64 --grid-softmax-temp 1,2,3")
    assert caplog.messages == [
        "TRIME: 6 settings to choose from: 3 of --softmax-temp x 2 of --mem-size",
    ]
    # The largest that the defaults can be is not too large.
    request(f"{NEIGHBOR_FLAGS} --use-long --mem-size 1099511627776 --use-interp --k 1048576")


def test_the_model_must_be_named():
    with pytest.raises(ValueError, match="--path CHECKPOINT is missing"):
        read_request("DATA --use-local".split())

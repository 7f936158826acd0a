"""The flags of trime-tune: grids and what they must go with."""

import pytest

from trime_fairseq.cli import tune
from trime_fairseq.tuning import Axes, read_request

from .grids import MODEL, NEIGHBOR_FLAGS


def test_ordinary_flags_of_a_grid():
    words = f"{MODEL} {NEIGHBOR_FLAGS} --softmax-temp 1.2 --k 7 --eval-file e --user-dir u --keep-order "
    words += "--grid-k 64,16 32 --grid-mem-size 0,512 --grid-softmax-temp 1.3,1.2 --grid-lmbda=0.1,0"
    request = read_request(words.split())
    assert request.axes == Axes((1.2, 1.3), (0, 512), (16, 32, 64), (1.0,), (0.0, 0.1))
    assert request.others == (*f"{MODEL} {NEIGHBOR_FLAGS} --keep-order".split(),)
    assert (request.subset, request.eval_file, request.user_dir) == ("valid", "e", "u")
    assert " ".join(request.arguments(request.ordinary, "valid")) == (
        f"{MODEL} {NEIGHBOR_FLAGS} --keep-order --gen-subset valid --softmax-temp 1.2 --use-long "
        "--mem-size 512 --k 64 --use-interp --interp-temp 1.0 --lmbda 0.0"
    )
    alone = read_request(f"{MODEL} --use-local --grid-mem-size 0 --gen-subset test".split())
    assert " ".join(alone.arguments(alone.ordinary, "test")) == (
        f"{MODEL} --use-local --gen-subset test --softmax-temp 1.0"
    )


WRONG = {
    "": "nothing to tune: pass --grid-softmax-temp",
    "--use-local --grid-k 4": "--grid-k is of the neighbours: pass --use-external",
    "--use-local --grid-lmbda 0.1": "--grid-lmbda is of the neighbours: pass --use-external",
    "--grid-softmax-temp 1": "--grid-softmax-temp is of memories: pass --use-local",
    "--use-external --grid-mem-size 8": "--grid-mem-size adds to the local memory: pass --use-local",
    "--use-external --grid-interp-temp 5": "--grid-interp-temp needs .* --grid-lmbda",
    "--knnlm --lmbda 0.1 --grid-interp-temp 5": "--knnlm is --grid-softmax-temp",
    "--knnlm --lmbda 0.1 --grid-mem-size 5": "--knnlm has no long-term memory",
    "--knnlm --grid-k 4": "--lmbda, .* is needed",
    "--use-local --mem-size 8 --grid-softmax-temp 1": "--mem-size .* pass --use-long",
    "--use-external --lmbda 0.1 --grid-k 4": "--lmbda and --interp-temp are for --use-interp",
    "--use-local --mode li --cache-lmbda 0.1 --grid-softmax-temp 1": "--mode li and --cache-lmbda are not",
    "--use-local --mode lm --grid-softmax-temp 1": "--mode lm is the model without memory",
    "--use-local --grid-softmax-temp 1 --num-shards 2": "--num-shards: a grid is tuned by one process",
    "--use-local --grid-softmax-temp 1 --distributed-world-size 2": "--distributed-world-size: a grid",
    "--use-local --grid-softmax-temp 1 --save-knnlm-dstore": "--save-knnlm-dstore: not in tuning",
    "--use-local --grid-softmax-temp 0,1": "--grid-softmax-temp takes positive numbers, not '0,1'",
    "--use-local --grid-softmax-temp inf": "--grid-softmax-temp takes positive numbers, not 'inf'",
    "--use-external --grid-k 1.5": "--grid-k takes positive numbers of neighbours, not '1.5'",
    "--use-external --grid-lmbda 0.5,2": r"--grid-lmbda takes numbers in \[0, 1\], not '0.5,2'",
    "--use-local --grid-mem-size ,": "--grid-mem-size takes numbers of tokens",
}


@pytest.mark.parametrize("flags", WRONG)
def test_grids_that_do_not_suit_the_memories(flags, capsys):
    with pytest.raises(ValueError, match=WRONG[flags]):
        read_request([*MODEL.split(), *flags.split()])
    # The command says so in one line, and reads no model: there is none.
    assert tune.main([*MODEL.split(), *flags.split()]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_model_must_be_named():
    with pytest.raises(ValueError, match="--path CHECKPOINT is missing"):
        read_request("DATA --use-local --grid-softmax-temp 1".split())

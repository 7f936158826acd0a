"""The flags of trime-tune --task trime_translation, and what it says in the end."""

import json
import shlex

import pytest

from trime_fairseq.cli import tune
from trime_fairseq.tuning import flags_of
from trime_fairseq.tuning.translation import PROPER_TYPES, read_request, tune_by_bleu
from trime_fairseq.tuning.translation.report import content, remarks, report

from .small import Decoder, tuned

MODEL = "DATA --path model.pt --beam 4"
STORE = "--use-knn-datastore --dstore-filename d --indexfile i"


def request(flags):
    return read_request([*MODEL.split(), *flags.split()])


def test_without_grids_all_distributions_are_tried():
    found = request(f"{STORE} --k 20 --probe 32 --task trime_translation")
    assert found.axes.kinds == PROPER_TYPES == ("trime", "trime-normalized", "fix")
    assert found.axes.ks == (1, 2, 4, 8, 16, 20)
    assert (found.axes.temperatures[0], found.axes.temperatures[-1]) == (0.5, 2048)
    assert found.axes.weight is None
    assert found.others == tuple("DATA --beam 4 --path model.pt --scoring sacrebleu".split())
    assert (found.subset, found.decode, found.show, found.output) == ("valid", 6, 10, None)
    memory = "--dstore-filename d --indexfile i --probe 32 --use-knn-datastore --k 20"
    assert flags_of(found.family) == memory.split()


def test_what_is_given_stays():
    found = request(
        f"{STORE} --knn-lambda-type fix --knn-lambda-value 0.2 --knn-temperature-value 7 --grid-k 4,16 "
        "--gen-subset test --decode 0 --output o --user-dir u"
    )
    assert (found.axes.kinds, found.axes.weight) == (("fix",), 0.2)
    assert (found.axes.ks, found.axes.temperatures) == ((4, 16), (7.0,))
    assert (found.subset, found.decode, found.output, found.user_dir) == ("test", 0, "o", "u")


WRONG = {
    "": "nothing to tune: pass --use-knn-datastore",
    f"{STORE} --path a.pt:b.pt": "one model is tuned, not an ensemble",
    f"{STORE} --grid-k 0": "--grid-k takes positive numbers of neighbours, not '0'",
    f"{STORE} --grid-k 2 --k 4": "--k and --grid-k: leave one of them out",
    f"{STORE} --grid-knn-temperature-value x": "--grid-knn-temperature-value takes positive numbers, not 'x'",
    f"{STORE} --grid-knn-lambda-value 0.1": "--grid-knn-lambda-value: leave it out",
    f"{STORE} --knn-lambda-type trime --knn-lambda-value 0.1": "is the weight of --knn-lambda-type fix",
    f"{STORE} --knn-lambda-value 1.5": "--knn-lambda-value, the weight of --knn-lambda-type fix",
    f"{STORE} --knn-lambda-type trainable": "--knn-lambda-type trainable",
    f"{STORE} --num-shards 2": "--num-shards: one process tunes",
    f"{STORE} --scoring bleu": "--scoring bleu: BLEU is that of sacrebleu here",
    f"{STORE} --results-path r": "--results-path is of one run: pass --output DIR",
    f"{STORE} --score-reference": "--score-reference: references are scored anyway",
    f"{STORE} --save-knnlm-dstore": "--save-knnlm-dstore",
    f"{STORE} --decode -1": "--decode must not be negative: -1",
    f"{STORE} --show 0": "--show must be positive, not 0",
    f"{STORE} --k 0": "--k must be positive, not 0",
    "--use-knn-datastore --indexfile i": "--use-knn-datastore needs --dstore-filename DIR",
    "--use-knn-datastore --dstore-filename d": "--use-knn-datastore needs --index-filename NAME",
}


@pytest.mark.parametrize("flags", WRONG)
def test_refuses(flags, capsys):
    """As the command does: status 1 and one line."""
    assert tune.main(["--task", "trime_translation", *MODEL.split(), *flags.split()]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("trime-tune: error: ")
    assert WRONG[flags] in last


def test_the_model_is_needed(capsys):
    assert tune.main(["DATA", "--task=trime_translation", *STORE.split()]) == 1
    assert "--path CHECKPOINT is missing" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        tune.main(["--task", "trime_translation", "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for flag in ("--grid-k", "--grid-knn-temperature-value", "--decode", "--output"):
        assert flag in printed
    assert "--grid-mem-size" not in printed


def test_report_names_the_best_and_how_to_use_it():
    asked = request(f"{STORE} --knn-lambda-type fix --grid-k 1,3,6")
    by_loss = tuned("fix")
    by_bleu = tune_by_bleu(by_loss, Decoder(lambda setting: 12 + setting.k / 10), most=20)
    found = content(asked, by_loss, by_bleu, "PACKAGE")
    json.dumps(found, allow_nan=False)
    assert found["best"]["k"] == 6
    assert found["best"]["bleu"] == pytest.approx(12.6)
    assert found["without_memory"]["bleu"] == 10.0
    words = shlex.split(found["test_command"])
    assert words[0] == "fairseq-generate"
    assert words[words.index("--gen-subset") + 1] == "test"
    assert words[words.index("--knn-lambda-value") + 1] == str(found["best"]["knn_lambda_value"])
    assert "--use-knn-datastore" not in shlex.split(found["test_command_without_memory"])
    text = report(asked, by_loss, by_bleu, found["test_command"])
    assert "BLEU 10.00 without memory, 12.60 with the best of" in text
    assert text.endswith(f"{found['test_command']}\n")
    without = content(asked, by_loss, None, "PACKAGE")
    assert without["best"] == by_loss.settings[0].setting.values
    assert "decoded" not in without


def test_remarks():
    by_loss = tuned("fix")
    best_is_last = tune_by_bleu(by_loss, Decoder(lambda setting: setting.temperature + setting.k), most=50)
    found = "\n".join(remarks(by_loss, best_is_last))
    assert "fix: --knn-temperature-value 8 is the highest that was tried: widen --grid-knn-tem" in found
    assert "fix: --k 6 is the most that was allowed" in found
    worse = tune_by_bleu(by_loss, Decoder(lambda setting: 9.0), most=1)
    found = "\n".join(remarks(by_loss, worse))
    assert "no setting that was decoded is better than the model without memory" in found
    assert "a larger --decode may find a better one" in found
    published = tuned("trime-published")
    assert "the loss is that of trime-normalized" in "\n".join(remarks(published, None))


def test_the_family_has_flags_of_the_memory_only():
    """The config also knows flags of other groups, which stand for themselves."""
    found = request(f"{STORE} --gen-subset valid --model-overrides {{}}")
    assert flags_of(found.family) == "--dstore-filename d --indexfile i --use-knn-datastore".split()
    assert found.others[-2:] == ("--model-overrides", "{}")

"""The translation task: batches of all sentences in every command, what it refuses, what checkpoints keep."""

import json
import sys
from argparse import Namespace

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY

from tests.small_pairs import DATA, copy_data, make_dictionary, make_task, write_pairs
from trime_fairseq.bm25 import BatchesInfo, SegmentsInfo, read_segments
from trime_fairseq.criterions.base import TrimeCriterion

COUNTS = {"train": 3000, "valid": 120, "test": 60, "store": 300}


@pytest.fixture(scope="module")
def task():
    return make_task()


def ids(iterator, shuffle=False):
    batches = list(iterator.next_epoch_itr(shuffle=shuffle))
    return sorted(number for batch in batches if batch for number in batch["id"].tolist() if number >= 0)


@pytest.mark.parametrize("subset", COUNTS)
@pytest.mark.parametrize("shards", [1, 3])
def test_no_sentence_is_left_out(task, subset, shards):
    """As fairseq-generate asks, with the default of --required-batch-size-multiple."""
    task.load_dataset(subset)
    flags = dict(max_tokens=700, required_batch_size_multiple=8, num_shards=shards)
    parts = [
        ids(
            task.get_batch_iterator(
                task.dataset(subset), shard_id=shard, disable_iterator_cache=True, **flags
            )
        )
        for shard in range(shards)
    ]
    assert sorted(sum(parts, [])) == list(range(COUNTS[subset]))


@pytest.mark.parametrize("grouped", [False, True])
def test_training_is_on_all_sentences(task, grouped):
    """fairseq's --grouped-shuffling leaves out what does not fill the last group."""
    task.load_dataset("train")
    parts = []
    for shard in range(7):
        flags = dict(max_tokens=700, required_batch_size_multiple=8, num_shards=7, shard_id=shard)
        iterator = task.get_batch_iterator(task.dataset("train"), grouped_shuffling=grouped, **flags)
        task.dataset_to_epoch_iter.clear()
        parts.append(ids(iterator, shuffle=True))
    assert sorted(sum(parts, [])) == list(range(COUNTS["train"]))


def test_iterators_are_kept(task):
    task.load_dataset("valid")
    pairs = task.dataset("valid")
    flags = dict(max_tokens=700, required_batch_size_multiple=8)
    assert task.get_batch_iterator(pairs, **flags) is task.get_batch_iterator(pairs, **flags)


def test_lines_of_fairseq_interactive_are_not_kept(task):
    pairs = task.build_dataset_for_inference([torch.tensor([5, 2])], [2])
    known = len(task._batches._known)
    assert ids(task.get_batch_iterator(pairs, max_tokens=100, disable_iterator_cache=True)) == [0]
    assert len(task._batches._known) == known


def test_predefined_order_is_of_training_only(monkeypatch):
    task = make_task(predefined_batches=str(DATA / "bm25_batches.json"))
    for subset in ("train", "valid"):
        task.load_dataset(subset)
    flags = dict(max_tokens=2048, required_batch_size_multiple=8)
    pairs = task.dataset("train")
    trained = task.get_batch_iterator(pairs, grouped_shuffling=False, **flags)
    order = json.loads((DATA / "bm25_batches.json").read_text())
    found = [sorted(batch["id"].tolist()) for batch in trained.next_epoch_itr(shuffle=False)]
    assert found[0] == sorted(order[: len(found[0])])
    assert sum(map(len, found)) == 3000
    # Whatever is validated, and what fairseq-validate reads of a training, comes in fairseq's order.
    for dataset in (pairs, task.dataset("valid")):
        other = task.get_batch_iterator(dataset, disable_iterator_cache=True, **flags)
        assert not hasattr(other, "list_hash")
    monkeypatch.setattr(task, "_validates_only", True)
    other = task.get_batch_iterator(pairs, grouped_shuffling=False, disable_iterator_cache=True, **flags)
    assert not hasattr(other, "list_hash")


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("generate", dict(predefined_batches="a"), "--predefined-batches: of fairseq-train only"),
        (
            "interactive",
            dict(predefined_batches="a", output_segments_to_file="b"),
            "--predefined-batches and --output-segments-to-file: of fairseq-train only",
        ),
        (
            "train",
            dict(use_knn_datastore=True, dstore_filename="a", indexfile="b"),
            "--use-knn-datastore: of",
        ),
        ("train", dict(save_knnlm_dstore=True, dstore_mmap="a"), "--save-knnlm-dstore: of fairseq-generate"),
        ("train", dict(max_tokens=0), "--max-tokens must be positive, not 0"),
        ("train", dict(data="nowhere"), "DATA nowhere is no folder: name the one that"),
        ("train", dict(source_lang="de"), r"DATA .* holds no dict\.de\.txt: make it with fairseq-preprocess"),
    ],
)
def test_refused_flags(monkeypatch, command, settings, message):
    monkeypatch.setattr(sys, "argv", [f"fairseq-{command}"])
    with pytest.raises(ValueError, match=f"^{message}"):
        make_task(**{"source_lang": "es", "target_lang": "en", **settings})


def test_bad_data(tmp_path):
    with pytest.raises(ValueError, match="holds no pair of languages.*pass --source-lang and --target-lang"):
        make_task(tmp_path)
    folder = write_pairs(tmp_path / "pairs", train=[("w1", "w2")])
    (folder / "dict.es.txt").write_text("w1\nw2 two\n")
    with pytest.raises(ValueError, match=r"dict\.es\.txt is no dictionary of fairseq-preprocess, or damaged"):
        make_task(folder)


def test_order_is_checked_before_the_training(tmp_path):
    other = tmp_path / "batches.json"
    facts = dict(order_hash="", engine="bm25s", k=1, seed=1, neighbor_share=1.0, segments=4, text_hash="")
    BatchesInfo(**facts, data_hash="other").write(str(other))
    task = make_task(predefined_batches=str(other))
    with pytest.raises(ValueError, match="was made from other target sentences"):
        task.build_criterion(Namespace(_name="cross_entropy", sentence_avg=False))
    task = make_task(predefined_batches="")
    with pytest.raises(ValueError, match="--predefined-batches is empty"):
        task.build_criterion(Namespace(_name="cross_entropy", sentence_avg=False))


def build(task, name="transformer_iwslt_de_en", **settings):
    values = dict(encoder_layers=1, decoder_layers=1, encoder_embed_dim=8, decoder_embed_dim=8)
    values |= dict(encoder_ffn_embed_dim=8, decoder_ffn_embed_dim=8)
    args = Namespace(arch=name, **values, **settings)
    ARCH_CONFIG_REGISTRY[name](args)
    return task.build_model(args)


@pytest.mark.parametrize("side", ["es", "en"])
def test_checkpoints_of_other_dictionaries(tmp_path, side):
    task = make_task()
    model, state = build(task), task.state_dict()
    folder = copy_data(tmp_path / "data")
    path = folder / f"dict.{side}.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    message = rf"trained with another dictionary of [\d,]+ types than DATA/dict\.{side}\.txt \(other words"
    with pytest.raises(ValueError, match=message):
        make_task(folder).load_state_dict(state)
    path.write_text("\n".join(lines[1:]) + "\n")
    message = rf"a dictionary of 1,7\d\d types, DATA/dict\.{side}\.txt has 1,7\d\d: preprocess DATA"
    shorter = make_task(folder)
    with pytest.raises(ValueError, match=message):
        shorter.load_state_dict(state)
    # Of checkpoints that do not say.
    with pytest.raises(ValueError, match=message):
        build(shorter).load_state_dict(model.state_dict())
    shorter.load_state_dict({})
    build(task).load_state_dict(model.state_dict())
    task.load_state_dict(state)


def test_models_without_encoder_or_decoder(task):
    with pytest.raises(ValueError, match="--arch transformer_lm: it is no translation model"):
        build(task, "transformer_lm", decoder_attention_heads=2, max_target_positions=9, tokens_per_sample=9)


class Idle(TrimeCriterion):
    """Counts calls; no model is needed."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def memory(self, *unused):
        raise NotImplementedError

    def forward(self, model, sample, reduce=True):
        return torch.tensor(0.0), 0, {"loss": 0.0}


def test_ranks_without_sentences_translate_nothing(monkeypatch):
    """A group of two ranks in validation: the second has no batch left, and takes part all the same."""
    task = make_task()
    task.load_dataset("test")
    monkeypatch.setattr(task, "_criterion", Idle())
    flags = dict(max_tokens=3000, num_shards=2, shard_id=1)
    last = list(task.get_batch_iterator(task.dataset("test"), **flags).next_epoch_itr(shuffle=False))[-1]
    assert last["ntokens"] == 0
    task.cfg.eval_bleu = True
    model = torch.nn.Linear(1, 1)
    _, _, log = task.valid_step(last, model, task._criterion)
    assert log["loss"] == 0.0
    assert {name: value for name, value in log.items() if name != "loss"} == {
        **dict.fromkeys(("_bleu_sys_len", "_bleu_ref_len"), 0),
        **{f"_bleu_{kind}_{order}": 0 for kind in ("counts", "totals") for order in range(4)},
    }


@pytest.mark.parametrize(
    ("criterion", "error", "message"),
    [
        (Idle(), RuntimeError("CUDA out of memory"), "^no room left.*lower --max-tokens"),
        (Idle(), RuntimeError("another"), "^another$"),
        (torch.nn.Identity(), RuntimeError("CUDA out of memory"), "^CUDA out of memory$"),
    ],
)
def test_no_batch_is_skipped_while_others_wait(task, monkeypatch, criterion, error, message):
    def fail(*unused):
        raise error

    monkeypatch.setattr("fairseq.tasks.FairseqTask.train_step", fail)
    with pytest.raises(RuntimeError, match=message):
        task.train_step({}, None, criterion, None, 7)
    assert task.update_num == 7


def export(folder, path, monkeypatch, **settings):
    monkeypatch.setattr(sys, "argv", ["fairseq-train"])
    with pytest.raises(SystemExit) as ended:
        make_task(folder, output_segments_to_file=str(path), **settings)
    assert ended.value.code == 0
    return read_segments(str(path))


def test_export_of_target_sentences(tmp_path, monkeypatch):
    path = tmp_path / "sentences.json"
    segments = export(DATA, path, monkeypatch)
    assert len(segments.texts) == 3000
    assert not any("@@" in text or "</s>" in text for text in segments.texts)
    task = make_task()
    task.load_dataset("train")
    words = task.tgt_dict.string(task.dataset("train")[7]["target"], "@@ ")
    assert segments.texts[7] == words
    info = SegmentsInfo.read(str(path))
    assert info.data_hash == task._files("train").target_hash()
    assert info.tokens_per_sample is info.sample_break_mode is None


@pytest.mark.parametrize(
    ("symbols", "remove", "text"),
    [
        (["a@@", "b"], None, "ab b"),
        (["a@@", "b"], "@@ ", "ab b"),
        (["▁a", "b"], None, "abb"),
        (["a", "b"], None, "a b b"),
        (["a", "b"], "sentencepiece", "abb"),
    ],
)
def test_subwords_become_words(tmp_path, monkeypatch, symbols, remove, text):
    words = make_dictionary(0)
    for symbol in symbols:
        words.add_symbol(symbol)
    line = " ".join([*symbols, symbols[1]])
    folder = write_pairs(tmp_path, words, train=[(line, line)])
    segments = export(folder, tmp_path / "s.json", monkeypatch, eval_bleu_remove_bpe=remove)
    assert segments.texts == [text]


def test_exports_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--output-segments-to-file .* folder"):
        make_task(output_segments_to_file=str(tmp_path))
    folder = copy_data(tmp_path / "data")
    with pytest.raises(ValueError, match="orders the segments of one DATA folder"):
        make_task(f"{DATA}:{folder}", output_segments_to_file=str(tmp_path / "a.json"))
    for path in folder.glob("train.es-en.en.*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.es-en\.en\.idx is not there"):
        make_task(folder, output_segments_to_file=str(tmp_path / "a.json"))


def test_published_name_of_the_export(monkeypatch):
    from fairseq import options

    import trime_fairseq.tasks  # noqa: F401

    parser = options.get_training_parser(default_task="trime_translation")
    words = [str(DATA), "--task", "trime_translation", "--arch", "transformer_iwslt_de_en"]
    args = options.parse_args_and_arch(parser, [*words, "--output-samples-to-file", "a.json"])
    assert args.output_segments_to_file == "a.json"

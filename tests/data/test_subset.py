"""Texts in every format, in the orders of training and validation: batches of all samples, and bad texts."""

import sys

import numpy as np
import pytest
import torch

from tests.binarised import lines_of, make_dictionary, model_arguments, write_text
from tests.small_tasks import make_task
from trime_fairseq.data.stored_text import CodedText, StoredText

LINES = lines_of(30)
FORMATS = ["lazy", "huffman", "raw"]


def targets(iterator):
    return [batch["target"].tolist() for batch in iterator.next_epoch_itr(shuffle=False)]


@pytest.mark.parametrize("devices", [None, 1])
def test_batches_do_not_depend_on_the_format(tmp_path, monkeypatch, devices):
    """--keep-order and predefined batches (``devices``), and fairseq's own."""
    found = {}
    for kind in ("mmap", *FORMATS):
        task = make_task(write_text(tmp_path / kind, kind, train=LINES))
        monkeypatch.setattr(task, "_devices_per_memory", devices)
        task.load_dataset("train")
        dataset = task.dataset("train")
        assert not dataset.supports_prefetch
        found[kind] = targets(task.get_batch_iterator(dataset, max_tokens=64, seed=1))
    assert sum(map(len, found["mmap"])) == len(dataset) == 17
    assert all(found[kind] == found["mmap"] for kind in FORMATS)


def test_export_does_not_depend_on_the_format(tmp_path, monkeypatch):
    """A text of two parts, one in each format."""
    for first, second in [("mmap", "mmap"), ("lazy", "mmap"), ("huffman", "lazy")]:
        folder = tmp_path / f"{first}-{second}"
        write_text(folder, first, train=LINES[:20])
        write_text(folder, second, train1=LINES[20:])
        monkeypatch.setattr(sys, "argv", ["fairseq-train"])
        with pytest.raises(SystemExit) as ended:
            make_task(folder, output_segments_to_file=str(folder / "segments.json"))
        assert ended.value.code == 0
    one, *others = [path.read_text() for path in sorted(tmp_path.glob("*/segments.json"))]
    assert one.count('"id"') == 17
    assert others == [one, one]


def test_lines_are_read_in_any_order_by_any_process(tmp_path):
    import pickle

    task = make_task(write_text(tmp_path, "lazy", train=LINES))
    task.load_dataset("train")
    text = task.dataset("train").dataset.dataset
    assert isinstance(text, StoredText)
    numbers = make_dictionary()
    expected = [numbers.encode_line(line, add_if_not_exist=False).tolist() for line in LINES]
    for order in ([29, 0, 7], range(30)):
        assert [text[i].tolist() for i in order] == [expected[i] for i in order]
    # Of a loader's worker, which is forked while the text is open.
    loader = torch.utils.data.DataLoader(text, batch_size=None, num_workers=2)
    assert [line.tolist() for line in loader] == expected
    copied = pickle.dumps(text)
    # The tokens stay in their file.
    assert [pickle.loads(copied)[i].tolist() for i in range(30)] == expected
    assert text.__getstate__()["_tokens"] is None
    assert text[0].dtype == torch.int64


def test_code_of_another_dictionary(tmp_path):
    task = make_task(write_text(tmp_path, "huffman", train=LINES))
    task.load_dataset("train")
    assert isinstance(task.dataset("train").dataset.dataset, CodedText)
    dictionary = (tmp_path / "dict.txt").read_text().splitlines()
    (tmp_path / "dict.txt").write_text("\n".join(dictionary[1:]) + "\n")
    with pytest.raises(ValueError, match=r"train\.vocab has the symbol 'w0', which the dictionary lacks"):
        make_task(tmp_path).load_dataset("train")


@pytest.mark.parametrize("kind", ["mmap", "lazy", "raw"])
@pytest.mark.parametrize(
    ("command", "subset", "flag"),
    [
        ("fairseq-train", "train", "--train-subset train"),
        ("fairseq-train", "valid", "--valid-subset valid"),
        ("fairseq-validate", "test", "--valid-subset test"),
        ("fairseq-eval-lm", "test", "--gen-subset test"),
        ("fairseq-generate", "train", "--gen-subset train"),
    ],
)
def test_text_without_a_token(tmp_path, monkeypatch, kind, command, subset, flag):
    monkeypatch.setattr(sys, "argv", [f"/bin/{command}"])
    task = make_task(write_text(tmp_path, kind, **{subset: []}), path="model.pt")
    with pytest.raises(ValueError, match=f"{flag} of DATA .* holds no token: give fairseq-preprocess"):
        task.load_dataset(subset)


def test_subset_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/fairseq-train"])
    task = make_task(write_text(tmp_path, "mmap"))
    with pytest.raises(FileNotFoundError, match=r"--valid-subset dev: .*dev\.idx is not there"):
        task.load_dataset("dev")


def test_every_epoch_has_its_folder(tmp_path):
    first, second = (
        write_text(tmp_path / name, train=lines_of(count)) for name, count in [("a", 9), ("b", 4)]
    )
    task = make_task(f"{first}:{second}")
    sizes = []
    for epoch in (1, 2, 3):
        task.load_dataset("train", epoch=epoch)
        sizes.append(int(task.dataset("train").sizes.sum()))
    assert sizes[0] == sizes[2] != sizes[1]
    write_text(second, train=[])
    with pytest.raises(ValueError, match="--train-subset train of DATA .*b holds no token"):
        task.load_dataset("train", epoch=2)
    task.load_dataset("train", epoch=3)


@pytest.fixture
def segments(tmp_path):
    """A task whose train and valid have as many segments."""

    def make(count):
        lines = [" ".join(["w1"] * 15)] * count
        task = make_task(write_text(tmp_path / str(count), train=lines, valid=lines))
        for subset in ("train", "valid"):
            task.load_dataset(subset)
        return task

    return make


def test_lines_of_more_tokens_than_16_bits_count(tmp_path):
    """A book on a line."""
    task = make_task(write_text(tmp_path, train=[" ".join(["w1"] * 65599), "w2"]), sample_break_mode="eos")
    task.load_dataset("train")
    assert task.dataset("train").sizes.tolist() == [65600, 2]


TRAINING = dict(grouped_shuffling=False, update_epoch_batch_itr=False, skip_remainder_batch=False)


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 20])
@pytest.mark.parametrize("count", [1, 2, 7, 9, 17, 64])
def test_validation_is_of_the_whole_subset(segments, count, rows):
    """fairseq leaves a last batch out that is no multiple of 8."""
    task = segments(count)
    for multiple in (1, 8):
        iterator = task.get_batch_iterator(
            task.dataset("valid"),
            max_tokens=16 * rows,
            required_batch_size_multiple=multiple,
            disable_iterator_cache=True,
            skip_remainder_batch=False,
        )
        seen = [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=False)]
        assert sorted(sum(seen, [])) == list(range(count))
        assert max(map(len, seen)) <= rows


def test_fairseqs_batches_are_kept(segments):
    """Whole validation adds a batch, and changes none."""
    task = segments(37)
    dataset = task.dataset("valid")
    stock = dataset.batch_by_size(np.arange(37), max_tokens=16 * 20, required_batch_size_multiple=8)
    batches = task.get_batch_iterator(
        dataset, max_tokens=16 * 20, required_batch_size_multiple=8
    ).frozen_batches
    assert [len(batch) for batch in stock] == [16, 16]
    assert [len(batch) for batch in batches] == [16, 16, 5]


def test_training_says_what_it_leaves_out(segments, caplog):
    task = segments(37)
    options = dict(max_tokens=16 * 20, required_batch_size_multiple=8, **TRAINING)
    iterator = task.get_batch_iterator(task.dataset("train"), **options)
    assert sum(map(len, iterator.frozen_batches)) == 32
    assert "5 of 37 training segments (80 tokens) are left out of every epoch" in caplog.text
    assert "--required-batch-size-multiple 8: pass 1" in caplog.text
    caplog.clear()
    options["required_batch_size_multiple"] = 1
    iterator = task.get_batch_iterator(task.dataset("train"), disable_iterator_cache=True, **options)
    assert sum(map(len, iterator.frozen_batches)) == 37
    assert "left out" not in caplog.text


def test_a_short_training_text_is_one_batch(segments):
    """fairseq: "The dataset is empty"."""
    task = segments(3)
    iterator = task.get_batch_iterator(
        task.dataset("train"), max_tokens=512, required_batch_size_multiple=8, **TRAINING
    )
    assert sum(map(len, iterator.frozen_batches)) == 3


@pytest.mark.parametrize("learned", [False, True])
def test_room_for_the_token_of_add_bos(tmp_path, monkeypatch, learned):
    data = write_text(tmp_path, train=lines_of(4, 32), valid=lines_of(4, 32))
    model = model_arguments(decoder_learned_pos=learned)
    if learned:
        with pytest.raises(ValueError, match="--add-bos-token makes samples of --tokens-per-sample 32 one"):
            make_task(data, tokens_per_sample=32, add_bos_token=True).build_model(model)
    task = make_task(data, tokens_per_sample=32, add_bos_token=True, sample_break_mode="eos")
    task.build_model(model)
    for subset in ("train", "valid"):
        task.load_dataset(subset)
        sizes = task.dataset(subset).sizes
        assert sizes.tolist() == [33, 32, 31, 33]
        iterator = task.get_batch_iterator(
            task.dataset(subset), max_tokens=64, max_positions=32, ignore_invalid_inputs=True
        )
        widths = [batch["net_input"]["src_tokens"].size(1) for batch in iterator.next_epoch_itr()]
        assert max(widths) == (32 if learned else 33)

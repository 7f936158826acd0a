"""What of a batch becomes which row of a datastore of translations."""

from types import SimpleNamespace

import pytest
import torch

from tests.small_pairs import make_pairs
from trime_fairseq.evaluation.result import Shard
from trime_fairseq.generation.recording import RecordedText, recorded_dimension

SOURCES, TARGETS = [5, 3, 7, 3, 9, 5], [4, 6, 2, 6, 8, 3]
# By source, then target length, then number.
ORDER = [1, 3, 5, 0, 2, 4]


class Sink:
    """Keeps rows in memory."""

    key_dtype = "float32"

    def __init__(self, begin, end, resume_row=None):
        self.begin, self.end = begin, end
        self.resume_row = begin if resume_row is None else resume_row
        self.rows = {}

    def write(self, row, keys, values):
        self.rows |= {row + place: (key, value) for place, (key, value) in enumerate(zip(keys, values))}

    def finish(self):
        pass

    def close(self):
        pass


class Decoder(torch.nn.Module):
    """Its key for a position is (number of the previous token, place in the padded row)."""

    def __init__(self):
        super().__init__()
        self.output_projection = torch.nn.Linear(2, 34, bias=False)

    def forward(self, tokens):
        places = torch.arange(tokens.size(1)).expand_as(tokens)
        return self.output_projection(torch.stack([tokens, places], -1).float()), None


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = Decoder()

    def forward(self, src_tokens, src_lengths, prev_output_tokens):
        return self.decoder(prev_output_tokens)


def pairs(left_pad_target=False):
    dataset = make_pairs(SOURCES, TARGETS)
    dataset.shuffle, dataset.left_pad_target = False, left_pad_target
    return dataset


def batches(dataset, size=2):
    order = dataset.ordered_indices()
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def record(text, resume_row=None):
    """The rows that a text gives to a sink from ``resume_row`` on."""
    sinks = []

    def build_sink(begin, end):
        sinks.append(Sink(begin, end, resume_row))
        return sinks[0]

    text.write_to("d", build_sink)
    with pytest.raises(SystemExit) as ended:
        for sample in text.next_epoch_itr(shuffle=False):
            assert text.scorer.generate([Model()], sample) == []
            # fairseq prints nothing of it.
            assert not len(sample["id"])
    assert not ended.value.code
    return sinks[0]


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_rows_do_not_depend_on_batches(left_pad, size):
    dataset = pairs(left_pad)
    text = RecordedText(dataset, batches(dataset, size), Shard())
    assert text.sentences.tolist() == ORDER
    assert text.rows == sum(TARGETS)
    sink = record(text)
    assert sorted(sink.rows) == list(range(sum(TARGETS)))
    targets = torch.cat([dataset.tgt[sentence] for sentence in ORDER]).tolist()
    assert [int(sink.rows[row][1]) for row in range(text.rows)] == targets
    eos = dataset.tgt_dict.eos()
    previous = [token for sentence in ORDER for token in (eos, *dataset.tgt[sentence].tolist()[:-1])]
    assert [int(sink.rows[row][0][0]) for row in range(text.rows)] == previous


def test_shards_share_the_rows():
    dataset = pairs()
    sinks = [record(RecordedText(dataset, batches(dataset), Shard(2, shard))) for shard in (1, 0)]
    # Two batches, and one.
    assert [(sink.begin, sink.end) for sink in sinks] == [(19, 29), (0, 19)]
    assert [sorted(sink.rows) for sink in sinks] == [list(range(19, 29)), list(range(19))]


@pytest.mark.parametrize(("resume_row", "first"), [(0, 0), (3, 0), (12, 12), (13, 12), (20, 19), (29, None)])
def test_batches_that_are_there_already_are_skipped(resume_row, first):
    dataset = pairs()
    sink = record(RecordedText(dataset, batches(dataset), Shard()), resume_row)
    assert sorted(sink.rows) == ([] if first is None else list(range(first, 29)))


def test_the_first_rows():
    dataset = pairs()
    sink = record(RecordedText(dataset, batches(dataset), Shard(), limit=15))
    assert sorted(sink.rows) == list(range(15))
    with pytest.raises(ValueError, match="--dstore-size 30: the text has 29 tokens"):
        RecordedText(dataset, batches(dataset), Shard(), limit=30)


def test_hash_of_the_sentences():
    """Of their numbers and lengths; how batches are cut does not matter."""
    dataset = pairs()
    first = RecordedText(dataset, batches(dataset), Shard()).content_hash()
    assert RecordedText(dataset, batches(dataset, 4), Shard()).content_hash() == first
    assert RecordedText(dataset, batches(dataset)[:-1], Shard()).content_hash() != first
    shorter = make_pairs([4, *SOURCES[1:]], TARGETS)
    assert RecordedText(shorter, batches(dataset), Shard()).content_hash() != first


def test_texts_that_have_nothing_to_store():
    dataset = pairs()
    with pytest.raises(ValueError, match="no sentence of --gen-subset fits"):
        RecordedText(dataset, [], Shard())
    with pytest.raises(ValueError, match="--num-shards 4: the text has 3 batches, so --shard-id 3 has none"):
        RecordedText(dataset, batches(dataset), Shard(4, 3))
    dataset.tgt_sizes = None
    with pytest.raises(ValueError, match="--gen-subset has no target sentences"):
        RecordedText(dataset, batches(pairs()), Shard())


def test_decoders_whose_keys_are_never_searched():
    decoder = SimpleNamespace(adaptive_softmax=object())
    with pytest.raises(ValueError, match="--save-knnlm-dstore: --path m.pt: .* adaptive softmax"):
        recorded_dimension(SimpleNamespace(decoder=decoder), "m.pt")

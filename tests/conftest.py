import pytest
from fairseq.data import Dictionary


@pytest.fixture
def dictionary():
    words = Dictionary()
    for word in "abcdefghijklmnop":
        words.add_symbol(word)
    return words

"""Character vocabularies against values worked out by hand."""

import pytest
import torch

from src.dataloaders.vocab import CharFormat, Vocab, count_characters


def test_ids_are_specials_then_falling_count_then_lexicographic() -> None:
    counts = count_characters([("banana", 1), ("bb é", 2)])
    assert counts == {"b": 5, "a": 3, "n": 2, " ": 2, "é": 2}
    vocab = Vocab.from_counts(counts, ["<pad>", "<unk>", "<eos>"])
    assert vocab.tokens == ("<pad>", "<unk>", "<eos>", "b", "a", " ", "n", "é")
    assert Vocab.from_counts(counts, ["<pad>", "<unk>"], min_freq=3).tokens == ("<pad>", "<unk>", "b", "a")


def test_words_use_the_same_rule_and_unknown_ones_become_unk() -> None:
    vocab = Vocab.from_counts({"X": 7, "[MAX": 7, "3": 9, "<eos>": 4}, ["<pad>", "<unk>", "<eos>"])
    assert vocab.tokens == ("<pad>", "<unk>", "<eos>", "3", "X", "[MAX")
    assert vocab.encode(["[MAX", "3", "?", "X"]) == [5, 3, 1, 4]
    assert vocab.decode([4, 0]) == ["X", "<pad>"]
    with pytest.raises(KeyError):
        Vocab(["a"]).encode(["b"])


@pytest.mark.parametrize(
    ("bos", "eos", "expected"),
    [
        (False, False, [[2, 3, 2, 3], [1]]),
        (False, True, [[3, 4, 3, 2], [1, 2]]),
        (True, True, [[2, 4, 5, 3], [2, 1, 3]]),
    ],
)
def test_encoding_cuts_to_l_max_specials_included(bos: bool, eos: bool, expected: list[list[int]]) -> None:
    chars = CharFormat(l_max=4, append_bos=bos, append_eos=eos)
    vocab = chars.vocab([("ab", 3)])
    flat, ends = chars.encode(["ababab", "z"], vocab)
    assert flat.tolist() == [*expected[0], *expected[1]]
    assert ends.tolist() == [len(expected[0]), len(expected[0]) + len(expected[1])]
    assert flat.dtype == torch.uint8


def test_json_and_tensor_round_trip_any_character() -> None:
    vocab = Vocab(["<pad>", "<unk>", '"', "\n", "é", "\U0001f600", "\ud800"])
    assert Vocab.from_json(vocab.to_json()).tokens == vocab.tokens
    assert Vocab.from_tensor(vocab.to_tensor()).tokens == vocab.tokens


def test_ids_are_stored_in_the_smallest_type() -> None:
    assert [Vocab(map(str, range(n))).dtype for n in (256, 257, 40_000)] == [torch.uint8, torch.int16, torch.int32]


def test_a_token_stands_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Vocab(["a", "a"])

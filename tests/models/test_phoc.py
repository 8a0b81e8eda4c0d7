"""PHOC against the published implementation's outputs, and against the definition, character by character."""

import json
import random
import string

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vl_alignment.models.phoc import BIGRAMS, CHARACTERS, PHOC_SIZE, phoc


def by_definition(word):
    """The definition in plain loops, in single precision as published."""
    word = "".join(character for character in word.lower().strip() if character in CHARACTERS)
    one, length, expected = np.float32(1), np.float32(len(word)), np.zeros(604, dtype=np.float32)

    def lies_in(begin, size, region, level):
        first, last = np.float32(begin) / length, np.float32(begin + size) / length
        left, right = np.float32(region) / np.float32(level), (np.float32(region) + one) / np.float32(level)
        return (min(last, right) - max(first, left)) / (last - first) >= np.float32(0.5)

    for position, character in enumerate(word):
        start = 0
        for level in (2, 3, 4, 5):
            for region in range(level):
                if lies_in(position, 1, region, level):
                    expected[start + 36 * region + CHARACTERS.index(character)] = 1
            start += 36 * level
        for region in range(2):
            pair = word[position : position + 2]
            if pair in BIGRAMS and lies_in(position, 2, region, 2):
                expected[504 + 50 * region + BIGRAMS.index(pair)] = 1
    return expected


@pytest.mark.golden
def test_all_published_words(golden_root):
    words = json.loads((golden_root / "m4c" / "text_cases.json").read_text())["phoc_words"]
    expected = load_file(golden_root / "m4c" / "phoc.safetensors")["phoc"].float()
    assert len(words) == len(expected) == 40
    result = phoc(words)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)
    for word, row in zip(words, expected, strict=True):  # whatever the words beside it
        assert torch.equal(phoc([word])[0], row), word


def test_words_of_every_length_are_as_defined():
    letters = random.Random(7)
    words = ["".join(letters.choices(string.ascii_letters + string.digits, k=size)) for size in range(1, 41)]
    words += ["".join(letters.choices(BIGRAMS, k=size)) for size in range(1, 21)]
    np.testing.assert_array_equal(phoc(words).numpy(), np.stack([by_definition(word) for word in words]))


def test_sizes():
    assert PHOC_SIZE == 604 and len(BIGRAMS) == len(set(BIGRAMS)) == 50
    assert phoc([]).shape == (0, 604)


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("Coca-Cola", "cocacola"),
        ("ÉCLAIR", "clair"),
        ("straße", "strae"),
        ("  1,000 ", "1000"),
        ("٣٤", ""),  # digits of another script
        ("東京 2020", "2020"),
        ("\u212aelvin", "kelvin"),  # the Kelvin sign is a k in lower case
        ("a\u0301b", "ab"),
    ],
)
def test_only_letters_and_digits_of_ascii_count(word, same):
    assert torch.equal(phoc([word]), phoc([same]))


def test_words_without_a_letter_are_zeros_among_others():
    result = phoc(["", "the", "---", "the"])
    assert result.sum(dim=1).tolist() == [0, 14, 0, 14]


def test_digits_stand_where_they_are():
    found = phoc(["19"])[0, :72].nonzero().flatten().tolist()
    assert found == [26 + 1, 36 + 26 + 9]
    assert not torch.equal(phoc(["19"]), phoc(["91"]))

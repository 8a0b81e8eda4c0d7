"""PHOC, the pyramidal histogram of characters: how a word is spelt, as 604 zeros and ones.

Source: Almazan et al., "Word spotting and recognition with embedded attributes" (2014); M4C takes its 604 numbers from
an implementation in C, whose arithmetic in single precision decides the ties and is kept here.
"""

import string
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["PHOC_SIZE", "phoc"]

CHARACTERS = string.ascii_lowercase + string.digits
LEVELS = (2, 3, 4, 5)
BIGRAM_LEVEL = 2
# The 50 most frequent bigrams of English, in the published order.
BIGRAMS = (
    "th he in er an re es on st nt en at ed nd to or ea ti ar te ng al it as is "
    "ha et se ou of le sa ve ro ra ri hi ne me de co ta ec si ll so na li la el"
).split()
PHOC_SIZE = len(CHARACTERS) * sum(LEVELS) + len(BIGRAMS) * BIGRAM_LEVEL
"""Numbers a word: 36 characters in 2 + 3 + 4 + 5 regions and 50 bigrams in 2 regions, 604."""

_BIGRAM_NUMBERS = torch.full((len(CHARACTERS) ** 2,), -1)
for _number, _bigram in enumerate(BIGRAMS):
    _BIGRAM_NUMBERS[CHARACTERS.index(_bigram[0]) * len(CHARACTERS) + CHARACTERS.index(_bigram[1])] = _number
_CHARACTER_NUMBERS = torch.zeros(128, dtype=torch.long)
for _number, _character in enumerate(CHARACTERS):
    _CHARACTER_NUMBERS[ord(_character)] = _number


def phoc(words: list[str]) -> Tensor:
    """Describe the spelling of words.

    Words are lower-cased and every character but a-z and 0-9 is left out: "Coca-Cola" is "cocacola", "ÉCLAIR" is
    "clair", and a word of which nothing is left gets zeros.

    Args:
        words: n words.

    Returns:
        [n, 604] float32 of zeros and ones: for each level 2 to 5, for each of its regions from left to right, which of
        the 36 characters lie in that part of the word by at least half; then for each half of the word which of 50
        bigrams lie in it by at least half.
    """
    spelt = [_spelling(word) for word in words]
    lengths = torch.tensor([len(word) for word in spelt], dtype=torch.long)
    result = torch.zeros(len(words), PHOC_SIZE)
    if not lengths.any():
        return result
    codes = torch.frombuffer(bytearray("".join(spelt).encode()), dtype=torch.uint8).long()
    characters = _CHARACTER_NUMBERS[codes]  # [all characters]
    rows = torch.repeat_interleave(torch.arange(len(words)), lengths)
    within, regions = torch.cat([_character_regions(len(word)) for word in spelt]).nonzero(as_tuple=True)
    result[rows[within], regions * len(CHARACTERS) + characters[within]] = 1

    bigrams = _BIGRAM_NUMBERS[characters[:-1] * len(CHARACTERS) + characters[1:]]
    bigrams = torch.cat([bigrams, bigrams.new_tensor([-1])])  # nothing begins at the last character
    halves = torch.cat([_bigram_regions(len(word)) for word in spelt])
    within, regions = (halves & (bigrams >= 0).unsqueeze(1)).nonzero(as_tuple=True)
    offset = len(CHARACTERS) * sum(LEVELS)
    result[rows[within], offset + regions * len(BIGRAMS) + bigrams[within]] = 1
    return result


def _spelling(word: str) -> str:
    return "".join(character for character in word.lower() if character in CHARACTERS)


@lru_cache(maxsize=64)  # words of one length share it, and few words are longer than 64
def _character_regions(length: int) -> Tensor:
    """[length, 14] boolean: which regions of all levels a character of a word of so many characters lies in."""
    starts = torch.arange(length, dtype=torch.float32)
    return torch.cat([_occupied(starts / length, (starts + 1) / length, level) for level in LEVELS], dim=1)


@lru_cache(maxsize=64)
def _bigram_regions(length: int) -> Tensor:
    """[length, 2] boolean: which half the bigram lies in that begins at a character; none begins at the last one."""
    starts = torch.arange(length, dtype=torch.float32)
    halves = _occupied(starts / length, (starts + 2) / length, BIGRAM_LEVEL)
    halves[-1:] = False
    return halves


def _occupied(starts: Tensor, ends: Tensor, level: int) -> Tensor:
    """[n, level] boolean: whether at least half of each stretch of the word, of n, lies in each of `level` regions.

    A stretch halved by a border lies in both regions, in one or in none, as rounding will have it: the sums are those
    of the published code, in the same order and single precision.
    """
    numbers = torch.arange(level + 1, dtype=torch.float32) / level
    first = torch.maximum(starts.unsqueeze(1), numbers[:-1])
    last = torch.minimum(ends.unsqueeze(1), numbers[1:])
    return (last - first) / (ends - starts).unsqueeze(1) >= 0.5

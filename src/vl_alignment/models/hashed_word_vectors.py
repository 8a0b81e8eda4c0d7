"""Word vectors: what a plug-in of them is, and one without a file, each word's character n-grams, hashed."""

import hashlib
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from .errors import ConfigurationError

__all__ = ["HashedWordVectors", "WordVectors"]


class WordVectors(Protocol):
    """What gives words vectors that are not learned with the model.

    Attributes:
        name: What the vectors are, in a processor's files: vectors of one name and size are the same.
        size: Numbers a word, W.
    """

    name: str
    size: int

    def vectors(self, words: list[str]) -> Tensor:
        """[n, W] float32 of n words; zeros for a word that has none."""
        ...


class HashedWordVectors:
    """Vectors computed from the spelling alone, so that every word has one, the same on every machine.

    As in FastText a word is the sum of its character n-grams and of itself, between marks of its begin and its end;
    but an n-gram's vector is not learned: its signs are the bits of a hash of the n-gram. The product of two
    words' vectors is then about the share of n-grams that they have in common (Weinberger et al. 2009).

    Args:
        size: Numbers a word.
        minimum: Characters of the shortest n-grams.
        maximum: Of the longest.

    Attributes:
        name: Says how the vectors are made; others of this name and size are the same.

    Raises:
        ConfigurationError: If a number is out of range.

    Example:
        >>> HashedWordVectors(size=8).vectors(["stop"]).shape
        torch.Size([1, 8])
    """

    kind = "hashed_ngrams"

    def __init__(self, size: int = 300, minimum: int = 2, maximum: int = 4) -> None:
        if size < 1 or not 1 <= minimum <= maximum:
            raise ConfigurationError(
                f"hashed word vectors of size {size} with n-grams of {minimum} to {maximum} characters: the size must "
                "be at least 1, and 1 <= minimum <= maximum"
            )
        self.size, self.minimum, self.maximum = size, minimum, maximum
        self.name = f"{self.kind}_{minimum}_{maximum}"

    def to_dict(self) -> dict[str, Any]:
        """What a processor saves, from which `from_dict` makes it again."""
        return {"name": self.name, "size": self.size, "minimum": self.minimum, "maximum": self.maximum}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "HashedWordVectors":
        """Make it again from what `to_dict` gave."""
        return cls(settings["size"], settings["minimum"], settings["maximum"])

    def vectors(self, words: list[str]) -> Tensor:
        """[n, size] float32 of n words, of unit length, whatever their case; of an empty word zeros."""
        if not words:
            return torch.zeros(0, self.size)
        different = {word: row for row, word in enumerate(dict.fromkeys(words))}
        rows = [_word_vector(word.lower(), self.size, self.minimum, self.maximum) for word in different]
        return torch.stack(rows)[[different[word] for word in words]]


# A data set has its words many times over; 20,000 vectors of 300 numbers are 24 MB.
@lru_cache(maxsize=20_000)
def _word_vector(word: str, size: int, minimum: int, maximum: int) -> Tensor:
    marked = f"<{word}>"
    parts = [
        marked[start : start + length]
        for length in range(minimum, maximum + 1)
        for start in range(len(marked) - length + 1)
    ]
    if not word:
        return torch.zeros(size)
    bits_of = -(-size // 8)
    digests = b"".join(
        hashlib.shake_128(part.encode(errors="surrogatepass")).digest(bits_of) for part in [*parts, f" {marked}"]
    )
    octets = torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(-1, bits_of, 1)
    bits = (octets >> torch.arange(8, dtype=torch.uint8)) & 1  # [n-grams, bytes, 8]
    total = bits.flatten(1)[:, :size].sum(dim=0, dtype=torch.int64) * 2 - len(bits)  # whole numbers: exact
    return torch.nn.functional.normalize(total.float(), dim=0)

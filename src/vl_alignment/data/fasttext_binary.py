"""FastText's binary models, read without FastText: the words' rows stay on disk.

The layout (versions 11 and 12, little-endian): magic number and version (int32); dim, ws, epoch, minCount, neg,
wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate (int32) and t (double); the dictionary: size, nwords, nlabels
(int32), ntokens, pruneidx_size (int64), for each entry its bytes, a zero, its count (int64) and type (int8), then
the pruned n-grams as pairs of int32; one byte that says whether the matrix is quantised; rows and columns (int64) and
the input matrix in float32, the words' rows first and the n-grams' buckets after them. The output matrix follows,
unread.
"""

import mmap
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from vl_alignment.models.errors import DataError

__all__ = ["FastTextBinary"]

MAGIC = 793712314
VERSIONS = (11, 12)
SUPERVISED = 3
END_OF_SENTENCE = b"</s>"
_ARGUMENTS = struct.Struct("<12id")
_DICTIONARY = struct.Struct("<3i2q")
_ENTRY_END = struct.Struct("<qb")
_PRUNED = struct.Struct("<2i")
_SHAPE = struct.Struct("<2q")


class FastTextBinary:
    """The vectors of one binary model, memory-mapped.

    Args:
        path: A `.bin` file as `fasttext skipgram`, `cbow` and the published models write it.

    Attributes:
        size: Numbers a word.

    Raises:
        DataError: There is no such file, it is no FastText model, of another version, quantised or truncated.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                offset, shape = self._read_header(content)
                length = len(content)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            if isinstance(error, DataError):
                raise
            raise DataError(f"cannot be read ({error})", path=path) from error
        except struct.error as error:
            raise DataError("truncated or no FastText model; fetch it again", path=path) from error
        rows, self.size = shape
        whole = min(rows, self.size) > 0 and length >= offset + rows * self.size * 4
        if not whole or rows != len(self.rows) + self.bucket:
            raise DataError("truncated or damaged: its matrix is not whole; fetch it again", path=path)
        self.matrix: np.ndarray = np.memmap(self.path, dtype="<f4", mode="r", offset=offset, shape=shape)
        self._subwords: Callable[[bytes], tuple[int, ...]] = lru_cache(maxsize=20_000)(self._subword_rows)

    def _read_header(self, content: mmap.mmap) -> tuple[int, tuple[int, int]]:
        """Read all but the matrix; returns where that begins, and its shape."""
        magic, version = struct.unpack_from("<2i", content)
        if magic != MAGIC:
            raise DataError("no FastText model (or one of before 2017); give a .bin or .vec file", path=self.path)
        if version not in VERSIONS:
            raise DataError(f"FastText format version {version}; versions 11 and 12 can be read", path=self.path)
        arguments = _ARGUMENTS.unpack_from(content, 8)
        model, self.bucket, self.minimum, self.maximum = arguments[7:11]
        if version == 11 and model == SUPERVISED:  # those had no subwords, whatever their arguments say
            self.maximum = 0
        offset = self._read_dictionary(content, 8 + _ARGUMENTS.size)
        if offset >= len(content):
            raise DataError("truncated: it ends before the vectors; fetch it again", path=self.path)
        if content[offset]:
            raise DataError("a quantised model (.ftz); give the model that it was made of (.bin)", path=self.path)
        if self.bucket < 1 <= self.maximum:
            raise DataError(f"damaged: n-grams up to {self.maximum} characters, but no rows for them", path=self.path)
        return offset + 1 + _SHAPE.size, _SHAPE.unpack_from(content, offset + 1)

    def _read_dictionary(self, content: mmap.mmap, offset: int) -> int:
        """Read the words; returns where the dictionary ends."""
        entries, words, _, _, pruned = _DICTIONARY.unpack_from(content, offset)
        offset += _DICTIONARY.size
        self.rows: dict[bytes, int] = {}
        for number in range(entries):
            end = content.find(b"\0", offset)
            if end < 0:
                raise DataError("truncated or damaged: a word does not end; fetch it again", path=self.path)
            if number < words:  # labels come after the words and have no rows
                self.rows[content[offset:end]] = number
            offset = end + 1 + _ENTRY_END.size
        if len(self.rows) != words:
            raise DataError("damaged: a word occurs twice or is missing; fetch it again", path=self.path)
        return offset + max(pruned, 0) * _PRUNED.size  # only quantised models have any

    def vector(self, word: str) -> np.ndarray | None:
        """[size] float32: the mean over the word's own row and its n-grams' rows; None where it has neither."""
        rows = self._subwords(word.encode(errors="surrogatepass"))
        return self.matrix[list(rows)].mean(axis=0, dtype=np.float32) if rows else None

    def _subword_rows(self, word: bytes) -> tuple[int, ...]:
        own = self.rows.get(word)
        rows = [] if own is None else [own]
        if word != END_OF_SENTENCE:
            rows += self._ngram_rows(b"<" + word + b">")
        return tuple(rows)

    def _ngram_rows(self, marked: bytes) -> list[int]:
        """Rows of the n-grams of a word between its marks; n counts characters of UTF-8, not bytes."""
        starts = [number for number, octet in enumerate(marked) if octet & 0xC0 != 0x80] + [len(marked)]
        characters, rows = len(starts) - 1, []
        for first in range(characters):
            for length in range(1, min(self.maximum, characters - first) + 1):
                # The marks alone are no n-grams.
                if length < self.minimum or (length == 1 and first in (0, characters - 1)):
                    continue
                bucket = _hash(marked[starts[first] : starts[first + length]]) % self.bucket
                rows.append(len(self.rows) + bucket)
        return rows


def _hash(ngram: bytes) -> int:
    """32-bit FNV-1a, with each byte widened as a signed number, as FastText's is."""
    value = 2166136261
    for octet in ngram:
        value ^= octet if octet < 128 else octet | 0xFFFFFF00
        value = value * 16777619 & 0xFFFFFFFF
    return value

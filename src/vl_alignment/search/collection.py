"""Embeddings of a growing collection on disk, opened memory-mapped.

    {folder}/
      {name}-00000-vectors.npy   [N, d], the vectors of all items of the shard one after the other
      {name}-00000-counts.npy    [n] int32, how many each item has
      {name}-00000-pooled.npy    [n, d] float32, the mean vector of each item, at unit length
      {name}-00000.json          what is known of each item, "id" at least

What belongs to the collection is said by whoever holds its list of shards: a shard that a killed program left behind
is overwritten by the next one of its number.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.array_files import open_array
from ..data.json_text import parse_json
from ..data.region_store import write_array, write_json
from ..models.errors import DataError

__all__ = ["Collection", "pooled"]

REMEDY = "remove the index and build it again, or restore the file"


class Collection:
    """Items in shards.

    Args:
        folder: Where the files are.
        name: Of the collection, with which the names of its files begin.
        width: Numbers of a vector, d.
        dtype: How the vectors are stored, "float16" or "float32".
        shards: (items, vectors) of each shard.

    Raises:
        DataError: A file is missing or damaged.
    """

    def __init__(self, folder: Path, name: str, width: int, dtype: str, shards: Sequence[Sequence[int]]) -> None:
        self.folder, self.name, self.width, self.dtype = folder, name, width, np.dtype(dtype)
        self.shards: list[list[int]] = []
        self._vectors: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []  # [n + 1], where each item's vectors begin
        self._pooled: list[np.ndarray] = []
        self._records: list[list[dict[str, Any]] | None] = []
        self.first = np.zeros(1, dtype=np.int64)  # [shards + 1], the number of each shard's first item
        for items, vectors in shards:
            self._open(items, vectors)

    def __len__(self) -> int:
        return int(self.first[-1])

    def append(self, vectors: Sequence[Tensor], records: Sequence[Mapping[str, Any]]) -> None:
        """Write a shard of items: the vectors [n, d] of each, and what is known of it.

        Raises:
            DataError: It cannot be written, or numbers are not finite in the stored type.
        """
        packed = torch.cat(list(vectors)).float()
        with np.errstate(over="ignore"):
            stored = packed.numpy().astype(self.dtype)
        if not np.isfinite(stored).all():
            raise DataError(f"embeddings are not finite in {self.dtype}; look for a diverged model", path=self.folder)
        means = torch.stack([pooled(item.float()) for item in vectors])
        counts = np.array([len(item) for item in vectors], dtype=np.int32)
        number = len(self.shards)
        write_array(self._path(number, "vectors"), stored)
        write_array(self._path(number, "counts"), counts)
        write_array(self._path(number, "pooled"), means.numpy())
        write_json(self._path(number), {"records": list(records)})
        self._open(len(records), len(stored))

    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Read the vectors of items [n] -> [n, L, d] in float32, zero at padding, and their mask [n, L]."""
        places = [self._place(int(row)) for row in rows]
        counts = [int(self._starts[shard][item + 1] - self._starts[shard][item]) for shard, item in places]
        result = np.zeros((len(places), max(counts), self.width), dtype=np.float32)
        for vectors, count, (shard, item) in zip(result, counts, places, strict=True):
            start = self._starts[shard][item]
            vectors[:count] = self._vectors[shard][start : start + count]
        mask = torch.arange(result.shape[1]) < torch.tensor(counts)[:, None]
        return torch.from_numpy(result), mask

    def record(self, row: int) -> dict[str, Any]:
        """Return what is known of an item."""
        shard, item = self._place(row)
        return self._records_of(shard)[item]

    def ids(self) -> set[str]:
        """Return the ids of all items."""
        return {record["id"] for shard in range(len(self.shards)) for record in self._records_of(shard)}

    def pooled_blocks(self, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the first item, mean vectors [m, d] float32) shard by shard, from item `first` on."""
        for start, block in zip(self.first, self._pooled, strict=False):
            skipped = max(0, first - int(start))
            if skipped < len(block):
                yield int(start) + skipped, block[skipped:]

    def _place(self, row: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.first, row, side="right")) - 1
        return shard, row - int(self.first[shard])

    def _records_of(self, shard: int) -> list[dict[str, Any]]:
        records = self._records[shard]
        if records is None:
            path, items = self._path(shard), self.shards[shard][0]
            try:
                records = parse_json(path.read_text(encoding="utf-8"))["records"]
                if len(records) != items or not all(isinstance(record["id"], str) for record in records):
                    raise ValueError(f"not the records of {items} items")
            except FileNotFoundError:
                raise DataError(f"this file of the index is missing; {REMEDY}", path=path) from None
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(f"this file of the index is damaged ({error}); {REMEDY}", path=path) from error
            self._records[shard] = records
        return records

    def _path(self, number: int, part: str | None = None) -> Path:
        stem = f"{self.name}-{number:05d}"
        return self.folder / (f"{stem}.json" if part is None else f"{stem}-{part}.npy")

    def _open(self, items: int, vectors: int) -> None:
        number = len(self.shards)
        counts = _open_array(self._path(number, "counts"), (items,), np.dtype(np.int32))
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        if starts[-1] != vectors or (counts < 1).any():
            raise DataError(f"its counts do not add up to {vectors}; {REMEDY}", path=self._path(number, "counts"))
        self._vectors.append(_open_array(self._path(number, "vectors"), (vectors, self.width), self.dtype))
        self._pooled.append(_open_array(self._path(number, "pooled"), (items, self.width), np.dtype(np.float32)))
        self._starts.append(starts)
        self._records.append(None)
        if not self._path(number).exists():
            raise DataError(f"this file of the index is missing; {REMEDY}", path=self._path(number))
        self.shards.append([items, vectors])
        self.first = np.append(self.first, self.first[-1] + items)


def pooled(vectors: Tensor) -> Tensor:
    """Vectors [n, d] of one item -> their mean, at unit length [d]."""
    return torch.nn.functional.normalize(vectors.mean(dim=0), dim=0)


def _open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    try:
        array = open_array(path)
    except FileNotFoundError:
        raise DataError(f"this file of the index is missing; {REMEDY}", path=path) from None
    except (ValueError, OSError) as error:
        raise DataError(f"this file of the index is truncated or damaged ({error}); {REMEDY}", path=path) from error
    if array.shape != shape or array.dtype != dtype:
        raise DataError(f"it holds {array.shape} {array.dtype}, not {shape} {dtype}; {REMEDY}", path=path)
    return np.asarray(array)  # a plain view of the map, whose own indexing is slow

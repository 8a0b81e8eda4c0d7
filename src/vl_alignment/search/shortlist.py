"""Shortlists: the items whose mean vectors are nearest to a query's, by FAISS.

Up to `LISTS_FROM` items every mean vector is compared. Beyond, inverted lists are built: sqrt(n) cells, into the
nearest of which a query looks, so that its cost grows with the square root of the collection. Items that came after
the lists were built are compared one by one.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..data.atomic_files import whole_file
from ..models.errors import ConfigurationError, DataError
from .collection import REMEDY, Collection

__all__ = ["LISTS_FROM", "build_lists", "import_faiss", "nearest", "open_lists"]

LISTS_FROM = 20_000  # items; below, comparing all of them takes a few milliseconds
LISTS_SEARCHED = 32
POINTS_PER_LIST = 64  # from which the cells are made; FAISS asks for 39 at least
REBUILT_AT = 1.25  # times the items that the lists hold


def import_faiss() -> Any:
    """Return the module.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigurationError(
            "searching needs FAISS, which is not installed; run: pip install 'vl-alignment[index]'"
        ) from error
    return faiss


def nearest(collection: Collection, lists: Any, query: np.ndarray, size: int) -> np.ndarray:
    """Return the numbers of the `size` items nearest to a query [d], nearest first; int64.

    Args:
        collection: Of the items.
        lists: The inverted lists of its first items, or None.
        query: At unit length, float32.
        size: How many; fewer where there are fewer.
    """
    faiss = import_faiss()
    query = np.ascontiguousarray(query[None], dtype=np.float32)
    scores, numbers = [np.empty(0, dtype=np.float32)], [np.empty(0, dtype=np.int64)]
    covered = 0
    if lists is not None:
        covered = lists.ntotal
        found, rows = lists.search(query, min(size, covered))
        scores.append(found[0][rows[0] >= 0])  # FAISS fills up with -1
        numbers.append(rows[0][rows[0] >= 0])
    for start, block in collection.pooled_blocks(covered):
        found, rows = faiss.knn(query, block, min(size, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores.append(found[0])
        numbers.append(rows[0] + start)
    best = np.argsort(-np.concatenate(scores), kind="stable")[:size]
    return np.concatenate(numbers)[best]


def wants_lists(items: int, covered: int) -> bool:
    """Whether inverted lists that cover so many of the items should be built anew."""
    return items >= LISTS_FROM and items >= REBUILT_AT * covered


def build_lists(collection: Collection, path: Path) -> None:
    """Write the inverted lists of all items to a file that is there as a whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    faiss = import_faiss()
    items = len(collection)
    cells = max(1, int(items**0.5))
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(collection.width), collection.width, cells, faiss.METRIC_INNER_PRODUCT)
    lists.cp.niter = 10
    lists.cp.max_points_per_centroid = POINTS_PER_LIST
    wanted = min(items, cells * POINTS_PER_LIST)
    chosen = np.sort(np.random.default_rng(0).choice(items, wanted, replace=False))
    sample = np.empty((wanted, collection.width), dtype=np.float32)
    for start, block in collection.pooled_blocks():
        first, last = np.searchsorted(chosen, [start, start + len(block)])
        sample[first:last] = block[chosen[first:last] - start]
    lists.train(sample)
    for _, block in collection.pooled_blocks():
        lists.add(np.ascontiguousarray(block))
    with whole_file(path, DataError) as file:
        faiss.write_index(lists, faiss.PyCallbackIOWriter(file.write))


def open_lists(path: Path, width: int, items: int) -> Any:
    """Open inverted lists memory-mapped.

    Raises:
        DataError: They are missing, damaged, or of something else.
    """
    faiss = import_faiss()
    if not path.exists():
        raise DataError(f"this file of the index is missing; {REMEDY}", path=path)
    try:
        lists = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"this file of the index is damaged ({reason}); {REMEDY}", path=path) from error
    if lists.d != width or lists.ntotal != items:
        raise DataError(
            f"it holds {lists.ntotal} items of width {lists.d}, not {items} of {width}; {REMEDY}", path=path
        )
    lists.nprobe = LISTS_SEARCHED
    return lists

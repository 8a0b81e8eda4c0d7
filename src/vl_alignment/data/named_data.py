"""What the tables of data sets by name share: where a data set lies, its splits, and the checks on both."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import datasets

from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["call_reader", "check_name", "check_size", "check_splits", "data_folder", "dataset_cache", "select_split"]

DATA_VARIABLE = "VL_ALIGNMENT_DATA"
CACHE_VARIABLE = "VL_ALIGNMENT_CACHE"

Data = TypeVar("Data")


def check_name(name: str, known: Iterable[str]) -> None:
    """Raise a `ConfigurationError` that lists the known data sets unless `name` is one of them."""
    known = list(known)
    if name not in known:
        raise ConfigurationError(f"unknown data set {name!r}; the known ones are {', '.join(known)}")


def data_folder(name: str, data_dir: str | Path | None) -> Path:
    """Return the folder of a data set: `data_dir`, or $VL_ALIGNMENT_DATA/{name}.

    Raises:
        DataError: Neither is given, or the folder does not exist.
    """
    if data_dir is None:
        root = os.environ.get(DATA_VARIABLE)
        if not root:
            raise DataError(f"where is {name}? Give its folder with --data-dir, or set ${DATA_VARIABLE}")
        data_dir = Path(root) / name
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"the folder of {name} does not exist; give it with --data-dir", path=folder)
    return folder


def call_reader(name: str, read: Callable[[], Data]) -> Data:
    """Return `read()`; an option that the reader does not have becomes a `ConfigurationError` that names it."""
    try:
        return read()
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigurationError(f"data set {name!r}: {error}") from error


def select_split(data: datasets.DatasetDict, split: str) -> datasets.Dataset:
    """Return a split, or raise a `DataError` that names those that exist."""
    check_splits([split], data)
    return data[split]


def check_splits(wanted: Iterable[str], existing: Iterable[str]) -> None:
    """Raise a `DataError` for the first wanted split that does not exist."""
    existing = list(existing)
    for split in wanted:
        if split not in existing:
            raise DataError(f"there is no split {split!r}; the data set has {', '.join(existing)}")


def check_size(name: str, data: Mapping[str, datasets.Dataset], split: str, size: int) -> None:
    """Raise a `DataError` unless the split of the data set `name` has so many images."""
    if not 0 < size <= len(data[split]):
        raise DataError(f"split {split!r} of {name} has {len(data[split])} images, {size} were asked for")


def dataset_cache(cache_dir: str | Path | None) -> Path | None:
    """Return where tables are kept: `cache_dir`, or $VL_ALIGNMENT_CACHE/datasets; None leaves it to `datasets`."""
    if cache_dir is not None:
        return Path(cache_dir)
    root = os.environ.get(CACHE_VARIABLE)
    return Path(root) / "datasets" if root else None

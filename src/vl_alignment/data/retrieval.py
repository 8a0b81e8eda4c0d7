"""The image-text retrieval data sets by name, and what identifies their content."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.caption_folder import load_caption_folder
from vl_alignment.data.content import content_hash
from vl_alignment.data.karpathy import load_karpathy
from vl_alignment.data.scan_precomputed import load_scan_precomputed
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["content_hash", "load_retrieval_dataset", "retrieval_dataset_names", "select_split"]

DATA_VARIABLE = "VL_ALIGNMENT_DATA"
BLOCKS_SPLITS = ("train", "validation", "test")


def _karpathy(name: str | None, data_dir: Path, **options: Any) -> datasets.DatasetDict:
    annotations = options.pop("annotations", None) or _annotation_file(data_dir, name)
    if "image_folder" not in options:
        options["image_folder"] = _image_folder(data_dir, name)
    return load_karpathy(annotations, name=name, **options)


def _annotation_file(data_dir: Path, name: str | None) -> Path:
    found = sorted(data_dir.glob(f"dataset_{name or '*'}.json"))
    if len(found) != 1:
        wanted = f"dataset_{name}.json" if name else "exactly one dataset_*.json"
        raise DataError(f"{wanted} is not in the folder; give another --data-dir", path=data_dir)
    return found[0]


def _image_folder(data_dir: Path, name: str | None) -> Path:
    """Return the sub-folder with the pictures, by its usual names, or the folder itself."""
    for candidate in ("images", f"{name}-images", f"{name}_images"):
        if (data_dir / candidate).is_dir():
            return data_dir / candidate
    return data_dir


# Name -> reader of a folder. "blocks" needs no folder and stands apart.
_READERS: dict[str, Callable[..., datasets.DatasetDict]] = {
    "flickr8k": lambda data_dir, **options: _karpathy("flickr8k", data_dir, **options),
    "flickr30k": lambda data_dir, **options: _karpathy("flickr30k", data_dir, **options),
    "coco": lambda data_dir, **options: _karpathy("coco", data_dir, **options),
    "karpathy": lambda data_dir, **options: _karpathy(None, data_dir, **options),
    "folder": load_caption_folder,
    "scan_precomputed": load_scan_precomputed,
}


def retrieval_dataset_names() -> list[str]:
    """Return the names that `load_retrieval_dataset` knows."""
    return ["blocks", *_READERS]


def load_retrieval_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    sizes: Mapping[str, int] | None = None,
    **options: Any,
) -> datasets.DatasetDict:
    """Load a retrieval data set by name.

    Args:
        name: One of `retrieval_dataset_names()`.
        data_dir: Its folder; default: $VL_ALIGNMENT_DATA/{name}. The built-in blocks need none.
        cache_dir: Where blocks keeps what it made.
        sizes: Images a split: the scenes that blocks makes, the first images of the others.
        options: Of the reader: see `load_blocks`, `load_karpathy`, `load_caption_folder`, `load_scan_precomputed`.

    Raises:
        ConfigurationError: The name is unknown, or an option does not exist.
        DataError: The folder is missing, its content is wrong, or a split named in `sizes` does not exist.
    """
    if name not in retrieval_dataset_names():
        raise ConfigurationError(
            f"unknown data set {name!r}; the known ones are {', '.join(retrieval_dataset_names())}"
        )
    try:
        if name == "blocks":
            from vl_alignment.data.blocks import load_blocks

            if unknown := sorted(set(sizes or {}) - set(BLOCKS_SPLITS)):
                raise DataError(f"there is no split {unknown[0]!r}; the data set has {', '.join(BLOCKS_SPLITS)}")
            return load_blocks(cache_dir=cache_dir, **(sizes or {}), **options)
        data = _READERS[name](_data_folder(name, data_dir), **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigurationError(f"data set {name!r}: {error}") from error
    for split, size in (sizes or {}).items():
        chosen = select_split(data, split)
        if not 0 < size <= len(chosen):
            raise DataError(f"split {split!r} of {name} has {len(chosen)} images, {size} were asked for")
        data[split] = chosen.select(range(size))
    return data


def select_split(data: datasets.DatasetDict, split: str) -> datasets.Dataset:
    """Return a split, or raise a `DataError` that names those that exist."""
    if split not in data:
        raise DataError(f"there is no split {split!r}; the data set has {', '.join(data)}")
    return data[split]


def _data_folder(name: str, data_dir: str | Path | None) -> Path:
    if data_dir is None:
        root = os.environ.get(DATA_VARIABLE)
        if not root:
            raise DataError(f"where is {name}? Give its folder with --data-dir, or set ${DATA_VARIABLE}")
        data_dir = Path(root) / name
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"the folder of {name} does not exist; give it with --data-dir", path=folder)
    return folder

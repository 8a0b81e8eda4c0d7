"""The image-text retrieval data sets by name, and what identifies their content."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.caption_folder import load_caption_folder
from vl_alignment.data.content import content_hash
from vl_alignment.data.karpathy import load_karpathy
from vl_alignment.data.named_data import call_reader, check_name, check_size, check_splits, data_folder, select_split
from vl_alignment.data.scan_precomputed import load_scan_precomputed
from vl_alignment.models.errors import DataError

__all__ = ["content_hash", "load_retrieval_dataset", "retrieval_dataset_names", "select_split"]

BLOCKS_SPLITS = ("train", "validation", "test")


def _karpathy(name: str | None, data_dir: Path, **options: Any) -> datasets.DatasetDict:
    annotations = options.pop("annotations", None) or _annotation_file(data_dir, name)
    if "image_folder" not in options:
        options["image_folder"] = _image_folder(data_dir, name)
    if "instances" not in options:
        # Groups are made of validation and test pictures, which are all of COCO's validation part; the file of the
        # training part is twenty times as large.
        options["instances"] = sorted((data_dir / "annotations").glob("instances_val*.json"))
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
    check_name(name, retrieval_dataset_names())
    if name == "blocks":
        from vl_alignment.data.blocks import load_blocks

        check_splits(sizes or {}, BLOCKS_SPLITS)
        given: dict[str, Any] = {**(sizes or {}), **options}
        return call_reader(name, lambda: load_blocks(cache_dir=cache_dir, **given))
    data = call_reader(name, lambda: _READERS[name](data_folder(name, data_dir), **options))
    for split, size in (sizes or {}).items():
        check_splits([split], data)
        check_size(name, data, split, size)
        data[split] = data[split].select(range(size))
    return data

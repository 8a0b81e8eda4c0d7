"""The data sets for making pictures from words, by name: pictures with captions, at a size worth drawing.

data = load_text_to_image_dataset("blocks", sizes={"train": 2000, "validation": 200, "test": 200})
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.named_data import call_reader, check_name, check_splits

__all__ = ["load_text_to_image_dataset", "text_to_image_dataset_names"]

BLOCKS_SPLITS = ("train", "validation", "test")
# A picture is drawn from what its caption says: so captions name all objects, and there are few.
BLOCKS_OPTIONS = {"image_size": 64, "minimum_objects": 1, "maximum_objects": 3, "descriptions": True}


def _load_blocks(**options: Any) -> datasets.DatasetDict:
    from vl_alignment.data.blocks import load_blocks

    return load_blocks(**{**BLOCKS_OPTIONS, **options}).remove_columns("masks")


def text_to_image_dataset_names() -> list[str]:
    """Return the names that `load_text_to_image_dataset` knows."""
    return ["blocks"]


def load_text_to_image_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    sizes: Mapping[str, int] | None = None,
    **options: Any,
) -> datasets.DatasetDict:
    """Load a data set of pictures and captions by name.

    Args:
        name: One of `text_to_image_dataset_names()`.
        data_dir: Its folder; default: $VL_ALIGNMENT_DATA/{name}. The built-in blocks need none.
        cache_dir: Where blocks keeps what it made.
        sizes: Images a split: the scenes that blocks makes, the first images of the others.
        options: Of the reader: `load_blocks`'s, where scenes have 1 to 3 objects, all named by every caption, and
            pictures 64 pixels a side unless others are asked for.

    Returns:
        Splits with the columns image_id, image and captions; blocks also has scene (JSON).

    Raises:
        ConfigurationError: The name is unknown, or an option does not exist or is out of range.
        DataError: The folder is missing, its content is wrong, or a split named in `sizes` does not exist.
    """
    check_name(name, text_to_image_dataset_names())
    check_splits(sizes or {}, BLOCKS_SPLITS)
    return call_reader(name, lambda: _load_blocks(cache_dir=cache_dir, **(sizes or {}), **options))

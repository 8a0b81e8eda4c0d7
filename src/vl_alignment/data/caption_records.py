"""What the readers of captioned photographs share: the columns, and the checks made before any work.

A reader turns its file into `CaptionRecord`s; `build_splits` checks them and makes the `DatasetDict`.
"""

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.json_text import parse_json
from vl_alignment.models.errors import DataError

__all__ = ["CaptionRecord", "build_splits", "check_split_sizes", "image_ids_hash", "read_json"]

logger = logging.getLogger(__name__)

CATEGORY_FEATURE = datasets.List({"name": datasets.Value("string"), "supercategory": datasets.Value("string")})
SPLIT_ORDER = ("train", "validation", "test")

# Table 1's images a split, and Flickr8k's official ones. Flickr30k's published validation split has 1,014 images, of
# which the released SCAN code evaluates the 1,000 that the table gives; both are right.
EXPECTED_SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "flickr8k": {"train": (6000,), "validation": (1000,), "test": (1000,)},
    "flickr30k": {"train": (29000,), "validation": (1000, 1014), "test": (1000,)},
    "coco": {"train": (29000,), "validation": (1000,), "test": (1000,)},
}


@dataclass
class CaptionRecord:
    """One image with its captions, before any check."""

    image_id: str
    split: str
    captions: list[str]
    image_path: str | None = None
    categories: list[dict[str, str]] = field(default_factory=list)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is missing, truncated or no JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse_json(file.read())
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=path) from error
    except ValueError as error:
        raise DataError(f"not complete, valid JSON ({error}); fetch or write the file again", path=path) from error


def build_splits(
    records: Sequence[CaptionRecord],
    *,
    source: str | Path,
    maximum_failures: int | None = None,
    with_images: bool = True,
    with_categories: bool = False,
    description: str = "",
) -> datasets.DatasetDict:
    """Check the records and return them as splits with the columns `image_id`, `image`, `captions`.

    Args:
        records: The images; splits appear in the order train, validation, test, then others.
        source: The file that they come from, for messages.
        maximum_failures: Missing image files that are left out, with a warning, before it is an error. Default: 1 % of
            the images, at least 10.
        with_images: Whether there is an `image` column; it holds paths and is decoded when read.
        with_categories: Whether there is a `categories` column.
        description: A sentence kept as each split's `info.description`.

    Raises:
        DataError: An image id occurs twice, a caption has no words, an image has no captions, too many image files are
            missing, or nothing is left.
    """
    seen: set[str] = set()
    for record in records:
        if record.image_id in seen:
            raise DataError("this image id occurs twice; ids must be unique", path=source, record=record.image_id)
        seen.add(record.image_id)
        if not record.captions:
            raise DataError("the image has no captions", path=source, record=record.image_id)
        for caption in record.captions:
            if not isinstance(caption, str) or not re.search(r"\w", caption):
                raise DataError(f"the caption {caption!r} has no words", path=source, record=record.image_id)
    if with_images:
        records = _present(records, source, maximum_failures)
    if not records:
        raise DataError("no images with captions are in it", path=source)
    features: dict[str, Any] = {"image_id": datasets.Value("string")}
    if with_images:
        features["image"] = datasets.Image()
    features["captions"] = datasets.List(datasets.Value("string"))
    if with_categories:
        features["categories"] = CATEGORY_FEATURE
    names = {record.split: None for record in records}
    order = [name for name in SPLIT_ORDER if name in names] + [name for name in names if name not in SPLIT_ORDER]
    splits = datasets.DatasetDict()
    for name in order:
        chosen = [record for record in records if record.split == name]
        columns: dict[str, list[Any]] = {
            "image_id": [record.image_id for record in chosen],
            "image": [record.image_path for record in chosen],
            "captions": [record.captions for record in chosen],
            "categories": [record.categories for record in chosen],
        }
        info = datasets.DatasetInfo(description=description, features=datasets.Features(features))
        splits[name] = datasets.Dataset.from_dict({column: columns[column] for column in features}, info=info)
    return splits


def _present(
    records: Sequence[CaptionRecord], source: str | Path, maximum_failures: int | None
) -> Sequence[CaptionRecord]:
    """Return the records whose image file exists; too many missing ones are an error."""
    listings: dict[str, set[str]] = {}

    def exists(path: str) -> bool:
        # One listing a folder instead of a look-up a file: a hundred thousand look-ups on a network disk take minutes.
        folder, name = os.path.split(path)
        if folder not in listings:
            try:
                listings[folder] = set(os.listdir(folder or "."))
            except OSError:
                listings[folder] = set()
        return name in listings[folder]

    missing = [record for record in records if record.image_path is None or not exists(record.image_path)]
    if not missing:
        return records
    limit = max(10, len(records) // 100) if maximum_failures is None else maximum_failures
    first = ", ".join(str(record.image_path or record.image_id) for record in missing[:3])
    if len(missing) > limit or len(missing) == len(records):
        raise DataError(
            f"{len(missing)} of {len(records)} image files are missing (the limit is {limit}), the first are {first}; "
            "check the image folder, or raise maximum_failures",
            path=source,
        )
    logger.warning("%s: left out %d images whose files are missing, the first are %s", source, len(missing), first)
    gone = {record.image_id for record in missing}
    return [record for record in records if record.image_id not in gone]


def check_split_sizes(data: Mapping[str, Any], name: str | None) -> None:
    """Warn where a split of a published data set has another number of images than Table 1."""
    expected = EXPECTED_SIZES.get(name or "", {})
    found = {split: len(data[split]) for split in data}
    wrong = [
        f"{split} {found.get(split, 0):,} instead of {' or '.join(f'{size:,}' for size in sizes)}"
        for split, sizes in expected.items()
        if found.get(split, 0) not in sizes
    ]
    if wrong:
        hint = "; paper_subset=True selects the paper's" if name == "coco" else ""
        warnings.warn(f"{name} differs from the published split sizes: {', '.join(wrong)}{hint}", stacklevel=3)


def image_ids_hash(image_ids: Iterable[str]) -> str:
    """Return the first 16 hexadecimal digits of a SHA-256 over the ids in order."""
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()[:16]

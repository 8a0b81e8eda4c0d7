"""COCO's own annotation files: `captions_*.json`, and `instances_*.json` for the categories in each picture."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.caption_records import CaptionRecord, build_splits, read_json
from vl_alignment.data.inner_paths import inner_path
from vl_alignment.models.errors import DataError

__all__ = ["categories_by_image", "load_coco_captions"]


def load_coco_captions(
    captions_json: str | Path,
    image_folder: str | Path | None,
    instances_json: str | Path | None = None,
    *,
    split: str | None = None,
    maximum_failures: int | None = None,
) -> datasets.DatasetDict:
    """Read one of COCO's caption files as a `DatasetDict` with a single split.

    Args:
        captions_json: `captions_{train,val}{year}.json`.
        image_folder: Folder of the pictures, None for no `image` column.
        instances_json: `instances_*.json` of the same images; adds the column `categories`, the distinct categories
            in a picture as {name, supercategory}, in the order of COCO's category ids.
        split: Name of the split; default: train or validation, after the file's name.
        maximum_failures: Missing image files that are left out before it is an error; default 1 %, at least 10.

    Raises:
        DataError: A file is truncated or of another layout, an annotation points to an image that is not listed, a
            caption has no words, or too many image files are missing.
    """
    content = _read_annotations(captions_json)
    if split is None:
        split = "validation" if "val" in Path(captions_json).stem else "train"
    captions: dict[int, list[str]] = {image["id"]: [] for image in content["images"]}
    if len(captions) != len(content["images"]):
        raise DataError("an image id occurs twice; ids must be unique", path=captions_json)
    for annotation in content["annotations"]:
        _require(annotation, "image_id", "caption", path=captions_json)
        if annotation["image_id"] not in captions:
            raise DataError(
                "a caption of an image that is not listed", path=captions_json, record=annotation["image_id"]
            )
        captions[annotation["image_id"]].append(annotation["caption"])
    categories = {} if instances_json is None else categories_by_image(instances_json)
    records = [
        CaptionRecord(
            str(image["id"]),
            split,
            captions[image["id"]],
            None if image_folder is None else os.path.join(image_folder, image["file_name"]),
            categories.get(image["id"], []),
        )
        for image in content["images"]
    ]
    return build_splits(
        records,
        source=captions_json,
        maximum_failures=maximum_failures,
        with_images=image_folder is not None,
        with_categories=instances_json is not None,
    )


def _read_annotations(path: str | Path) -> dict[str, Any]:
    content = read_json(path)
    for name in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(f'not one of COCO\'s annotation files: there is no list "{name}"', path=path)
    for image in content["images"]:
        _require(image, "id", "file_name", path=path)
        try:
            inner_path("", image["file_name"])
        except (ValueError, AttributeError) as error:
            raise DataError(f"this image has no file name ({error})", path=path, record=image["id"]) from error
    return content


def _require(item: Any, *names: str, path: str | Path) -> None:
    for name in names:
        if not isinstance(item, dict) or name not in item:
            raise DataError(f'an entry has no "{name}"', path=path, record=str(item)[:80])
        kinds: Any = (int, str) if name.endswith("id") else str
        if not isinstance(item[name], kinds):
            raise DataError(f'"{name}" of an entry is {str(item[name])[:80]}', path=path, record=str(item)[:80])


def categories_by_image(path: str | Path) -> dict[int, list[dict[str, str]]]:
    """Read the distinct categories of every picture of an `instances_*.json`, in the order of COCO's category ids.

    Raises:
        DataError: It is truncated or of another layout.
    """
    content = _read_annotations(path)
    if not isinstance(content.get("categories"), list):
        raise DataError('there is no list "categories"; give an instances_*.json', path=path)
    known: dict[int, dict[str, str]] = {}
    for category in content["categories"]:
        _require(category, "id", "name", "supercategory", path=path)
        known[category["id"]] = {"name": category["name"], "supercategory": category["supercategory"]}
    found: dict[int, set[Any]] = defaultdict(set)
    for annotation in content["annotations"]:
        _require(annotation, "image_id", "category_id", path=path)
        if annotation["category_id"] not in known:
            raise DataError("an unknown category id", path=path, record=annotation["category_id"])
        found[annotation["image_id"]].add(annotation["category_id"])
    return {
        image: [known[category] for category in sorted(members, key=lambda number: (str(type(number)), number))]
        for image, members in found.items()
    }

"""Captioned photographs in the layout of Karpathy's JSON files: Flickr8k, Flickr30k, COCO, and one's own.

    {"dataset": name, "images": [{"filename", "filepath"?, "split", "cocoid"?, "imgid"?, "sentences": [{"raw"}]}]}

These files carry the splits that the retrieval literature reports on.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.caption_records import (
    CaptionRecord,
    build_splits,
    check_split_sizes,
    image_ids_hash,
    read_json,
)
from vl_alignment.data.coco import categories_by_image
from vl_alignment.data.inner_paths import inner_path
from vl_alignment.models.errors import DataError

__all__ = ["load_karpathy"]

SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test", "restval": "restval"}

# Table 1: COCO is trained on 29,000 images; which ones is not said, so the first of the file's train split.
PAPER_SUBSET = {"train": 29000, "validation": 1000, "test": 1000}


def load_karpathy(
    annotations: str | Path,
    image_folder: str | Path | None,
    *,
    restval_as_train: bool = True,
    paper_subset: bool = False,
    name: str | None = None,
    maximum_failures: int | None = None,
    instances: Sequence[str | Path] = (),
) -> datasets.DatasetDict:
    """Read a Karpathy-layout file as splits train, validation, test with columns image_id, image, captions.

    Args:
        annotations: The JSON file.
        image_folder: Folder of `filename`, or of `filepath/filename` where that exists; None leaves the `image` column
            out, for captions whose pictures are features only.
        restval_as_train: Whether COCO's `restval` images count as train (113,287 images instead of 82,783).
        paper_subset: COCO as in the paper's Table 1: the first 29,000 images of the `train` split, the first 1,000 of
            the others. A hash of the chosen ids is kept in each split's `info.description`.
        name: Name of the data set, whose published sizes are checked; default: what the file says.
        maximum_failures: Missing image files that are left out before it is an error; default 1 %, at least 10.
        instances: COCO's `instances_*.json`, whose picture ids are the file's `cocoid`; adds the column `categories`,
            the distinct categories in a picture as {name, supercategory}. The splits take pictures of several files.

    Raises:
        DataError: The file is truncated or of another layout, a split is unknown, an id occurs twice, a caption has
            no words, or too many image files are missing.
    """
    content = read_json(annotations)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError('not in the layout of Karpathy\'s JSON: there is no list "images"', path=annotations)
    if name is None and isinstance(content.get("dataset"), str):
        name = content["dataset"]
    folder = None if image_folder is None else str(image_folder)
    if folder is not None and not os.path.isdir(folder):
        raise DataError("the image folder does not exist", path=folder)
    chosen = []
    categories = {str(image): found for path in instances for image, found in categories_by_image(path).items()}
    for position, image in enumerate(content["images"]):
        record = _read_image(image, position, annotations, folder)
        record.categories = categories.get(record.image_id, [])
        if record.split == "restval":
            if not restval_as_train or paper_subset:
                continue
            record.split = "train"
        chosen.append(record)
    description = ""
    if paper_subset:
        chosen = _first_of_each_split(chosen, annotations)
        digest = image_ids_hash(record.image_id for record in chosen)
        description = f"{name}: the first {PAPER_SUBSET} images of each split; image ids {digest}"
    splits = build_splits(
        chosen,
        source=annotations,
        maximum_failures=maximum_failures,
        with_images=folder is not None,
        with_categories=bool(instances),
        description=description,
    )
    check_split_sizes(splits, name)
    return splits


def _read_image(image: Any, position: int, annotations: str | Path, folder: str | None) -> CaptionRecord:
    if not isinstance(image, Mapping) or not isinstance(image.get("filename"), str):
        raise DataError('this image has no "filename"', path=annotations, record=position)
    filename = image["filename"]
    if image.get("split") not in [*SPLIT_NAMES]:  # a list may be asked for what is not hashable
        raise DataError(
            f"unknown split {image.get('split')!r}; the known ones are {', '.join(SPLIT_NAMES)}",
            path=annotations,
            record=filename,
        )
    try:
        # The published files hold objects with the raw text, some copies of them the text itself.
        captions = [item if isinstance(item, str) else item["raw"] for item in image["sentences"]]
    except (KeyError, TypeError) as error:
        raise DataError('this image has no "sentences" with "raw" text', path=annotations, record=filename) from error
    if "cocoid" in image:
        image_id = str(image["cocoid"])
    else:
        image_id = Path(filename).stem or str(image.get("imgid", position))
    try:
        path = None if folder is None else _image_path(folder, image.get("filepath") or ".", filename)
    except ValueError as error:
        raise DataError(str(error), path=annotations, record=position) from error
    return CaptionRecord(image_id, SPLIT_NAMES[image["split"]], captions, path)


def _image_path(folder: str, subfolder: Any, filename: str) -> str:
    path = inner_path(folder, filename)
    if subfolder != "." and isinstance(subfolder, str):
        inside = inner_path(folder, f"{subfolder}/{filename}")
        if os.path.isdir(inner_path(folder, subfolder)):
            return inside
    return path


def _first_of_each_split(records: list[CaptionRecord], annotations: str | Path) -> list[CaptionRecord]:
    chosen: list[CaptionRecord] = []
    for split, size in PAPER_SUBSET.items():
        members = [record for record in records if record.split == split]
        if len(members) < size:
            raise DataError(
                f"the paper's subset needs {size:,} images in {split}, there are {len(members):,}; "
                "load without paper_subset",
                path=annotations,
            )
        chosen += members[:size]
    return chosen

"""One's own captioned pictures: a folder with an annotation file beside or among them.

    {folder}/captions.jsonl    {"file_name": "images/a.jpg", "captions": ["...", "..."], "split"?, "image_id"?}
    {folder}/metadata.jsonl    the same
    {folder}/metadata.csv      file_name,caption[,split][,image_id], one line a caption

The files may also lie in sub-folders train, validation (or val) and test, as `datasets`' imagefolder has them; several
captions an image are what imagefolder's own reader has no place for.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.caption_records import CaptionRecord, build_splits
from vl_alignment.data.inner_paths import inner_path
from vl_alignment.data.json_text import parse_json
from vl_alignment.data.karpathy import SPLIT_NAMES
from vl_alignment.models.errors import DataError

__all__ = ["load_caption_folder"]

ANNOTATION_NAMES = ("captions.jsonl", "metadata.jsonl", "metadata.csv")


def load_caption_folder(folder: str | Path, *, maximum_failures: int | None = None) -> datasets.DatasetDict:
    """Read a folder of captioned pictures; what names no split is in "train".

    Args:
        folder: The folder with the annotation file, or with sub-folders train, validation, test that each have one.
        maximum_failures: Missing image files that are left out before it is an error; default 1 %, at least 10.

    Raises:
        DataError: There is no annotation file, a line cannot be read, a split is unknown, an id occurs twice with
            different files, a caption has no words, or too many image files are missing.
    """
    folder = Path(folder)
    sources = [(folder, "train")]
    sources += [(folder / name, name) for name in ("train", "val", "validation", "test")]
    records: dict[str, CaptionRecord] = {}
    found = None
    for place, default_split in sources:
        for path in (place / name for name in ANNOTATION_NAMES):
            if path.is_file():
                found = path
                for line, row in _rows(path):
                    _add_row(records, row, path, line, default_split, folder)
                break
    if found is None:
        raise DataError(f"none of {', '.join(ANNOTATION_NAMES)} is in the folder", path=folder)
    return build_splits(list(records.values()), source=folder, maximum_failures=maximum_failures)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give (line number, row) of a CSV or JSON-lines file."""
    try:
        with open(path, encoding="utf-8", newline="" if path.suffix == ".csv" else None) as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, dict(row)
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = parse_json(line)
                    if not isinstance(row, dict):
                        raise ValueError("the line is not an object")
                    yield number, row
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", path=path) from error


def _add_row(
    records: dict[str, CaptionRecord], row: dict[str, Any], path: Path, line: int, default_split: str, folder: Path
) -> None:
    """Add one line's captions to the record of its image."""
    file_name = row.get("file_name") or row.get("image")
    captions = row.get("captions", row.get("caption"))
    if not isinstance(file_name, str) or captions is None:
        raise DataError("needs file_name and caption (or captions)", path=path, record=f"line {line}")
    split = row.get("split") or default_split
    if split not in [*SPLIT_NAMES] or split == "restval":
        raise DataError(f"unknown split {split!r}; use train, validation or test", path=path, record=f"line {line}")
    try:
        name = (path.parent.relative_to(folder) / file_name).as_posix()
        image_path = inner_path(folder, name)
        image_id = str(row.get("image_id") or Path(name).with_suffix("").as_posix())
    except ValueError as error:
        raise DataError(str(error), path=path, record=f"line {line}") from error
    record = records.setdefault(image_id, CaptionRecord(image_id, SPLIT_NAMES[split], [], image_path))
    if record.image_path != image_path or record.split != SPLIT_NAMES[split]:
        raise DataError("this image id occurs twice with different files or splits", path=path, record=image_id)
    if not isinstance(captions, str | list):
        raise DataError(f"the captions are {str(captions)[:80]}", path=path, record=f"line {line}")
    record.captions += [captions] if isinstance(captions, str) else captions

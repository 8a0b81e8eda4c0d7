"""SCAN's precomputed data: `{train,dev,test}_ims.npy` with `{train,dev,test}_caps.txt`, five captions an image.

The features are bottom-up attention regions, 36 x 2048 float32. They are opened memory-mapped and never copied. Two
layouts are in circulation: one row of features an image, or, as in the first release, one a caption, in which five
equal rows follow each other; the number of rows tells them apart.
"""

from pathlib import Path

import datasets
import numpy as np

from vl_alignment.data.array_files import open_array
from vl_alignment.data.caption_records import CaptionRecord, build_splits, read_json
from vl_alignment.data.region_store import RegionStore
from vl_alignment.models.errors import DataError

__all__ = ["load_scan_precomputed", "open_scan_regions", "read_scan_vocabulary"]

CAPTIONS_PER_IMAGE = 5
FILE_NAMES = {"train": "train", "validation": "dev", "test": "test"}
EXTRACTOR, EXTRACTOR_VERSION = "bottom_up_attention", "SCAN's precomputed release"


def load_scan_precomputed(folder: str | Path, *, test: str = "test") -> datasets.DatasetDict:
    """Read the captions of the splits that are in `folder` (train, validation, test: those whose file is there).

    The columns are `image_id` ("{file}-{row}", the ids of `open_scan_regions`) and `captions`.

    Args:
        folder: The folder with the `_caps.txt` files.
        test: The files that serve as test split: "test", or "testall" for COCO's 5,000 images.

    Raises:
        DataError: No split is there, a line is empty, or the lines are not five an image.
    """
    records = []
    for split, name, path in _caption_files(folder, test):
        lines = _read_lines(path)
        for row in range(len(lines) // CAPTIONS_PER_IMAGE):
            captions = lines[row * CAPTIONS_PER_IMAGE : (row + 1) * CAPTIONS_PER_IMAGE]
            records.append(CaptionRecord(f"{name}-{row}", split, captions))
    return build_splits(records, source=folder, with_images=False)


def open_scan_regions(folder: str | Path, *, test: str = "test") -> RegionStore:
    """Open the features of the same splits as one region store, without boxes or image sizes.

    Raises:
        DataError: A feature file is missing, truncated, or does not fit the captions.
    """
    image_ids: list[str] = []
    features = []
    for _, name, path in _caption_files(folder, test):
        captions = len(_read_lines(path))
        array = _open_features(Path(folder) / f"{name}_ims.npy", captions)
        features.append(array)
        image_ids += [f"{name}-{row}" for row in range(len(array))]
    shapes = {array.shape[1:] for array in features}
    if len(shapes) > 1:
        raise DataError(f"the splits have features of different shapes: {sorted(shapes)}", path=folder)
    return RegionStore(
        image_ids, features, None, extractor=EXTRACTOR, extractor_version=EXTRACTOR_VERSION, path=Path(folder)
    )


def read_scan_vocabulary(path: str | Path) -> dict[str, int]:
    """Read the vocabulary JSON of SCAN as word -> index."""
    content = read_json(path)
    words = content.get("word2idx") if isinstance(content, dict) else None
    if not isinstance(words, dict) or not all(isinstance(index, int) for index in words.values()):
        raise DataError('not a vocabulary of SCAN: there is no "word2idx" of words and numbers', path=path)
    return words


def _caption_files(folder: str | Path, test: str) -> list[tuple[str, str, Path]]:
    """Return (split, name of the files, caption file) of the splits that are there."""
    names = {**FILE_NAMES, "test": test}
    found = [(split, name, Path(folder) / f"{name}_caps.txt") for split, name in names.items()]
    found = [entry for entry in found if entry[2].exists()]
    if not found:
        wanted = ", ".join(f"{name}_caps.txt" for name in names.values())
        raise DataError(f"none of {wanted} is there", path=folder)
    return found


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", path=path) from error
    # Only the line feed ends a caption: str.splitlines() also breaks at characters that occur inside captions.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise DataError("an empty line where a caption should be", path=path, record=f"line {number}")
    if len(lines) % CAPTIONS_PER_IMAGE:
        raise DataError(f"{len(lines)} lines are not five an image; the file may be truncated", path=path)
    return lines


def _open_features(path: Path, captions: int) -> np.ndarray:
    """Open [N, R, d] with one row an image, as a view on the file."""
    try:
        array = open_array(path)
    except FileNotFoundError:
        raise DataError("the feature file of these captions is missing", path=path) from None
    except (ValueError, OSError) as error:
        raise DataError(f"truncated or not a NumPy array ({error}); fetch the file again", path=path) from error
    if array.ndim != 3 or array.dtype.kind != "f":
        raise DataError(f"expected floats [images, regions, size], found {array.dtype} {array.shape}", path=path)
    if len(array) == captions:
        return array[::CAPTIONS_PER_IMAGE]
    if len(array) * CAPTIONS_PER_IMAGE == captions:
        return array
    raise DataError(
        f"{len(array)} rows of features fit neither the {captions} captions nor their "
        f"{captions // CAPTIONS_PER_IMAGE} images",
        path=path,
    )

"""The data sets for making pictures from words, by name: pictures with captions, at a size worth drawing.

data = load_text_to_image_dataset("blocks", sizes={"train": 2000, "validation": 200, "test": 200})
data = load_text_to_image_dataset("owner/data-set-of-the-hub")
"""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.caption_folder import load_caption_folder
from vl_alignment.data.caption_records import SPLIT_ORDER
from vl_alignment.data.coco import load_coco_captions
from vl_alignment.data.cub import load_cub
from vl_alignment.data.named_data import call_reader, check_size, check_splits, data_folder
from vl_alignment.data.retrieval import load_retrieval_dataset
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["captioned_pictures", "load_text_to_image_dataset", "text_to_image_dataset_names"]

BLOCKS_SPLITS = ("train", "validation", "test")
# A picture is drawn from what its caption says: so captions name all objects, and there are few.
BLOCKS_OPTIONS = {"image_size": 64, "minimum_objects": 1, "maximum_objects": 3, "descriptions": True}
CAPTION_COLUMNS = ("captions", "caption", "text")


def _load_blocks(**options: Any) -> datasets.DatasetDict:
    from vl_alignment.data.blocks import load_blocks

    return load_blocks(**{**BLOCKS_OPTIONS, **options}).remove_columns("masks")


def _load_coco(folder: Path, *, year: int | None = None, **options: Any) -> datasets.DatasetDict:
    """Read Karpathy's JSON where there is one, else COCO's own captions of a year, which have no test split."""
    if "annotations" in options or any(folder.glob("dataset_*.json")):
        if year is not None:
            raise ConfigurationError(
                f"year={year}: Karpathy's JSON, which lies in {folder}, is of one year; leave it out."
            )
        with warnings.catch_warnings():
            # Those sizes are the paper's for retrieval; pictures are made from all of COCO.
            warnings.filterwarnings("ignore", message=".*differs from the published split sizes")
            return load_retrieval_dataset("coco", folder, **options)
    places = (folder / "annotations", folder)
    found = [path for place in places for path in sorted(place.glob(f"captions_*{year or ''}.json"))]
    years = sorted({re.sub(r"\D", "", path.stem) for path in found})
    if len(years) != 1:
        raise DataError(
            f"there are captions of the years {', '.join(years)}; choose with year"
            if years
            else f"neither dataset_coco.json nor annotations/captions_*{year or ''}.json is in the folder",
            path=folder,
        )
    splits = datasets.DatasetDict()
    for path in found:
        part = path.stem.removeprefix("captions_")
        splits.update(load_coco_captions(path, _coco_images(folder, part), **options))
    return _in_order(splits)


def _coco_images(folder: Path, part: str) -> Path:
    """Return the folder of the pictures of "train2014" or the like."""
    for candidate in (folder / part, folder / "images" / part):
        if candidate.is_dir():
            return candidate
    raise DataError(f"there is no folder {part} or images/{part} with the pictures", path=folder)


def _retrieval(name: str) -> Callable[..., datasets.DatasetDict]:
    return lambda folder, **options: load_retrieval_dataset(name, folder, **options)


# Name -> reader of a folder. "blocks" needs no folder and stands apart.
_READERS: dict[str, Callable[..., datasets.DatasetDict]] = {
    "cub": load_cub,
    "coco": _load_coco,
    "flickr8k": _retrieval("flickr8k"),
    "flickr30k": _retrieval("flickr30k"),
    "karpathy": _retrieval("karpathy"),
    "folder": load_caption_folder,
}


def text_to_image_dataset_names() -> list[str]:
    """Return the names that `load_text_to_image_dataset` knows, besides those of the Hub."""
    return ["blocks", *_READERS]


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
        name: One of `text_to_image_dataset_names()`; or what `datasets.load_dataset` or `load_from_disk` reads: an id
            of the Hub ("owner/name") or the path of a folder ("./name").
        data_dir: Its folder; default: $VL_ALIGNMENT_DATA/{name}. The built-in blocks and the Hub need none.
        cache_dir: Where blocks keeps what it made, and `datasets` what it fetched.
        sizes: Images a split: the scenes that blocks makes, the first images of the others.
        options: Of the reader. `load_blocks`: where scenes have 1 to 3 objects, all named by every caption, and
            pictures 64 pixels a side unless others are asked for; `load_cub`; for coco those of `load_karpathy`, or
            `year` and those of `load_coco_captions`; `load_caption_folder`; of the Hub, `image_column` and
            `caption_column` (see `captioned_pictures`) and those of `datasets.load_dataset`.

    Returns:
        Splits with the columns image_id, image, captions; where it is known class_id; CUB also has box, blocks scene.

    Raises:
        ConfigurationError: The name is unknown, or an option does not exist or is out of range.
        DataError: The data cannot be found or read, or a split named in `sizes` does not exist.
    """
    if name == "blocks":
        check_splits(sizes or {}, BLOCKS_SPLITS)
        return call_reader(name, lambda: _load_blocks(cache_dir=cache_dir, **(sizes or {}), **options))
    if name in _READERS:
        data = call_reader(name, lambda: _READERS[name](data_folder(name, data_dir), **options))
    elif "/" in name:
        data = _load_hub(name, data_dir, cache_dir, **options)
    else:
        known = ", ".join(text_to_image_dataset_names())
        raise ConfigurationError(f"unknown data set {name!r}; the known ones are {known}, or owner/name of the Hub")
    for split, size in (sizes or {}).items():
        check_splits([split], data)
        check_size(name, data, split, size)
        data[split] = data[split].select(range(size))
    return data


def _load_hub(
    name: str,
    data_dir: str | Path | None,
    cache_dir: str | Path | None,
    *,
    image_column: str = "image",
    caption_column: str | None = None,
    **options: Any,
) -> datasets.DatasetDict:
    try:
        if (Path(name) / "dataset_dict.json").is_file():
            data = datasets.load_from_disk(name, **options)
        else:
            folders = {"data_dir": data_dir, "cache_dir": cache_dir}
            given = {option: str(folder) for option, folder in folders.items() if folder is not None}
            data = datasets.load_dataset(name, **given, **options)
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"datasets cannot read it ({error})", path=name) from error
    if isinstance(data, datasets.Dataset):  # where the options name a split
        data = datasets.DatasetDict({str(data.split or "train"): data})
    try:
        return captioned_pictures(data, image_column=image_column, caption_column=caption_column)
    except DataError as error:
        raise DataError(str(error), path=name) from error


def captioned_pictures(
    data: Mapping[str, datasets.Dataset], *, image_column: str = "image", caption_column: str | None = None
) -> datasets.DatasetDict:
    """Return splits with the columns image_id, image, captions of splits that call and keep them otherwise.

    Args:
        data: Splits with pictures and captions; "val" becomes "validation". Where there is a column `image_id`, it is
            kept as text, and rows of one id are one picture with several captions; else every row is a picture. A
            column `class_id` of whole numbers is kept.
        image_column: The column of the pictures.
        caption_column: The column of the captions, one text or several; default: captions, caption or text, the first
            that there is.

    Raises:
        DataError: A column is missing or holds something else, a caption has no words, or an image is in two splits.
    """
    splits = datasets.DatasetDict()
    seen: dict[str, str] = {}
    for given_name, split in data.items():
        name = "validation" if given_name == "val" else str(given_name)
        splits[name] = _captioned_split(name, split, image_column, caption_column)
        for image_id in splits[name]["image_id"]:
            if seen.setdefault(image_id, name) != name:
                raise DataError(f"this image id is in {seen[image_id]} and in {name}", record=image_id)
    return _in_order(splits)


def _captioned_split(
    name: str, split: datasets.Dataset, image_column: str, caption_column: str | None
) -> datasets.Dataset:
    """Return one split with the columns image_id, image, captions, and class_id where it is known."""
    present = split.column_names
    text_column = caption_column or next((column for column in CAPTION_COLUMNS if column in present), "captions")
    for wanted in (image_column, text_column):
        if wanted not in present:
            raise DataError(f"the {name} split has no column {wanted!r}, only {', '.join(present)}")
    if not isinstance(split.features[image_column], datasets.Image):
        raise DataError(f"column {image_column!r} of the {name} split holds no images: {split.features[image_column]}")
    numbered = "image_id" not in present
    ids = [f"{name}-{row:06d}" for row in range(len(split))] if numbered else list(map(str, split["image_id"]))
    rows: dict[str, int] = {}  # of each image the first
    captions: dict[str, list[str]] = {}
    for row, (image_id, value) in enumerate(zip(ids, split[text_column], strict=True)):
        rows.setdefault(image_id, row)
        captions.setdefault(image_id, []).extend(_captions(value, image_id))
    chosen = split.select(list(rows.values()))
    pictures = chosen.select_columns([image_column])
    if image_column != "image":
        pictures = pictures.rename_column(image_column, "image")
    pictures = pictures.add_column("image_id", list(rows), feature=datasets.Value("string"))
    texts = datasets.List(datasets.Value("string"))
    pictures = pictures.add_column("captions", list(captions.values()), feature=texts)
    order = ["image_id", "image", "captions"]
    if "class_id" in present:
        classes = _class_ids(list(chosen["class_id"]), list(rows))
        pictures = pictures.add_column("class_id", classes, feature=datasets.Value("int64"))
        order.append("class_id")
    return pictures.select_columns(order)


def _captions(value: Any, image_id: str) -> list[str]:
    """Return the captions of an image as a list."""
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not captions:
        raise DataError(f"its captions are {value!r}, neither a text nor several", record=image_id)
    for caption in captions:
        if not isinstance(caption, str) or not re.search(r"\w", caption):
            raise DataError(f"the caption {caption!r} has no words", record=image_id)
    return captions


def _class_ids(values: list[Any], image_ids: list[str]) -> list[int]:
    for value, image_id in zip(values, image_ids, strict=True):
        if not isinstance(value, int):
            raise DataError(f"its class_id is {value!r}, no whole number", record=image_id)
    return values


def _in_order(data: datasets.DatasetDict) -> datasets.DatasetDict:
    names = [name for name in SPLIT_ORDER if name in data] + [name for name in data if name not in SPLIT_ORDER]
    return datasets.DatasetDict({name: data[name] for name in names})

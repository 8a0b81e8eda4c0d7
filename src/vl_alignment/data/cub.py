"""CUB-200-2011, birds of 200 species with boxes, and the ten captions of each picture by Reed et al. (2016).

    {folder}/CUB_200_2011/images.txt                {id} {class}/{image}.jpg
    {folder}/CUB_200_2011/bounding_boxes.txt        {id} {x} {y} {width} {height}, in pixels
    {folder}/CUB_200_2011/image_class_labels.txt    {id} {class id}
    {folder}/CUB_200_2011/classes.txt               {class id} {class}
    {folder}/CUB_200_2011/images/{class}/{image}.jpg
    {folder}/text/{class}/{image}.txt               ten captions, one a line
    {folder}/{train,test}/filenames.pickle          the split: a list of "{class}/{image}", as AttnGAN has it, or
    {folder}/{train,test}/filenames.json            the same as JSON, or {folder}/{train,test}_filenames.json

AttnGAN's 150 training species and 50 of the test are different ones.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
from PIL import Image

from vl_alignment.data.caption_records import SPLIT_ORDER, CaptionRecord, build_splits, read_json
from vl_alignment.data.inner_paths import inner_path
from vl_alignment.data.picture_files import PICTURE_FORMATS
from vl_alignment.data.restricted_pickle import load_restricted
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["load_cub"]

logger = logging.getLogger(__name__)

CAPTIONS = 10
BOX_FEATURE = datasets.List(datasets.Value("float64"), length=4)


@dataclass
class _Bird:
    """What CUB's own files say of one picture; the box is (x, y, width, height) in pixels."""

    file_name: str
    class_id: int
    box: tuple[float, ...]


def load_cub(
    folder: str | Path,
    *,
    text_folder: str | Path | None = None,
    split_folder: str | Path | None = None,
    validation_classes: int = 0,
    maximum_failures: int | None = None,
) -> datasets.DatasetDict:
    """Read CUB as the splits of the lists, with the columns image_id, image, captions, class_id and box.

    Args:
        folder: That of the module's drawing, or `CUB_200_2011` itself.
        text_folder: Where the captions are; default: `text` or `text_c10` in the folder.
        split_folder: Where the lists are; default: the folder.
        validation_classes: So many of the training species, the last ones, become a "validation" split of species that
            training has not seen, as the test split's are; only where no list of that name gives one.
        maximum_failures: Missing image files that are left out before it is an error; default 1 %, at least 10.

    Returns:
        Splits whose `image_id` is "{class}/{image}", `class_id` is CUB's, from 1, and `box` has the corners
        [x0, y0, x1, y1] as fractions of the picture.

    Raises:
        ConfigurationError: There are not so many species, or a list of the validation split besides.
        DataError: A file is missing, cannot be read or does not match the others, a box lies outside of its picture, a
            picture has no captions, or too many image files are missing.
    """
    folder = Path(folder)
    root = folder / "CUB_200_2011" if (folder / "CUB_200_2011").is_dir() else folder
    birds = _read_birds(root)
    lists = _read_lists([folder, root] if split_folder is None else [Path(split_folder)], birds)
    if validation_classes:
        _set_aside(lists, birds, validation_classes)
    texts = _text_folder([folder, root]) if text_folder is None else Path(text_folder)
    records = [
        CaptionRecord(
            image_id, split, _read_captions(texts, image_id), str(root / "images" / birds[image_id].file_name)
        )
        for split, image_ids in lists.items()
        for image_id in image_ids
    ]
    fewer = [record.image_id for record in records if len(record.captions) != CAPTIONS]
    if fewer:
        logger.warning("%s: %d pictures have not %d captions, the first is %s", texts, len(fewer), CAPTIONS, fewer[0])
    data = build_splits(records, source=root / "images.txt", maximum_failures=maximum_failures)
    for name, split in data.items():
        members = [birds[image_id] for image_id in split["image_id"]]
        split = split.add_column("class_id", [bird.class_id for bird in members], feature=datasets.Value("int64"))
        boxes = [_fractions(bird, root) for bird in members]
        data[name] = split.add_column("box", boxes, feature=BOX_FEATURE)
    return data


def _read_birds(root: Path) -> dict[str, _Bird]:
    """Return what CUB's files say, by "{class}/{image}"; all must speak of the same pictures and classes."""
    files = dict(_rows(root / "images.txt", 1))
    boxes = dict(_rows(root / "bounding_boxes.txt", 4))
    labels = dict(_rows(root / "image_class_labels.txt", 1))
    classes = dict(_rows(root / "classes.txt", 1))
    for name, table in (("bounding_boxes.txt", boxes), ("image_class_labels.txt", labels)):
        if table.keys() != files.keys():
            odd = sorted(table.keys() ^ files.keys(), key=lambda number: (len(number), number))
            raise DataError(
                f"does not match images.txt: {len(odd)} image ids are in one of them only; take both from one release",
                path=root / name,
                record=odd[0],
            )
    birds = {}
    for number, (file_name,) in files.items():
        (label,) = labels[number]
        # The species is the folder's name as well: files of another release would be noticed here.
        if classes.get(label) != (Path(file_name).parent.name,):
            (called,) = classes.get(label, ("which is not in classes.txt",))
            raise DataError(
                f"says class {label[:200]}, {called[:200]}, of {file_name[:200]}; take "
                "images.txt, classes.txt and the labels from one release",
                path=root / "image_class_labels.txt",
                record=number,
            )
        try:
            box, class_id = tuple(map(float, boxes[number])), int(label)
        except ValueError as error:
            raise DataError(str(error), path=root / "bounding_boxes.txt", record=number) from error
        try:
            inner_path(root, file_name)
            birds[Path(file_name).with_suffix("").as_posix()] = _Bird(file_name, class_id, box)
        except ValueError as error:
            raise DataError(str(error), path=root / "images.txt", record=number) from error
    return birds


def _rows(path: Path, columns: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give each line's number and the columns after it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error}); give the folder with CUB_200_2011 in it", path=path) from error
    for line, row in enumerate(lines, start=1):
        number, *rest = row.split() or [""]
        if len(rest) != columns:
            raise DataError(
                f"{row[:200]!r} has not a number and {columns} columns after it", path=path, record=f"line {line}"
            )
        yield number, tuple(rest)


def _read_lists(folders: list[Path], birds: Mapping[str, _Bird]) -> dict[str, list[str]]:
    """Return the image ids of every split that has a list."""
    lists: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for split in SPLIT_ORDER:
        names = (f"{split}/filenames.json", f"{split}_filenames.json", f"{split}/filenames.pickle")
        found = [folder / name for folder in folders for name in names if (folder / name).is_file()]
        if not found:
            continue
        path = found[0]
        content = load_restricted(path) if path.suffix == ".pickle" else read_json(path)
        if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
            raise DataError("not a list of names", path=path)
        lists[split] = [re.sub(r"\.jpg$", "", name) for name in content]
        for image_id in lists[split]:
            if image_id not in birds:
                raise DataError("this image is not in images.txt", path=path, record=image_id)
            if owner.setdefault(image_id, split) != split:
                raise DataError(f"this image is in the {owner[image_id]} split as well", path=path, record=image_id)
    if "train" not in lists:
        raise DataError(
            "there is no train/filenames.pickle, train/filenames.json or train_filenames.json, which say what is "
            "trained on; copy AttnGAN's, or give split_folder",
            path=folders[0],
        )
    return lists


def _set_aside(lists: dict[str, list[str]], birds: Mapping[str, _Bird], count: int) -> None:
    """Make the last species of the training list the validation split."""
    species = sorted({birds[image_id].class_id for image_id in lists["train"]})
    if "validation" in lists or not 0 < count < len(species):
        raise ConfigurationError(
            f"validation_classes={count}: there are {len(species)} training species"
            + (" and a list of the validation split; leave it out." if "validation" in lists else "; give fewer.")
        )
    aside = set(species[-count:])
    train = lists["train"]
    lists["train"] = [image_id for image_id in train if birds[image_id].class_id not in aside]
    lists["validation"] = [image_id for image_id in train if birds[image_id].class_id in aside]


def _text_folder(folders: list[Path]) -> Path:
    for folder in folders:
        for name in ("text", "text_c10"):
            if (folder / name).is_dir():
                return folder / name
    raise DataError("there is no folder text or text_c10 with the captions; give text_folder", path=folders[0])


def _read_captions(folder: Path, image_id: str) -> list[str]:
    """Return the captions of an image; what cannot be decoded becomes a space, and lines without words are none."""
    path = folder / f"{image_id}.txt"
    try:
        text = path.read_text(encoding="utf-8", errors="replace").replace("\ufffd", " ")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=path) from error
    return [" ".join(line.split()) for line in text.splitlines() if re.search(r"\w", line)]


def _fractions(bird: _Bird, root: Path) -> list[float]:
    """Return the corners of a bird's box as fractions of its picture, of which the header alone is read."""
    path = root / "images" / bird.file_name
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read ({error}); fetch it again", path=path) from error
    x, y, box_width, box_height = bird.box
    corners = [x / width, y / height, (x + box_width) / width, (y + box_height) / height]
    corners = [min(max(corner, 0.0), 1.0) for corner in corners]
    if not (corners[0] < corners[2] and corners[1] < corners[3]):
        raise DataError(
            f"the box {bird.box} lies outside of the picture's {width} x {height} pixels",
            path=root / "bounding_boxes.txt",
            record=bird.file_name,
        )
    return corners

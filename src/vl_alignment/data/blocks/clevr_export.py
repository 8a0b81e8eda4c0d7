"""Write blocks and questions about them in CLEVR's own layout, so that everything written for CLEVR reads them.

    {folder}/images/{train,val,test}/CLEVR_{split}_000000.png
    {folder}/scenes/CLEVR_{train,val,test}_scenes.json
    {folder}/questions/CLEVR_{train,val,test}_questions.json

python -m vl_alignment.data.blocks FOLDER --clevr --questions-per-image 10
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from vl_alignment.data.blocks.question_builder import QUESTION_VERSION
from vl_alignment.models.errors import DataError

__all__ = ["clevr_question", "clevr_scene", "export_clevr"]

_FILE_NAMES = {"train": "train", "validation": "val", "test": "test"}
_COLUMNS = ("image_id", "image", "scene")
_LICENSE = "apache-2.0"


def export_clevr(
    images: Mapping[str, datasets.Dataset], questions: Mapping[str, datasets.Dataset], folder: str | Path
) -> None:
    """Write pictures, scenes and questions in CLEVR's layout.

    Relations are those of blocks: where two objects stand nearly level, blocks has none, and CLEVR's rule
    (`compute_relations`) would find one. Every split has its answers, the test split too.

    Args:
        images: Splits that `load_blocks` returned, with the columns image_id, image and scene.
        questions: The same splits from `load_blocks_questions`.
        folder: Where to; made if missing. Files of the same names in it are replaced.

    Raises:
        DataError: The data are not of blocks, a question is about an image that is not there, or the folder cannot be
            written.
    """
    folder = Path(folder)
    for split, records in images.items():
        missing = [name for name in _COLUMNS if name not in records.column_names]
        missing += [] if split in questions else ["questions"]
        if missing or split not in _FILE_NAMES:
            wrong = f"lacks {', '.join(missing)}" if missing else "is not one of CLEVR's"
            message = f"Split {split!r} {wrong}; give what load_blocks and load_blocks_questions return."
            raise DataError(message, path=folder)
    try:
        for split, records in images.items():
            _export_split(folder, _FILE_NAMES[split], records, questions[split])
    except OSError as error:
        message = f"Cannot write the data set ({error}); choose a folder that you may write to."
        raise DataError(message, path=folder) from error


def clevr_scene(scene: Mapping[str, Any], split: str, index: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """A scene as CLEVR's files have it.

    Args:
        scene: What `Scene.to_dict` gives.
        split: CLEVR's name of the split: "train", "val" or "test".
        index: Number of the image in the split.
        image_size: Width and height of the picture in pixels.

    Returns:
        The scene, pixel coordinates in pixels. Boxes stay, as fractions of the picture; CLEVR has none.
    """
    width, height = image_size
    objects = []
    for item in scene["objects"]:
        column, row, depth = item["pixel_coords"]
        objects.append({**item, "pixel_coords": [round(column * width), round(row * height), depth]})
    return {
        "image_index": index,
        "image_filename": f"{_stem(split, index)}.png",
        "split": split,
        "objects": objects,
        "relationships": scene["relationships"],
        "directions": scene["directions"],
    }


def clevr_question(record: Mapping[str, Any], split: str, index: int, question_index: int) -> dict[str, Any]:
    """A question as CLEVR's files have it.

    Args:
        record: With the columns of `QUESTION_FEATURES`.
        split: CLEVR's name of the split.
        index: Number of the image in the split.
        question_index: Number of the question in the split.

    Returns:
        The question, its program's nodes with function, inputs and value_inputs.
    """
    return {
        "split": split,
        "question_index": question_index,
        "image_index": index,
        "image": _stem(split, index),
        "image_filename": f"{_stem(split, index)}.png",
        "question": record["question"],
        "answer": record["answer"],
        "program": json.loads(record["program"]),
        "question_family_index": record["question_family_index"],
    }


def _stem(split: str, index: int) -> str:
    return f"CLEVR_{split}_{index:06d}"


def _export_split(folder: Path, split: str, images: datasets.Dataset, questions: datasets.Dataset) -> None:
    pictures = folder / "images" / split
    pictures.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}

    def scenes() -> Iterator[dict[str, Any]]:
        for index, record in enumerate(images.cast_column("image", datasets.Image(decode=False))):
            numbers[record["image_id"]] = index
            content = record["image"]["bytes"] or Path(record["image"]["path"]).read_bytes()
            with Image.open(BytesIO(content)) as picture:
                size = picture.size
            (pictures / f"{_stem(split, index)}.png").write_bytes(content)
            yield clevr_scene(json.loads(record["scene"]), split, index, size)

    def asked() -> Iterator[dict[str, Any]]:
        for number, record in enumerate(questions):
            if record["image_id"] not in numbers:
                raise DataError(
                    f"The question is about {record['image_id']}, which is not among the {split} images; load both "
                    "with the same settings.",
                    path=folder,
                    record=record["question_id"],
                )
            yield clevr_question(record, split, numbers[record["image_id"]], number)

    # The questions come last: readers begin with them, so a folder that has them is complete.
    for name, entries in (("scenes", scenes()), ("questions", asked())):
        path = folder / name / f"CLEVR_{split}_{name}.json"
        path.parent.mkdir(exist_ok=True)
        _write_list(path, split, name, entries)


def _write_list(path: Path, split: str, name: str, entries: Iterable[Mapping[str, Any]]) -> None:
    """One entry a line, so that large splits are never in memory at once."""
    information = {"split": split, "version": QUESTION_VERSION, "license": _LICENSE}
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {json.dumps(information)}, "{name}": [')
        for number, entry in enumerate(entries):
            file.write(",\n" if number else "\n")
            json.dump(entry, file, separators=(",", ":"))
        file.write("\n]}\n")

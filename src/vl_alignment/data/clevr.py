"""CLEVR v1.0 as its authors publish it, and what its generator writes for scenes of one's own.

    {folder}/images/{train,val,test}/CLEVR_{split}_000000.png
    {folder}/questions/CLEVR_{train,val,test}_questions.json
    {folder}/scenes/CLEVR_{train,val}_scenes.json              only read on request

Pictures are referred to by path, never copied. The 700 MB of training questions are read as a stream, once, into an
Arrow file in the cache of `datasets`. The test split is published without answers and programs.
"""

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError

from vl_alignment.data.blocks.programs import program_depth, question_type
from vl_alignment.data.json_stream import stream_json_list
from vl_alignment.data.named_data import dataset_cache
from vl_alignment.data.question_records import QUESTION_FEATURES, QuestionData, align_questions
from vl_alignment.models.errors import DataError, VlAlignmentError

__all__ = ["OFFICIAL_SIZES", "load_clevr", "official_size_differences"]

logger = logging.getLogger(__name__)

READER_VERSION = "1.0.0"
"""Raise this whenever a record of some file changes: caches of older versions are then left."""

# Our name of a split -> the one in the names of the files.
FILE_NAMES = {"train": "train", "validation": "val", "test": "test"}

OFFICIAL_SIZES = {
    "train": {"images": 70000, "questions": 699989},
    "validation": {"images": 15000, "questions": 149991},
    "test": {"images": 15000, "questions": 149988},
}
"""Images and questions of CLEVR v1.0 (Table 1)."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
SCENE_FEATURES = datasets.Features({"image_id": datasets.Value("string"), "scene": datasets.Value("string")})
ROWS_PER_TABLE = 10_000


def load_clevr(
    folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    scenes: bool = False,
    cache_dir: str | Path | None = None,
) -> QuestionData:
    """Read a folder in CLEVR's layout.

    Args:
        folder: Holds `questions`, and `images` unless only features are at hand: without it, the images are those
            that the questions name, and there is no column `image`.
        splits: The splits to read; default: those whose questions are there.
        scenes: Whether the images get the column `scene`, the published scene graph as JSON, "" where there is none.
        cache_dir: Where the questions are kept as Arrow; see `load_question_dataset`.

    Returns:
        Splits train, validation, test. The images carry `image_index` besides: the number in the file's name, which
        is the row in feature files made from the folder.

    Raises:
        DataError: A file is missing, cut short or of another layout, a question is about an image that is not there,
            or a program has an unknown function.
    """
    folder = Path(folder)
    question_files = _question_files(folder, splits)
    questions = _read_tables("questions", question_files, cache_dir)
    images = datasets.DatasetDict()
    for split, path in question_files.items():
        images[split] = _images(folder, split, questions[split])
        questions[split] = align_questions(questions[split], images[split], path=path)
    if scenes:
        images = _with_scenes(images, folder, cache_dir)
    data = QuestionData(images, questions)
    if differences := official_size_differences(data):
        warnings.warn(
            f"{folder} is not all of CLEVR v1.0: {', '.join(differences)}. That is as it should be for a part of it "
            "and for scenes of your own.",
            stacklevel=2,
        )
    return data


def official_size_differences(data: QuestionData) -> list[str]:
    """Return what differs from `OFFICIAL_SIZES` in the splits that were read; nothing for a complete folder."""
    return [
        f"{split} has {len(table[split]):,} {kind} instead of {OFFICIAL_SIZES[split][kind]:,}"
        for split in data.images
        for kind, table in (("images", data.images), ("questions", data.questions))
        if len(table[split]) != OFFICIAL_SIZES[split][kind]
    ]


def _question_files(folder: Path, splits: Sequence[str] | None) -> dict[str, Path]:
    """Return the question files by split; those of `splits` must exist, otherwise at least one."""
    every = {split: folder / "questions" / f"CLEVR_{name}_questions.json" for split, name in FILE_NAMES.items()}
    for split in splits or ():
        if split not in every:
            raise DataError(f"there is no split {split!r}; CLEVR has {', '.join(every)}", path=folder)
    found = {split: path for split, path in every.items() if (split in splits if splits else path.is_file())}
    if not found:
        raise DataError(
            "the folder has no questions/CLEVR_{train,val,test}_questions.json; give the unpacked CLEVR folder",
            path=folder,
        )
    for path in found.values():
        if not path.is_file():
            raise DataError("this file is missing", path=path)
    return found


def _images(folder: Path, split: str, questions: datasets.Dataset) -> datasets.Dataset:
    """Return the images of a split in the order of their index, from the folder or from what the questions name."""
    features: dict[str, Any] = {"image_id": datasets.Value("string"), "image_index": datasets.Value("int32")}
    if not (folder / "images").is_dir():
        ids = _in_order(dict.fromkeys(questions["image_id"][:]))
        columns: dict[str, list[Any]] = {"image_id": ids, "image_index": _image_indices(ids)}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    pictures = folder / "images" / FILE_NAMES[split]
    try:
        names = [name for name in os.listdir(pictures) if name.lower().endswith(PICTURE_SUFFIXES)]
    except OSError as error:
        raise DataError(
            f"the images of the {split} questions cannot be read ({error.strerror or error}); unpack them there, or "
            "read only other splits (splits=...)",
            path=pictures,
        ) from error
    files = {_stem(name): str(pictures / name) for name in names}
    ids = _in_order(files)
    columns = {
        "image_id": ids,
        "image": [files[image_id] for image_id in ids],
        "image_index": _image_indices(ids),
    }
    features = {"image_id": features["image_id"], "image": datasets.Image(), "image_index": features["image_index"]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _number(image_id: str) -> int | None:
    digits = re.search(r"\d+$", image_id)
    return int(digits[0]) if digits else None


def _in_order(image_ids: Iterator[str] | Mapping[str, Any]) -> list[str]:
    return sorted(image_ids, key=lambda image_id: (_number(image_id) or 0, image_id))


def _image_indices(image_ids: list[str]) -> list[int]:
    """Return the numbers at the ends of the ids where these tell the images apart, else their positions."""
    numbers = [_number(image_id) for image_id in image_ids]
    known = [number for number in numbers if number is not None]
    return known if len(set(known)) == len(image_ids) else list(range(len(image_ids)))


def _with_scenes(images: datasets.DatasetDict, folder: Path, cache_dir: str | Path | None) -> datasets.DatasetDict:
    files = {split: folder / "scenes" / f"CLEVR_{FILE_NAMES[split]}_scenes.json" for split in images}
    files = {split: path for split, path in files.items() if path.is_file()}
    tables = _read_tables("scenes", files, cache_dir) if files else datasets.DatasetDict()
    result = datasets.DatasetDict()
    for split, table in images.items():
        scenes = (
            dict(zip(tables[split]["image_id"][:], tables[split]["scene"][:], strict=True)) if split in tables else {}
        )
        image_ids = table["image_id"][:]
        missing = [image_id for image_id in image_ids if image_id not in scenes]
        if missing and scenes:
            raise DataError("the image has no scene in this file", path=files[split], record=missing[0])
        column = [scenes.get(image_id, "") for image_id in image_ids]
        result[split] = table.add_column("scene", column, feature=datasets.Value("string"))
    return result


def _read_tables(kind: str, files: Mapping[str, Path], cache_dir: str | Path | None) -> datasets.DatasetDict:
    """Read one JSON file a split into Arrow, or take it from the cache."""
    cache = dataset_cache(cache_dir)
    builder = ClevrBuilder(
        cache_dir=None if cache is None else str(cache),
        config_name=kind,
        files={split: str(path.resolve()) for split, path in files.items()},
    )
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, VlAlignmentError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset()


@dataclass
class ClevrConfig(datasets.BuilderConfig):
    """Which files are read.

    Args:
        files: The JSON file of each split.
    """

    files: dict[str, str] = field(default_factory=dict)

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """The folder's name in the cache: a file that was replaced is read again."""
        states = {split: (path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for split, path in self.files.items()}
        return f"{self.name}-{hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]}"


class ClevrBuilder(datasets.ArrowBasedBuilder):
    """Reads the questions (config "questions") or the scenes (config "scenes") of some splits; used by `load_clevr`."""

    BUILDER_CONFIG_CLASS = ClevrConfig
    BUILDER_CONFIGS = [ClevrConfig(name="questions"), ClevrConfig(name="scenes")]
    VERSION = datasets.Version(READER_VERSION)

    def __init__(self, *args: Any, dataset_name: str = "clevr", **kwargs: Any) -> None:
        super().__init__(*args, dataset_name=dataset_name, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        features = QUESTION_FEATURES if self.config.name == "questions" else SCENE_FEATURES
        return datasets.DatasetInfo(features=features, homepage="https://cs.stanford.edu/people/jcjohns/clevr/")

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "path": path})
            for split, path in self.config.files.items()
        ]

    def _generate_tables(self, split: str, path: str) -> Iterator[tuple[int, pa.Table]]:
        kind = self.config.name
        read: Callable[[Any, int, str, str], dict[str, Any]] = _question if kind == "questions" else _scene
        schema = self.info.features.arrow_schema
        rows: list[dict[str, Any]] = []
        number = 0
        for position, entry in enumerate(stream_json_list(path, kind)):
            rows.append(read(entry, position, split, path))
            if len(rows) == ROWS_PER_TABLE:
                yield number, pa.Table.from_pylist(rows, schema=schema)
                rows, number = [], number + 1
        if rows:
            yield number, pa.Table.from_pylist(rows, schema=schema)
        elif number == 0:
            raise DataError(f"the list of {kind} is empty", path=path)


def _question(entry: Any, position: int, split: str, path: str) -> dict[str, Any]:
    """Return the record of one question; unpublished columns as in `QUESTION_FEATURES`."""
    image_id = _image_id(entry, position, path)
    record = f"question {entry.get('question_index', position)}"
    question = entry.get("question")
    if not isinstance(question, str) or not re.search(r"\w", question):
        raise DataError(f"the question {question!r} has no words", path=path, record=record)
    program = entry.get("program") or []
    try:
        nodes = [_node(node) for node in program]
        structure = tuple((node["function"], tuple(node["inputs"]), len(node["value_inputs"])) for node in nodes)
        kind, depth = _type_and_depth(structure) if nodes else ("", -1)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the program is not in CLEVR's layout ({error!r})", path=path, record=record) from error
    except VlAlignmentError as error:
        raise DataError(str(error), path=path, record=record) from error
    return {
        "question_id": f"{split}-{entry.get('question_index', position)}",
        "image_id": image_id,
        "question": question,
        "answer": _answer(entry.get("answer")),
        "question_type": kind,
        "program": json.dumps(nodes, separators=(",", ":")) if nodes else "",
        "program_depth": depth,
        "question_family_index": _family(entry.get("question_family_index", -1), path, record),
    }


@lru_cache(maxsize=100_000)
def _type_and_depth(structure: tuple[tuple[str, tuple[int, ...], int], ...]) -> tuple[str, int]:
    """Return type and depth of a program given as (function, inputs, number of values) a node.

    CLEVR's million programs have few structures, and checking each program anew takes longer than all other work.
    """
    nodes = [
        {"function": function, "inputs": inputs, "value_inputs": ("",) * values}
        for function, inputs, values in structure
    ]
    return question_type(nodes), program_depth(nodes)


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node in the layout of v1.0: the generator writes `type`, some copies `side_inputs`."""
    return {
        "function": node["function"] if "function" in node else node["type"],
        "inputs": node.get("inputs") or [],
        "value_inputs": node.get("value_inputs", node.get("side_inputs", [])),
    }


def _family(number: Any, path: str, record: str) -> int:
    if number is None:
        return -1
    if not isinstance(number, int) or not -1 <= number < 2**31:
        raise DataError(f'"question_family_index" is {str(number)[:80]}', path=path, record=record)
    return number


def _answer(answer: Any) -> str:
    """Return the answer as v1.0 writes it; the generator itself writes truth values and numbers."""
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return "" if answer is None else str(answer)


def _scene(entry: Any, position: int, split: str, path: str) -> dict[str, Any]:
    return {"image_id": _image_id(entry, position, path), "scene": json.dumps(entry, separators=(",", ":"))}


def _image_id(entry: Any, position: int, path: str) -> str:
    name = entry.get("image_filename") if isinstance(entry, Mapping) else None
    if not isinstance(name, str) or not name:
        raise DataError('this entry has no "image_filename"', path=path, record=position)
    return _stem(name)


def _stem(path: str) -> str:
    # No os.path here: datasets replaces it in the modules of builders by much slower functions that know addresses.
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name

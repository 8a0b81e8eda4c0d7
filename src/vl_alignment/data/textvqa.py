"""TextVQA and ST-VQA as their authors publish them.

    {folder}/TextVQA_0.5.1_{train,val,test}.json                       questions, answers
    {folder}/TextVQA_Rosetta_OCR_v0.2_{train,val,test}.json            the text in the pictures, read by Rosetta
    {folder}/{images,train_images,test_images}/{image_id}.jpg          where there are pictures

    {folder}/{train,test}_task_3.json                                  ST-VQA, the task without a list of answers
    {folder}/{images,train_imgs,test_imgs,.}/{file_path}

TextVQA's test split has no answers; ST-VQA's neither, and ST-VQA comes without OCR. Files cut from them are read too:
`textvqa_{split}_questions_ocr.json`, whose questions carry their picture's OCR tokens (without boxes), and
`questions.json`, questions of ST-VQA with file paths. Pictures are referred to by path, never copied.
"""

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.inner_paths import inner_path
from vl_alignment.data.json_stream import stream_json_list
from vl_alignment.data.question_records import QuestionData, align_questions
from vl_alignment.data.text_question_records import TEXT_QUESTION_FEATURES, TextColumns, with_text
from vl_alignment.models.errors import DataError

__all__ = ["load_stvqa", "load_textvqa"]

logger = logging.getLogger(__name__)

# Our name of a split -> the one in the names of the files.
FILE_NAMES = {"train": "train", "validation": "val", "test": "test"}
TEXTVQA_QUESTIONS = ("TextVQA_0.5.1_{}.json", "textvqa_{}_questions_ocr.json")
TEXTVQA_OCR = "TextVQA_Rosetta_OCR_v0.2_{}.json"
# Where the published archives unpack to; validation shares the training pictures' folder.
TEXTVQA_PICTURES = {"train": "train_images", "validation": "train_images", "test": "test_images"}
STVQA_PICTURES = {"train": "train_imgs", "test": "test_imgs"}

Entry = Mapping[str, Any]


def load_textvqa(folder: str | Path, *, splits: Sequence[str] | None = None) -> QuestionData:
    """Read a folder in TextVQA's layout.

    Of a box in the OCR file the upper left corner, width and height count; its rotation is left out of account. Where
    there are no boxes, every token gets the whole picture, with a warning.

    Args:
        folder: Holds the JSON files, and the pictures unless only features are at hand: without a folder of them there
            is no column `image`.
        splits: The splits to read; default: those whose questions are there.

    Returns:
        Splits train, validation, test; the images are those that the questions name, in that order, with the columns of
        `TEXT_FEATURES`. The question types are "", the hops -1: neither is published.

    Raises:
        DataError: A file is missing, cut short or of another layout, a picture or its text is missing, or a training
            question has no answers.
    """
    folder = Path(folder)
    images, questions = datasets.DatasetDict(), datasets.DatasetDict()
    for split, path in _question_files(folder, "TextVQA", _textvqa_files(folder), splits).items():
        entries = _entries(path, "data")
        ids = [_text(entry, "image_id", path, number) for number, entry in enumerate(entries)]
        questions[split] = _questions(entries, ids, split, path)
        rows = _first_rows(ids)
        places = (folder / "images", folder / TEXTVQA_PICTURES[split])
        table = _images({image_id: f"{image_id}.jpg" for image_id in rows}, places, path)
        if "ocr_tokens" in entries[0]:
            text = _own_text(entries, rows, path)
        else:
            text = _published_text(list(rows), folder / TEXTVQA_OCR.format(FILE_NAMES[split]))
        _tell(text, split)
        images[split] = with_text(table, text)
        questions[split] = align_questions(questions[split], images[split], path=path)
    return QuestionData(images, questions)


def load_stvqa(folder: str | Path, *, splits: Sequence[str] | None = None) -> QuestionData:
    """Read a folder in ST-VQA's layout.

    Args:
        folder: Holds `{split}_task_3.json`, or `questions.json`, which is read as the test split, and the pictures
            unless only features are at hand.
        splits: The splits to read; default: those whose questions are there.

    Returns:
        Splits train, test, with the file paths as image ids, which say the collection that a picture is from. ST-VQA is
        published without OCR: the images have no columns of `TEXT_FEATURES` until their text has been read.

    Raises:
        DataError: A file is missing, cut short or of another layout, a picture is missing, or a training question has
            no answers.
    """
    folder = Path(folder)
    images, questions = datasets.DatasetDict(), datasets.DatasetDict()
    for split, path in _question_files(folder, "ST-VQA", _stvqa_files(folder), splits).items():
        entries = _entries(path, "questions" if path.name == "questions.json" else "data")
        ids = [_text(entry, "file_path", path, number) for number, entry in enumerate(entries)]
        questions[split] = _questions(entries, ids, split, path)
        files = {image_id: image_id for image_id in _first_rows(ids)}
        places = [folder / "images", folder / STVQA_PICTURES[split]]
        # The published paths begin at the folder itself, where its collections were unpacked.
        places += [folder] if any(_first_file([folder], file) for file in files.values()) else []
        images[split] = _images(files, places, path)
        questions[split] = align_questions(questions[split], images[split], path=path)
    return QuestionData(images, questions)


def _textvqa_files(folder: Path) -> dict[str, list[Path]]:
    return {split: [folder / name.format(short) for name in TEXTVQA_QUESTIONS] for split, short in FILE_NAMES.items()}


def _stvqa_files(folder: Path) -> dict[str, list[Path]]:
    return {
        "train": [folder / "train_task_3.json"],
        "test": [folder / "test_task_3.json", folder / "questions.json"],
    }


def _question_files(
    folder: Path, name: str, every: Mapping[str, Sequence[Path]], splits: Sequence[str] | None
) -> dict[str, Path]:
    """Return the file with the questions of each split; those of `splits` must exist, otherwise at least one."""
    for split in splits or ():
        if split not in every:
            raise DataError(f"there is no split {split!r}; {name} has {', '.join(every)}", path=folder)
    found = {split: next((path for path in paths if path.is_file()), None) for split, paths in every.items()}
    for split in splits or ():
        if found[split] is None:
            raise DataError("this file is missing", path=every[split][0])
    files = {split: path for split, path in found.items() if path is not None and (not splits or split in splits)}
    if not files:
        names = " or ".join(paths[0].name for paths in every.values())
        raise DataError(f"the folder has no {names}; give the folder with the files of {name}", path=folder)
    return files


def _entries(path: Path, name: str) -> list[Entry]:
    entries = list(stream_json_list(path, name))
    if not entries:
        raise DataError("the list of questions is empty", path=path)
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise DataError("the entry is no question", path=path, record=number)
    return entries


def _first_rows(image_ids: Sequence[str]) -> dict[str, int]:
    """Return the first question about each image, in the order of the questions."""
    rows: dict[str, int] = {}
    for row, image_id in enumerate(image_ids):
        rows.setdefault(image_id, row)
    return rows


def _questions(entries: Sequence[Entry], image_ids: Sequence[str], split: str, path: Path) -> datasets.Dataset:
    columns: dict[str, list[Any]] = {name: [] for name in TEXT_QUESTION_FEATURES}
    for number, (entry, image_id) in enumerate(zip(entries, image_ids, strict=True)):
        record = str(entry.get("question_id", f"{split}-{number}"))
        question = _text(entry, "question", path, record)
        if not re.search(r"\w", question):
            raise DataError(f"the question {question!r} has no words", path=path, record=record)
        columns["question_id"].append(record)
        columns["image_id"].append(image_id)
        columns["question"].append(question)
        columns["answers"].append(_answers(entry, split, path, record))
        columns["question_type"].append("")
        columns["hops"].append(-1)
    return datasets.Dataset.from_dict(columns, features=TEXT_QUESTION_FEATURES)


def _answers(entry: Entry, split: str, path: Path, record: str) -> list[str]:
    answers = entry.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError('"answers" is not a list of texts', path=path, record=record)
    if split == "train" and not answers:
        raise DataError(
            "the training question has no answers; fetch the file again, or take the question out",
            path=path,
            record=record,
        )
    return answers


def _text(entry: Entry, name: str, path: Path, record: object) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f'the question has no "{name}"', path=path, record=record)
    return value


def _images(files: Mapping[str, str], places: Sequence[Path], path: Path) -> datasets.Dataset:
    """Return the images, with their pictures where one of the places exists: then none may be missing."""
    places = [place for place in places if place.is_dir()]
    features: dict[str, Any] = {"image_id": datasets.Value("string")}
    columns: dict[str, list[str]] = {"image_id": list(files)}
    if places:
        try:
            found = {image_id: _first_file(places, file) for image_id, file in files.items()}
        except (OSError, ValueError) as error:  # a name too long, or out of the folder
            raise DataError(f"a picture cannot be found ({error})", path=path) from error
        for image_id, picture in found.items():
            if picture is None:
                raise DataError(
                    f"the picture {files[image_id]} is not in {' or '.join(map(str, places))}; fetch it, or take the "
                    "questions about it out",
                    path=path,
                    record=image_id,
                )
        columns["image"] = [str(picture) for picture in found.values()]
        features["image"] = datasets.Image()
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _first_file(places: Sequence[Path], file: str) -> Path | None:
    found = (Path(inner_path(place, file)) for place in places)
    return next((path for path in found if path.is_file()), None)


def _own_text(entries: Sequence[Entry], rows: Mapping[str, int], path: Path) -> TextColumns:
    """Return the text that the questions carry, the same with every question about a picture."""
    text = TextColumns()
    for image_id, row in rows.items():
        _add_text(text, entries[row], path, image_id)
    return text


def _published_text(image_ids: Sequence[str], path: Path) -> TextColumns:
    """Return the text of the images from an OCR file, in their order; the file may have more images."""
    if not path.is_file():
        raise DataError("the file with the OCR tokens is missing; fetch it from textvqa.org", path=path)
    wanted = set(image_ids)
    entries: dict[str, Entry] = {}
    for number, entry in enumerate(stream_json_list(path, "data")):
        image_id = entry.get("image_id") if isinstance(entry, Mapping) else None
        if not isinstance(image_id, str):
            raise DataError('this entry has no "image_id"', path=path, record=number)
        if image_id in wanted:
            entries[image_id] = entry
    text = TextColumns()
    for image_id in image_ids:
        if image_id not in entries:
            raise DataError(
                "there are questions about this image, but no entry with its text", path=path, record=image_id
            )
        _add_text(text, entries[image_id], path, image_id)
    return text


def _add_text(text: TextColumns, entry: Entry, path: Path, image_id: str) -> None:
    tokens, details = entry.get("ocr_tokens"), entry.get("ocr_info")
    if not isinstance(tokens, list):
        raise DataError('there is no list "ocr_tokens"', path=path, record=image_id)
    boxes = None
    if details is not None:
        try:
            boxes = [_box(detail["bounding_box"]) for detail in details]
        except (KeyError, TypeError) as error:
            raise DataError(
                f'"ocr_info" is not in TextVQA\'s layout ({error!r})', path=path, record=image_id
            ) from error
    text.add(tokens, boxes, path=path, record=image_id)


def _box(published: Mapping[str, float]) -> list[float]:
    left, top = published["top_left_x"], published["top_left_y"]
    return [left, top, left + published["width"], top + published["height"]]


def _tell(text: TextColumns, split: str) -> None:
    if text.without_boxes:
        warnings.warn(
            f"The OCR tokens of {text.without_boxes} {split} pictures have no boxes; each counts as filling its "
            "picture.",
            stacklevel=3,
        )
    if text.empty or text.clipped:
        logger.info(
            "%s: %d empty OCR tokens left out, %d boxes clipped to their pictures", split, text.empty, text.clipped
        )

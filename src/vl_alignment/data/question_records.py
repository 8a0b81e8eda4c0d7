"""Questions about images as two tables, and the checks that every reader of such data makes.

One table with the picture in each row would store a picture once for every question about it where the pictures are
bytes, as those of blocks are.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from vl_alignment.data.content import content_hash
from vl_alignment.data.named_data import select_split
from vl_alignment.models.errors import DataError

__all__ = ["QUESTION_FEATURES", "QuestionData", "align_questions"]

# What a question's record takes from the image's; the text's columns are those of TEXT_FEATURES.
_JOINED_COLUMNS = ("image", "ocr_tokens", "ocr_boxes", "ocr_confidences")

QUESTION_FEATURES = datasets.Features(
    {
        "question_id": datasets.Value("string"),
        "image_id": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "question_type": datasets.Value("string"),
        "program": datasets.Value("string"),
        "program_depth": datasets.Value("int32"),
        "question_family_index": datasets.Value("int32"),
    }
)
"""Columns of a question: `answer`, `question_type` and `program` (JSON) are "" where they are not published, the two
numbers -1."""


@dataclass(frozen=True)
class QuestionData:
    """Images and the questions about them.

    Attributes:
        images: Splits with the columns `image_id` and `image`; without `image` where only features exist.
        questions: The same splits with the columns of `QUESTION_FEATURES`, sorted by image in the order of `images`.
    """

    images: datasets.DatasetDict
    questions: datasets.DatasetDict

    def __post_init__(self) -> None:
        if list(self.images) != list(self.questions):
            raise DataError(
                f"the images have the splits {', '.join(self.images)}, the questions {', '.join(self.questions)}"
            )

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits over split names, image ids, questions and answers."""
        return content_hash(self.questions)

    def with_images(self, images: datasets.DatasetDict) -> "QuestionData":
        """Return the data with only these images, a part of those of every split, and the questions about them."""
        questions = datasets.DatasetDict()
        for split, table in self.questions.items():
            questions[split] = table
            if len(images[split]) < len(self.images[split]):
                kept = set(images[split]["image_id"][:])
                rows = [row for row, image_id in enumerate(table["image_id"][:]) if image_id in kept]
                questions[split] = table.select(rows)
        return QuestionData(images, questions)

    def records(self, split: str) -> datasets.Dataset:
        """Return one record a question, with the picture added as `image` when a record is read, and its text.

        Where there are neither pictures nor text these are the questions alone.
        """
        questions, images = select_split(self.questions, split), select_split(self.images, split)
        joined = [name for name in _JOINED_COLUMNS if name in images.column_names]
        if not joined:
            return questions
        return questions.with_transform(_WithImage(images.select_columns(["image_id", *joined])))


class _WithImage:
    """Adds what the images' table holds to a batch of questions, decoding each picture once."""

    def __init__(self, images: datasets.Dataset) -> None:
        self.images = images
        self.rows = {image_id: row for row, image_id in enumerate(images["image_id"][:])}

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if "image_id" not in batch:  # other columns were selected
            return batch
        pictures = {image_id: self.images[self.rows[image_id]] for image_id in dict.fromkeys(batch["image_id"])}
        names = [name for name in self.images.column_names if name != "image_id"]
        return {**batch, **{name: [pictures[image_id][name] for image_id in batch["image_id"]] for name in names}}


def align_questions(
    questions: datasets.Dataset, images: datasets.Dataset, *, path: str | Path | None = None
) -> datasets.Dataset:
    """Return the questions sorted by image in the order of `images`, those about one image in their own order.

    Args:
        questions: With the columns `question_id` and `image_id`.
        images: With the column `image_id`.
        path: The file with the questions, for messages.

    Raises:
        DataError: An image id or a question id occurs twice, or a question is about an image that is not there.
    """
    question_ids = questions["question_id"][:]
    if len(set(question_ids)) < len(question_ids):
        twice = next(name for name, number in Counter(question_ids).items() if number > 1)
        raise DataError("this question id occurs twice; ids must be unique", path=path, record=twice)
    rows: dict[str, int] = {}
    for row, image_id in enumerate(images["image_id"][:]):
        if rows.setdefault(image_id, row) != row:
            raise DataError("this image id occurs twice; ids must be unique", path=path, record=image_id)
    order = np.empty(len(questions), dtype=np.int64)  # the row of each question's image
    for number, image_id in enumerate(questions["image_id"][:]):
        found = rows.get(image_id)
        if found is None:
            raise DataError(
                f"the question is about image {image_id}, which is not there; fetch the missing images, or take the "
                "questions about them out",
                path=path,
                record=question_ids[number],
            )
        order[number] = found
    if (np.diff(order) >= 0).all():
        return questions
    return questions.select(np.argsort(order, kind="stable"))

"""What a batch of questions is made of: questions tokenised once, their answers as class numbers, their groups."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from vl_alignment.models.errors import DataError
from vl_alignment.training.token_rows import TokenRows

__all__ = ["NO_ANSWER", "QuestionGroups", "QuestionRows", "QuestionTable", "answer_vocabulary"]

logger = logging.getLogger(__name__)

NO_ANSWER = -100
"""The label of a question whose answer is no class of the model; cross-entropy leaves it out."""


def answer_vocabulary(answers: Iterable[str]) -> dict[int, str]:
    """Number the answers of the training questions, the most frequent first, then alphabetically.

    Raises:
        DataError: There are no answers.
    """
    counts = Counter(answer for answer in answers if answer)
    if not counts:
        raise DataError("The training questions have no answers; give a split with answers.")
    return dict(enumerate(sorted(counts, key=lambda answer: (-counts[answer], answer))))


class QuestionRows:
    """All questions of one split, whatever their answers, in the order of its images.

    Args:
        questions: With the columns `question_id`, `image_id`, `question` and `question_type`; see `QuestionData`.
        images: With a column `image_id`.
        tokenizer: As of transformers; called once for all questions.
        name: Of the split, for messages.
        maximum_length: Tokens of a question at most; None cuts none.

    Attributes:
        image: int64 [Q], the row of each question's image.
        first: int64 [I + 1], where each image's questions begin.
        types: list of str [Q].
        unknown_words: Count over the split.

    Raises:
        DataError: A question has no words, is about no image of the split, or the questions are not sorted by image.
    """

    def __init__(
        self,
        questions: datasets.Dataset,
        images: datasets.Dataset,
        tokenizer: Any,
        name: str,
        maximum_length: int | None = None,
    ) -> None:
        self.question_ids: list[str] = list(questions["question_id"])
        self.image_ids: list[str] = list(images["image_id"])
        self.texts: list[str] = list(questions["question"])
        self.types: list[str] = list(questions["question_type"])
        self.image = self._image_rows(list(questions["image_id"]), name)
        self.first = np.searchsorted(self.image, np.arange(len(self.image_ids) + 1))
        self.tokens = TokenRows(self.texts, tokenizer, maximum_length)
        for row in np.flatnonzero(self.tokens.words == 0):
            raise DataError(
                f"The question has no words ({self.texts[row]!r}, {name}); remove or correct it.",
                record=self.question_ids[row],
            )
        self.unknown_words = int(self.tokens.unknown.sum())
        if self.unknown_words:
            share = 100.0 * self.unknown_words / max(1, int(self.tokens.words.sum()))
            logger.warning("%s: %d words (%.2f %%) are unknown and read as <unk>", name, self.unknown_words, share)

    def __len__(self) -> int:
        return len(self.question_ids)

    def _image_rows(self, image_ids: list[str], name: str) -> np.ndarray:
        rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        found = np.array([rows.get(image_id, -1) for image_id in image_ids], dtype=np.int64)
        for question in np.flatnonzero(found < 0):
            raise DataError(
                f"The question is about image {image_ids[question]!r}, which the {name} split lacks; leave it out.",
                record=self.question_ids[question],
            )
        for question in np.flatnonzero(np.diff(found) < 0):
            raise DataError(
                f"The questions of {name} are not sorted by image; sort them.", record=self.question_ids[question + 1]
            )
        return found

    def groups(self, size: int, draw: np.random.Generator, allowed: np.ndarray) -> "QuestionGroups":
        """Cut each image's allowed questions, in random order, into groups; those left over are not in this epoch.

        Args:
            size: Questions a group.
            draw: Decides the order.
            allowed: bool [Q].
        """
        rows = np.flatnonzero(allowed)
        if size == 1:
            return QuestionGroups(rows[:, None], self.image[rows])
        # Random order within each image: sorted by image, then by chance.
        rows = rows[np.lexsort((draw.random(len(rows)), self.image[rows]))]
        images = self.image[rows]
        counts = np.bincount(images, minlength=len(self.image_ids))
        place = np.arange(len(rows)) - np.concatenate([[0], np.cumsum(counts)])[images]
        kept = place < counts[images] // size * size
        grouped = rows[kept].reshape(-1, size)
        return QuestionGroups(grouped, self.image[grouped[:, 0]])

    def evaluation_batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pictures that are asked equally many questions, and these questions, about `size` of them."""
        counts = np.diff(self.first)
        for count in np.unique(counts[counts > 0]):
            images = np.flatnonzero(counts == count)
            pictures = max(1, size // int(count))
            for start in range(0, len(images), pictures):
                chunk = images[start : start + pictures]
                yield chunk, (self.first[chunk][:, None] + np.arange(count)[None, :]).ravel()


class QuestionTable(QuestionRows):
    """All questions of one split whose answer is one of the model's classes.

    Args:
        questions: With the columns of question answering; see `QuestionData`.
        images: With a column `image_id`.
        tokenizer: As of transformers; called once for all questions.
        label2id: The classes of the model.
        name: Of the split, for messages.

    Attributes:
        labels: int64 [Q], class numbers; `NO_ANSWER` where the answer is no class.
        answers: list of str [Q].
        depths: int64 [Q], program depth; -1 where it is not known.
        unknown_answers: Count over the split.

    Raises:
        DataError: As of `QuestionRows`.
    """

    def __init__(
        self,
        questions: datasets.Dataset,
        images: datasets.Dataset,
        tokenizer: Any,
        label2id: Mapping[str, int],
        name: str,
    ) -> None:
        super().__init__(questions, images, tokenizer, name)
        self.answers: list[str] = list(questions["answer"])
        self.depths = np.asarray(list(questions["program_depth"]), dtype=np.int64)
        self.labels = np.array([label2id.get(answer, NO_ANSWER) for answer in self.answers], dtype=np.int64)
        self.unknown_answers = int((self.labels == NO_ANSWER).sum())
        if self.unknown_answers and any(self.answers):
            logger.warning(
                "%s: the answers of %d questions are not in the vocabulary: skipped in training, wrong in evaluation",
                name,
                self.unknown_answers,
            )

    def shortest(self, share: float) -> np.ndarray:
        """Which questions are among the share with the shortest programs of those about their picture: bool [Q]."""
        by_depth = np.lexsort((self.depths, self.image))
        places = np.empty(len(self), dtype=np.int64)
        places[by_depth] = np.arange(len(self)) - self.first[:-1][self.image[by_depth]]
        return places < np.ceil(share * np.diff(self.first))[self.image]


@dataclass(frozen=True)
class QuestionGroups:
    """The examples of one epoch: questions [G, q] that are about one image each [G]."""

    questions: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        return int(self.images[index]), self.questions[index]

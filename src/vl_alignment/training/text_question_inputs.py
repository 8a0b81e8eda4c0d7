"""What a batch of questions that are answered by reading is made of: questions, answers by people, text in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from vl_alignment.models.errors import DataError
from vl_alignment.models.phoc import PHOC_SIZE, phoc
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.question_inputs import QuestionGroups, QuestionRows
from vl_alignment.training.token_rows import TokenRows

__all__ = ["DrawnGroups", "SpelledRows", "TextInputs", "TextQuestionTable"]

PICTURES_AT_ONCE = 512


class SpelledRows(TokenRows):
    """Token ids of many questions, and the spelling of the words that the tokenizer does not know.

    Args:
        texts: The questions.
        processor: With `question_spellings`.
    """

    def __init__(self, texts: Sequence[str], processor: M4CProcessor) -> None:
        super().__init__(texts, processor.tokenizer, processor.max_question_tokens)
        rows, places, words = processor.unknown_words(texts)
        different = {word: number for number, word in enumerate(dict.fromkeys(words), start=1)}
        # The number of the word at each place, 0 where the tokenizer knows it; spellings are kept once a word.
        self._words = np.zeros((len(self), int(self.lengths.max())), dtype=np.int32)
        self._words[rows, places] = [different[word] for word in words]
        self._spellings = torch.cat([torch.zeros(1, PHOC_SIZE), phoc(list(different))]).to(torch.uint8)

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` [len(rows), longest] and `question_phoc` [len(rows), longest, 604]."""
        batch = super().batch(rows)
        words = self._words[rows, : batch["input_ids"].shape[1]]
        return {**batch, "question_phoc": self._spellings[torch.from_numpy(words).long()].float()}


class TextQuestionTable(QuestionRows):
    """All questions of one split that people answered in words.

    Args:
        questions: With the columns of `TEXT_QUESTION_FEATURES`.
        images: With a column `image_id`.
        processor: Its tokenizer reads the questions, and its limit cuts them.
        name: Of the split, for messages.

    Attributes:
        answers: list [Q] of the answers that people gave; empty where they are not public.
        hops: int64 [Q], relations to follow; -1 where that is not known.

    Raises:
        DataError: As of `QuestionRows`.
    """

    def __init__(
        self, questions: datasets.Dataset, images: datasets.Dataset, processor: M4CProcessor, name: str
    ) -> None:
        super().__init__(questions, images, processor.tokenizer, name, processor.max_question_tokens)
        if processor.question_spellings:
            self.tokens = SpelledRows(self.texts, processor)
        self.answers: list[list[str]] = list(questions["answers"])
        self.hops = np.asarray(list(questions["hops"]), dtype=np.int64)


class TextInputs:
    """The text in all pictures of one split, as the model receives it.

    Vectors and letters are kept once a word, not once a token: the words of a data set are far fewer than its tokens.

    Args:
        images: With the columns of `TEXT_FEATURES`.
        processor: Chooses the tokens that fill the slots, and makes their vectors, letters and boxes.
        name: Of the split, for messages.
        hidden: Leave all text out: for the control that only reads the questions.

    Attributes:
        words: list [I] of the words in the slots of each picture.

    Raises:
        DataError: The pictures' text has not been read, or cannot be used.
    """

    def __init__(self, images: datasets.Dataset, processor: M4CProcessor, name: str, *, hidden: bool = False) -> None:
        if "ocr_tokens" not in images.column_names:
            raise DataError(f"The text in the {name} pictures has not been read; read it first (see read_texts).")
        self.words: list[list[str]] = []
        numbers: dict[str, int] = {}
        tokens: list[int] = []
        boxes: list[Tensor] = []
        # Of every different word one row each; a row of zeros comes first, for slots without a token.
        rows: dict[str, list[Tensor]] = {}
        for start in range(0, len(images), PICTURES_AT_ONCE):
            part = images[start : start + PICTURES_AT_ONCE]
            given = [part[column] for column in ("ocr_tokens", "ocr_boxes", "ocr_confidences")]
            if hidden:
                given = [[[] for _ in column] for column in given]
            made, words = processor.text_inputs(*given)
            self.words += words
            there = made["ocr_mask"]
            boxes.append(made["ocr_boxes"][there])
            found = [word for own in words for word in own]
            first = {word: place for place, word in reversed(list(enumerate(found))) if word not in numbers}
            for name_of, dtype in (("ocr_word_vectors", torch.float32), ("ocr_phoc", torch.uint8)):
                if name_of in made:
                    values = made[name_of][there]
                    kept = rows.setdefault(name_of, [torch.zeros(1, made[name_of].shape[-1], dtype=dtype)])
                    kept.append(values[list(first.values())].to(dtype))
            for word in first:
                numbers[word] = len(numbers) + 1
            tokens += [numbers[word] for word in found]
        self._rows = {name_of: torch.cat(parts) for name_of, parts in rows.items()}
        self._tokens, self._boxes = np.array(tokens, dtype=np.int64), torch.cat(boxes)
        self._lengths = np.array([len(own) for own in self.words], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return the `ocr_` inputs of these pictures, with as many slots as the most tokens of one of them."""
        lengths = self._lengths[rows][:, None]
        places = np.arange(max(1, int(lengths.max())))[None, :]
        mask = places < lengths  # [len(rows), slots]
        index = np.where(mask, self._starts[rows][:, None] + places, 0)
        there = torch.from_numpy(mask)
        boxes = torch.zeros(*mask.shape, 4)
        boxes[there] = self._boxes[index[mask]]
        numbers = np.zeros(mask.shape, dtype=np.int64)
        numbers[mask] = self._tokens[index[mask]]
        vectors = {name: values[torch.from_numpy(numbers)].float() for name, values in self._rows.items()}
        return {"ocr_mask": there, "ocr_boxes": boxes, **vectors}


@dataclass(frozen=True)
class DrawnGroups:
    """The groups of one epoch, with what was drawn in it for every training question [Q]."""

    groups: QuestionGroups
    drawn: np.ndarray

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        image, questions = self.groups[index]
        return image, questions, self.drawn[questions]

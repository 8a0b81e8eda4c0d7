"""What M4C learns to write: for every question a sequence of vocabulary words and OCR tokens that spells an answer.

A word of an answer may be in the vocabulary and at several places in the picture. All combinations spell the answer;
one is drawn each time the question comes up, and fed to the decoder as its previous words.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS, word_tokenize
from vl_alignment.metrics.text_question_answering import answer_scores
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["MOST_SEQUENCES", "AnswerTargets", "answer_source", "match_answer"]

MOST_SEQUENCES = 20
"""Sequences of one answer that are kept at most, as published."""

PAD, BEGIN, END = (SPECIAL_WORDS.index(word) for word in ("<pad>", "<s>", "</s>"))

Random = np.random.Generator | np.random.RandomState


def match_answer(
    answer: str, word_ids: Mapping[str, int], occurrences: Mapping[str, Sequence[int]]
) -> list[tuple[int, ...]]:
    """Return the sequences of indices that spell an answer, at most `MOST_SEQUENCES`.

    Args:
        answer: Its words are those that `str.split` gives.
        word_ids: Index of each word of the vocabulary.
        occurrences: Indices of the OCR tokens that read as a word, in the joint space (behind the vocabulary).

    Returns:
        The combinations in the published order: the vocabulary before the OCR tokens, the last word changing first.
        Empty where the answer has no words, or one that is in neither.

    Source: M4CAnswerProcessor.match_answer_to_vocab_ocr_seq.
    """
    places: list[list[int]] = []
    for word in answer.split():
        known = [word_ids[word]] if word in word_ids else []
        places.append([*known, *occurrences.get(word, ())])
        if not places[-1]:
            return []
    sequences: list[tuple[int, ...]] = [()] if places else []
    for indices in places:
        # Cut after every word, as published: of a long answer all sequences may begin with the same tokens.
        sequences = [(*sequence, index) for sequence, index in product(sequences, indices)][:MOST_SEQUENCES]
    return sequences


def answer_source(answer: str, vocabulary: Collection[str], ocr_tokens: Iterable[str]) -> str:
    """Say where the words of an answer can be taken from.

    Args:
        answer: Its words are those that `word_tokenize` and `str.split` give.
        vocabulary: The model's words.
        ocr_tokens: Those of the picture.

    Returns:
        "vocabulary" or "ocr" where one of them has all words, "either" where both have, "mixed" where it takes both,
        and "neither" where a word is in none, so that no model of this vocabulary can give the answer.
    """
    words, tokens = word_tokenize(answer).split(), {word_tokenize(token) for token in ocr_tokens}
    known, read = ([word in words_of for word in words] for words_of in (vocabulary, tokens))
    if not words or not all(one or other for one, other in zip(known, read, strict=True)):
        return "neither"
    if all(known):
        return "either" if all(read) else "vocabulary"
    return "ocr" if all(read) else "mixed"


@dataclass(frozen=True, slots=True)
class _Question:
    """The targets of one question, whichever sequence is drawn.

    Args:
        sequences: Of all answers by people in order; equal answers repeat theirs, which makes them likelier.
        first: Index and score of everything that the first step may give.
        companions: For an index the indices that are as right at a later step.
        ocr_tokens: Number of OCR tokens.
    """

    sequences: tuple[tuple[int, ...], ...]
    first: tuple[tuple[int, float], ...]
    companions: dict[int, tuple[int, ...]]
    ocr_tokens: int


class AnswerTargets:
    """The targets of all questions of a split, matched once; batches are then drawn.

    Indices are those of the model: 0 to V - 1 the vocabulary, V + r the picture's OCR token r.

    The targets are the paper's released ones (M4C's, with the same word marked in vocabulary and picture):

    - The first step is multi-hot: everything that an answer's sequences begin with, at that answer's soft accuracy (the
      largest one where several answers begin alike).
    - A later step holds the drawn sequence's next index, or the end. With a vocabulary word go all OCR tokens that read
      so; with an OCR token goes the vocabulary's word, but, as released, not the other tokens that read the same.
    - `label_mask` covers the answer's words and the end; what is longer than the steps is cut, without an end.
    - A question none of whose answers can be spelled has zeros everywhere, and so no part in the loss.

    Unlike there, the four special words are matched by nothing, so that an OCR token "<pad>" is a token like others.

    Args:
        answers: Answers by people, one list a question; an empty one where they are not public.
        ocr_tokens: OCR tokens of each question's picture, those that fill the model's slots, in its order.
        vocabulary: The V words, the special ones first.
        steps: T, decoding steps (M4C: 12).

    Attributes:
        without_answers: Number of questions without answers.
        unspellable: Number of questions with answers none of which can be spelled.
        truncated: Number of questions with a sequence that does not fit, end included, in the steps.
        best_accuracy: Soft accuracy in percent of always giving the best answer that can be spelled, over the questions
            with answers: the bound that vocabulary and OCR set to a model. The answers are compared as
            `word_tokenize` writes them.

    Raises:
        ConfigurationError: `steps` is below 1, or the vocabulary does not begin with the special words.
        DataError: The lengths differ, or no question has answers.

    Source: M4CAnswerProcessor of the paper's code (sam/datasets/processors.py).
    """

    def __init__(
        self,
        answers: Sequence[Sequence[str]],
        ocr_tokens: Sequence[Sequence[str]],
        vocabulary: Sequence[str],
        steps: int = 12,
    ) -> None:
        if steps < 1:
            raise ConfigurationError(f"steps={steps}: an answer takes at least one step")
        if tuple(vocabulary[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
            raise ConfigurationError(f"the vocabulary must begin with {' '.join(SPECIAL_WORDS)}")
        if len(answers) != len(ocr_tokens):
            raise DataError(f"there are answers to {len(answers)} questions and OCR tokens for {len(ocr_tokens)}")
        self.steps, self.words = steps, len(vocabulary)
        self._word_ids = {word: index for index, word in enumerate(vocabulary) if index >= len(SPECIAL_WORDS)}
        self._vocabulary = list(vocabulary)
        self._questions = [self._match(given, tokens) for given, tokens in zip(answers, ocr_tokens, strict=True)]
        public = [row for row, given in enumerate(answers) if given]
        if not public:
            raise DataError("no question has answers; targets need a split with answers")
        self.without_answers = len(answers) - len(public)
        self.unspellable = sum(not self._questions[row].sequences for row in public)
        self.truncated = sum(
            any(len(sequence) >= steps for sequence in question.sequences) for question in self._questions
        )
        best = [max((score for _, score in self._questions[row].first), default=0.0) for row in public]
        self.best_accuracy = 100.0 * sum(best) / len(best)

    def __len__(self) -> int:
        return len(self._questions)

    def sequences(self, row: int) -> tuple[tuple[int, ...], ...]:
        """Return all sequences of a question, from which one is drawn; see `match_answer`."""
        return self._questions[row].sequences

    def draw(self, rows: Sequence[int] | np.ndarray, random: Random) -> np.ndarray:
        """Draw one sequence for each of B questions; for one without any nothing is drawn, as in M4C.

        Args:
            rows: Their rows.
            random: Where the draws come from. NumPy's legacy `RandomState` gives what M4C draws after `np.random.seed`.

        Returns:
            int64 [B], the place of each question's sequence in its `sequences`; 0 where it has none.
        """
        counts = np.array([len(self._questions[row].sequences) for row in rows], dtype=np.int64)
        integers = random.integers if isinstance(random, np.random.Generator) else random.randint
        drawn = np.zeros(len(counts), dtype=np.int64)
        drawn[counts > 0] = integers(0, counts[counts > 0])
        return drawn

    def batch(
        self, rows: Sequence[int] | np.ndarray, ocr_slots: int, drawn: Sequence[int] | np.ndarray
    ) -> dict[str, Tensor]:
        """Make the targets of B questions.

        Args:
            rows: Their rows.
            ocr_slots: R, OCR slots of the batch's pictures.
            drawn: The place of each question's sequence, of `draw`.

        Returns:
            `previous_ids` int64 [B, T], `labels` float32 [B, T, V + R] and `label_mask` float32 [B, T].

        Raises:
            ConfigurationError: A picture has more OCR tokens than slots.
        """
        previous_ids = np.full((len(rows), self.steps), PAD, dtype=np.int64)
        label_mask = np.zeros((len(rows), self.steps), dtype=np.float32)
        entries: list[tuple[int, int, int, float]] = []  # place in the batch, step, index, label
        questions = [self._questions[row] for row in rows]
        for place, (question, chosen) in enumerate(zip(questions, drawn, strict=True)):
            if question.ocr_tokens > ocr_slots:
                raise ConfigurationError(
                    f"question {rows[place]} has {question.ocr_tokens} OCR tokens for {ocr_slots} slots; keep no "
                    "more than the slots before the targets are made"
                )
            if not question.sequences:
                continue
            sequence = question.sequences[chosen]
            length = min(len(sequence) + 1, self.steps)
            label_mask[place, :length] = 1.0
            previous_ids[place, 0] = BEGIN
            previous_ids[place, 1:length] = sequence[: length - 1]
            entries.extend((place, 0, index, score) for index, score in question.first)
            for step, index in enumerate((*sequence, END)[1:length], start=1):
                entries.extend((place, step, other, 1.0) for other in question.companions.get(index, (index,)))
        labels = np.zeros((len(rows), self.steps, self.words + ocr_slots), dtype=np.float32)
        if entries:
            places, steps, indices, values = zip(*entries, strict=True)
            labels[places, steps, indices] = values
        return {
            "previous_ids": torch.from_numpy(previous_ids),
            "labels": torch.from_numpy(labels),
            "label_mask": torch.from_numpy(label_mask),
        }

    def _match(self, answers: Sequence[str], ocr_tokens: Sequence[str]) -> _Question:
        tokens = [word_tokenize(token) for token in ocr_tokens]
        occurrences: dict[str, list[int]] = defaultdict(list)
        for number, token in enumerate(tokens):
            occurrences[token].append(self.words + number)
        texts = [word_tokenize(answer) for answer in answers]
        matches = {text: match_answer(text, self._word_ids, occurrences) for text in dict.fromkeys(texts)}
        first: dict[int, float] = {}
        for text, score in answer_scores(texts).items():
            for sequence in matches[text]:
                first[sequence[0]] = max(first.get(sequence[0], 0.0), score)
        used = {index for found in matches.values() for sequence in found for index in sequence}
        companions = {index: self._companions(index, tokens, occurrences) for index in used}
        return _Question(
            sequences=tuple(sequence for text in texts for sequence in matches[text]),
            first=tuple(first.items()),
            companions={index: others for index, others in companions.items() if len(others) > 1},
            ocr_tokens=len(tokens),
        )

    def _companions(
        self, index: int, tokens: Sequence[str], occurrences: Mapping[str, Sequence[int]]
    ) -> tuple[int, ...]:
        if index < self.words:
            return (index, *occurrences.get(self._vocabulary[index], ()))
        known = self._word_ids.get(tokens[index - self.words])
        return (index,) if known is None else (index, known)

"""Accuracy of answers that are read: TextVQA's soft accuracy and ST-VQA's ANLS, overall and by question family.

Ten people answered each question, and they do not agree; an answer is as right as the share of them that gave it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..models.errors import DataError
from .answer_normalization import normalize_answer

__all__ = [
    "ANSWERS_PER_QUESTION",
    "answer_ceiling",
    "answer_scores",
    "levenshtein_similarity",
    "text_answer_metrics",
    "text_answer_scores",
]

ANSWERS_PER_QUESTION = 10
"""People that answered each question of TextVQA."""

UNKNOWN_FAMILY = ""
SIMILARITY_THRESHOLD = 0.5

Answers = Sequence[Sequence[str]]


def answer_scores(answers: Sequence[str]) -> dict[str, float]:
    """Return the soft accuracy of each distinct answer to a question; the texts are compared as they are.

    With ten answers or more each person is left out once, and an answer is right to min(1, n / 3) where n of the others
    gave it; the mean over the people is its score. Given once, twice, three times among ten it scores 0.3, 0.6 and 0.9,
    more often 1.

    The formula is only published for ten: M4C's evaluator refuses other numbers, and one answer alone would score 0.
    With fewer than ten, as in ST-VQA, the rule that M4C publishes for such data (STVQAAccuracyEvaluator) holds: every
    answer that somebody gave scores 1.

    Args:
        answers: Of one question; none gives no scores.

    Source: TextVQAAccuracyEvaluator of M4C.
    """
    people = len(answers)
    if people < ANSWERS_PER_QUESTION:
        return dict.fromkeys(answers, 1.0)
    scores = {}
    for answer, count in Counter(answers).items():
        # Of those who gave it, each sees count - 1 others that agree; everybody else sees count.
        agreement = count * min(1.0, (count - 1) / 3) + (people - count) * min(1.0, count / 3)
        scores[answer] = agreement / people
    return scores


def levenshtein_similarity(prediction: str, answer: str) -> float:
    """Return 1 - edit distance / length of the longer text, 0 where that is below 0.5 (the "NLS" of ANLS).

    Both texts are lower-cased and stripped first, nothing else. Two empty texts divide by zero in the published code;
    they are equal, so here they score 1.

    Source: STVQAANLSEvaluator of M4C.
    """
    first, second = prediction.lower().strip(), answer.lower().strip()
    if first == second:
        return 1.0
    longer = max(len(first), len(second))
    # The distance is at least the difference of the lengths: most wrong answers need no more than this.
    if 1 - abs(len(first) - len(second)) / longer < SIMILARITY_THRESHOLD:
        return 0.0
    similarity = 1 - _edit_distance(first, second) / longer
    return similarity if similarity >= SIMILARITY_THRESHOLD else 0.0


def text_answer_scores(predictions: Sequence[str], answers: Answers) -> dict[str, np.ndarray]:
    """Measure each of N answers.

    Args:
        predictions: N answers.
        answers: The N questions' answers by people, one list a question.

    Returns:
        `accuracy` [N] and `anls` [N], float64 in [0, 1]: the soft accuracy of the normalised prediction among the
        normalised answers, and the largest `levenshtein_similarity` to any answer.

    Raises:
        DataError: There are no questions, the lengths disagree, or a question has no answers.
    """
    if len(answers) == 0:
        raise DataError("there are no questions to measure")
    if len(predictions) != len(answers):
        raise DataError(f"there are {len(predictions)} predictions for {len(answers)} questions with answers")
    accuracy, anls = np.zeros(len(answers)), np.zeros(len(answers))
    for question, (prediction, given) in enumerate(zip(predictions, answers, strict=True)):
        scores = _normalized_scores(given, question)
        accuracy[question] = scores.get(normalize_answer(prediction), 0.0)
        anls[question] = max(levenshtein_similarity(prediction, answer) for answer in dict.fromkeys(given))
    return {"accuracy": accuracy, "anls": anls}


def text_answer_metrics(
    predictions: Sequence[str], answers: Answers, question_types: Sequence[str] | np.ndarray | None = None
) -> dict[str, float]:
    """Measure the answers to N questions, in percent.

    Args:
        predictions: As in `text_answer_scores`.
        answers: As in `text_answer_scores`.
        question_types: N names of question families, "" where the family is unknown; None measures no families.

    Returns:
        `accuracy`, `accuracy_{family}` for each family present in alphabetical order, and `anls`.

    Raises:
        DataError: As in `text_answer_scores`.
    """
    scores = text_answer_scores(predictions, answers)
    families = [UNKNOWN_FAMILY] * len(answers) if question_types is None else list(question_types)
    if len(families) != len(answers):
        raise DataError(f"there are {len(families)} question types for {len(answers)} questions with answers")
    by_family: dict[Any, list[float]] = defaultdict(list)
    for family, score in zip(families, scores["accuracy"], strict=True):
        by_family[family].append(score)
    metrics = {"accuracy": _percent(scores["accuracy"])}
    for family in sorted(set(by_family) - {UNKNOWN_FAMILY}):
        metrics[f"accuracy_{family}"] = _percent(by_family[family])
    return {**metrics, "anls": _percent(scores["anls"])}


def answer_ceiling(answers: Answers) -> float:
    """Return the accuracy in percent of a perfect reader, who gives each question's best answer.

    It is below 100 where people disagree so much that no answer has four of ten behind it: the noise of the answers,
    which no model can beat.

    Args:
        answers: N questions' answers by people.

    Raises:
        DataError: There are no questions, or one has no answers.
    """
    if len(answers) == 0:
        raise DataError("there are no questions to measure")
    return _percent([max(_normalized_scores(given, question).values()) for question, given in enumerate(answers)])


def _normalized_scores(given: Sequence[str], question: int) -> dict[str, float]:
    if given is None or len(given) == 0:
        raise DataError(
            "the question has no answers, as in TextVQA's test split; measure on validation", record=question
        )
    return answer_scores([normalize_answer(answer) for answer in given])


def _edit_distance(first: str, second: str) -> int:
    """Return the least number of characters to insert, delete or replace (Levenshtein's distance)."""
    distances = list(range(len(second) + 1))  # from the part of `first` so far to every beginning of `second`
    for row, left in enumerate(first, start=1):
        diagonal, distances[0] = distances[0], row
        for column, right in enumerate(second, start=1):
            replaced = diagonal + (left != right)
            diagonal = distances[column]
            distances[column] = min(replaced, diagonal + 1, distances[column - 1] + 1)
    return distances[-1]


def _percent(scores: Sequence[float] | np.ndarray) -> float:
    return 100.0 * float(np.mean(scores))

"""Accuracy of answers that are read: TextVQA's soft accuracy and ST-VQA's ANLS, overall and by kinds of questions.

Ten people answered each question, and they do not agree; an answer is as right as the share of them that gave it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ..models.errors import DataError
from .answer_normalization import normalize_answer

__all__ = [
    "ANSWERS_PER_QUESTION",
    "answer_ceiling",
    "answer_scores",
    "answer_words",
    "best_answers",
    "levenshtein_similarity",
    "majority_answers",
    "text_answer_metrics",
    "text_answer_scores",
    "unseen_answers",
]

ANSWERS_PER_QUESTION = 10
"""People that answered each question of TextVQA."""

FEW_HOPS = 1
UNKNOWN_FAMILY, UNKNOWN_HOPS = "", -1
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
    predictions: Sequence[str],
    answers: Answers,
    question_types: Sequence[str] | np.ndarray | None = None,
    hops: Sequence[int] | np.ndarray | None = None,
    seen_words: Collection[str] | None = None,
    sources: Sequence[str] | None = None,
) -> dict[str, float]:
    """Measure the answers to N questions, in percent.

    Args:
        predictions: As in `text_answer_scores`.
        answers: As in `text_answer_scores`.
        question_types: N names of question families, "" where the family is unknown; None measures no families.
        hops: N numbers of relations to follow, -1 where that is unknown; None measures no hops.
        seen_words: The `answer_words` of training; None measures no unseen words.
        sources: N names of where a right answer's words can be taken from; None measures no sources.

    Returns:
        `accuracy`, `accuracy_{family}` for each family present in alphabetical order, `accuracy_hops_{n}` for each
        number present and `accuracy_up_to_one_hop`, `accuracy_unseen` over the `unseen_answers` and
        `accuracy_unseen_up_to_one_hop` over those among them, `accuracy_source_{source}` for each source present, and
        `anls`. What no question belongs to is left out.

    Raises:
        DataError: As in `text_answer_scores`, or a number of types, hops or sources disagrees.
    """
    scores = text_answer_scores(predictions, answers)
    number = len(answers)
    families = [UNKNOWN_FAMILY] * number if question_types is None else list(question_types)
    chains = np.full(number, UNKNOWN_HOPS) if hops is None else np.asarray(hops)
    taken = np.full(number, "") if sources is None else np.asarray(sources)
    for name, column in (("question types", families), ("numbers of hops", chains), ("sources", taken)):
        if len(column) != number:
            raise DataError(f"there are {len(column)} {name} for {number} questions with answers")
    by_family: dict[Any, list[float]] = defaultdict(list)
    for family, score in zip(families, scores["accuracy"], strict=True):
        by_family[family].append(score)
    metrics = {"accuracy": _percent(scores["accuracy"])}
    for family in sorted(set(by_family) - {UNKNOWN_FAMILY}):
        metrics[f"accuracy_{family}"] = _percent(by_family[family])
    few = (chains != UNKNOWN_HOPS) & (chains <= FEW_HOPS)
    unseen = np.zeros(number, dtype=bool) if seen_words is None else unseen_answers(answers, seen_words)
    parts = {f"hops_{hop}": chains == hop for hop in np.unique(chains) if hop != UNKNOWN_HOPS}
    parts |= {"up_to_one_hop": few, "unseen": unseen, "unseen_up_to_one_hop": unseen & few}
    parts |= {f"source_{source}": taken == source for source in np.unique(taken) if source}
    metrics |= {f"accuracy_{name}": _percent(scores["accuracy"][part]) for name, part in parts.items() if part.any()}
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


def best_answers(answers: Answers) -> list[str]:
    """Return what a perfect reader answers: to each question the text that most people wrote of those that score best.

    Args:
        answers: N questions' answers by people.

    Raises:
        DataError: A question has no answers.
    """
    chosen = []
    for question, given in enumerate(answers):
        scores = _normalized_scores(given, question)
        agreed = Counter(normalize_answer(answer) for answer in given)
        # Four of ten score like ten of ten: the larger group is what was meant.
        best = max(scores, key=lambda answer: (scores[answer], agreed[answer]))
        texts = Counter(answer for answer in given if normalize_answer(answer) == best)
        chosen.append(texts.most_common(1)[0][0])
    return chosen


def majority_answers(
    train_answers: Answers, train_types: Sequence[str], question_types: Sequence[str] | np.ndarray
) -> list[str]:
    """Return to every question the most frequent training answer of its family, as somebody would who sees nothing.

    A family without training questions gets the most frequent answer of all; of equally frequent answers the first in
    alphabetical order counts. Answers are counted as the accuracy compares them.

    Args:
        train_answers: Answers of the training questions, one list a question.
        train_types: Their families.
        question_types: The families to answer.

    Raises:
        DataError: No training question has an answer.
    """
    every: Counter[str] = Counter()
    by_family: dict[str, Counter[str]] = defaultdict(Counter)
    for given, family in zip(train_answers, train_types, strict=True):
        counts = Counter(normalize_answer(answer) for answer in given)
        every += counts
        by_family[family] += counts
    if not every:
        raise DataError("no training question has an answer, so there is no most frequent one")
    first = {family: min(counts, key=lambda answer: (-counts[answer], answer)) for family, counts in by_family.items()}
    overall = min(every, key=lambda answer: (-every[answer], answer))
    return [first.get(family, overall) for family in question_types]


def answer_words(answers: Iterable[Iterable[str]]) -> frozenset[str]:
    """Return all words of the answers to questions, as the accuracy compares them."""
    return frozenset(
        word for answer in {text for given in answers for text in given} for word in normalize_answer(answer).split()
    )


def unseen_answers(answers: Answers, seen_words: Collection[str]) -> np.ndarray:
    """Say which of N questions cannot be answered best in `seen_words`: their words must be copied from the picture.

    Args:
        answers: N questions' answers by people.
        seen_words: The `answer_words` of training.

    Returns:
        Bool [N], true where every answer of the highest score has a word that is not among them.

    Raises:
        DataError: A question has no answers.
    """
    found = np.zeros(len(answers), dtype=bool)
    for question, given in enumerate(answers):
        scores = _normalized_scores(given, question)
        highest = max(scores.values())
        best = [answer for answer, score in scores.items() if score == highest]
        found[question] = all(any(word not in seen_words for word in answer.split()) for answer in best)
    return found


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

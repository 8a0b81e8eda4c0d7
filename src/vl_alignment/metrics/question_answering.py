"""Accuracy of answers: overall, by question type and by the depth of the question's program.

An answer is right when it equals the reference; nothing is normalised, because the answers come from a closed list.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..data.blocks.programs import QUESTION_TYPES
from ..models.errors import DataError

__all__ = ["QUESTION_TYPES", "majority_accuracy", "question_answering_metrics"]

UNKNOWN_TYPE, UNKNOWN_DEPTH = "", -1

Column: TypeAlias = Sequence[Any] | np.ndarray


def question_answering_metrics(
    predictions: Column,
    references: Column,
    question_types: Column | None = None,
    program_depths: Column | None = None,
) -> dict[str, float]:
    """Measure the answers to N questions: the percentage that is right.

    Args:
        predictions: N answers.
        references: The N right answers.
        question_types: N names of question types, "" where the type is unknown; None measures no types.
        program_depths: N depths of the questions' programs, -1 where unknown; None measures no depths.

    Returns:
        `accuracy`, `accuracy_{question_type}` for each type present (those of `QUESTION_TYPES` first, in their order)
        and `accuracy_depth_{n}` for each depth present, in rising order.

    Raises:
        DataError: There are no questions, the lengths disagree, or a reference is unknown.
    """
    number = len(references)
    if number == 0:
        raise DataError("there are no questions to measure")
    types = [UNKNOWN_TYPE] * number if question_types is None else list(question_types)
    depths = [UNKNOWN_DEPTH] * number if program_depths is None else [int(depth) for depth in program_depths]
    for name, column in (("predictions", predictions), ("question types", types), ("program depths", depths)):
        if len(column) != number:
            raise DataError(f"there are {len(column)} {name} for {number} references")
    every: list[bool] = []
    by_type: dict[str, list[bool]] = defaultdict(list)
    by_depth: dict[int, list[bool]] = defaultdict(list)
    for question, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        if reference is None or reference == "":
            raise DataError(
                "the right answer is unknown, as in CLEVR's test split; measure on validation", record=question
            )
        every.append(bool(prediction == reference))
        by_type[types[question]].append(every[-1])
        by_depth[depths[question]].append(every[-1])
    metrics = {"accuracy": _percent(every)}
    others = sorted(set(by_type) - {UNKNOWN_TYPE, *QUESTION_TYPES})
    for name in [*(name for name in QUESTION_TYPES if name in by_type), *others]:
        metrics[f"accuracy_{name}"] = _percent(by_type[name])
    for depth in sorted(set(by_depth) - {UNKNOWN_DEPTH}):
        metrics[f"accuracy_depth_{depth}"] = _percent(by_depth[depth])
    return metrics


def majority_accuracy(
    train_answers: Column,
    train_types: Column,
    answers: Column,
    question_types: Column,
    program_depths: Column | None = None,
) -> dict[str, float]:
    """Measure answering every question with the most frequent training answer to its type, looking at nothing else.

    A type without training questions gets the most frequent answer of all; of equally frequent answers the first in
    alphabetical order counts. It is a control: a model that does not beat it has learned nothing but types.

    Args:
        train_answers: Answers of the training questions; unknown ones ("") do not count.
        train_types: Their question types.
        answers: The N right answers to measure on.
        question_types: Their N question types.
        program_depths: As in `question_answering_metrics`.

    Returns:
        The same names as `question_answering_metrics`.

    Raises:
        DataError: As in `question_answering_metrics`, or no training question has an answer.
    """
    if len(train_answers) != len(train_types):
        raise DataError(f"there are {len(train_types)} question types for {len(train_answers)} training answers")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for (answer, name), number in Counter(zip(train_answers, train_types, strict=True)).items():
        if answer != "":
            counts[name][answer] += number
            overall[answer] += number
    if not overall:
        raise DataError("no training question has an answer")
    majority = {name: _most_frequent(counted) for name, counted in counts.items()}
    default = _most_frequent(overall)
    predictions = [majority.get(name, default) for name in question_types]
    return question_answering_metrics(predictions, answers, question_types, program_depths)


def _most_frequent(counted: Counter[str]) -> str:
    return min(counted, key=lambda answer: (-counted[answer], answer))


def _percent(right: Sequence[bool]) -> float:
    return 100.0 * sum(right) / len(right)

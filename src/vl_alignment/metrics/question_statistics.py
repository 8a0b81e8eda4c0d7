"""What a set of questions consists of, and how far answering without looking gets: it stands beside every accuracy."""

from collections import Counter

from ..models.errors import DataError
from .question_answering import QUESTION_TYPES, UNKNOWN_TYPE, Column, majority_accuracy

__all__ = ["question_statistics"]


def question_statistics(
    question_types: Column,
    answers: Column,
    hops: Column | None = None,
    *,
    train_types: Column | None = None,
    train_answers: Column | None = None,
) -> dict[str, float]:
    """Describe N questions: the mix of types and hops, and the accuracy of answering the majority by type.

    Args:
        question_types: N names of question types, "" where the type is unknown.
        answers: The N right answers.
        hops: How many relations or samenesses each question chains (`program_hops`); None counts none.
        train_types: Types of the training questions from which the majority is taken; by default these questions.
        train_answers: Their answers.

    Returns:
        `questions`, the number N, and in percent `share_{question_type}` for each type present, `share_hops_{n}` for
        each number of hops present, `share_two_or_more_hops`, `majority_accuracy`, and
        `majority_accuracy_{question_type}`.

    Raises:
        DataError: There are no questions, the lengths disagree, or an answer is unknown.
    """
    number = len(answers)
    majority = majority_accuracy(
        answers if train_answers is None else train_answers,
        question_types if train_types is None else train_types,
        answers,
        question_types,
    )
    types = Counter(question_types)
    others = sorted(set(types) - {UNKNOWN_TYPE, *QUESTION_TYPES})
    statistics = {"questions": float(number)}
    for name in [*(name for name in QUESTION_TYPES if name in types), *others]:
        statistics[f"share_{name}"] = 100.0 * types[name] / number
    if hops is not None:
        if len(hops) != number:
            raise DataError(f"there are {len(hops)} numbers of hops for {number} questions")
        chains = Counter(int(chain) for chain in hops)
        for chain in sorted(chains):
            statistics[f"share_hops_{chain}"] = 100.0 * chains[chain] / number
        several = sum(share for chain, share in chains.items() if chain >= 2)
        statistics["share_two_or_more_hops"] = 100.0 * several / number
    return statistics | {f"majority_{name}": value for name, value in majority.items()}

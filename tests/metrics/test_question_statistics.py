import pytest

from vl_alignment.metrics.question_statistics import question_statistics
from vl_alignment.models.errors import DataError

TYPES = ["exist", "exist", "exist", "count", "count", "query_attribute", "query_attribute", "count"]
ANSWERS = ["yes", "yes", "no", "2", "0", "red", "blue", "0"]


def test_the_mix_and_the_majority_by_type() -> None:
    assert question_statistics(TYPES, ANSWERS, [0, 1, 2, 3, 0, 0, 2, 0]) == {
        "questions": 8.0,
        "share_exist": 37.5,
        "share_count": 37.5,
        "share_query_attribute": 25.0,
        "share_hops_0": 50.0,
        "share_hops_1": 12.5,
        "share_hops_2": 25.0,
        "share_hops_3": 12.5,
        "share_two_or_more_hops": 37.5,
        "majority_accuracy": 62.5,
        "majority_accuracy_exist": pytest.approx(200 / 3),
        "majority_accuracy_count": pytest.approx(200 / 3),
        "majority_accuracy_query_attribute": 50.0,
    }


def test_the_majority_is_that_of_the_training_questions() -> None:
    statistics = question_statistics(TYPES, ANSWERS, train_types=["exist", "count"], train_answers=["no", "2"])
    assert statistics["majority_accuracy_exist"] == pytest.approx(100 / 3)
    assert statistics["majority_accuracy"] == 25.0
    assert not any("hops" in name for name in statistics)


def test_questions_without_types_are_counted_all_the_same() -> None:
    assert question_statistics(["", "", ""], ["yes", "no", "yes"], [0, 0, 2]) == {
        "questions": 3.0,
        "share_hops_0": pytest.approx(200 / 3),
        "share_hops_2": pytest.approx(100 / 3),
        "share_two_or_more_hops": pytest.approx(100 / 3),
        "majority_accuracy": pytest.approx(200 / 3),
    }


def test_what_cannot_be_described_is_refused() -> None:
    with pytest.raises(DataError, match="2 numbers of hops for 8 questions"):
        question_statistics(TYPES, ANSWERS, [0, 1])
    with pytest.raises(DataError, match="question types"):
        question_statistics(TYPES[:3], ANSWERS)
    with pytest.raises(DataError):
        question_statistics([], [])

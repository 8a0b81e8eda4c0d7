import numpy as np
import pytest

from vl_alignment.data.blocks.programs import QUESTION_TYPES as PROGRAM_TYPES
from vl_alignment.metrics import QUESTION_TYPES, majority_accuracy, question_answering_metrics
from vl_alignment.models.errors import DataError

PREDICTIONS = ["yes", "no", "3", "red", "unheard", "0"]
REFERENCES = ["yes", "yes", "3", "red", "large", "1"]
TYPES = ["exist", "exist", "count", "query_attribute", "query_attribute", ""]
DEPTHS = [3, 5, 12, 3, 12, -1]


def test_accuracy_worked_out_by_hand():
    metrics = question_answering_metrics(PREDICTIONS, REFERENCES, TYPES, DEPTHS)
    assert metrics == {
        "accuracy": 50.0,
        "accuracy_exist": 50.0,
        "accuracy_count": 100.0,
        "accuracy_query_attribute": 50.0,
        "accuracy_depth_3": 100.0,
        "accuracy_depth_5": 0.0,
        "accuracy_depth_12": 50.0,
    }
    # In the order of the table, and depths as numbers, not as text.
    assert list(metrics)[1:4] == ["accuracy_exist", "accuracy_count", "accuracy_query_attribute"]
    assert list(metrics)[4:] == ["accuracy_depth_3", "accuracy_depth_5", "accuracy_depth_12"]


def test_breakdowns_are_optional_and_arrays_will_do():
    assert question_answering_metrics(np.array([1, 2]), np.array([1, 3])) == {"accuracy": 50.0}
    metrics = question_answering_metrics(["a"], ["a"], None, np.array([2]))
    assert metrics == {"accuracy": 100.0, "accuracy_depth_2": 100.0}


def test_other_types_follow_the_five():
    metrics = question_answering_metrics(["a"] * 3, ["a"] * 3, ["why", "compare_attribute", "how"])
    assert list(metrics) == ["accuracy", "accuracy_compare_attribute", "accuracy_how", "accuracy_why"]
    assert QUESTION_TYPES == PROGRAM_TYPES  # the names that the data carry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "no questions"),
        ((["a"], ["a", "b"]), "1 predictions for 2 references"),
        ((["a"], ["a"], []), "0 question types for 1 references"),
        ((["a"], ["a"], ["exist"], [1, 2]), "2 program depths for 1 references"),
        ((["a", "b"], ["a", ""]), "record 1: the right answer is unknown"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(DataError, match=message):
        question_answering_metrics(*arguments)


def test_majority_is_taken_by_type_from_training():
    train = [("yes", "exist")] * 2 + [("no", "exist")] * 3 + [("2", "count"), ("1", "count"), ("", "count")]
    answers, types = zip(*train, strict=True)
    test_answers = ["no", "yes", "1", "2", "no"]
    test_types = ["exist", "exist", "count", "count", "query_attribute"]
    # "1" and "2" are as frequent, and "1" comes first; a type that was never seen gets the majority of all: "no".
    assert majority_accuracy(answers, types, test_answers, test_types, [1, 1, 2, 2, 3]) == {
        "accuracy": 60.0,
        "accuracy_exist": 50.0,
        "accuracy_count": 50.0,
        "accuracy_query_attribute": 100.0,
        "accuracy_depth_1": 50.0,
        "accuracy_depth_2": 50.0,
        "accuracy_depth_3": 100.0,
    }


def test_majority_needs_training_answers():
    with pytest.raises(DataError, match="no training question has an answer"):
        majority_accuracy([""], ["exist"], ["yes"], ["exist"])
    with pytest.raises(DataError, match="1 question types for 2 training answers"):
        majority_accuracy(["yes", "no"], ["exist"], ["yes"], ["exist"])

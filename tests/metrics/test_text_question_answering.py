import json

import pytest

from vl_alignment.metrics.text_question_answering import (
    answer_ceiling,
    answer_scores,
    answer_words,
    best_answers,
    levenshtein_similarity,
    majority_answers,
    text_answer_metrics,
    text_answer_scores,
    unseen_answers,
)
from vl_alignment.models.errors import DataError


@pytest.fixture(scope="module")
def golden_cases(golden_root):
    return json.loads((golden_root / "m4c" / "text_cases.json").read_text())


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_by_the_number_of_people_that_agree(count, score):
    answers = ["red"] * count + [f"other {number}" for number in range(10 - count)]
    assert answer_scores(answers)["red"] == pytest.approx(score, abs=1e-12)


def test_leaving_each_person_out_by_hand():
    answers = ["a"] * 3 + ["b"] * 2 + ["c"] * 7
    expected = {}
    for answer in "abc":
        others = [answers[:person] + answers[person + 1 :] for person in range(12)]
        expected[answer] = sum(min(1, other.count(answer) / 3) for other in others) / 12
    assert answer_scores(answers) == pytest.approx(expected, abs=1e-12)


def test_with_fewer_than_ten_every_given_answer_is_right():
    assert answer_scores(["a", "b", "b"]) == {"a": 1.0, "b": 1.0}
    assert answer_scores(["a"] * 8 + ["b"]) == {"a": 1.0, "b": 1.0}
    assert answer_scores([]) == {}


@pytest.mark.parametrize(
    ("prediction", "answer", "similarity"),
    [
        ("helo", "hello", 0.8),
        ("kitten", "sitting", 4 / 7),
        ("ab", "ba", 0.0),
        ("STOP ", " stop", 1.0),
        ("abcd", "ab", 0.5),  # the threshold itself counts
        ("abcdefg", "abc", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
        (" ", "", 1.0),
    ],
)
def test_similarity(prediction, answer, similarity):
    assert levenshtein_similarity(prediction, answer) == pytest.approx(similarity, abs=1e-12)
    assert levenshtein_similarity(answer, prediction) == pytest.approx(similarity, abs=1e-12)


ANSWERS = [["two"] * 10, ["coke"] * 2 + ["Coca-Cola"] * 8, ["exit"], [f"x{number}" for number in range(10)]]
PREDICTIONS = ["2", "coke", "Exit.", "y"]


def test_scores_of_questions():
    scores = text_answer_scores(PREDICTIONS, ANSWERS)
    assert scores["accuracy"] == pytest.approx([1.0, 0.6, 1.0, 0.0])
    # ANLS compares the texts as they are: no "2" in "two", but "exit." is 4/5 of "exit".
    assert scores["anls"] == pytest.approx([0.0, 1.0, 0.8, 0.0])


def test_metrics_by_family():
    metrics = text_answer_metrics(PREDICTIONS, ANSWERS, ["number", "brand", "", "brand"])
    assert metrics == pytest.approx({"accuracy": 65.0, "accuracy_brand": 30.0, "accuracy_number": 100.0, "anls": 45.0})
    assert list(metrics) == ["accuracy", "accuracy_brand", "accuracy_number", "anls"]
    assert list(text_answer_metrics(PREDICTIONS, ANSWERS)) == ["accuracy", "anls"]


def test_metrics_by_hops_and_over_unseen_words():
    answers = [["red"] * 10, ["Kopi Luwak"] * 10, ["luwak"] * 10, ["stop"] * 10]
    seen = answer_words([["Red!", "the stop"], ["kopi"]])
    metrics = text_answer_metrics(["red", "kopi luwak", "no", "no"], answers, hops=[0, 1, 2, -1], seen_words=seen)
    expected = {"accuracy": 50, "accuracy_hops_0": 100, "accuracy_hops_1": 100, "accuracy_hops_2": 0}
    expected |= {"accuracy_up_to_one_hop": 100, "accuracy_unseen": 50, "accuracy_unseen_up_to_one_hop": 100}
    assert metrics.pop("anls") == 50
    assert metrics == expected
    # Nothing is unseen, and no hops are known: there is nothing to measure.
    assert list(text_answer_metrics(["red"], [["red"] * 10], hops=[-1], seen_words=seen)) == ["accuracy", "anls"]


def test_metrics_by_answer_source():
    answers = [["red"] * 10, ["luwak"] * 10, ["luwak"] * 10]
    metrics = text_answer_metrics(["red", "luwak", "no"], answers, sources=["vocabulary", "ocr", "ocr"])
    assert metrics["accuracy_source_vocabulary"] == 100 and metrics["accuracy_source_ocr"] == 50
    assert not {"accuracy_source_either", "accuracy_source_"} & set(metrics)


def test_unseen_answers_cannot_be_spelled_in_words_of_the_training_answers():
    assert answer_words([["The Cat.", "two cats"], ["cat"]]) == {"cat", "2", "cats"}
    answers = [
        *(["A dog."] * 10, ["Cat"] * 10, ["dog cats"] * 10),
        ["dog"] * 6 + ["cat"] * 4,  # "cat" scores 1 as well
        ["dog"] * 7 + ["cat"] * 3,  # "cat" scores 0.9
        ["dog", "cat"],  # of fewer than ten, every answer is right
    ]
    assert unseen_answers(answers, {"cat", "cats"}).tolist() == [True, False, True, False, True, False]


def test_best_answers_are_what_most_people_meant():
    assert best_answers(ANSWERS) == ["two", "Coca-Cola", "exit", "x0"]
    assert best_answers([["no"] * 4 + ["Yes", "yes.", "yes", "yes", "yes!", "yes"]]) == ["yes"]


def test_majority_answers_by_family():
    train = [["Two", "2", "3"], ["3"], ["red"], ["blue"], ["red."]]
    types = ["number", "number", "color", "color", "color"]
    assert majority_answers(train, types, ["color", "number", "brand"]) == ["red", "2", "2"]
    with pytest.raises(DataError, match="no training question has an answer"):
        majority_answers([[]], ["color"], ["color"])


def test_the_ceiling_is_what_the_best_answers_score():
    assert answer_ceiling(ANSWERS) == pytest.approx((1 + 1 + 1 + 0.3) / 4 * 100)
    for best in (["two", "coca cola", "exit", "x3"], best_answers(ANSWERS)):
        assert text_answer_metrics(best, ANSWERS)["accuracy"] == pytest.approx(answer_ceiling(ANSWERS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "no questions to measure"),
        ((["a"], [["a"], ["b"]]), "1 predictions for 2 questions"),
        ((["a"], [["a"]], ["x", "y"]), "2 question types for 1 questions"),
        ((["a"], [["a"]], None, [0, 1]), "2 numbers of hops for 1 questions"),
        ((["a"], [["a"]], None, None, None, ["ocr", "ocr"]), "2 sources for 1 questions"),
        ((["a", "b"], [["a"], []]), "record 1: the question has no answers"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(DataError, match=message):
        text_answer_metrics(*arguments)


def test_a_ceiling_needs_answers():
    with pytest.raises(DataError, match="no questions to measure"):
        answer_ceiling([])
    with pytest.raises(DataError, match="record 0: the question has no answers"):
        answer_ceiling([[]])


@pytest.mark.golden
def test_golden_soft_accuracy(golden_cases):
    golden = golden_cases["textvqa_accuracy"]
    predictions = [case["pred_answer"] for case in golden["cases"]]
    answers = [case["gt_answers"] for case in golden["cases"]]
    scores = text_answer_scores(predictions, answers)["accuracy"]
    assert scores == pytest.approx([case["score"] for case in golden["cases"]], abs=1e-9)
    assert text_answer_metrics(predictions, answers)["accuracy"] == pytest.approx(100 * golden["mean"], abs=1e-9)
    best = [max(case["unique_answer_scores"].values()) for case in golden["cases"]]
    assert answer_ceiling(answers) == pytest.approx(100 * sum(best) / len(best), abs=1e-9)


@pytest.mark.golden
def test_golden_rule_for_fewer_answers(golden_cases):
    cases = golden_cases["textvqa_accuracy"]["cases"]
    distinct = [list(dict.fromkeys(case["gt_answers"]))[:9] for case in cases]
    scores = text_answer_scores([case["pred_answer"] for case in cases], distinct)["accuracy"]
    assert scores.tolist() == [case["stvqa_accuracy"] for case in cases]


@pytest.mark.golden
def test_golden_anls(golden_cases):
    golden = golden_cases["stvqa_anls"]
    predictions = [case["pred_answer"] for case in golden["cases"]]
    answers = [case["gt_answers"] for case in golden["cases"]]
    scores = text_answer_scores(predictions, answers)["anls"]
    assert scores == pytest.approx([case["score"] for case in golden["cases"]], abs=1e-12)
    assert text_answer_metrics(predictions, answers)["anls"] == pytest.approx(100 * golden["mean"], abs=1e-9)

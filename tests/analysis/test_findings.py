import re

import pytest

from vl_alignment.analysis.differences import paired_comparisons
from vl_alignment.analysis.findings import findings
from vl_alignment.analysis.function_classes import FunctionClass
from vl_alignment.analysis.outcomes import ItemOutcomes
from vl_alignment.models.errors import ResultsError

from .synthetic import make_answer_result, make_result


def runs(**values):
    return [make_result(name, seed, rsum) for name, row in values.items() for seed, rsum in enumerate(row)]


def texts(found, kind):
    return [finding.text for finding in found if finding.kind == kind]


def test_a_difference_whose_interval_leaves_out_zero_is_stated_with_it():
    # Differences 10, 9, 11: 10 ± 2.48 at 95 %.
    found = findings(runs(dot=(300, 302, 304), mine=(310, 311, 315)))
    assert texts(found, "supported") == ["Rsum above Dot product: mine by 10.0 [7.5, 12.5] (95% interval)."]
    assert texts(found, "open") == []


def test_a_difference_below_is_stated_as_such():
    found = findings(runs(dot=(300, 302, 304), mine=(290, 293, 293)))
    assert texts(found, "supported")[0].startswith("Rsum below Dot product: mine by 10.0 [")


def test_a_difference_within_its_interval_is_not_stated():
    # Differences 1, -1, 3: 1 ± 4.97.
    found = findings(runs(dot=(300, 302, 304), mine=(301, 301, 307)))
    assert texts(found, "supported") == []
    assert texts(found, "open") == [
        "Not told apart from Dot product by these seeds: mine; the intervals reach 5.0 Rsum points either way, "
        "and one study in five would miss a true difference of 6.5."
    ]


def test_more_comparisons_need_wider_intervals():
    # Differences 1, 3, 2 are 2 ± 2.48: open. Differences 2, 4, 3 are 3 ± 2.48, apart when alone, not among seven.
    rows = {"dot": (300, 302, 304), "mine": (302, 306, 307)}
    assert texts(findings(runs(**rows)), "supported")
    rows |= {f"other_{i}": (300 + i, 303 - i, 303) for i in range(6)}
    assert not any("mine by" in text for text in texts(findings(runs(**rows)), "supported"))


def test_one_seed_shows_nothing():
    found = findings(runs(dot=(300,), mine=(400,)))
    assert texts(found, "supported") == []
    assert "one seed each: there are no intervals" in texts(found, "warning")[0]
    assert texts(found, "open") == ["No interval yet, for want of a second seed shared with Dot product: mine."]


def test_missing_seeds_are_named():
    found = findings(runs(dot=(300, 301, 302), cosine=(300, 301)))
    assert texts(found, "warning") == [
        "2 alignment functions on blocks (200 test images), 3 seeds at most, and fewer for Cosine similarity."
    ]


def test_equal_functions_are_called_equal():
    found = findings(runs(dot=(300, 302), cosine=(300, 302), scaled_dot=(300, 302)))
    assert "Exactly the same Rsum as Dot product for every seed: Cosine similarity and Scaled dot product." in texts(
        found, "fact"
    )


def test_key_and_query_of_one_class_are_compared():
    found = findings(runs(general_query=(300, 302, 304), general_key=(280, 281.5, 284.5)), reference="general_query")
    assert any("W of the one is W transposed of the other" in text for text in texts(found, "supported"))


def test_controls_are_judged_by_chance():
    chance = {"name": "Chance", "metrics": {"sentence_retrieval_r1": 0.5, "rsum": 16.0}}
    results = runs(dot=(300, 302))
    good = findings(results, [chance, {"name": "Shuffled captions", "metrics": {"rsum": 20.0}}])
    # 12 % of 301, over 0.5.
    assert "that of Dot product, is 36.1 %, 72 times chance (0.50 %)." in texts(good, "fact")[1]
    assert texts(good, "fact")[2] == "The control “Shuffled captions” falls to chance (Rsum 20.0)."
    leak = findings(results, [chance, {"name": "Shuffled captions", "metrics": {"rsum": 48.0}}])
    assert "3.0 times the Rsum of chance: something leaks" in texts(leak, "warning")[0]
    at_chance = findings([make_result("dot", 0, 5.0), make_result("dot", 1, 5.0)], [chance])
    assert "1 times chance" in texts(at_chance, "warning")[0]


def test_a_run_that_hardly_learned_is_named_and_counts():
    rows = {"dot": (300, 302, 304), "mine": (310, 5, 315)}
    results = [
        make_result(name, seed, rsum, sentence_retrieval_r1=rsum / 6)
        for name, values in rows.items()
        for seed, rsum in enumerate(values)
    ]
    chance = [{"name": "chance", "metrics": {"sentence_retrieval_r1": 0.1, "rsum": 3.2}}]
    assert not any("hardly learned" in text for text in texts(findings(results), "warning"))
    named = [text for text in texts(findings(results, chance), "warning") if "hardly learned" in text]
    assert named == [
        "mine, seed 1, hardly learned: its Rsum, 5.0, is less than half way from the control that knows too little to "
        "the median of all runs. It counts in every mean, interval and test. Without it the mean of mine is 312.5."
    ]
    as_released = [result | {"released_layout": result["alignment_function"] == "mine"} for result in results]
    assert not any("hardly learned" in text for text in texts(findings(as_released, chance), "warning"))
    results[4]["metrics"] |= {"rsum": 160.0, "sentence_retrieval_r1": 160 / 6}
    assert not any("hardly learned" in text for text in texts(findings(results, chance), "warning"))


def test_results_without_rsum_are_refused():
    with pytest.raises(ResultsError, match="no finished run has an Rsum"):
        findings([make_result("dot", 0, metrics={"accuracy": 50.0})])


def answers(**values):
    return [make_answer_result(name, seed, value) for name, row in values.items() for seed, value in enumerate(row)]


def test_accuracies_are_compared_like_rsum():
    # Differences 3, 2, 4: 3 ± 2.48.
    found = findings(answers(dot=(70, 72, 74), general_query=(73, 74, 78)))
    assert texts(found, "fact") == ["2 alignment functions on blocks (200 test questions), 3 seeds each."]
    assert texts(found, "supported") == ["Accuracy above Dot product: General* by 3.0 [0.5, 5.5] (95% interval)."]
    found = findings(answers(dot=(70, 72, 74), general_query=(71, 71, 77)))
    assert "General*; the intervals reach 5.0 points either way, and" in texts(found, "open")[0]


def test_functions_that_macs_read_unit_cannot_tell_apart():
    rows = {"dot": (70, 72, 74), "scaled_dot": (80, 83, 83), "general_key": (70, 73, 75), "general_query": (60, 63, 63)}
    found = texts(findings(answers(**rows)), "supported")
    assert [text.split(":")[0] for text in found[:2]] == ["Accuracy above Dot product", "Accuracy below Dot product"]
    assert found[2].startswith("Scaled dot product is above Dot product by 10.0 [")
    assert "General" not in found[2]  # the key form is not apart, and the query form is another function
    assert "in MAC's read unit they are one function in other coordinates" in found[2]
    assert found[2].endswith("so this is a matter of initialisation and optimisation, or a fault.")


def test_a_class_without_its_first_function_is_compared_with_the_next():
    found = findings(answers(scaled_dot=(80, 83, 83), biased_general_key=(70, 72, 74)))
    assert any("Biased general† is below Scaled dot product by 10.0 [" in text for text in texts(found, "supported"))


def test_a_comparison_counts_once_whichever_function_is_the_reference():
    rows = {"general_query": (300, 302, 304), "general_key": (280, 281.5, 284.5)}
    for reference in rows:
        assert "(95% interval)" in texts(findings(runs(**rows), reference=reference), "supported")[0]


def test_classes_of_the_runs_decide_what_needs_an_explanation():
    results = answers(dot=(70, 72, 74), general_query=(60, 63, 63))
    assert not any("one function" in text for text in texts(findings(results), "supported"))
    classes = [FunctionClass(("dot", "general_query"), "here they are one function")]
    stated = texts(findings(results, classes=classes), "supported")[1]
    assert (
        stated.startswith("General* is below Dot product by 10.0 [") and "although here they are one function" in stated
    )


def with_outcomes(results, scores):
    """Outcomes of forty pictures a run: {function: share of them that are right, in percent}."""
    units = [f"{number:02}" for number in range(40)]
    return {
        result["run_id"]: ItemOutcomes.of_parts(
            [(units, [100.0 * (number < 0.4 * scores[result["alignment_function"]]) for number in range(40)])]
        )
        for result in results
    }


def test_intervals_over_seeds_and_test_items_are_called_so():
    results = answers(dot=(70, 72, 74), general_query=(81, 81, 86))
    outcomes = with_outcomes(results, {"dot": 70, "general_query": 80})
    found = findings(results, comparisons=paired_comparisons(results, outcomes=outcomes))
    text = texts(found, "supported")[0]
    assert text.startswith("Accuracy above Dot product: General* by 10.7 [")
    assert text.endswith("(95% interval over seeds and test questions).")


def test_models_of_one_seed_are_compared_without_speaking_of_functions():
    results = answers(dot=(20,), general_query=(80,))
    outcomes = with_outcomes(results, {"dot": 20, "general_query": 80})
    found = findings(results, comparisons=paired_comparisons(results, outcomes=outcomes))
    assert texts(found, "supported") == []
    (text,) = (text for text in texts(found, "fact") if text.startswith("Of the models at hand"))
    assert "other test questions would show the same: General* above Dot product by 60.0 [" in text
    assert text.endswith("Whether their functions differ takes more seeds.")


def test_controls_of_question_answering():
    results = answers(dot=(70, 72), scaled_dot=(80, 80))
    controls = [
        {"name": "majority by type", "metrics": {"accuracy": 44.0}},
        {"name": "image zeroed", "metrics": {"accuracy": 45.5}},
        {"name": "shuffled answers", "metrics": {"accuracy": 30.0}},
    ]
    good = findings(results, controls)
    assert texts(good, "fact")[1:] == [
        "The lowest accuracy, that of Dot product, is 71.0 %, 25.5 points above that of a model whose images were "
        "zeroed (45.5 %).",
        "The control “shuffled answers” falls to the most frequent answer of each question type or below (30.0 %, and "
        "44.0 %).",
    ]
    controls[1]["metrics"] = {"accuracy": 68.0}
    controls[2]["metrics"] = {"accuracy": 52.0}
    bad = texts(findings(results, controls), "warning")
    assert any("hardly more than the question alone tells" in text for text in bad)
    assert any(
        "8.0 points above the most frequent answer of each question type: something leaks" in text for text in bad
    )
    assert not texts(findings(results, controls[2:]), "warning")  # without its floor nothing can be said


def test_controls_of_question_answering_by_reading(read_answer_results):
    controls = [
        {"name": "majority by family", "metrics": {"accuracy": 30.0, "accuracy_unseen": 0.0}},
        {"name": "blind", "metrics": {"accuracy": 33.0}},
        {"name": "without copying", "metrics": {"accuracy": 40.0, "accuracy_unseen": 0.0}},
        {"name": "shuffled answers", "metrics": {"accuracy": 29.0}},
    ]
    found = findings(read_answer_results, controls)
    # A floor of zero is a floor.
    assert texts(found, "fact")[1:] == [
        "The lowest accuracy, that of Dot product, is 71.0 %, 38.0 points above that of a model that saw neither "
        "pictures nor their text (33.0 %).",
        "Over words that no training answer has, the lowest accuracy, that of Dot product, is 51.0 %; a model that "
        "cannot copy reaches 0.0 % there.",
        "The control “shuffled answers” falls to the most frequent answer of each question family or below (29.0 %, "
        "and 30.0 %).",
    ]
    assert any("in M4C they are one function in other coordinates" in text for text in texts(found, "supported"))
    controls[2]["metrics"] = {"accuracy_unseen": 49.0}
    assert "copying was not learned" in texts(findings(read_answer_results, controls), "warning")[0]


def test_layouts_of_one_function_are_held_against_each_other():
    values = {"dot": (300, 302, 304), "general_key": (310, 309, 315)}
    results = [make_result(name, seed, value) for name, row in values.items() for seed, value in enumerate(row)]
    released = [
        make_result("general_key", seed, value, released_layout=True) for seed, value in enumerate((31, 30, 34))
    ]
    for result in released:
        result["run_id"] += "-released"
    told = [finding.text for finding in findings(results + released) if finding.kind == "supported"]
    assert any(re.search(r"The layout of the released code lowers General† by 279\.7 \[", text) for text in told)
    assert not any("below Dot product: General† (released)" in text for text in told)
    assert findings(results + released)[0].text == (
        "2 alignment functions, 1 as released, on blocks (200 test images), 3 seeds each."
    )

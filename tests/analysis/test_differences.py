import math

import numpy as np
import pytest
from scipy.stats import nct, t

from vl_alignment.analysis.differences import (
    default_reference,
    difference_table,
    holm,
    paired_comparisons,
    smallest_detectable_difference,
)
from vl_alignment.analysis.outcomes import ItemOutcomes
from vl_alignment.analysis.tasks import TASKS
from vl_alignment.models.errors import ResultsError

from .synthetic import make_answer_result, make_result


def runs(make=make_result, **values):
    return [make(name, seed, value) for name, row in values.items() for seed, value in enumerate(row)]


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06, and 0.04 x 1 may not be smaller.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_value_is_that_of_the_paired_t_test():
    (gap,) = paired_comparisons(runs(dot=(300, 302, 304), mine=(310, 311, 315)))
    # 10, 9, 11 have the mean 10 and the standard deviation 1.
    assert gap.p_value == gap.adjusted_p == pytest.approx(2 * t.sf(10 * math.sqrt(3), 2), rel=1e-6)
    assert (gap.alignment_function, gap.reference, gap.mean, gap.sign, gap.items) == ("mine", "dot", 10, 1, None)
    assert gap.low == pytest.approx(10 - 2.4842, abs=1e-3)


def test_an_interval_leaves_out_zero_exactly_where_holm_finds_a_difference():
    rows = {
        "dot": (300, 302, 304, 301),
        "far": (310, 311, 315, 312),
        "near": (301.5, 303, 306.5, 302),
        "alike": (301, 300, 305, 302),
    }
    gaps = {gap.alignment_function: gap for gap in paired_comparisons(runs(**rows))}
    p_values = [gap.p_value for gap in gaps.values()]
    assert holm(p_values) == pytest.approx([gap.adjusted_p for gap in gaps.values()])
    for gap in gaps.values():
        assert gap.supported == (gap.adjusted_p <= 0.05) == (gap.low > 0 or gap.high < 0)
    assert gaps["far"].supported and not gaps["alike"].supported
    # `near` is compared at half of 5 %, as one of the two that are left.
    assert gaps["near"].high - gaps["near"].low == pytest.approx(2 * gaps["near"].half_interval(0.025))


def test_values_that_agree_or_are_missing_decide_nothing():
    rows = {"dot": (300, 301), "same": (300, 301), "shifted": (302, 303), "single": (305,)}
    gaps = {gap.alignment_function: gap for gap in paired_comparisons(runs(**rows))}
    assert gaps["same"].p_value == gaps["shifted"].p_value == 1.0
    assert not gaps["shifted"].supported and gaps["shifted"].detectable is None
    assert gaps["single"].p_value is gaps["single"].adjusted_p is gaps["single"].low is None


def test_functions_of_one_class_are_compared_once():
    rows = {name: (300, 302, 305) for name in ("dot", "general_query", "general_key", "cosine")}
    pairs = [(gap.alignment_function, gap.reference) for gap in paired_comparisons(runs(**rows))]
    assert sorted(pairs) == [
        ("cosine", "dot"),
        ("general_key", "dot"),
        ("general_key", "general_query"),
        ("general_query", "dot"),
    ]
    pairs = [(gap.alignment_function, gap.reference) for gap in paired_comparisons(runs(**rows), "general_key")]
    assert ("general_key", "general_query") not in pairs and ("general_query", "general_key") in pairs
    assert ("cosine", "dot") in pairs


@pytest.mark.parametrize("count", [2, 3, 10])
def test_smallest_detectable_difference_has_that_power(count):
    size = smallest_detectable_difference(3.0, count)
    threshold = t.isf(0.025, count - 1)
    assert nct.sf(threshold, count - 1, size / 3 * math.sqrt(count)) == pytest.approx(0.8, abs=1e-4)
    assert size < smallest_detectable_difference(3.0, count, significance=0.05 / 7)


def test_smallest_detectable_difference_counts_the_chance_of_pictures():
    # Studies of three seeds whose differences spread by 2, on pictures that add an error of 1.5: how many find it.
    size = smallest_detectable_difference(2.0, 3, picture_error=1.5)
    assert size > smallest_detectable_difference(2.0, 3)
    draw = np.random.default_rng(0)
    seeds = size + draw.normal(scale=2.0, size=(20_000, 3)) + draw.normal(scale=1.5, size=(20_000, 1))
    half = np.hypot(t.isf(0.025, 2) * seeds.std(axis=1, ddof=1) / math.sqrt(3), 1.959964 * 1.5)
    assert np.mean(seeds.mean(axis=1) > half) == pytest.approx(0.8, abs=0.01)
    assert smallest_detectable_difference(1e-9, 3, picture_error=1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-3)


def test_a_wide_test_set_is_a_second_source_of_chance():
    results, outcomes = [], {}
    for seed in range(3):
        for name in ("dot", "mine"):
            # Six pictures; two of them favour `mine` for every seed, and one seed loses another.
            scores = [100, 100, 0, 0, 0, 0] if name == "dot" else [100, 100, 100, 100, 0, 100 * (seed == 1)]
            result = make_answer_result(name, seed, sum(scores) / 6)
            results.append(result)
            outcomes[result["run_id"]] = ItemOutcomes.of_parts([(list("abcdef"), scores)])
    (alone,) = paired_comparisons(results)
    (both,) = paired_comparisons(results, outcomes=outcomes)
    assert both.mean == alone.mean and both.difference == alone.difference
    assert both.picture_error > 0 and both.p_value > alone.p_value
    assert both.items.pictures == 6 and both.items.low < both.mean < both.items.high
    table = difference_table([both], TASKS["question-answering"])
    cells = dict(zip([column.full_title for column in table.columns], table.texts(table.rows[0]), strict=True))
    assert table.rows[0].name == "mine − Dot product"
    assert cells["95% interval: Over seeds"] == f"[{alone.low:.1f}, {alone.high:.1f}]"
    assert cells["95% interval: Over both"] == f"[{both.low:.1f}, {both.high:.1f}]"
    assert cells["p-value: Corrected"] == f"{both.adjusted_p:.3f}"
    assert "10,000 bootstrap resamples" in table.caption and "Corrected: for 1 comparison (Holm)" in table.caption
    assert "mine − Dot product" in table.to_markdown() and table.to_csv().count("\n") == 2


def test_one_seed_is_compared_over_items_alone():
    results = [make_answer_result("dot", 0, 0.0), make_answer_result("mine", 0, 100.0)]
    scores = {"dot": [0] * 30, "mine": [100] * 30}
    units = [f"{number:02}" for number in range(30)]
    outcomes = {run["run_id"]: ItemOutcomes.of_parts([(units, scores[run["alignment_function"]])]) for run in results}
    (gap,) = paired_comparisons(results, outcomes=outcomes)
    assert gap.p_value is None and gap.items.p_value < 0.001 and gap.picture_error == 0
    texts = difference_table([gap], TASKS["question-answering"]).texts(
        difference_table([gap], TASKS["question-answering"]).rows[0]
    )
    assert texts == ["100.0", "-", "[100.0, 100.0]", "-", "< 0.001", "-", "-", "-"]


def test_a_table_without_test_items_does_not_speak_of_them():
    table = difference_table(paired_comparisons(runs(dot=(300, 302, 304), mine=(310, 311, 315))), TASKS["retrieval"])
    titles = [column.full_title for column in table.columns]
    assert titles == ["Mean", "95% interval: Over seeds", "p-value: Over seeds", "p-value: Corrected", titles[-1]]
    assert table.texts(table.rows[0])[:2] == ["10.0", "[7.5, 12.5]"] and "bootstrap" not in table.caption


def test_pairs_without_all_their_predictions_are_compared_over_seeds():
    results = runs(make_answer_result, dot=(0, 100), mine=(50, 50))
    outcome = ItemOutcomes.of_parts([(["a", "b"], [0, 100])])
    (gap,) = paired_comparisons(results, outcomes={results[2]["run_id"]: outcome})
    assert gap.items is None and gap.p_value == 1.0


def test_the_reference():
    assert default_reference(runs(cosine=(1,), dot=(2,))) == "dot"
    assert default_reference(runs(general_key=(1,), cosine=(2,))) == "cosine"
    with pytest.raises(ResultsError, match="reference 'cosine'"):
        paired_comparisons(runs(dot=(1, 2)), "cosine")

import math

import pytest

from vl_alignment.analysis.statistics import estimate, paired_differences, row_key, seeds_of, summarise, values_of
from vl_alignment.models.errors import ResultsError

from .synthetic import make_result

# Student's t at 97.5 %, from a printed table.
T_1, T_2 = 12.7062, 4.3027


def test_interval_of_three_values_by_hand():
    result = estimate([1.0, 2.0, 3.0])
    assert (result.mean, result.standard_deviation, result.count) == (2.0, 1.0, 3)
    assert result.half_interval == pytest.approx(T_2 / math.sqrt(3), abs=1e-4)  # 2.4842
    assert result.low == pytest.approx(-0.4842, abs=1e-3)
    assert result.high == pytest.approx(4.4842, abs=1e-3)
    assert result.text() == "2.0 ± 2.5"


def test_interval_of_two_values_by_hand():
    # Standard deviation sqrt(2) of 10 and 12; over sqrt(2) that is 1.
    assert estimate([10, 12]).half_interval == pytest.approx(T_1, abs=1e-3)


def test_confidence_widens_the_interval():
    # 99.5 % of Student's t with 2 degrees of freedom is 9.9248.
    assert estimate([1, 2, 3], confidence=0.99).half_interval == pytest.approx(9.9248 / math.sqrt(3), abs=1e-3)


def test_one_seed_has_no_interval():
    result = estimate([62.4])
    assert (result.mean, result.count) == (62.4, 1)
    assert result.standard_deviation is result.half_interval is result.low is result.high is None
    assert result.text() == "62.4 ± -"


def test_equal_values_have_exactly_no_spread():
    assert estimate([0.1] * 3) == estimate([0.1] * 3).__class__(0.1, 0.0, 0.0, 3)


@pytest.mark.parametrize(("values", "message"), [([], "no values"), ([1.0, math.nan], "not a finite number")])
def test_bad_values_are_named(values, message):
    with pytest.raises(ResultsError, match=message):
        estimate(values)


def test_summarise_by_function_and_metric(results):
    rows = summarise(results, ["rsum", "sentence_retrieval_r1"])
    assert [(row.alignment_function, row.metric) for row in rows] == [
        ("dot", "rsum"),
        ("dot", "sentence_retrieval_r1"),
        ("general_query", "rsum"),
        ("general_query", "sentence_retrieval_r1"),
    ]
    assert rows[0].estimate.mean == 302.0
    assert rows[0].estimate.standard_deviation == 2.0
    assert rows[2].estimate.mean == 312.0
    assert len(summarise(results)) == 2 * 9


def test_differences_are_paired_by_seed(results):
    (difference,) = paired_differences(results, "dot")
    # 10, 9, 11: mean 10, standard deviation 1, although each function's own is 2 and more.
    assert difference.estimate.mean == 10.0
    assert difference.estimate.half_interval == pytest.approx(2.4842, abs=1e-3)
    assert difference.seeds == (0, 1, 2)
    assert difference.sign == 1
    (backwards,) = paired_differences(results, "general_query")
    assert backwards.sign == -1


def test_only_shared_seeds_are_compared():
    results = [make_result("dot", 0, 300.0), make_result("dot", 1, 301.0)]
    results += [make_result("cosine", 1, 305.0), make_result("general_key", 7, 310.0)]
    cosine, general = paired_differences(results, "dot")
    assert (cosine.seeds, cosine.estimate.mean, cosine.estimate.half_interval, cosine.sign) == ((1,), 4.0, None, 0)
    assert (general.seeds, general.estimate, general.sign) == ((), None, 0)


def test_equal_differences_decide_nothing():
    results = [make_result(name, seed, rsum) for name, rsum in (("dot", 300.0), ("cosine", 300.5)) for seed in (0, 1)]
    assert paired_differences(results, "dot")[0].sign == 0
    assert not paired_differences(results, "dot")[0].identical
    results = [make_result(name, seed, 300.0 + seed) for name in ("dot", "cosine") for seed in (0, 1)]
    assert paired_differences(results, "dot")[0].identical


def test_unknown_reference_is_named(results):
    with pytest.raises(ResultsError, match="reference 'cosine' has 'rsum'; there are dot, general_query"):
        paired_differences(results, "cosine")


def test_the_released_layout_is_a_row_of_its_own():
    results = [make_result("general_key", 0), make_result("general_key", 0, released_layout=True)]
    assert [row_key(result) for result in results] == ["general_key", "general_key (released)"]
    assert seeds_of(results) == {"general_key": (0,), "general_key (released)": (0,)}


def test_a_run_without_the_metric_is_left_out(results):
    results.append(make_result("cosine", 0, metrics={"accuracy": 1.0}))
    assert "cosine" not in values_of(results, "rsum")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "general_query with seed 2 is there twice"),
        ({"dataset": {"name": "flickr8k"}}, "several data sets"),
        ({"task": "vqa"}, "several tasks"),
        ({"alignment_function": None}, "does not name its alignment_function"),
    ],
)
def test_runs_that_cannot_be_averaged_are_named(results, changes, message):
    with pytest.raises(ResultsError, match=message):
        summarise([*results, make_result("general_query", 9) | changes])

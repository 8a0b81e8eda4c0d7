import math

import pytest

from vl_alignment.analysis.findings import findings
from vl_alignment.analysis.ranking import rank_blocks, rank_functions, rank_table
from vl_alignment.analysis.tasks import TASKS
from vl_alignment.models.errors import ResultsError

from .synthetic import make_result


def runs(**values):
    return [make_result(name, seed, rsum) for name, row in values.items() for seed, rsum in enumerate(row)]


def test_ranks_by_hand():
    rows = {"a": (9, 8, 5, 9), "b": (7, 7, 6, 8), "c": (1, 2, 3, 4)}  # only the third block prefers b
    ranking = rank_functions(rank_blocks(runs(**rows)))
    assert ranking.mean_ranks == {"a": 1.25, "b": 1.75, "c": 3.0}
    # 12 n / (k (k + 1)) times the squares' sum 0.75^2 + 0.25^2 + 1 is 6.5, with two degrees of freedom.
    assert ranking.p_value == pytest.approx(math.exp(-6.5 / 2))
    assert ranking.critical_difference == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 4)), abs=1e-3)
    assert ranking.like_the_best == ["a", "b"] and ranking.separates


@pytest.mark.parametrize(("count", "quantile"), [(3, 2.343), (4, 2.569), (8, 3.031), (10, 3.164)])
def test_critical_differences_are_those_of_the_printed_table(count, quantile):
    ranking = rank_functions([{f"f{place}": place for place in range(count)}] * 6)
    assert ranking.critical_difference == pytest.approx(quantile * math.sqrt(count * (count + 1) / 36), abs=1e-3)


def test_few_seeds_tell_nothing_apart():
    results = runs(dot=(300, 301), cosine=(310, 311), mine=(320, 321))
    ranking = rank_functions(rank_blocks(results))
    assert ranking.mean_ranks == {"mine": 1.0, "cosine": 2.0, "dot": 3.0}
    assert not ranking.separates and ranking.like_the_best == ["mine", "cosine", "dot"]
    text = next(finding.text for finding in findings(results) if finding.text.startswith("By ranks over 2 seeds"))
    assert "no function is told apart from the best, mine" in text and "of 2 at most" in text


def test_many_seeds_do():
    results = runs(**{name: [300 + 10 * place + seed for seed in range(9)] for place, name in enumerate("abc")})
    ranking = rank_functions(rank_blocks(results))
    assert ranking.blocks == 9 and ranking.like_the_best == ["c", "b"] and ranking.p_value < 0.001
    text = next(finding.text for finding in findings(results) if finding.text.startswith("By ranks"))
    assert "the best, c, is told apart from a" in text
    table = rank_table(ranking, TASKS["retrieval"])
    assert [table.texts(row) for row in table.rows] == [["1.00", "no"], ["2.00", "no"], ["3.00", "yes"]]
    assert "Ranks by Rsum over 9 seeds" in table.caption and "(Nemenyi)" in table.caption


def test_seeds_that_some_lack_are_no_blocks():
    assert rank_blocks(runs(dot=(300, 301, 302), mine=(310, 311))) == [
        {"dot": 300, "mine": 310},
        {"dot": 301, "mine": 311},
    ]


def test_a_released_layout_is_no_function_of_its_own():
    results = runs(dot=(300, 301), mine=(310, 311))
    released = [{**result, "released_layout": True} for result in runs(mine=(200, 201))]
    assert rank_blocks([*results, *released]) == rank_blocks(results)
    assert rank_blocks(released) == []


def test_what_cannot_be_ranked():
    assert rank_functions([]) is None
    assert rank_functions([{"a": 1, "b": 2}] * 5) is None
    assert rank_functions([{"a": 1, "b": 2, "c": 3}]) is None
    alike = rank_functions([{"a": 1, "b": 1, "c": 1}] * 2)
    assert alike.p_value == 1.0 and not alike.separates
    with pytest.raises(ResultsError, match="different functions"):
        rank_functions([{"a": 1, "b": 2}, {"a": 1, "c": 2}])

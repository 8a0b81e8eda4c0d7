import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from vl_alignment.analysis.grounding_report import (
    GROUNDING_FILE,
    grounding_markdown,
    grounding_sections,
    load_groundings,
    performance_correlations,
    rank_correlation_over_runs,
    rank_correlation_within,
)
from vl_alignment.analysis.report import render_sections, report_content

from .synthetic import make_result


def make_grounding(function, seed, mass, rsum):
    summary = {"mean": mass, "low": mass - 0.1, "high": mass + 0.1, "items": 9, "pictures": 3, "uniform": 0.1}
    return {
        "task": "retrieval",
        "dataset": "blocks",
        "split": "test",
        "pictures": 3,
        "alignment_function": function,
        "released_layout": False,
        "seed": seed,
        "settings": {"threshold": 0.5, "occlusion": "mean", "seed": 0},
        "metrics": {"attention_mass": {**summary, "shuffled": 0.2}},
        "performance": {"rsum": rsum},
    }


def test_rank_correlation_over_runs_is_spearmans_with_its_chance():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(2, 12))
    found, expected = rank_correlation_over_runs(one, other), spearmanr(one, other)
    assert found.value == pytest.approx(expected.statistic) and found.runs == 12
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.03)
    assert found.low < found.value < found.high
    perfect = rank_correlation_over_runs(np.arange(8), np.arange(8) ** 3, resamples=2000)
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, 1, 1)) and perfect.p_value < 0.01


def test_too_few_runs_and_constants_are_not_correlated():
    assert rank_correlation_over_runs(np.arange(4), np.arange(4)) is None
    assert rank_correlation_over_runs(np.ones(9), np.arange(9)) is None


def test_within_functions_what_tells_functions_apart_is_gone():
    # Between functions mass and Rsum rise together; between the seeds of a function they fall.
    groundings = [
        make_grounding(name, seed, 0.1 * place - 0.01 * seed, 100 * place + seed)
        for place, name in enumerate(("dot", "general_key", "general_query"), start=1)
        for seed in range(3)
    ]
    (found,) = performance_correlations(groundings, resamples=500)
    assert found.runs == 9 and found.overall.value > 0.7
    assert found.within.value == pytest.approx(-1)
    assert found.between is None  # of three functions


def test_between_functions_medians_are_compared():
    # One seed of the best function looks away: it must not turn the order of five functions.
    names = ("dot", "scaled_dot", "cosine", "general_key", "general_query")
    groundings = [
        make_grounding(name, seed, 0.1 * place + 0.01 * seed, 100 * place + seed)
        for place, name in enumerate(names, start=1)
        for seed in range(3)
    ]
    groundings[-3] = make_grounding(names[-1], 0, 0.01, 500)
    (found,) = performance_correlations(groundings, resamples=500)
    assert found.between.value == pytest.approx(1) and found.between.runs == 5
    assert found.overall.value < 1


def test_one_run_that_hardly_learned_does_not_make_a_correlation_within_functions():
    draw = np.random.default_rng(1)
    one, other = draw.normal(size=(2, 40))
    functions = np.repeat(list("abcdefgh"), 5)
    usual = rank_correlation_within(one, other, functions, resamples=200).value
    one[7] = other[7] = -100
    found = rank_correlation_within(one, other, functions, resamples=200)
    assert abs(found.value - usual) < 0.2 and found.p_value > 0.05
    expected = np.mean(
        [spearmanr(*rows).statistic for rows in zip(one.reshape(8, 5), other.reshape(8, 5), strict=True)]
    )
    assert found.value == pytest.approx(expected)  # groups of one size: the mean of their correlations


def test_correlation_within_functions_finds_nothing_where_there_is_nothing():
    # Two runs a function: their centred values are one number and its negative, which are not two runs' worth.
    draw = np.random.default_rng(0)
    functions = [f"f{place}" for place in range(8) for _ in range(2)]
    means = 10 * np.repeat(np.arange(8), 2)
    found = [
        rank_correlation_within(*(draw.normal(size=(2, 16)) + means), functions, resamples=200) for _ in range(200)
    ]
    assert 0.01 <= np.mean([item.p_value <= 0.05 for item in found]) <= 0.1
    assert 0.01 <= np.mean([item.low > 0 or item.high < 0 for item in found]) <= 0.1
    assert rank_correlation_within(np.arange(4), np.arange(4), ["a", "a", "b", "b"]) is None
    assert rank_correlation_within(np.arange(9), np.arange(9), list("abcdefghi")) is None


def test_table_has_functions_and_controls():
    groundings = [make_grounding("dot", seed, 0.4 + 0.1 * seed, 300 + seed) for seed in range(2)]
    (section,) = grounding_sections([*groundings, make_grounding("general_key", 0, 0.7, 290)])
    rows = {row.name: section.table.texts(row) for row in section.table.rows}
    assert rows["Dot product"] == ["45.0 ± 63.5"]  # of two seeds
    assert rows["General†"] == ["70.0 ± 10.0"]  # of its pictures
    assert rows["Uniform attention, or random order"] == ["10.0"]
    assert rows["Another picture's attention"] == ["20.0"]
    assert any("too few to correlate" in note for note in section.notes)
    assert section.rows == (("Attention on the truth, %: Mass inside", "3", "-", "-", "-"),)


def test_what_goes_with_performance_is_a_finding():
    def section(masses):
        found = [make_grounding("dot", seed, mass, 300 + seed) for seed, mass in enumerate(masses)]
        return grounding_sections(found)[0]

    risen, unrelated = section(np.linspace(0.2, 0.6, 12)), section([0.3, 0.5, 0.1, 0.6, 0.2, 0.4, 0.35, 0.25])
    assert [finding.kind for finding in risen.findings] == ["supported", "supported"]
    assert risen.findings[0].text.startswith("Over 12 models Rsum goes with these measures of attention")
    assert "Mass inside 1.00 [1.00, 1.00]" in risen.findings[0].text
    assert {finding.kind for finding in unrelated.findings} == {"open"}
    assert "Among models of one function no measure" in unrelated.findings[1].text
    assert section([0.1, 0.2]).findings == ()


def test_what_was_measured_otherwise_has_a_table_of_its_own():
    other = make_grounding("dot", 0, 0.5, 300) | {"split": "validation"}
    text = grounding_markdown([make_grounding("dot", 0, 0.5, 300), other])
    assert text.count("| Dot product |") == 2 and "(validation, 3 pictures)" in text


def test_the_report_shows_it_where_it_was_measured():
    results = [make_result(name, seed) for name in ("dot", "general_key") for seed in range(2)]
    measured = [make_grounding(result["alignment_function"], result["seed"], 0.5, 300) for result in results]
    page = render_sections(report_content(results, grounding=measured))
    assert "Interpretability, measured" in page and "Another picture" in page
    more = [(name, seed) for name in ("dot", "general_key") for seed in range(5)]
    measured = [make_grounding(name, seed, 0.1 * seed, 300 + seed) for name, seed in more]
    content = report_content([make_result(name, seed) for name, seed in more], grounding=measured)
    assert any("goes with these measures of attention" in finding.text for finding in content["findings"])
    assert "Interpretability, measured" not in render_sections(report_content(results))


def test_a_damaged_measurement_is_left_out_with_a_warning(tmp_path):
    for name, text in (("whole", json.dumps({"schema_version": 1, "run_id": "a"})), ("cut", '{"schema_ver')):
        (tmp_path / name).mkdir()
        (tmp_path / name / GROUNDING_FILE).write_text(text)
    with pytest.warns(UserWarning, match="cut.*left out of interpretability"):
        assert [item["run_id"] for item in load_groundings([tmp_path / "whole", tmp_path / "cut"])] == ["a"]

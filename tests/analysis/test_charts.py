import re
from xml.etree import ElementTree

from vl_alignment.analysis.charts import curve_charts, interval_chart, series_name

from .synthetic import make_result


def words(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_interval_chart_is_an_svg_of_the_pages_colours(results):
    svg = interval_chart([*results, make_result("mine", 0)])
    assert {"Dot product", "General*", "mine"} <= set(words(svg))
    assert "var(--series-dot)" in svg and "var(--series-other-1)" in svg and "currentColor" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "<style" not in svg and "<metadata" not in svg
    assert 'role="img"' in svg and "aria-label=" in svg


def test_a_chart_is_the_same_every_time(results):
    assert interval_chart(results) == interval_chart(results)


def test_an_interval_far_wider_than_the_results_is_cut():
    results = [make_result(name, seed, 300 + 10 * seed) for name in ("dot", "cosine") for seed in (0, 1)]
    # 305 ± 63.5: the axis ends at 1.5 times the range of 10 beyond the results.
    numbers = [float(word.replace("−", "-")) for word in words(interval_chart(results)) if word[0].isdigit()]
    assert 280 <= min(numbers) and max(numbers) <= 330


def test_curves_by_epoch_and_by_step(results):
    curves = {
        result["run_id"]: [
            {"step": 1, "epoch": 1, "loss": 9.0},
            {"step": 2, "epoch": 1, "loss": 8.0, "learning_rate": 0.1},
            {"step": 2, "epoch": 1, "validation": {"rsum": 100.0, "sentence_retrieval_rsum": 50.0}},
            {"step": 4, "epoch": 2, "validation": {"rsum": 150.0}},
        ]
        for result in results
    }
    charts = curve_charts(curves | {"unknown-run": [{"epoch": 1, "rsum": 1.0}]}, results)
    assert list(charts) == ["validation_rsum", "loss"]
    assert "epoch" in words(charts["validation_rsum"]) and "Validation Rsum" in words(charts["validation_rsum"])
    assert "step" in words(charts["loss"])
    assert "stroke-dasharray" in charts["loss"]  # the query form is dashed


def test_curves_of_different_length_and_of_one_point(results):
    curves = {result["run_id"]: [{"epoch": e, "rsum": 1.0 * e} for e in range(1, 3)] for result in results[:2]}
    curves[results[1]["run_id"]] = [{"epoch": 1, "rsum": 3.0}]
    assert list(curve_charts(curves, results)) == ["rsum"]


def test_no_curves_make_no_charts(results):
    assert curve_charts({}, results) == {}
    assert curve_charts({results[0]["run_id"]: [{"epoch": 1, "seconds": 2.0}]}, results) == {}


def test_functions_of_the_user_have_colours():
    rows = ["dot", "b", "a", "c", "d", "a (released)"]
    assert [series_name(row, rows) for row in rows] == ["dot", "other-2", "other-1", "other-3", "other-1", "other-1"]


def test_charts_of_question_answering(answer_results):
    assert any(word.startswith("Accuracy: small dots are seeds") for word in words(interval_chart(answer_results)))
    validation = {"accuracy": 60.0, "accuracy_exist": 70.0, "accuracy_depth_2": 80.0}
    curves = {answer_results[0]["run_id"]: [{"step": 5, "epoch": 1, "loss": 1.0, "validation": validation}]}
    charts = curve_charts(curves, answer_results)
    assert list(charts) == ["validation_accuracy", "loss"]
    assert "Validation accuracy" in words(charts["validation_accuracy"])

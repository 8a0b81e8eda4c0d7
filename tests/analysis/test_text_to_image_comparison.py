"""The comparison of pictures from words, small but whole: from scenes to the report."""

import json

import pytest
from PIL import Image
from tests.training.pictures import drawing_study

from vl_alignment.analysis.comparison import compare, planned_runs, write_comparison
from vl_alignment.analysis.findings import findings
from vl_alignment.analysis.tables import results_table
from vl_alignment.hub.card_examples import read_examples

from .synthetic import make_drawing_result

FUNCTIONS = ["dot", "biased_general_query"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    study = drawing_study(output)
    results = compare(study, output, planned_runs(FUNCTIONS, [0]), announce=lambda line: None)
    return study, output, results, write_comparison(output, study, pictures=1)


def test_default_functions_are_those_of_the_paper_s_table():
    names = [name for _, name in planned_runs(None, [0], "text-to-image")]
    assert len(names) == 7 and "cosine" not in names


def test_examples_for_the_card_stand_beside_each_run(compared):
    _, output, results, _ = compared
    for result in results:
        folder = output / result["run_id"]
        examples = read_examples(folder)
        assert len(examples) == 2 and (folder / "attention.png").exists()
        assert [example.output for example in examples] == ["drawn-1.png", "drawn-2.png"]


def test_controls_stand_beside_the_results(compared):
    _, output, results, table = compared
    controls = {row["name"]: row["metrics"] for row in json.loads((output / "controls.json").read_text())}
    assert list(controls) == ["chance", "shuffled captions", "untrained generator", "mean picture", "real pictures"]
    measured = set(results[0]["metrics"])
    assert all(set(controls[name]) == measured for name in controls if name != "chance")
    assert controls["chance"]["attribute_accuracy"] == 50
    for name in controls:
        assert name in table


def test_the_shuffled_run_knows_captions_of_others_alone(compared):
    study, output, _, _ = compared
    run = json.loads((output / "controls" / "attngan-blocks_shuffled-dot-seed0" / "run.json").read_text())
    assert run["settings"]["matching_weight"] == 0 and study.settings["matching_weight"] > 0
    assert run["dataset"]["content_hash"] != compared[2][0]["dataset"]["content_hash"]


def test_tables_have_what_was_measured(compared):
    _, output, _, table = compared
    assert "Attribute accuracy" in table and "Feature distance" in table and "FID" not in table
    paper = (output / "paper.md").read_text()
    assert "FID: CUB, published" in paper and "IS: COCO, published" in paper


def test_every_function_draws_the_same_captions(compared):
    output = compared[1]
    grids = [Image.open(output / "samples" / f"{name}.png") for name in FUNCTIONS]
    assert grids[0].size == grids[1].size == (8 * 66 + 2, 8 * 66 + 2)


def test_report_shows_samples_and_where_words_were_drawn(compared):
    page = (compared[1] / "report.html").read_text()
    assert page.count("data:image/webp;base64") == 4  # a grid and one caption, of two functions
    assert "Where words were drawn" in page and "Samples: a row a test caption" in page
    assert "No weights of FID" in page and "attribute classifier of blocks" in page and "weights_sha256" in page


def drawn_results(distances):
    return [make_drawing_result(name, seed, row[seed]) for name, row in distances.items() for seed in (0, 1)]


CONTROLS = [
    {"name": "chance", "metrics": {"r_precision": 1.0, "attribute_accuracy": 50.0}},
    {"name": "untrained generator", "metrics": {"feature_distance": 40.0, "r_precision": 1.2}},
    {"name": "mean picture", "metrics": {"feature_distance": 12.0}},
]


def test_the_lowest_distance_is_best():
    table = results_table(drawn_results({"dot": (5.0, 5.2), "general_key": (9.0, 9.2)}))
    best = dict(zip((column.key for column in table.columns), table.best(), strict=True))
    assert best["feature_distance"] == {"dot"}


def test_findings_hold_the_largest_distance_against_controls():
    good = [
        finding.text for finding in findings(drawn_results({"dot": (5.0, 5.2), "general_key": (9.0, 9.2)}), CONTROLS)
    ]
    assert any("that of General†, is 9.1, 4.4 times below that of an untrained generator (40)" in text for text in good)
    assert any("1.3 times below that of the mean training picture" in text for text in good)
    bad = findings(drawn_results({"dot": (20.0, 21.0)}), CONTROLS)
    warnings = [finding.text for finding in bad if finding.kind == "warning"]
    assert sum("too little was learned" in text for text in warnings) == 2

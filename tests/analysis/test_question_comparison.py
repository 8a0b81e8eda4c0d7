"""The comparison of question answering, small but whole: from scenes to the report."""

import json

import numpy as np
import pytest

from vl_alignment.analysis.comparison import compare, planned_runs, run_classes, write_comparison
from vl_alignment.analysis.controls import perfect_answers, shuffled_answers
from vl_alignment.hub.card_examples import read_examples
from vl_alignment.training.preparation import prepare_study

SIZES = {"train": 24, "validation": 8, "test": 8}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    study = prepare_study(
        "blocks-vqa",
        output=output,
        sizes=SIZES,
        settings={"epochs": 1, "batch_size": 8, "decay_epochs": [], "warmup_steps": 0},
        model_fields={"hidden_size": 16, "word_embedding_size": 8, "num_steps": 2},
    )
    results = compare(study, output, planned_runs(["scaled_dot", "additive"], [0]), announce=lambda line: None)
    return study, output, results, write_comparison(output, study, pictures=2)


def test_default_functions_are_those_of_the_paper_s_table():
    names = [name for _, name in planned_runs(None, [0], "question-answering")]
    assert len(names) == 7 and "cosine" not in names


def test_study_has_every_size_that_was_asked_for(compared):
    study, _, results, _ = compared
    assert study.sizes == SIZES
    assert results[0]["dataset"]["test"] == 8 * 30
    assert set(results[0]["dataset"]["question_types"]) == {
        *("exist", "count", "compare_integer", "query_attribute", "compare_attribute"),
    }
    assert study.store.regions == 144 and study.store.dtype == np.float16
    assert "144 cells" in study.notes[0]


def test_examples_for_the_card_stand_beside_each_run(compared):
    _, output, results, _ = compared
    for result in results:
        folder = output / result["run_id"]
        examples = read_examples(folder)
        assert len(examples) == 2 and (folder / "attention.png").exists()
        assert all(example.image and len(example.texts) == 1 and example.output[0][0] for example in examples)


def test_controls_stand_beside_the_results(compared):
    _, output, results, table = compared
    controls = {row["name"]: row["metrics"] for row in json.loads((output / "controls.json").read_text())}
    assert set(controls) == {"majority by type", "image zeroed", "shuffled answers", "perfect reader"}
    assert controls["perfect reader"]["accuracy"] == 100.0
    assert controls["majority by type"]["accuracy"] < 60
    for name in controls:
        assert set(results[0]["metrics"]) == set(controls[name])
        assert name in table


def test_report_shows_the_steps_of_every_function(compared):
    _, output, _, _ = compared
    page = (output / "report.html").read_text()
    assert page.count("data:image/webp;base64") >= 4
    assert "perfect reader" in page and "perfect reader" in (output / "table.md").read_text()
    assert (output / "paper.md").read_text().strip() and (output / "results.csv").read_text().strip()


def test_functions_are_compared_over_the_test_questions(compared):
    _, output, results, _ = compared
    text = (output / "differences.md").read_text()
    assert "Additive − Scaled dot product" in text and "10,000 bootstrap resamples" in text
    gap = results[1]["metrics"]["accuracy"] - results[0]["metrics"]["accuracy"]
    cells = [cell.strip() for cell in text.splitlines()[-1].split("|")]
    assert cells[2] == f"{gap:.1f}" and cells[3] == "-" and cells[4].startswith("[")
    page = (output / "report.html").read_text()
    assert "Over test questions" in page and "10,000 bootstrap resamples" in page


def test_classes_are_those_of_the_configuration_that_was_run(compared, tmp_path):
    _, output, results, _ = compared
    # The cell of this preset has no activation before the score.
    assert "general_query" in run_classes(output, results)[0].functions
    assert "general_query" not in run_classes(tmp_path, results)[0].functions


def test_shuffled_answers_stay_within_type_and_split(compared):
    data = compared[0].data
    mixed = shuffled_answers(data, seed=0)
    assert perfect_answers(mixed, "test")["accuracy"] < 80
    for split, questions in data.questions.items():
        for name in ("count", "exist"):
            before, after = (
                sorted(a for a, t in zip(rows["answer"], rows["question_type"], strict=True) if t == name)
                for rows in (questions, mixed.questions[split])
            )
            assert before == after

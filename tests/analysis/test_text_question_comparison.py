"""The comparison of question answering by reading, small but whole: from scenes with words to the report."""

import json

import numpy as np
import pytest

from vl_alignment.analysis.comparison import compare, planned_runs, write_comparison
from vl_alignment.analysis.controls import shuffled_answers
from vl_alignment.hub.card_examples import read_examples
from vl_alignment.metrics.text_question_answering import answer_words, unseen_answers
from vl_alignment.training.preparation import prepare_study

SIZES = {"train": 20, "validation": 6, "test": 8}
UNSEEN = "accuracy_unseen"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    study = prepare_study(
        "blocks-text",
        output=output,
        sizes=SIZES,
        settings={"epochs": 1, "batch_size": 8, "decay_epochs": [], "warmup_steps": 0},
        model_fields={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    )
    results = compare(study, output, planned_runs(["scaled_dot", "cosine"], [0]), announce=lambda line: None)
    return study, output, results, write_comparison(output, study, pictures=2)


def test_default_functions_are_those_of_the_paper_s_table():
    names = [name for _, name in planned_runs(None, [0], "text-question-answering")]
    assert len(names) == 7 and "cosine" not in names


def test_the_words_of_the_test_pictures_are_unseen(compared):
    data = compared[0].data
    train, test = data.questions["train"], data.questions["test"]
    unseen = unseen_answers(list(test["answers"]), answer_words(train["answers"]))
    reads = np.array([family.startswith("read_") for family in test["question_type"]])
    assert unseen[reads].mean() > 0.9 and unseen[~reads].mean() < 0.1


def test_examples_for_the_card_stand_beside_each_run(compared):
    _, output, results, _ = compared
    for result in results:
        folder = output / result["run_id"]
        examples = read_examples(folder)
        assert len(examples) == 2 and (folder / "attention.png").exists()
        assert all(example.image and len(example.texts) == 1 and example.output for example in examples)


def test_controls_stand_beside_the_results(compared):
    _, output, results, table = compared
    controls = {row["name"]: row["metrics"] for row in json.loads((output / "controls.json").read_text())}
    assert list(controls) == [
        *("majority by family", "blind", "without copying", "shuffled answers", "best spelling", "ceiling"),
    ]
    measured = set(results[0]["metrics"])
    for name in ("blind", "without copying", "shuffled answers"):
        # With shuffled answers other questions' answers are unseen, perhaps of none up to one hop.
        assert {*measured} - set(controls[name]) <= ({UNSEEN, f"{UNSEEN}_up_to_one_hop"} if "shuff" in name else set())
    # Where an answer can be taken from depends on a model's vocabulary, which neither of these has.
    sources = {name for name in measured if name.startswith("accuracy_source_")}
    assert "accuracy_source_ocr" in sources
    assert measured - sources - {"copied_words"} == set(controls["ceiling"]) == set(controls["majority by family"])
    dataset = results[0]["dataset"]
    assert controls["ceiling"]["accuracy"] == pytest.approx(dataset["answer_ceiling"], abs=0.005)
    assert controls["ceiling"][UNSEEN] > 85 and controls["ceiling"]["anls"] == 100
    assert controls["best spelling"] == {"accuracy": dataset["best_accuracy"]}
    assert 0 < controls["best spelling"]["accuracy"] <= controls["ceiling"]["accuracy"]
    # What these cannot know, they do not.
    assert controls["without copying"]["copied_words"] == controls["blind"]["copied_words"] == 0
    assert max(controls[name][UNSEEN] for name in ("without copying", "blind", "majority by family")) < 10
    for name in controls:
        assert name in table


def test_the_ablated_model_says_so(compared):
    output = compared[1]
    runs = {
        name: json.loads((output / "controls" / f"m4c-blocks_text_{name}-scaled_dot-seed0" / "run.json").read_text())
        for name in ("without_copying", "blind")
    }
    assert runs["without_copying"]["model"]["copy_words"] is False and runs["blind"]["model"]["copy_words"] is True
    assert runs["blind"]["dataset"]["blind"] is True


def test_the_tables_have_the_columns_that_were_measured(compared):
    _, output, _, table = compared
    assert "Accuracy" in table and "ANLS" in table and "Unseen words" in table and "By hops" in table
    families = (output / "table.md").read_text().strip().split("\n\n")[-1]
    assert "By question family: Read object" in families and "Up to one hop" not in families
    assert "ANLS: TextVQA, published" in (output / "paper.md").read_text()


def test_report_shows_what_the_words_of_answers_look_at(compared):
    _, output, _, _ = compared
    page = (output / "report.html").read_text()
    assert page.count("data:image/webp;base64") >= 4
    assert "ceiling" in page and "one row a word of the answer" in page
    assert "a model that cannot copy reaches" in page


def test_shuffled_answers_stay_within_family_and_split(compared):
    data = compared[0].data
    mixed = shuffled_answers(data, 0, "answers")
    moved = 0
    for split, questions in data.questions.items():
        assert questions.features == {name: mixed.questions[split].features[name] for name in questions.features}
        for family in set(questions["question_type"]):
            before, after = (
                [tuple(a) for a, t in zip(rows["answers"], rows["question_type"], strict=True) if t == family]
                for rows in (questions, mixed.questions[split])
            )
            assert sorted(before) == sorted(after)
            moved += sum(own != other for own, other in zip(before, after, strict=True))
    assert moved > 0.9 * sum(len(questions) for questions in data.questions.values()) - 3 * 13

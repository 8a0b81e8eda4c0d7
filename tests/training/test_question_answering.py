import json

import pyarrow.parquet
import pytest

from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.question_answering import train_question_run

from .questions import TINY, question_data, region_store

SETTINGS = {
    "epochs": 2,
    "batch_size": 4,
    "questions_per_image": 2,
    "decay_epochs": (),
    "ema_decay": 0.9,
    "device": "cpu",
}


def run(data, output, *, settings=None, **changes):
    values = {
        "dataset_name": "tiny",
        "output": output,
        "settings": TrainingSettings.from_dict({**SETTINGS, **(settings or {})}),
        "model_fields": {**TINY, "alignment_function": "general_key"},
        "region_store": region_store(data),
        "command": "test",
    }
    return train_question_run(data, **{**values, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output, data = tmp_path_factory.mktemp("runs"), question_data()
    return data, output, run(data, output)


def test_run_leaves_all_that_its_folder_promises(finished):
    data, output, result = finished
    folder = output / "mac-tiny-general_key-seed0"
    assert json.loads((folder / "results.json").read_text()) == result
    assert (result["task"], result["model"], result["run_id"]) == ("question-answering", "mac", folder.name)
    assert result["dataset"]["train"] == 24 and result["dataset"]["images"]["train"] == 6
    assert result["dataset"]["content_hash"] == data.content_hash
    assert result["dataset"]["question_types"] == {"count": 8, "query_attribute": 16}
    statistics = result["dataset"]["question_statistics"]
    assert (statistics["questions"], statistics["share_count"]) == (24, 33.33)
    assert statistics["majority_accuracy_count"] == 100
    assert 0 <= result["metrics"]["accuracy"] <= 100 and "accuracy_count" in result["metrics"]
    rows = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    assert len(rows) == 24 and {"item_id", "prediction", "reference", "question_type", "program_depth"} <= set(rows[0])
    right = sum(row["prediction"] == row["reference"] for row in rows)
    assert result["metrics"]["accuracy"] == pytest.approx(100 * right / 24)
    model = MacForQuestionAnswering.from_pretrained(folder / "model")
    assert set(model.config.id2label.values()) == {"red", "blue", "2"}
    assert model.config.region_extractor == "random"


def test_finished_run_is_kept_and_another_model_in_its_folder_refused(finished):
    data, output, result = finished
    assert run(data, output) == result
    with pytest.raises(ConfigurationError, match="another model"):
        run(data, output, model_fields={**TINY, "alignment_function": "general_key", "num_steps": 3})


def test_blind_run_says_so(finished, tmp_path):
    data, _, _ = finished
    result = run(data, tmp_path, blind=True, dataset_name="tiny-image-zeroed")
    assert result["dataset"]["blind"] is True
    assert result["run_id"] == "mac-tiny_image_zeroed-general_key-seed0"


def test_where_test_answers_are_not_public_validation_is_measured(tmp_path):
    data = question_data(questions=3)
    del data.questions["test"], data.images["test"]
    with pytest.raises(DataError, match=r"lacks the splits \['test'\]"):
        run(data, tmp_path)
    result = run(data, tmp_path, test_split="validation", settings={"epochs": 1})
    rows = pyarrow.parquet.read_table(tmp_path / result["run_id"] / "predictions.parquet").to_pylist()
    assert {row["image_id"].split("-")[0] for row in rows} == {"validation"}

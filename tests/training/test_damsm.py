"""DAMSM on a few pictures: its objective, its run, and the one that a study shares."""

import json

import pyarrow.parquet
import pytest
import torch
from accelerate import Accelerator

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_damsm import DamsmModel
from vl_alignment.models.processing_attngan import AttnGanProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.damsm import shared_damsm, train_damsm_run
from vl_alignment.training.damsm_objective import DamsmObjective
from vl_alignment.training.evaluation import evaluate
from vl_alignment.training.preparation import load_study

from .pictures import SIZES

FIELDS = {
    "word_embedding_size": 8,
    "hidden_size": 8,
    "freeze_vision": False,
    "vision_config": {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]},
}
SETTINGS = {"epochs": 2, "batch_size": 8, "decay_epochs": (), "device": "cpu", "log_every_steps": 1}
RUN = "damsm-blocks-dot-seed0"


@pytest.fixture(scope="module")
def data():
    return load_study("blocks-t2i", sizes=SIZES).data


def run(data, output, **changes):
    values = {
        "dataset_name": "blocks",
        "settings": TrainingSettings.from_dict(SETTINGS),
        "model_fields": FIELDS,
        "image_size": 64,
        "command": "test",
    }
    return train_damsm_run(data, output=output, **{**values, **changes})


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("damsm")
    return output, run(data, output)


@pytest.fixture
def objective(data):
    texts = (text for captions in data["train"]["captions"] for text in captions)
    tokenizer = build_word_tokenizer(texts, 1, marks=False)
    return DamsmObjective(data, tokenizer, TrainingSettings.from_dict(SETTINGS), image_size=64)


def test_a_batch_is_what_the_model_takes(objective):
    examples = objective.train_dataset(3)
    batch = objective.collate([examples[row] for row in range(4)])
    assert set(batch) == {"ids", "input_ids", "attention_mask", "pixel_values"}
    assert batch["pixel_values"].shape == (4, 3, 64, 64) and len(batch["ids"]) == 4
    again = objective.train_dataset(3)
    assert torch.equal(objective.collate([again[row] for row in range(4)])["input_ids"], batch["input_ids"])


def test_classes_reach_the_model(data):
    classed = {name: split.add_column("class_id", [*range(len(split))]) for name, split in data.items()}
    tokenizer = build_word_tokenizer(["a red ball"], 1, marks=False)
    task = DamsmObjective(classed, tokenizer, TrainingSettings(), image_size=64)
    batch = task.collate([task.train_dataset(0)[row] for row in (5, 2)])
    assert batch["class_ids"].tolist() == [5, 2]


def test_the_vocabularies_must_fit(objective, finished):
    model = DamsmModel.from_pretrained(finished[0] / RUN / "model")
    objective.check_model(model)
    model.config.vocab_size = 3
    with pytest.raises(ConfigurationError, match="vocab_size=3"):
        objective.check_model(model)
    del objective.pictures["validation"]
    with pytest.raises(DataError, match="validation"):
        objective.check_model(model)


def test_run_leaves_all_that_its_folder_promises(data, finished):
    output, result = finished
    assert json.loads((output / RUN / "results.json").read_text()) == result
    assert (result["task"], result["model"], result["run_id"]) == ("image-text-matching", "damsm", RUN)
    assert 0 <= result["metrics"]["r_precision"] <= 100
    assert result["bounds"] == {"chance_r_precision": 100 / result["evaluation"]["candidates"]}
    rows = pyarrow.parquet.read_table(output / RUN / "predictions.parquet").to_pylist()
    assert [row["item_id"] for row in rows] == list(data["test"]["image_id"])
    processor = AttnGanProcessor.from_pretrained(output / RUN / "model")
    tokens = processor.tokenizer.convert_ids_to_tokens(processor(text="A red ball")["input_ids"][0])
    assert tokens == ["a", "red", "ball"]


def test_the_model_is_measured_again_as_it_was(finished):
    output, result = finished
    measured = evaluate(output / RUN / "model", sizes=SIZES, device="cpu")
    assert measured == pytest.approx({**result["metrics"], **result["bounds"]})


def test_measuring_does_not_depend_on_the_batch(objective, finished):
    model = DamsmModel.from_pretrained(finished[0] / RUN / "model")
    objective.settings.evaluation_batch_size = 3
    measured = objective.evaluate(model, "test", Accelerator(cpu=True))
    assert measured.metrics == pytest.approx(finished[1]["metrics"])
    with pytest.raises(DataError, match="no split 'dev'"):
        objective.evaluate(model, "dev", Accelerator(cpu=True))


def test_a_study_trains_its_damsm_once(data, tmp_path, monkeypatch):
    given = {
        "dataset_name": "blocks",
        "settings": TrainingSettings.from_dict({**SETTINGS, "epochs": 1}),
        "model_fields": FIELDS,
        "image_size": 64,
    }
    first, result = shared_damsm(data, tmp_path, **given)
    before = first.results.stat().st_mtime_ns
    again, same = shared_damsm(data, tmp_path, **given)
    assert (again.path, same) == (first.path, result) and again.results.stat().st_mtime_ns == before
    # What the weights do not depend on does not train another.
    free = TrainingSettings.from_dict({**SETTINGS, "epochs": 1, "log_every_steps": 7})
    assert shared_damsm(data, tmp_path, **{**given, "settings": free})[0].path == first.path

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr("vl_alignment.training.damsm.train_damsm_run", refuse)
    with pytest.raises(AssertionError, match="trained again"):
        shared_damsm(data, tmp_path, **{**given, "max_words": 9})


def test_missing_splits_are_named(data, tmp_path):
    with pytest.raises(DataError, match=r"\['test'\]"):
        run(type(data)({name: data[name] for name in ("train", "validation")}), tmp_path)

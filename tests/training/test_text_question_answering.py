import json
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.runs import RunDirectory
from vl_alignment.training.text_question_answering import train_text_question_run
from vl_alignment.training.text_question_objective import TextQuestionObjective

from .text_questions import TEXT_CONFIG, TINY, text_question_data, text_region_store
from .tiny import history

RUN = "m4c-tiny-general_key-seed0"
SETTINGS = {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 0.01,
    "decay_epochs": (),
    "ema_decay": 0.9,
    "log_every_steps": 1,
    "device": "cpu",
}


def run(output, data=None, *, settings=None, fields=None, **changes):
    data = data or text_question_data()
    values = {
        "dataset_name": "tiny",
        "output": output,
        "settings": TrainingSettings.from_dict({**SETTINGS, **(settings or {})}),
        "model_fields": {**TINY, "alignment_function": "general_key", **(fields or {})},
        "region_store": text_region_store(data),
        "minimum_count": 1,
        "answer_words": 6,
        "word_vectors": HashedWordVectors(8),
        "max_ocr_tokens": 5,
        "ocr": {"source": "true"},
        "command": "test",
    }
    return train_text_question_run(data, **{**values, **changes})


def weights(output, name=RUN):
    return load_file(RunDirectory(output / name).model / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    return output, run(output)


def test_run_leaves_all_that_its_folder_promises(finished):
    output, result = finished
    folder = output / RUN
    assert json.loads((folder / "results.json").read_text()) == result
    assert (result["task"], result["model"], result["run_id"]) == ("text-question-answering", "m4c", RUN)
    dataset = result["dataset"]
    assert (dataset["train"], dataset["images"]["train"], dataset["answer_words"]) == (12, 6, 6)
    assert dataset["question_types"] == {"read": 6, "sign": 6} and dataset["ocr"] == {"source": "true"}
    assert (dataset["answer_ceiling"], dataset["best_accuracy"]) == (100.0, 96.67)
    assert dataset["regions"] == {"extractor": "random", "version": "1"}
    rows = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    assert len(rows) == 12 and {"item_id", "prediction", "reference", "question_type", "hops", "source"} <= set(rows[0])
    assert result["metrics"]["accuracy"] == pytest.approx(100 * sum(row["score"] for row in rows) / 12)
    model = M4CForQuestionAnswering.from_pretrained(folder / "model")
    assert [*model.config.id2label.values()] == [*SPECIAL_WORDS, "stop", "mill0"]
    processor = M4CProcessor.from_pretrained(folder / "model")
    assert processor.max_ocr_tokens == 5 and processor.word_vectors.size == model.config.word_vector_size == 8


def test_finished_run_is_kept_and_another_model_or_other_text_refused(finished):
    output, result = finished
    assert run(output) == result
    with pytest.raises(ConfigurationError, match="another model .*pointer_size 8 -> 4"):
        run(output, fields={"pointer_size": 4})
    with pytest.raises(ConfigurationError, match="another dataset .*ocr"):
        run(output, ocr={"source": "corrupted", "character_error_rate": 0.05})


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [2, 5, 8])
def test_killed_run_goes_on_with_the_same_batches_and_drawn_answers(tmp_path, finished, step, monkeypatch):
    output, result = finished
    loss, seen = TextQuestionObjective.loss, []

    def remember(self, model, batch, epoch):
        seen.append({name: tensor.clone() for name, tensor in batch.items()})
        if kill.at == len(seen):
            raise Killed
        return loss(self, model, batch, epoch)

    kill = SimpleNamespace(at=0)
    monkeypatch.setattr(TextQuestionObjective, "loss", remember)
    run(tmp_path / "whole")
    whole, seen[:] = list(seen), []
    assert len(whole) == 9

    kill.at = step
    settings = {"checkpoint_every_steps": 2}
    with pytest.raises(Killed):  # nothing is saved on the way out, as after a kill
        run(tmp_path / "killed", settings=settings)
    assert not RunDirectory(tmp_path / "killed" / RUN).finished
    done = {2: 0, 5: 4, 8: 6}[step]  # the newest checkpoint: every second step, and the end of each epoch of three
    seen[:], kill.at = [], 0
    again = run(tmp_path / "killed", settings=settings)
    assert len(seen) == 9 - done
    for batch, expected in zip(seen, whole[done:], strict=True):
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert again["metrics"] == result["metrics"]
    assert history(RunDirectory(tmp_path / "killed" / RUN)) == history(RunDirectory(output / RUN))
    first, second = weights(output), weights(tmp_path / "killed")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_function_sees_the_same_batches_and_drawn_answers(tmp_path, monkeypatch):
    seen = {}

    def remember(self, model, batch, epoch):
        seen[model.config.alignment_function] = batch, {n: v.clone() for n, v in model.state_dict().items()}
        raise Killed

    monkeypatch.setattr(TextQuestionObjective, "loss", remember)
    for function in ("scaled_dot", "biased_general_key"):
        with pytest.raises(Killed):
            run(tmp_path, fields={"alignment_function": function})
    batch, started = seen["scaled_dot"]
    other, more = seen["biased_general_key"]
    assert all(torch.equal(batch[name], other[name]) for name in batch)
    assert all(torch.equal(started[name], more[name]) for name in started) and len(more) > len(started)


def test_blind_and_ablated_runs_say_so_and_copy_nothing(tmp_path):
    blind = run(tmp_path, blind=True, dataset_name="tiny-image-zeroed", settings={"epochs": 1})
    ablated = run(tmp_path, fields={"copy_words": False}, dataset_name="tiny-vocabulary", settings={"epochs": 1})
    assert blind["dataset"]["blind"] is True and ablated["run_id"] == "m4c-tiny_vocabulary-general_key-seed0"
    for result in (blind, ablated):
        assert result["dataset"]["best_accuracy"] == 80.0 and result["metrics"]["copied_words"] == 0
    assert M4CForQuestionAnswering.from_pretrained(tmp_path / ablated["run_id"] / "model").config.copy_words is False


def test_given_vocabulary_is_the_models(tmp_path):
    words = [*SPECIAL_WORDS, "halt", "stop", "go"]
    result = run(tmp_path, answer_vocabulary=words, settings={"epochs": 1})
    model = M4CForQuestionAnswering.from_pretrained(tmp_path / RUN / "model")
    assert [*model.config.id2label.values()] == words and result["dataset"]["answer_words"] == 7


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory):
    """A BERT of two layers with a word tokenizer, made offline."""
    folder = tmp_path_factory.mktemp("bert")
    questions = text_question_data().questions["train"]["question"]
    tokenizer = build_word_tokenizer(questions, minimum_count=1)
    torch.manual_seed(3)
    fields = {name: value for name, value in TEXT_CONFIG.items() if name != "model_type"}
    settings = {**fields, "num_hidden_layers": 2, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    BertModel(BertConfig(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_text_encoder_starts_from_its_checkpoint_and_learns_more_slowly(tmp_path, text_encoder):
    settings = {"epochs": 1, "batch_size": 12, "ema_decay": None, "gradient_clipping": None, "text_encoder_factor": 0.1}
    run(tmp_path, text_encoder=str(text_encoder), text_layers=1, settings=settings)
    started = load_file(text_encoder / "model.safetensors")
    trained = weights(tmp_path)
    steps = {}
    for name, value in started.items():
        own = f"model.question_encoder.text_model.{name}"
        if own in trained:
            steps[name] = float((trained[own] - value).abs().max())
    # Adam's first step is the learning rate, whatever the gradient: 0.01 x 0.1 here.
    assert max(steps.values()) == pytest.approx(0.001, rel=1e-3)
    assert not any(name.startswith("encoder.layer.1") for name in steps) and len(steps) > 10
    description = json.loads((tmp_path / RUN / "run.json").read_text())
    assert description["settings"]["text_encoder_factor"] == 0.1
    with pytest.raises(CheckpointError, match="nothing"):
        run(tmp_path / "none", text_encoder=str(tmp_path / "nothing"))


def test_learning_rate_rises_from_its_share_and_falls_at_the_named_steps(tmp_path):
    schedule = {"warmup_steps": 2, "warmup_factor": 0.2, "decay_steps": (4, 7), "decay_factor": 0.1}
    run(tmp_path, settings=schedule)
    rates = [row["learning_rate"] for row in history(RunDirectory(tmp_path / RUN)) if "learning_rate" in row]
    expected = [0.6, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert rates == pytest.approx([0.01 * factor for factor in expected])


def test_what_is_missing_is_named_before_training(tmp_path):
    data = text_question_data(answers=False)
    with pytest.raises(DataError, match="'test' are not public; measure on the validation split"):
        run(tmp_path, data)
    result = run(tmp_path, data, test_split="validation", settings={"epochs": 1})
    rows = pyarrow.parquet.read_table(tmp_path / result["run_id"] / "predictions.parquet").to_pylist()
    assert {row["image_id"].split("-")[0] for row in rows} == {"validation"}
    del data.questions["test"], data.images["test"]
    with pytest.raises(DataError, match=r"lacks the splits \['test'\]"):
        run(tmp_path / "other", data)
    with pytest.raises(ConfigurationError, match="encoder is missing"):
        run(tmp_path / "other", fields={"text_config": None})
    data.images["validation"] = data.images["validation"].remove_columns("ocr_tokens")
    with pytest.raises(DataError, match="text in the validation pictures has not been read"):
        run(tmp_path / "other", data, test_split="validation")
    assert not (tmp_path / "other").exists()

"""Studies of answering by reading: options of the data, the published preset on a tiny folder, an ablated model."""

import numpy as np
import pytest
from tests.textvqa_folder import IMAGES, write_text_encoder, write_textvqa

from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS, write_answer_vocabulary
from vl_alignment.data.region_store import RegionStore
from vl_alignment.data.word_vectors import FastTextVectors
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.data_options import changed_options
from vl_alignment.training.evaluation import evaluate, load_model, model_task
from vl_alignment.training.preparation import prepare_study
from vl_alignment.training.presets import get_preset
from vl_alignment.training.studies import TextQuestionStudy

# The preset's model is M4C's own; only its widths are made small.
NARROW = {
    "hidden_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 12,
    "pointer_size": 12,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("textvqa")
    write_textvqa(root / "data")
    write_text_encoder(root / "bert")
    (root / "words.vec").write_text("stop 1 0 2\ngo 0 1 1\nnow 2 2 0\n")
    write_answer_vocabulary([*SPECIAL_WORDS, "now", "go"], root / "answers.txt")
    return root


def study_of(folder, output, *, options=None, **changes):
    given = {"text_encoder": str(folder / "bert"), "fasttext": folder / "words.vec", **(options or {})}
    settings = {"epochs": 2, "batch_size": 4, "device": "cpu", "log_every_steps": 1}
    study = prepare_study(
        "textvqa",
        output=output,
        data_dir=folder / "data",
        settings={**settings, **changes.pop("settings", {})},
        model_fields={**NARROW, **changes.pop("model_fields", {})},
        options=given,
        **changes,
    )
    study.store = store_of(study)
    return study


def store_of(study):
    """Features of a grid of 2 x 2 cells, which no store on disk has to hold."""
    ids = [image_id for split in study.images.values() for image_id in split["image_id"]]
    features = np.random.default_rng(0).normal(size=(len(ids), 4, 6)).astype(np.float32)
    return RegionStore(ids, [features], None, extractor="random", extractor_version="1")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    study = study_of(folder, output)
    return study, output, study.run_cell(output, "scaled_dot", 0, command="test")


def test_published_preset_trains_on_its_layout_and_measures_validation(trained):
    study, output, result = trained
    assert isinstance(study, TextQuestionStudy) and study.test_split == "validation"
    assert result["run_id"] == "m4c-textvqa-scaled_dot-seed0" and result["training"]["epochs"] == 2
    dataset = result["dataset"]
    assert (dataset["train"], dataset["images"]["validation"]) == (2 * IMAGES, IMAGES)
    assert dataset["ocr"] == {"source": "published"} and dataset["word_vectors"] == "fasttext:words"
    assert (dataset["answer_ceiling"], dataset["best_accuracy"]) == (100.0, 100.0)
    assert {"accuracy", "anls", "copied_words"} <= set(result["metrics"])
    assert not any(name.startswith("accuracy_hops") for name in result["metrics"])  # not published
    model = M4CForQuestionAnswering.from_pretrained(output / result["run_id"] / "model")
    assert [*model.config.id2label.values()] == [*SPECIAL_WORDS, "go", "stop", "now"]
    assert model.config.num_decoding_steps == 12 and model.config.object_dropout == 0.1  # the paper's
    assert model.config.text_config.num_hidden_layers == 3 and model.config.word_vector_size == 3
    settings = TrainingSettings.from_dict({**study.settings, "seed": 0})
    assert (settings.text_encoder_factor, settings.warmup_factor, settings.decay_steps) == (0.1, 0.2, (14000, 19000))


def test_model_needs_its_word_vectors_and_no_others(trained, folder, tmp_path):
    _, output, result = trained
    saved = output / result["run_id"] / "model"
    vectors = FastTextVectors(folder / "words.vec")
    assert model_task(saved) == "text-question-answering"
    assert load_model(saved, word_vectors=vectors)[1].word_vectors is vectors
    with pytest.raises(ConfigurationError, match="needs the word vectors 'fasttext:words' of size 3"):
        load_model(saved)[1].text_inputs([["stop"]], [[[0, 0, 1, 1]]])
    (tmp_path / "words.vec").write_text("stop 1 0\n")
    with pytest.raises(ConfigurationError, match="of size 2, the processor was made for"):
        load_model(saved, word_vectors=FastTextVectors(tmp_path / "words.vec"))
    with pytest.raises(ConfigurationError, match="give --regions made with 'random'"):
        evaluate(saved, "textvqa", data_dir=folder / "data", options={"fasttext": folder / "words.vec"})


def test_study_trains_with_a_given_vocabulary_and_without_the_pointer_network(folder, tmp_path):
    study = study_of(
        folder,
        tmp_path,
        options={"answer_vocabulary": folder / "answers.txt"},
        model_fields={"copy_words": False},
        settings={"epochs": 1},
    )
    result = study.run_cell(tmp_path, "dot", 0, command="test")
    model = M4CForQuestionAnswering.from_pretrained(tmp_path / result["run_id"] / "model")
    assert model.config.copy_words is False and [*model.config.id2label.values()][4:] == ["now", "go"]
    # "stop" is only in the pictures; seven of ten answered "go now", the others "go".
    assert result["dataset"]["best_accuracy"] == 50.0 and result["metrics"]["copied_words"] == 0


def test_options_go_with_the_source_of_the_text():
    blocks, published = (get_preset(name)["data"] for name in ("blocks-text", "textvqa"))
    assert changed_options(blocks, {}) == blocks
    noisy = changed_options(blocks, {"ocr": "corrupted"})
    assert noisy == {**blocks, "ocr": "corrupted", "character_error_rate": 0.05}
    assert changed_options(blocks, {"ocr": "corrupted", "character_error_rate": 0.2})["character_error_rate"] == 0.2
    assert changed_options(blocks, {"ocr": "read"})["reader"] == "rapidocr"
    assert changed_options({**blocks, "ocr": "read", "reader": "own"}, {"ocr": "true"}) == blocks
    for options, changes, message in (
        (blocks, {"ocr": "guessed"}, "ocr='guessed': the choices are true, corrupted, read"),
        (blocks, {"character_error_rate": 0.1}, "character_error_rate=0.1 does not go with ocr='true'"),
        (blocks, {"ocr": "corrupted", "reader": "rapidocr"}, "reader='rapidocr' does not go with ocr='corrupted'"),
        (published, {"ocr": "read"}, "only the built-in pictures .* not 'textvqa'"),
        (published, {"reader": "rapidocr"}, "reader='rapidocr': only the built-in"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            changed_options(options, changes)
    with pytest.raises(DataError, match="make it with build-vocabulary"):
        changed_options(published, {"answer_vocabulary": "nothing.txt"})


def test_results_say_where_the_text_comes_from():
    def source(**options):
        return TextQuestionStudy(name="x", data=None, model_fields={}, settings={}, options=options).ocr

    assert source() == {"source": "published"}
    assert source(ocr="true", character_error_rate=0.1) == {"source": "true"}
    assert source(ocr="corrupted", character_error_rate=0.1) == {"source": "corrupted", "character_error_rate": 0.1}
    assert source(ocr="read", reader="rapidocr") == {"source": "read", "reader": "rapidocr"}

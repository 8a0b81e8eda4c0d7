import json
import logging
import shutil

import numpy as np
import pytest
import torch
from tests.clevr_folder import IMAGE_SIZE, IMAGES, QUESTIONS, write_clevr, write_mac, write_resnet
from transformers import BertConfig

from vl_alignment.data.features import build_extractor, extract_regions
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.training.evaluation import evaluate, load_images, load_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is not all of CLEVR")


@pytest.fixture(scope="module")
def clevr(tmp_path_factory):
    return write_clevr(tmp_path_factory.mktemp("clevr"))


@pytest.fixture(scope="module")
def mac(tmp_path_factory):
    return write_mac(tmp_path_factory.mktemp("mac"))


@pytest.fixture(scope="module")
def regions(clevr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    backbone = write_resnet(folder / "backbone")
    extractor = build_extractor("transformers", model=backbone, stage="stage2", image_size=IMAGE_SIZE)
    extract_regions(load_images("clevr", clevr), extractor, folder / "store", dtype="float32", progress=False)
    return folder / "store"


def test_answers_outside_the_vocabulary_are_wrong_and_counted(clevr, mac, regions, caplog):
    caplog.set_level(logging.WARNING)
    metrics = evaluate(mac, "clevr", data_dir=clevr, regions=regions)  # validation: what the preset reports
    assert "validation: the answers of 2 questions are not in the vocabulary" in caplog.text
    model, processor = load_model(mac)
    features = np.load(regions / "features-00000.npy")
    right = []
    for image in range(IMAGES):
        for text, answer, _ in QUESTIONS:
            inputs = processor(text=text, region_features=[features[IMAGES + image]])
            with torch.no_grad():
                right.append(model.answer_words(model(**inputs).logits) == [answer])
    assert metrics["accuracy"] == pytest.approx(100 * np.mean(right))
    assert metrics["accuracy_query_attribute"] == 0
    assert set(metrics) >= {"accuracy_exist", "accuracy_count", "accuracy_depth_2"}


def test_sizes_and_split_are_those_that_were_asked_for(clevr, mac, regions):
    metrics = evaluate(mac, "clevr", data_dir=clevr, regions=regions, split="train", sizes={"train": 1})
    assert metrics["accuracy"] in [100 * right / 3 for right in range(3)]
    with pytest.raises(DataError, match="tset"):
        evaluate(mac, "clevr", data_dir=clevr, regions=regions, split="tset")


def test_what_does_not_fit_the_model_is_refused(clevr, mac, regions, tmp_path):
    with pytest.raises(ConfigurationError, match="'flickr8k' is for retrieval"):
        evaluate(mac, "flickr8k")
    with pytest.raises(ConfigurationError, match="folds=5"):
        evaluate(mac, "clevr", folds=5)
    with pytest.raises(ConfigurationError, match="no backbone for pixels; give --regions made with 'transformers'"):
        evaluate(mac, "clevr", data_dir=clevr)
    other = write_mac(tmp_path / "other", region_extractor="efficientnet_lite0")
    with pytest.raises(ConfigurationError, match="holds regions of 'transformers'"):
        evaluate(other, "clevr", data_dir=clevr, regions=regions)
    larger = write_mac(tmp_path / "larger", grid_size=3)
    with pytest.raises(DataError, match="4 cells a picture, this model was made for a grid of 3 x 3"):
        evaluate(larger, "clevr", data_dir=clevr, regions=regions)


def test_models_are_told_apart_by_their_configuration(mac, tmp_path):
    model, processor = load_model(mac, task="question-answering")
    assert not model.training and processor.tokenizer.padding_side == "right"
    with pytest.raises(ConfigurationError, match="for question-answering, not for retrieval"):
        load_model(mac, task="retrieval")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="type 'bert'"):
        load_model(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="the configuration cannot be loaded"):
        load_model(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "nothing")


def test_missing_processor_is_named(mac, tmp_path):
    load_model(mac)[0].save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="processor cannot be loaded"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"unknown": 1}, "has no field 'unknown'"),
        ("config.json", {"hidden_size": "wide"}, "hidden_size"),
        ("tokenizer_config.json", {"pad_token": None}, "cannot pad"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "cannot pad"),
        ("tokenizer_config.json", {"model_input_names": ["input_ids"]}, "cannot pad"),
    ],
)
def test_what_is_wrong_in_a_models_folder_is_said_with_its_name(mac, tmp_path, file, change, message):
    folder = shutil.copytree(mac, tmp_path / "mac")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **change}))
    with pytest.raises((CheckpointError, ConfigurationError), match=f"mac.*{message}"):
        _, processor = load_model(folder)
        processor(["Is there a red thing?"])


def test_a_models_own_loading_names_the_folder(mac, tmp_path):
    folder = shutil.copytree(mac, tmp_path / "mac")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "hidden_size": "wide"}))
    with pytest.raises(ConfigurationError, match="mac: .*hidden_size"):
        MacForQuestionAnswering.from_pretrained(folder)

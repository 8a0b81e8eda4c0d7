import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.errors import DataError
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.processing_mac import MacProcessor

from .mac_model import CELLS, FEATURES, tiny_model

QUESTIONS = ["What color is the cube?", "How many cubes are there?"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(QUESTIONS, minimum_count=1)


@pytest.fixture
def processor(tokenizer):
    return MacProcessor(SquareImageProcessorPil(size={"height": 24, "width": 24}), tokenizer)


def test_questions_and_features_are_what_the_model_takes(processor):
    features = [np.ones((CELLS, FEATURES)), torch.zeros(CELLS, FEATURES, dtype=torch.float16)]
    inputs = processor(text=[*QUESTIONS, "What?", "the cube"], region_features=features)
    assert sorted(inputs) == ["attention_mask", "input_ids", "region_features"]
    assert inputs["region_features"].shape == (2, CELLS, FEATURES)
    assert inputs["region_features"].dtype == torch.float32
    assert inputs["attention_mask"].sum(dim=1).tolist() == [7, 7, 3, 4]
    output = tiny_model()(**inputs)
    assert output.logits.shape == (4, 5) and len(tiny_model().answer_words(output.logits)) == 4


def test_pictures_of_several_sizes_make_one_batch(processor):
    pictures = [Image.new("RGB", (20, 10)), Image.new("L", (7, 30))]
    assert processor(images=pictures)["pixel_values"].shape == (2, 3, 24, 24)


@pytest.mark.parametrize("question", ["", "  ", "?!"])
def test_question_without_words_is_named(question, processor):
    with pytest.raises(DataError, match="record 1: question .* has no words"):
        processor(text=["what color", question])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([np.ones((9, 6)), np.ones((16, 6))], "record 1: 16 cells beside 9; extract all features on one grid"),
        ([np.ones((9, 6)), np.ones((9, 5))], "record 1: features of size 5 beside 6"),
        ([np.ones((9, 6)), np.full((9, 6), np.nan)], "record 1: features are not finite"),
    ],
)
def test_features_that_fit_no_grid_are_named(features, message, processor):
    with pytest.raises(DataError, match=message):
        processor(region_features=features)


def test_processor_beside_its_model(processor, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is MacProcessor and type(loaded.image_processor) is SquareImageProcessorPil
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is SquareImageProcessorPil
    inputs = {"text": QUESTIONS, "images": [Image.new("RGB", (20, 10), (250, 100, 20))]}
    for name, tensor in processor(**inputs).items():
        assert torch.equal(loaded(**inputs)[name], tensor), name

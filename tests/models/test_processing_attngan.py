import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.processing_attngan import AttnGanProcessor
from vl_alignment.models.processing_base import SquareImageProcessorPil

from . import attngan_model, damsm_model

CAPTIONS = ["a small red bird with a long beak", "a blue bird"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(CAPTIONS, minimum_count=1)


@pytest.fixture
def processor(tokenizer):
    return AttnGanProcessor(tokenizer=tokenizer)


def test_captions_are_what_the_model_takes(processor, tokenizer):
    inputs = processor(text=CAPTIONS)
    assert inputs["input_ids"].shape == (2, 10) and inputs["attention_mask"].sum(dim=1).tolist() == [10, 5]
    output = attngan_model.tiny_model(vocab_size=len(tokenizer))(**inputs)
    assert output.images.shape[0] == 2 and not processor.counts


def test_long_captions_are_cut_and_said(tokenizer, caplog):
    processor = AttnGanProcessor(tokenizer=tokenizer, max_words=6)
    with caplog.at_level(logging.WARNING):
        inputs = processor(text=CAPTIONS)
        processor(text=CAPTIONS)
    assert len(caplog.records) == 1 and "6 tokens" in caplog.text and "long beak" in caplog.text
    assert processor.counts == {"cut_captions": 2}
    assert tokenizer.decode(inputs["input_ids"][0]) == "<start> a small red bird <end>"
    assert inputs["attention_mask"].sum(dim=1).tolist() == [6, 5]


def test_captions_of_unknown_words_are_named(processor):
    assert processor(text=["a purple bird"])["input_ids"].shape == (1, 5)  # one unknown word does no harm
    with pytest.raises(DataError, match="record 1: caption 'purple unicorns' has no word of the vocabulary"):
        processor(text=["a bird", "purple unicorns"])
    with pytest.raises(DataError, match="has no words"):
        processor(text=["?!"])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA"])
def test_pictures_come_in_minus_one_to_one(mode, processor):
    black = Image.new("RGB", (20, 10)).convert(mode)
    white = Image.new("RGB", (7, 30), (255, 255, 255)).convert(mode)
    pixels = processor(images=[black, white])["pixel_values"]
    assert pixels.shape == (2, 3, 256, 256)
    torch.testing.assert_close(pixels[0], torch.full((3, 256, 256), -1.0))
    torch.testing.assert_close(pixels[1], torch.ones(3, 256, 256))


def test_pictures_go_there_and_back(tokenizer):
    image_processor = SquareImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = AttnGanProcessor(image_processor, tokenizer)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    back = processor.postprocess(processor(images=[picture])["pixel_values"])
    assert np.array_equal(np.asarray(back[0]), np.asarray(picture))
    beyond = processor.postprocess(torch.full((1, 3, 2, 2), 1.5))
    assert np.asarray(beyond[0]).min() == 255


def test_features_are_what_damsm_takes(processor, tokenizer):
    features = [np.ones((damsm_model.CELLS, damsm_model.FEATURES)), np.zeros((damsm_model.CELLS, damsm_model.FEATURES))]
    inputs = processor(text=CAPTIONS, region_features=features)
    torch.testing.assert_close(inputs["pooled_features"][0], torch.ones(damsm_model.FEATURES))
    model = damsm_model.tiny_model(vocab_size=len(tokenizer))
    assert model(**inputs).logits_per_image.shape == (2, 2)
    with pytest.raises(DataError, match="record 1: 4 regions beside 9"):
        processor(region_features=[np.ones((9, 6)), np.ones((4, 6))])


@pytest.mark.parametrize("module", [attngan_model, damsm_model])
def test_processor_beside_its_model(module, tokenizer, tmp_path):
    module.tiny_model().save_pretrained(tmp_path)
    AttnGanProcessor(tokenizer=tokenizer, max_words=6).save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is AttnGanProcessor and loaded.max_words == 6
    assert (
        type(loaded.image_processor) is SquareImageProcessorPil and list(loaded.image_processor.image_mean) == [0.5] * 3
    )
    assert loaded(text=CAPTIONS)["input_ids"].shape == (2, 6)


def test_limit_that_leaves_no_word_is_refused(tokenizer):
    with pytest.raises(ConfigurationError, match="max_words is 2"):
        AttnGanProcessor(tokenizer=tokenizer, max_words=2)

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.errors import DataError
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.processing_scan import ScanProcessor

from .scan_model import tiny_model

CAPTIONS = ["A dog runs, fast!", "a dog sleeps", "Two dogs run."]


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(CAPTIONS, minimum_count=1)


@pytest.fixture
def processor(tokenizer):
    return ScanProcessor(SquareImageProcessorPil(size={"height": 16, "width": 16}), tokenizer)


def picture(mode="RGB", size=(20, 10), colour=(250, 100, 20)):
    image = Image.new("RGB", size, colour)
    return image.quantize(4) if mode == "P" else image.convert(mode)


# Words


def test_words_between_start_and_end_padded_on_the_right(processor, tokenizer):
    inputs = processor(text=["a dog", "Two DOGS, run!"])
    vocabulary = tokenizer.get_vocab()
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert inputs["input_ids"].tolist() == [
        [vocabulary[token] for token in ("<start>", "a", "dog", "<end>", "<pad>")],
        [vocabulary[token] for token in ("<start>", "two", "dogs", "run", "<end>")],
    ]
    assert [vocabulary[token] for token in ("<pad>", "<start>", "<end>", "<unk>")] == [0, 1, 2, 3]


def test_unknown_words_count_as_words(processor):
    assert processor(text="zebra")["input_ids"].tolist() == [[1, 3, 2]]


def test_one_caption_is_a_batch_of_one(processor):
    assert torch.equal(processor(text="a dog")["input_ids"], processor(text=["a dog"])["input_ids"])


def test_words_are_ordered_by_count_then_alphabet():
    built = build_word_tokenizer(["b a", "b c", "c b", "d"], minimum_count=1)
    assert [token for token, _ in sorted(built.get_vocab().items(), key=lambda item: item[1])][4:] == list("bcad")


def test_rare_words_are_unknown_and_none_left_is_an_error():
    built = build_word_tokenizer(["a dog", "a cat"], minimum_count=2)
    assert len(built) == 5 and built("dog")["input_ids"] == [1, 3, 2]
    with pytest.raises(DataError, match="no word occurs 5 times"):
        build_word_tokenizer(["a dog"], minimum_count=5)


def test_letters_composed_or_not_are_the_same_word():
    built = build_word_tokenizer(["cafe\u0301"], minimum_count=1)
    assert built("Caf\u00e9")["input_ids"] == built("cafe\u0301")["input_ids"] == [1, 4, 2]


def test_tokenizer_survives_its_file(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["Two dogs run.", "a zebra"]
    assert loaded(texts, padding=True)["input_ids"] == tokenizer(texts, padding=True)["input_ids"]
    assert loaded.padding_side == "right" and loaded.pad_token_id == 0 and len(loaded) == len(tokenizer)
    assert loaded.decode(loaded("Two dogs run.")["input_ids"], skip_special_tokens=True) == "two dogs run"
    tokenizer.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("caption", ["", "   ", "?!..."])
def test_caption_without_words_is_named(caption, processor):
    with pytest.raises(DataError, match="record 1: caption .* has no words"):
        processor(text=["a dog", caption])


def test_tokenizer_without_start_and_end_will_do():
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "dog": 2}, unk_token="<unk>")), pad_token="<pad>"
    )
    assert ScanProcessor(None, plain)(text=["dog"])["input_ids"].tolist() == [[2]]


# Pictures


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "L", "LA", "1"])
def test_pictures_of_every_mode_become_three_channels(mode, processor):
    pixels = processor(images=[picture(mode)])["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16) and pixels.dtype == torch.float32
    # One colour, whose value is that of the picture in RGB, rescaled and normalised.
    colour = np.asarray(picture(mode).convert("RGB"), dtype=np.float32)[0, 0] / 255
    if mode != "1":  # dithered
        expected = (colour - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        np.testing.assert_allclose(pixels[0, :, 8, 8], expected, atol=1e-5)
        assert pixels[0].std(dim=(1, 2)).max() < 1e-5


def test_pictures_of_several_sizes_make_one_batch(processor):
    pictures = [picture(size=(20, 10)), picture("L", size=(7, 30)), picture(size=(1, 1))]
    assert processor(images=pictures)["pixel_values"].shape == (3, 3, 16, 16)
    assert processor(images=picture())["pixel_values"].shape == (1, 3, 16, 16)
    assert torch.equal(
        processor(images=np.asarray(picture()))["pixel_values"], processor(images=picture())["pixel_values"]
    )


# Region features


def test_ragged_features_are_padded_and_masked(processor):
    features = [np.ones((2, 6)), torch.ones(3, 6, dtype=torch.float16), np.ones((1, 6), dtype=np.float16)]
    inputs = processor(region_features=features)
    assert inputs["region_features"].dtype == torch.float32
    assert inputs["region_mask"].tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert torch.equal(inputs["region_features"], inputs["region_mask"].unsqueeze(-1).expand(3, 3, 6).float())
    dense = processor(region_features=np.ones((2, 4, 6)))
    assert dense["region_features"].shape == (2, 4, 6) and dense["region_mask"].all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_named(value, processor):
    broken = np.ones((2, 6))
    broken[1, 3] = value
    with pytest.raises(DataError, match="record 1: features are not finite"):
        processor(region_features=[np.ones((2, 6)), broken])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([np.ones((2, 6)), np.ones((0, 6))], "record 1: picture has no regions"),
        ([np.ones((2, 6)), np.ones((2, 5))], "record 1: features of size 5 beside 6"),
        (np.ones((2, 6)), "record 0: picture has no regions"),
    ],
)
def test_features_of_wrong_shape_are_named(features, message, processor):
    with pytest.raises(DataError, match=message):
        processor(region_features=features)


@pytest.mark.parametrize("inputs", [{}, {"text": []}, {"images": []}, {"region_features": []}])
def test_nothing_to_prepare_is_an_error(inputs, processor):
    with pytest.raises(DataError, match="give text, images or region_features"):
        processor(**inputs)


# Files


def test_processor_survives_its_files(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    for loaded in (AutoProcessor.from_pretrained(tmp_path), ScanProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is ScanProcessor
        assert type(loaded.image_processor) is SquareImageProcessorPil
        assert loaded.image_processor.size == {"height": 16, "width": 16}
        inputs = {"text": ["a dog"], "images": [picture()]}
        for name, tensor in processor(**inputs).items():
            assert torch.equal(loaded(**inputs)[name], tensor), name
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is SquareImageProcessorPil


def test_processor_of_a_model_of_region_features_needs_no_image_processor(tokenizer, tmp_path):
    processor = ScanProcessor(tokenizer=tokenizer)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    features = [np.ones((2, 6)), np.ones((3, 6))]
    inputs = loaded(text=["a dog", "two dogs run"], region_features=features)
    assert sorted(inputs) == ["attention_mask", "input_ids", "region_features", "region_mask"]
    for name, tensor in processor(text=["a dog", "two dogs run"], region_features=features).items():
        assert torch.equal(inputs[name], tensor)
    assert tiny_model()(**inputs).logits_per_image.shape == (2, 2)


def test_processor_beside_its_model(tokenizer, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    ScanProcessor(None, tokenizer).save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is ScanProcessor

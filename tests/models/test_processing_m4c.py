import copy
import json
import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, ResNetConfig

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.data.word_vectors import TableVectors
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering
from vl_alignment.models.phoc import phoc
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.processing_m4c import M4CProcessor

QUESTIONS = ["What is written on the sign?", "Which word is left of the hotel?"]
TOKENS = [["stop", "HOTEL", "7up"], ["go"]]
BOXES = [[[0.1, 0.1, 0.3, 0.2], [0.5, 0.5, 0.9, 0.6], [0, 0, 1, 1]], [[0.25, 0.25, 0.5, 0.5]]]
SIZE = 12


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(QUESTIONS, minimum_count=1)


@pytest.fixture
def processor(tokenizer):
    return M4CProcessor(SquareImageProcessorPil(size={"height": 16, "width": 16}), tokenizer, HashedWordVectors(SIZE))


def pictures(number):
    return [Image.new("RGB", (20, 10 + row), (250, 100, 20 * row)) for row in range(number)]


def table(name="mine", size=2):
    return TableVectors(["stop", "go"], np.arange(1, 2 * size + 1).reshape(2, size), name)


class Reader:
    """Reads whatever it was given, and keeps the pictures that it saw."""

    def __init__(self, *texts):
        self.texts, self.seen = list(texts), []

    def read(self, image):
        self.seen.append(image)
        tokens, boxes, confidences = self.texts[len(self.seen) - 1]
        found = type("Found", (), {})()
        found.tokens, found.boxes, found.confidences = tokens, np.asarray(boxes).reshape(-1, 4), confidences
        return found


# What the model takes


def test_tokens_are_padded_to_the_most_in_a_picture(processor):
    inputs = processor(text=QUESTIONS * 2, images=pictures(2), ocr_tokens=TOKENS, ocr_boxes=BOXES)
    assert sorted(inputs) == [
        *("attention_mask", "input_ids", "ocr_boxes", "ocr_mask", "ocr_phoc", "ocr_word_vectors", "pixel_values")
    ]
    assert inputs["pixel_values"].shape == (2, 3, 16, 16)
    assert inputs["ocr_mask"].tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(inputs["ocr_boxes"][0], torch.tensor(BOXES[0], dtype=torch.float32))
    vectors = HashedWordVectors(SIZE).vectors(["stop", "HOTEL", "7up", "go"])
    assert torch.equal(inputs["ocr_word_vectors"][0], vectors[:3])
    assert torch.equal(inputs["ocr_word_vectors"][1, 0], vectors[3])
    assert torch.equal(inputs["ocr_phoc"][0], phoc(TOKENS[0]))
    for name in ("ocr_boxes", "ocr_word_vectors", "ocr_phoc"):
        assert inputs[name].dtype == torch.float32 and not inputs[name][1, 1:].any(), name
    assert inputs.ocr_tokens == TOKENS
    assert not processor.counts.total()


def test_the_model_answers_from_pixels_with_sources(processor, tokenizer):
    backbone = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    text = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = M4CConfig(
        text_config={"model_type": "bert", "vocab_size": len(tokenizer), **text},
        vision_config=backbone,
        num_labels=6,
        word_vector_size=SIZE,
        num_decoding_steps=3,
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    )
    model = M4CForQuestionAnswering(config).eval()
    with torch.no_grad():
        model.classifier.bias.fill_(-100)  # nothing but the picture's words
    reader = Reader((TOKENS[0], BOXES[0], [0.9, 0.8, 0.7]), ([], [], []))
    inputs = processor(text=QUESTIONS[:1], images=pictures(1), reader=reader)
    answer = model.generate(**inputs, ocr_tokens=inputs.ocr_tokens).answers[0]
    assert len(answer.words) == 3
    for word in answer.words:
        assert word.source == "ocr" and word.word == TOKENS[0][word.token]
        assert word.box == pytest.approx(BOXES[0][word.token])
    # Without text: only the vocabulary is left.
    empty = processor(text=QUESTIONS[:1], images=pictures(1), ocr_tokens=[])
    words = model.generate(**empty, ocr_tokens=empty.ocr_tokens).answers[0].words
    assert all(word.source == "vocabulary" for word in words)


def test_one_picture_takes_its_words_as_they_are(processor):
    image = pictures(1)[0]
    nested = processor(images=image, ocr_tokens=TOKENS[:1], ocr_boxes=BOXES[:1])
    plain = processor(images=image, ocr_tokens=TOKENS[0], ocr_boxes=BOXES[0], ocr_confidences=[1, 1, 1])
    for name, tensor in nested.items():
        assert torch.equal(plain[name], tensor), name


def test_a_reader_sees_rgb_pictures(processor):
    grey = np.full((8, 9), 200, dtype=np.uint8)
    reader = Reader((["go"], [[0, 0, 1, 1]], [0.5]), ([], [], []))
    inputs = processor(images=[Image.fromarray(grey), np.zeros((8, 9, 3), dtype=np.uint8)], reader=reader)
    assert [(image.mode, image.size) for image in reader.seen] == [("RGB", (9, 8))] * 2
    assert inputs["ocr_mask"].tolist() == [[True], [False]] and inputs.ocr_tokens == [["go"], []]
    assert processor.counts["pictures_without_text"] == 1


def test_region_features_with_boxes_and_the_tokens_own(processor):
    features, boxes = [np.ones((3, 6)), np.ones((2, 6))], [np.zeros((3, 4)), np.ones((2, 4))]
    own = [np.arange(6).reshape(3, 2), np.array([[7, 8]])]
    tokens = [["", "stop", "go"], ["go"]]
    inputs = processor(
        text=QUESTIONS,
        region_features=features,
        region_boxes=boxes,
        ocr_tokens=tokens,
        ocr_boxes=BOXES,
        ocr_features=own,
    )
    assert inputs["region_features"].shape == (2, 3, 6) and inputs["region_boxes"].shape == (2, 3, 4)
    assert inputs["region_mask"].tolist() == [[True, True, True], [True, True, False]]
    # The empty token leaves with its box and its features.
    assert inputs["ocr_features"].tolist() == [[[2, 3], [4, 5]], [[7, 8], [0, 0]]]
    torch.testing.assert_close(inputs["ocr_boxes"][0], torch.tensor(BOXES[0][1:], dtype=torch.float32))
    grid = processor(region_features=[np.ones((4, 6))] * 2, ocr_tokens=[[], []])
    assert grid["region_features"].shape == (2, 4, 6) and "region_mask" not in grid
    assert grid["ocr_mask"].tolist() == [[False], [False]]
    with pytest.raises(DataError, match="different numbers of regions; give their region_boxes"):
        processor(region_features=features, ocr_tokens=[[], []])


def test_a_model_without_word_vectors_or_spellings_gets_none(tokenizer, tmp_path):
    processor = M4CProcessor(None, tokenizer, word_vectors=None, spellings=False)
    processor.save_pretrained(tmp_path)
    for one in (processor, M4CProcessor.from_pretrained(tmp_path)):
        inputs = one(images=pictures(1), ocr_tokens=["go"], ocr_boxes=[[0, 0, 1, 1]])
        assert sorted(inputs) == ["ocr_boxes", "ocr_mask", "pixel_values"]


def test_words_stay_beside_the_inputs_when_they_travel(processor):
    inputs = processor(images=pictures(2), ocr_tokens=TOKENS, ocr_boxes=BOXES)
    for copied in (inputs.to("cpu"), pickle.loads(pickle.dumps(inputs)), copy.deepcopy(inputs)):
        assert copied.ocr_tokens == TOKENS and torch.equal(copied["ocr_phoc"], inputs["ocr_phoc"])


# What has to be mended is counted, and said once


def test_surplus_tokens_are_kept_by_confidence_in_their_own_order(tokenizer, caplog):
    processor = M4CProcessor(None, tokenizer, HashedWordVectors(SIZE), max_ocr_tokens=3)
    tokens, boxes = list("abcde"), [[0.1 * n, 0, 1, 1] for n in range(5)]
    with caplog.at_level(logging.WARNING):
        inputs = processor(
            images=pictures(1), ocr_tokens=[tokens], ocr_boxes=[boxes], ocr_confidences=[[0.5, 0.1, 0.9, 0.5, 0.5]]
        )
        first = processor(images=pictures(1), ocr_tokens=[tokens], ocr_boxes=[boxes])
    assert inputs.ocr_tokens == [["a", "c", "d"]] and first.ocr_tokens == [["a", "b", "c"]]
    torch.testing.assert_close(inputs["ocr_boxes"][0, :, 0], torch.tensor([0.0, 0.2, 0.3]))
    assert torch.equal(inputs["ocr_phoc"][0], phoc(["a", "c", "d"]))
    assert processor.counts["surplus_tokens"] == 4
    assert [record.getMessage() for record in caplog.records] == [
        "of more than 3 OCR tokens the most confident are kept (further ones are counted in "
        "processor.counts['surplus_tokens'])"
    ]


def test_empty_tokens_leave_and_boxes_are_clipped(processor):
    boxes = [[-0.1, 0.2, 0.3, 1.2], [0, 0, 1, 1], [0, 0, 1, 1], [1.1, 0.2, 1.3, 0.4]]
    inputs = processor(images=pictures(1), ocr_tokens=[[" stop ", "", " ", "go"]], ocr_boxes=[boxes])
    assert inputs.ocr_tokens == [["stop", "go"]]
    torch.testing.assert_close(inputs["ocr_boxes"][0], torch.tensor([[0, 0.2, 0.3, 1], [1, 0.2, 1, 0.4]]))
    assert (processor.counts["empty_tokens"], processor.counts["clipped_boxes"]) == (2, 2)


def test_the_mask_of_words_does_not_hang_on_the_tokenizer_s_files(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.model_input_names = ["input_ids"]
    masks = [M4CProcessor(None, own)(text=QUESTIONS)["attention_mask"] for own in (tokenizer, bare)]
    assert masks[0].sum() > 0 and torch.equal(*masks)


def test_long_questions_are_cut_and_said(tokenizer, caplog):
    processor = M4CProcessor(None, tokenizer, max_question_tokens=5)
    with caplog.at_level(logging.WARNING):
        inputs = processor(text=[*QUESTIONS, "the sign"])
    assert inputs["attention_mask"].sum(dim=1).tolist() == [5, 5, 4]
    assert inputs["input_ids"][0].tolist()[-1] == tokenizer.eos_token_id
    assert processor.counts["cut_questions"] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "questions of more than 5 pieces are cut (further ones are counted in processor.counts['cut_questions'])"
    ]


def test_word_pieces(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "sign", "##s", "?"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    processor = M4CProcessor(None, BertTokenizer(str(tmp_path / "vocab.txt")))
    assert processor(text=["what signs?", "What"])["input_ids"].tolist() == [[2, 5, 6, 7, 8, 3], [2, 5, 3, 0, 0, 0]]
    with pytest.raises(DataError, match="record 1: question '' has no words"):
        processor(text=["what", ""])


# Bad input


@pytest.mark.parametrize("name", ["broken.jpg", "missing.jpg"])
def test_a_picture_that_cannot_be_read_is_named(name, processor, tmp_path):
    whole, broken = tmp_path / "whole.jpg", tmp_path / "broken.jpg"
    Image.effect_noise((64, 64), 50).save(whole)
    broken.write_bytes(whole.read_bytes()[:-400])
    assert processor(images=[whole, str(whole)], ocr_tokens=[[], []])["pixel_values"].shape == (2, 3, 16, 16)
    with pytest.raises(DataError, match="record 1: the picture cannot be read"):
        processor(images=[whole, tmp_path / name], ocr_tokens=[[], []])
    with pytest.raises(DataError, match="record 0: the picture cannot be read"):
        processor(images=Image.open(broken), ocr_tokens=[])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ocr_tokens": None}, "the text in the pictures is missing: give ocr_tokens and ocr_boxes"),
        ({"ocr_tokens": TOKENS[:1]}, "the text of 1 pictures is given for 2 pictures"),
        ({"ocr_boxes": BOXES[:1]}, "ocr_boxes of 1 pictures beside the ocr_tokens of 2"),
        ({"ocr_boxes": None}, "record 0: ocr_tokens without ocr_boxes"),
        ({"ocr_boxes": [BOXES[0][:2], BOXES[1]]}, r"record 0: ocr_boxes of shape \[2, 4\]; 3 rows are needed"),
        ({"ocr_boxes": [BOXES[0], [[10, 20, 30, 40]]]}, "record 1: ocr_boxes up to 40; divide them by the picture's"),
        ({"ocr_boxes": [BOXES[0], [[0.5, 0, 0.4, 1]]]}, "record 1: an OCR box ends before it begins"),
        ({"ocr_boxes": [BOXES[0], [[0.5, 0, np.nan, 1]]]}, "record 1: ocr_boxes are not finite"),
        ({"ocr_boxes": [BOXES[0], [[0.5, 0, 1]]]}, "record 1: ocr_boxes must be .* not of 3 numbers"),
        ({"ocr_boxes": [BOXES[0], [["a", 0, 1, 1]]]}, "record 1: ocr_boxes are no rows of numbers"),
        ({"ocr_tokens": [TOKENS[0], [7]]}, "record 1: the OCR token 7 is no text"),
        ({"ocr_confidences": [[1, 1, 1], [np.nan]]}, "record 1: ocr_confidences must be 1 finite numbers"),
        ({"ocr_confidences": [[1, 1], [1]]}, "record 0: ocr_confidences must be 3 finite numbers"),
        ({"ocr_features": [np.ones((3, 2)), np.ones((1, 3))]}, r"ocr_features of sizes \[2, 3\]"),
        ({"reader": Reader()}, "a reader reads the text in images: give images, and no ocr_tokens"),
        ({"images": None}, "the text in pictures is given without the pictures"),
        ({"text": ["what", " "]}, "record 1: question ' ' has no words"),
        ({"text": []}, "give text, images or region_features, none of them empty"),
        ({"images": []}, "give text, images or region_features, none of them empty"),
    ],
)
def test_bad_input_is_named(change, message, processor):
    given = {"text": QUESTIONS, "images": pictures(2), "ocr_tokens": TOKENS, "ocr_boxes": BOXES} | change
    with pytest.raises(DataError, match=message):
        processor(**given)


def test_nothing_to_prepare_is_an_error(processor):
    with pytest.raises(DataError, match="give text, images or region_features"):
        processor()


def test_settings_out_of_range_are_named(tokenizer):
    with pytest.raises(ConfigurationError, match="max_ocr_tokens is 0"):
        M4CProcessor(None, tokenizer, max_ocr_tokens=0)
    with pytest.raises(ConfigurationError, match="word_vectors is 'glove'"):
        M4CProcessor(None, tokenizer, word_vectors="glove")


# Files


def test_hashed_vectors_travel_with_the_processor(processor, tmp_path):
    processor.counts["empty_tokens"] = 5
    processor.max_ocr_tokens = 2
    processor.save_pretrained(tmp_path)
    loaded = M4CProcessor.from_pretrained(tmp_path)
    assert type(loaded.word_vectors) is HashedWordVectors and loaded.word_vectors.size == SIZE
    assert type(loaded.image_processor) is SquareImageProcessorPil and not loaded.counts.total()
    given = {"text": QUESTIONS, "images": pictures(2), "ocr_tokens": TOKENS, "ocr_boxes": BOXES}
    expected = processor(**given)
    assert expected["ocr_mask"].shape == (2, 2)
    for name, tensor in loaded(**given).items():
        assert torch.equal(tensor, expected[name]), name
    before = (tmp_path / "processor_config.json").read_text()
    loaded.save_pretrained(tmp_path)
    assert (tmp_path / "processor_config.json").read_text() == before
    assert 'truncation": null' in (tmp_path / "tokenizer.json").read_text()


def test_other_vectors_are_named_and_asked_for(tokenizer, tmp_path):
    made = M4CProcessor(None, tokenizer, table())
    made.save_pretrained(tmp_path)
    assert made.word_vectors.name == "mine"
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["word_vectors"] == {"name": "mine", "size": 2}
    given = {"images": pictures(2), "ocr_tokens": TOKENS, "ocr_boxes": BOXES}
    expected = made(**given)["ocr_word_vectors"]
    assert expected[:, 0].tolist() == [[1, 2], [3, 4]]

    loaded = M4CProcessor.from_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="needs the word vectors 'mine' of size 2, .* word_vectors=..."):
        loaded(**given)
    assert loaded(images=pictures(1), ocr_tokens=[])["ocr_word_vectors"].shape == (1, 1, 2)
    assert torch.equal(loaded(**given, word_vectors=table())["ocr_word_vectors"], expected)
    whole = M4CProcessor.from_pretrained(tmp_path, word_vectors=table())
    assert torch.equal(whole(**given)["ocr_word_vectors"], expected)
    whole.save_pretrained(tmp_path / "again")
    for other in (table("yours"), table(size=3), HashedWordVectors(2)):
        with pytest.raises(ConfigurationError, match="the processor was made for 'mine' of size 2"):
            loaded(**given, word_vectors=other)
        with pytest.raises(ConfigurationError, match="the processor was made for 'mine' of size 2"):
            M4CProcessor.from_pretrained(tmp_path / "again", word_vectors=other)

import datasets
import numpy as np
import pytest

from vl_alignment.data.blocks.human_answers import HUMAN_ANSWERS
from vl_alignment.data.blocks.printed_words import word_split
from vl_alignment.data.blocks.text_builder import (
    BlocksTextBuilder,
    BlocksTextQuestionsBuilder,
    BlocksTextTokensBuilder,
    load_blocks_text,
)
from vl_alignment.data.blocks.text_noise import corrupted_tokens, true_tokens
from vl_alignment.data.blocks.text_questions import make_text_questions
from vl_alignment.data.blocks.text_rendering import render_text_scene
from vl_alignment.data.blocks.text_scene import TextScene
from vl_alignment.data.question_records import QuestionData
from vl_alignment.data.text_question_records import TEXT_FEATURES, TEXT_QUESTION_FEATURES
from vl_alignment.data.text_recognition import RecognizedText
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.region_attributes import COLUMNS, AttributeCells

SMALL = {"train": 4, "validation": 2, "test": 3, "image_size": 192, "questions_per_image": 5}


class FixedReader:
    """Finds two words everywhere, one of them reaching out of the picture, and counts pictures."""

    name = "fixed"
    version = "1"

    def __init__(self) -> None:
        self.seen = 0

    def read(self, image):
        assert image.size == (192, 192)
        self.seen += 1
        boxes = np.array([[0.5, 0.1, 1.2, 0.2], [0.1, 0.1, 0.4, 0.2]])
        return RecognizedText(["stop", "go"], boxes, np.array([0.75, 0.5]))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("text-cache"))


@pytest.fixture(scope="module")
def data(cache_dir: str) -> QuestionData:
    return load_blocks_text(**SMALL, cache_dir=cache_dir)


def test_tables(data: QuestionData) -> None:
    assert {split: len(table) for split, table in data.images.items()} == {"train": 4, "validation": 2, "test": 3}
    assert {split: len(table) for split, table in data.questions.items()} == {"train": 20, "validation": 10, "test": 15}
    assert data.images["test"].column_names == ["image_id", "image", "scene", "masks", *TEXT_FEATURES]
    assert {name: data.images["test"].features[name] for name in TEXT_FEATURES} == dict(TEXT_FEATURES)
    assert data.questions["train"].features == TEXT_QUESTION_FEATURES
    assert data.questions["test"]["question_id"][4:6] == ["blocks-test-000000#4", "blocks-test-000001#0"]


def test_records_belong_together(data: QuestionData) -> None:
    for split, images in data.images.items():
        for record in images:
            scene = TextScene.from_json(record["scene"])
            picture, mask = render_text_scene(scene, 192)
            np.testing.assert_array_equal(np.asarray(record["image"]), picture)
            np.testing.assert_array_equal(np.asarray(record["masks"]), mask)
            words, boxes, confidences = true_tokens(scene)
            assert record["ocr_tokens"] == words and record["ocr_confidences"] == confidences
            np.testing.assert_allclose(record["ocr_boxes"], boxes, atol=1e-6)
            assert {word_split(word) for word in words} == {split}
            rows = [row for row in data.questions[split] if row["image_id"] == record["image_id"]]
            questions = make_text_questions(scene, 5)
            assert [row["question"] for row in rows] == [question.question for question in questions]
            assert [row["hops"] for row in rows] == [question.hops for question in questions]
            assert [row["question_type"] for row in rows] == [question.question_type for question in questions]
            for row, question in zip(rows, questions, strict=True):
                assert len(row["answers"]) == HUMAN_ANSWERS
                assert any(question.answer in answer.lower() for answer in row["answers"]) or question.answer.isdigit()


def refuse(*arguments: object, **options: object) -> None:
    raise AssertionError("made again")


def test_other_tokens_and_other_questions_draw_no_picture(data: QuestionData, cache_dir: str, monkeypatch) -> None:
    monkeypatch.setattr("vl_alignment.data.blocks.text_builder.render_text_scene", refuse)
    noisy = load_blocks_text(**SMALL, ocr="corrupted", character_error_rate=0.3, cache_dir=cache_dir)
    assert noisy.questions["test"][:] == data.questions["test"][:]
    for record in noisy.images["train"].remove_columns(["image", "masks"]):
        assert record["ocr_tokens"] == corrupted_tokens(TextScene.from_json(record["scene"]), 0.3).words
    fewer = load_blocks_text(**{**SMALL, "questions_per_image": 2}, maximum_hops=0, cache_dir=cache_dir)
    assert set(fewer.questions["train"]["hops"]) == {0}
    for builder in (BlocksTextBuilder, BlocksTextQuestionsBuilder, BlocksTextTokensBuilder):
        monkeypatch.setattr(builder, "_generate_examples", refuse)
    assert load_blocks_text(**SMALL, cache_dir=cache_dir).content_hash == data.content_hash


def test_a_reader_reads_each_picture_once(data: QuestionData, cache_dir: str) -> None:
    reader = FixedReader()
    read = load_blocks_text(**SMALL, ocr="read", reader=reader, cache_dir=cache_dir)
    assert reader.seen == 9
    record = read.images["validation"][1]
    assert record["ocr_tokens"] == ["stop", "go"] and record["ocr_confidences"] == [0.75, 0.5]
    np.testing.assert_allclose(record["ocr_boxes"], [[0.5, 0.1, 1.0, 0.2], [0.1, 0.1, 0.4, 0.2]], atol=1e-6)
    assert record["image_id"] == data.images["validation"]["image_id"][1]
    again = load_blocks_text(**SMALL, ocr="read", reader=reader, cache_dir=cache_dir)
    assert reader.seen == 9 and again.images["test"]["ocr_tokens"][:] == read.images["test"]["ocr_tokens"][:]
    reader.version = "2"
    load_blocks_text(**SMALL, ocr="read", reader=reader, cache_dir=cache_dir)
    assert reader.seen == 18


def test_only_the_named_splits_are_read(data: QuestionData, cache_dir: str) -> None:
    reader = FixedReader()
    reader.version = "of two splits"
    read = load_blocks_text(**SMALL, ocr="read", reader=reader, read_splits=["test"], cache_dir=cache_dir)
    assert reader.seen == 3 and "ocr_tokens" not in read.images["train"].column_names
    assert read.questions["train"][:] == data.questions["train"][:]
    every = load_blocks_text(**SMALL, ocr="read", reader=reader, cache_dir=cache_dir)
    assert reader.seen == 9 and every.images["test"]["ocr_tokens"][:] == read.images["test"]["ocr_tokens"][:]


def test_a_reader_can_be_named(data: QuestionData, cache_dir: str, monkeypatch) -> None:
    monkeypatch.setattr("vl_alignment.data.text_recognition._FACTORIES", {"everywhere": FixedReader})
    read = load_blocks_text(**SMALL, ocr="read", reader="everywhere", cache_dir=cache_dir)
    assert read.images["train"]["ocr_tokens"][:] == [["stop", "go"]] * 4


def test_regions_can_be_learned_from_the_pictures(data: QuestionData) -> None:
    assert set(COLUMNS) <= set(data.images["train"].column_names)
    cells = AttributeCells(data.images["train"], 64, 8)
    assert cells.pixels.shape == (4, 3, 64, 64) and (cells.labels["shape"] > 0).any()


def test_the_cache_keys_depend_on_every_setting_and_version(cache_dir: str, monkeypatch) -> None:
    shared = {"train": 7, "validation": 4, "test": 2, "seed": 1, "minimum_objects": 4, "maximum_objects": 5}
    own: list[tuple[type, dict]] = [
        (BlocksTextBuilder, {"image_size": 256}),
        (BlocksTextQuestionsBuilder, {"questions_per_image": 7, "maximum_hops": 1}),
        (BlocksTextTokensBuilder, {"character_error_rate": 0.05}),
    ]
    sizes = {name: SMALL[name] for name in ("train", "validation", "test")}
    for builder, settings in own:
        base = {**sizes, "image_size": 192} if builder is BlocksTextBuilder else sizes
        variants = [base] + [{**base, name: value} for name, value in {**shared, **settings}.items()]
        folders = {builder(**variant, cache_dir=cache_dir).cache_dir for variant in variants}
        assert len(folders) == len(variants)
        with monkeypatch.context() as patch:
            patch.setattr("vl_alignment.data.blocks.builder.CONTENT_VERSION", "99.0.0")
            assert builder(**base, cache_dir=cache_dir).cache_dir not in folders
        with monkeypatch.context() as patch:
            patch.setattr(builder, "VERSION", datasets.Version("99.0.0"))
            assert builder(**base, cache_dir=cache_dir).cache_dir not in folders


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 0, "validation": 0, "test": 0}, "at least one scene"),
        ({"image_size": 96}, "image_size=96"),
        ({"questions_per_image": 0}, "ask at least one"),
        ({"maximum_hops": 3}, "0 to 2 hops"),
        ({"ocr": "guessed"}, "true, corrupted, read"),
        ({"ocr": "read"}, '"read" needs a reader'),
        ({"reader": FixedReader()}, "only that uses it"),
        ({"read_splits": ["test"]}, "no reader that would read them"),
        ({"ocr": "read", "reader": FixedReader(), "read_splits": ["tset"]}, "no split 'tset'"),
        ({"ocr": "read", "reader": "nobody"}, "unknown text reader 'nobody'"),
        ({"ocr": "corrupted", "character_error_rate": 2.0}, "character_error_rate=2.0"),
    ],
)
def test_settings_that_cannot_be_made_are_refused(settings: dict, message: str, cache_dir: str) -> None:
    with pytest.raises((ConfigurationError, DataError), match=message):
        load_blocks_text(**{**SMALL, **settings}, cache_dir=cache_dir)

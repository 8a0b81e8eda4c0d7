import datasets
import numpy as np
import pytest

from vl_alignment.data.text_question_records import (
    TEXT_FEATURES,
    WHOLE_PICTURE,
    TextColumns,
    clip_boxes,
    most_confident,
    with_text,
)
from vl_alignment.models.errors import DataError

INSIDE = [0.25, 0.5, 0.75, 1.0]


def test_boxes_are_clipped_and_counted():
    boxes, clipped = clip_boxes([INSIDE, [-0.5, 0.25, 0.5, 1.5], [1.5, 0.0, 2.0, 1.0]])
    assert boxes.tolist() == [INSIDE, [0.0, 0.25, 0.5, 1.0], [1.0, 0.0, 1.0, 1.0]]
    assert clipped == 2 and boxes.dtype == np.float32
    none, clipped = clip_boxes([])
    assert none.shape == (0, 4) and clipped == 0


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 1]], r"not an array of shape \[1, 3\]"),
        ([INSIDE, [0.0, 0.0, float("nan"), 1.0]], "nan, 1.0] is not finite"),
        ([[0.5, 0.0, 0.25, 1.0]], "ends before it begins"),
        ([[0.0, 0.5, 1.0, 0.25]], "ends before it begins"),
    ],
)
def test_bad_boxes_are_named(boxes, message):
    with pytest.raises(DataError, match=message):
        clip_boxes(boxes)


def test_the_most_confident_tokens_are_kept_in_their_order():
    assert most_confident([0.5, 0.9, 0.1, 0.9, 0.5], 3).tolist() == [0, 1, 3]
    assert most_confident([1.0] * 60, 50).tolist() == list(range(50))
    assert most_confident([0.2, 0.1], 50).tolist() == [0, 1]
    assert most_confident([], 5).tolist() == []


def test_text_is_mended_and_counted():
    text = TextColumns()
    text.add([" stop ", "", "  ", "5"], [INSIDE, INSIDE, INSIDE, [0.5, 0.5, 1.5, 1.0]], [0.5, 0.25, 0.75, 1.0])
    text.add([])
    text.add(["a", "b"])
    assert text.columns == {
        "ocr_tokens": [["stop", "5"], [], ["a", "b"]],
        "ocr_boxes": [[INSIDE, [0.5, 0.5, 1.0, 1.0]], [], [WHOLE_PICTURE] * 2],
        "ocr_confidences": [[0.5, 1.0], [], [1.0, 1.0]],
    }
    assert (len(text), text.empty, text.clipped, text.without_boxes) == (3, 2, 1, 1)


def test_text_joins_the_images():
    images = datasets.Dataset.from_dict({"image_id": ["one", "two"]})
    text = TextColumns()
    text.add(["stop"], [INSIDE], [0.5])
    text.add([])
    images = with_text(with_text(images, text), text)
    assert images.column_names == ["image_id", *TEXT_FEATURES]
    assert images[0] == {
        "image_id": "one",
        "ocr_tokens": ["stop"],
        "ocr_boxes": [INSIDE],
        "ocr_confidences": [0.5],
    }
    assert images[1]["ocr_boxes"] == []
    assert {name: images.features[name] for name in TEXT_FEATURES} == TEXT_FEATURES
    with pytest.raises(DataError, match="the text of 2 pictures for 1 images"):
        with_text(images.select([0]), text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], []), "1 OCR tokens have 0 boxes and 1 confidences"),
        ((["a"], [INSIDE], [0.5, 0.5]), "1 OCR tokens have 1 boxes and 2 confidences"),
        (([7], [INSIDE]), "not all texts"),
        ((["a"], [INSIDE], [1.5]), "numbers from 0 to 1"),
        ((["a"], [INSIDE], [float("nan")]), "numbers from 0 to 1"),
        ((["a"], [[1, 1, 0, 0]]), "ends before it begins"),
        ((["a"], [["left", 0, 1, 1]]), "cannot be used"),
        ((["a", "b"], [INSIDE, [0, 1]]), "cannot be used"),
    ],
)
def test_bad_text_is_named(arguments, message):
    text = TextColumns()
    with pytest.raises(DataError, match=f"ocr.json, record picture: .*{message}"):
        text.add(*arguments, path="ocr.json", record="picture")
    assert len(text) == 0


@pytest.mark.parametrize(
    ("tokens", "boxes", "confidences"),
    [
        ("word", None, None),
        (["a"], None, [[1], [2, 3]]),
        (["a"], None, ["sure"]),
        (["a"], 7, None),
        (["a"], [{"x": 1}], None),
        (["a", "b"], [[0, 0, 1, 1], [0]], None),
        (7, None, None),
    ],
)
def test_text_of_another_form_is_refused_by_name(tokens, boxes, confidences):
    with pytest.raises(DataError, match="text.json, record 3"):
        TextColumns().add(tokens, boxes, confidences, path="text.json", record=3)

"""The reader itself, where its package is installed, and how its lines become words."""

import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from vl_alignment.data.rapid_text_reader import RapidTextReader, reading_order, split_line
from vl_alignment.data.text_recognition import build_text_reader
from vl_alignment.models.errors import ConfigurationError

FONT = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"


def rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def printed(text, size=(420, 120), place=(20, 30)):
    """A picture with a line of text, and where its words really are."""
    font = ImageFont.truetype(FONT, 40)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text(place, text, fill="black", font=font)
    before = [text.index(word) for word in text.split()]
    return image, [
        (place[0] + font.getlength(text[:start]), place[0] + font.getlength(text[: start + len(word)]))
        for start, word in zip(before, text.split(), strict=True)
    ]


@pytest.fixture(scope="module")
def reader():
    pytest.importorskip("rapidocr_onnxruntime")
    return RapidTextReader(threads=1)


def test_printed_words_are_read_where_they_are(reader):
    image, places = printed("Grand HOTEL 25")
    found = reader.read(image)
    assert found.tokens == ["Grand", "HOTEL", "25"]
    for (x0, y0, x1, y1), (left, right) in zip(found.boxes * [420, 120, 420, 120], places, strict=True):
        assert abs(x0 - left) < 12 and abs(x1 - right) < 12 and 25 < y0 < 50 < y1 < 85
    assert found.boxes.dtype == found.confidences.dtype == np.float32
    assert (found.confidences > 0.8).all() and (found.confidences <= 1).all()


def test_pictures_without_text_give_none(reader):
    for size in ((1, 1), (100, 2)):
        found = reader.read(Image.new("L", size, 200))
        assert (found.tokens, found.boxes.shape, found.confidences.shape) == ([], (0, 4), (0,))


def test_a_reader_says_what_it_is(reader):
    assert reader.name == "rapidocr" and reader.version.endswith(", minimum confidence 0.5")
    assert build_text_reader(minimum_confidence=0.25).version.endswith("0.25")
    with pytest.raises(ConfigurationError, match="minimum_confidence is 2"):
        build_text_reader("rapidocr", minimum_confidence=2)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r'pip install "vl-alignment\[ocr\]"'):
        build_text_reader()


def test_words_get_their_parts_of_the_line():
    words, boxes = split_line(" no on  no", rectangle(10, 0, 100, 20))  # 6 letters of width 1, 3 spaces of 0.5
    assert words == ["no", "on", "no"]
    np.testing.assert_allclose(boxes, [[10, 0, 34, 20], [40, 0, 64, 20], [76, 0, 100, 20]])
    words, boxes = split_line("ill mmm", rectangle(0, 0, 65, 10))  # 1.5, 0.5 and 4.5
    np.testing.assert_allclose(boxes, [[0, 0, 15, 10], [20, 0, 65, 10]])


def test_lines_that_are_turned_are_split_along_themselves():
    words, boxes = split_line("no on", rectangle(0, 0, 10, 90))
    np.testing.assert_allclose(boxes, [[0, 0, 10, 40], [0, 50, 10, 90]])
    slanted = np.array([[0, 0], [90, 90], [80, 100], [-10, 10]], dtype=float)
    words, boxes = split_line("no on", slanted)
    np.testing.assert_allclose(boxes, [[-10, 0, 40, 50], [40, 50, 90, 100]])


def test_full_width_characters_become_ordinary_ones():
    assert split_line("（55）８１", rectangle(0, 0, 10, 2))[0] == ["(55)81"]
    assert split_line("東京\u3000駅", rectangle(0, 0, 10, 2))[0] == ["東京", "駅"]
    assert split_line("  ", rectangle(0, 0, 10, 2)) == ([], [])


def test_reading_order_is_by_rows():
    boxes = [[50, 3, 60, 13], [0, 0, 10, 10], [0, 40, 10, 60], [20, 44, 30, 54], [40, 20, 50, 30], [0, 21, 10, 31]]
    assert reading_order([np.array(box, dtype=float) for box in boxes]) == [1, 0, 5, 4, 2, 3]
    assert reading_order([]) == []


@pytest.mark.real_data
def test_a_photograph(reader, data_root):
    found = reader.read(Image.open(data_root / "stvqa" / "images" / "Coco-Text" / "COCO_train2014_000000023015.jpg"))
    assert "OLYMPUS" in found.tokens

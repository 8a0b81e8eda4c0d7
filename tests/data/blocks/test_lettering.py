import numpy as np
import pytest

from vl_alignment.data.blocks.lettering import FONTS, STYLES, arrange_words, draw_labels
from vl_alignment.data.blocks.text_scene import Foot, Label, PrintedWord


def label_in_middle(words: tuple[str, ...], font: str, style: str, *, stacked: bool = False) -> Label:
    plate = arrange_words(words, font, 0.1, stacked=stacked)
    x, y = 0.5 - plate.width / 2, 0.5 - plate.height / 2
    printed = tuple(
        PrintedWord(word, (x + box[0], y + box[1], x + box[2], y + box[3]))
        for word, box in zip(words, plate.boxes, strict=True)
    )
    return Label(printed, (x, y, x + plate.width, y + plate.height), font, 0.1, style, bearer=0)


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("side", [192, 320])
def test_ink_fills_the_box_of_its_word(font: str, side: int) -> None:
    label = label_in_middle(("Agjy",), font, "white")
    drawn = draw_labels(np.full((side, side, 3), 128, dtype=np.uint8), [label])
    x0, y0, x1, y1 = (value * side for value in label.box)
    inner = drawn[int(y0) + 3 : int(y1) - 2, int(x0) + 3 : int(x1) - 2].mean(axis=2)
    rows, columns = np.nonzero(inner < 140)
    top, left = int(y0) + 3, int(x0) + 3
    seen = np.array([columns.min() + left, rows.min() + top, columns.max() + 1 + left, rows.max() + 1 + top])
    np.testing.assert_allclose(seen, np.array(label.words[0].box) * side, atol=1.1)


@pytest.mark.parametrize("stacked", [True, False])
def test_words_stand_apart_on_their_plate(stacked: bool) -> None:
    plate = arrange_words(("OPEN", "daily"), "DejaVuSerif", 2.0, stacked=stacked)
    first, second = plate.boxes
    for x0, y0, x1, y1 in plate.boxes:
        assert 0.0 < x0 < x1 < plate.width and 0.0 < y0 < y1 < plate.height
    if stacked:
        assert first[3] < second[1] and first[0] + first[2] == pytest.approx(second[0] + second[2])
    else:
        assert first[2] < second[0] and first[3] > second[1]
    half = arrange_words(("OPEN", "daily"), "DejaVuSerif", 1.0, stacked=stacked)
    np.testing.assert_allclose(np.array(half.boxes) * 2, plate.boxes)


@pytest.mark.parametrize("style", STYLES)
def test_plates_have_contrast(style: str) -> None:
    plate, ink = (np.mean(color) for color in STYLES[style])
    assert abs(plate - ink) > 170


def test_only_the_sign_has_posts() -> None:
    label = label_in_middle(("exit",), "Aileron", "white")
    sign = Label(label.words, label.box, label.font, label.size, label.style, None, Foot(0.0, 0.0, 0.7))
    ground = np.full((200, 200, 3), 180, dtype=np.uint8)
    below = slice(int(label.box[3] * 200) + 4, 200)
    assert (draw_labels(ground, [label])[below] == 180).all()
    assert (draw_labels(ground, [sign])[below] < 120).any()
    assert (ground == 180).all()

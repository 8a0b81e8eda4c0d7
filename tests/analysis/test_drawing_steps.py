import io

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from vl_alignment.analysis.attention import mac_alignment_maps
from vl_alignment.analysis.drawing_steps import draw_reasoning, reasoning_png

WORDS = ["what", "$color", "is", "it"]
PICTURE = Image.new("RGB", (96, 96), (120, 120, 120))


def reasoning(steps=2, tokens=WORDS, picture=PICTURE, word=1, cell=3):
    """Every step looks at one word and one cell of 2 x 2."""
    words = np.full((steps, len(tokens)), 0.1 / (len(tokens) - 1))
    words[:, word] = 0.9
    cells = np.full((steps, 4), 0.1)
    cells[:, cell] = 0.7
    return mac_alignment_maps(words, cells, tokens, picture, grid=(2, 2))


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)


def test_a_row_a_step_with_question_and_answers_above():
    drawn = texts(
        draw_reasoning(
            reasoning(),
            question="What $color is it?",
            answer="red",
            right_answer="blue",
            alignment_function="general_key",
        )
    )
    assert drawn[:4] == ["What $color is it?", "answer: red", "wrong, it is blue", "General†, 2 reasoning steps"]
    assert [drawn.count(word) for word in (*WORDS, "1", "2", "3")] == [2, 2, 2, 2, 1, 1, 0]
    assert drawn.count("largest share: of the words 0.90, of the picture 0.70") == 2


@pytest.mark.parametrize(
    ("answers", "lines"),
    [
        ({"answer": "2", "right_answer": "2"}, ["answer: 2", "right"]),
        ({"answer": "2"}, ["answer: 2"]),
        ({"right_answer": "3"}, ["right answer: 3"]),
        ({}, []),
    ],
)
def test_what_is_known_of_the_answer(answers, lines):
    drawn = texts(draw_reasoning(reasoning(), **answers))
    assert drawn[: len(lines) + 2] == ["what $color is it", *lines, "2 reasoning steps"]


def test_the_attended_word_and_cell_are_lit():
    image = pixels(reasoning_png(reasoning()))
    # The picture's column starts at 4.65 inches and is 1.3 wide; below the heading and a gap, the first step.
    tile = image[135:265, 465:595, :3]
    assert tile[75:125, 75:125].mean() > tile[5:55, 5:55].mean() + 60
    boxes = [patch for patch in draw_reasoning(reasoning()).axes[0].patches if isinstance(patch, FancyBboxPatch)]
    brightness = [sum(box.get_facecolor()[:3]) for box in boxes]
    assert [level > 1.5 for level in brightness] == [False, True, False, False] * 2


def test_attention_beside_the_words_is_a_word_of_its_own():
    drawn = texts(draw_reasoning(reasoning(tokens=["<start>", *WORDS, "<end>", "<pad>"], word=0)))
    assert drawn.count("[markers, padding]") == 2
    assert "[markers, padding]" not in texts(draw_reasoning(reasoning()))


def test_a_long_question_wraps_and_its_rows_grow():
    tokens = [f"word{number}" for number in range(60)]
    figure = draw_reasoning(reasoning(tokens=tokens, steps=12))
    assert figure.get_size_inches()[0] == draw_reasoning(reasoning()).get_size_inches()[0]
    right = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert max(right[token] for token in tokens) < 4.3
    assert len({text.get_position()[1] for text in figure.axes[0].texts if text.get_text() in tokens}) >= 12 * 7


@pytest.mark.parametrize("size", [(480, 320), (60, 240)])
def test_pictures_keep_their_shape(size):
    figure = draw_reasoning(reasoning(picture=Image.new("RGB", size)))
    for image in figure.axes[0].images[:3]:
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (top - bottom) == pytest.approx(size[0] / size[1])


def test_without_a_picture_the_heat_stands_alone():
    assert len(draw_reasoning(reasoning(picture=None)).axes[0].images) == 2 + 1  # two steps and the scale
    assert len(draw_reasoning(reasoning()).axes[0].images) == 3 + 1


def test_the_same_every_time_and_transparent_between_rows():
    png = reasoning_png(reasoning(), answer="red")
    assert png == reasoning_png(reasoning(), answer="red")
    image = pixels(png)
    assert image[132, 100, 3] == 0
    assert image[100, 100, 3] == 255


def test_a_word_that_no_line_could_hold_is_cut():
    drawn = texts(draw_reasoning(reasoning(tokens=["what", "x" * 80]), question="y" * 80))
    assert drawn[0] == "y" * 29 + "…"
    assert "x" * 29 + "…" in drawn

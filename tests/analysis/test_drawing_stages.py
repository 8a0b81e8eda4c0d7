import io

import numpy as np
import pytest
from PIL import Image

from vl_alignment.analysis.attention import attngan_alignment_maps
from vl_alignment.analysis.drawing_stages import draw_stages, leading_words, stages_png
from vl_alignment.models.errors import ConfigurationError, DataError

WORDS = ["a", "red", "ball", "behind", "two", "$cones"]
PICTURE = Image.new("RGB", (64, 64), (120, 120, 120))


def stage(side, claims, padding=2):
    """Places attend equally to all words, but place i to word claims[i]."""
    weights = np.full((side * side, len(WORDS)), 1 / len(WORDS))
    for place, word in claims.items():
        weights[place] = 0.02
        weights[place, word] = 1 - 0.02 * (len(WORDS) - 1)
    return np.pad(weights, ((0, 0), (0, padding)))


def maps():
    return attngan_alignment_maps([stage(2, {0: 1, 3: 5}), stage(4, {5: 2})], WORDS, PICTURE)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_padding_is_left_out_and_each_stage_has_its_grid():
    first, second = maps()
    assert first.weights.shape == (4, 6) and second.weights.shape == (16, 6)
    assert first.queries.grid == (2, 2) and second.queries.grid == (4, 4) and first.keys.labels == tuple(WORDS)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (np.full((5, 6), 1 / 6), r"\[H \* W, L\]"),
        (np.full((4, 3), 1 / 3), "6 words"),
        (np.full((4, 6), 0.1), "sum to"),
    ],
)
def test_attention_that_does_not_fit(attention, message):
    with pytest.raises(DataError, match=message):
        attngan_alignment_maps([attention], WORDS)


def test_the_words_that_claim_most_are_drawn_in_the_order_of_the_caption():
    first, second = maps()
    assert leading_words(first, 2) == [1, 5] and leading_words(second, 1) == [2]
    assert leading_words(second, 20) == [0, 1, 2, 3, 4, 5]


def test_a_row_a_stage_below_the_caption():
    drawn = texts(
        draw_stages(maps(), caption="A red ball behind two $cones", alignment_function="general_key", words=2)
    )
    assert drawn[:2] == ["A red ball behind two $cones", "General†"]
    assert "2 x 2 places" in drawn and "4 x 4 places" in drawn
    assert "$cones" in drawn and "0.90" in drawn


def test_the_png_shows_both_stages():
    png = stages_png(maps(), caption="a red ball")
    one = stages_png(maps()[:1], caption="a red ball")
    sizes = [Image.open(io.BytesIO(content)).size for content in (png, one)]
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] > sizes[1][1] + 100


def test_nothing_to_draw_is_refused():
    for given, words in (([], 5), (maps(), 0)):
        with pytest.raises(ConfigurationError, match="a stage and a word"):
            draw_stages(given, caption="a", words=words)

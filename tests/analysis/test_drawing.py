import io

import numpy as np
import pytest
from PIL import Image

from vl_alignment.analysis.attention import AlignmentMap, MapSide, scan_alignment_map
from vl_alignment.analysis.drawing import alignment_png, draw_alignment, heat_map
from vl_alignment.models.errors import ConfigurationError

WORDS = ["red", "$ball", "a_very_long_compound_word"]
ATTENTION = np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0], [0.7, 0.1, 0.1, 0.1]])
PICTURE = Image.new("RGB", (96, 48), (120, 120, 120))


def test_heat_of_a_grid_is_the_weight_of_the_cell():
    heat = heat_map(np.array([0.1, 0.2, 0.3, 0.4]), MapSide(grid=(2, 2)), (200, 100), smooth=False)
    assert heat.shape == (48, 96)
    assert heat[0, 0] == 0.1 and heat[0, -1] == 0.2 and heat[-1, 0] == 0.3 and heat[-1, -1] == 0.4


def test_overlapping_boxes_add_up():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    heat = heat_map(np.array([0.4, 0.6]), MapSide(boxes=boxes), (96, 96), smooth=False)
    assert heat[10, 10] == 1.0 and heat[10, 80] == 0.4


def test_smoothing_keeps_the_peak_and_the_sum():
    weights = np.full(49, 0.01)
    weights[24] = 0.52
    side = MapSide(grid=(7, 7))
    sharp, smooth = (heat_map(weights, side, (96, 96), smooth=value) for value in (False, True))
    assert np.unravel_index(smooth.argmax(), smooth.shape) == pytest.approx((48, 48), abs=2)
    assert smooth.sum() == pytest.approx(sharp.sum(), rel=1e-6)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_the_region_a_word_looks_at_is_lit():
    image = pixels(alignment_png(scan_alignment_map(ATTENTION, WORDS, grid=(2, 2), picture=PICTURE), dpi=100))
    # Tiles of 125 x 62 pixels and gaps of 5: the picture, then "red", then "$ball", which looks at the lower right.
    tile = image[:62, 260:385, :3].astype(int)
    lower_right, upper_left = tile[40:60, 80:120].mean(), tile[2:20, 5:45].mean()
    assert lower_right > upper_left + 60
    # "red" looks everywhere alike: faint and even.
    even = image[5:57, 135:250, :3].astype(int).mean(axis=2)
    assert even.max() - even.min() < 12


def test_gaps_are_transparent_and_tiles_are_not():
    image = pixels(alignment_png(scan_alignment_map(ATTENTION, WORDS, grid=(2, 2), picture=PICTURE), dpi=100))
    assert image[30, 127, 3] == 0
    assert image[30, 60, 3] == 255


def test_words_are_chosen_and_lines_are_broken():
    alignment = scan_alignment_map(ATTENTION, WORDS, grid=(2, 2), picture=PICTURE)
    wide = draw_alignment(alignment).get_size_inches()
    narrow = draw_alignment(alignment, columns=2).get_size_inches()
    assert wide[0] > narrow[0] and wide[1] < narrow[1]
    texts = [text.get_text() for text in draw_alignment(alignment, queries=[1]).axes[0].texts]
    assert "$ball" in texts and "red" not in texts


def test_long_words_are_cut():
    texts = [
        text.get_text() for text in draw_alignment(scan_alignment_map(ATTENTION, WORDS, grid=(2, 2))).axes[0].texts
    ]
    assert "a_very_long_com…" in texts


@pytest.mark.parametrize("options", [{"queries": []}, {"queries": [3]}, {"columns": 0}])
def test_bad_options_are_named(options):
    with pytest.raises(ConfigurationError, match=r"among 0\.\.2"):
        draw_alignment(scan_alignment_map(ATTENTION, WORDS, grid=(2, 2)), **options)


def test_regions_to_words_draw_a_tile_a_word():
    alignment = scan_alignment_map(ATTENTION, [*"abcd"], grid=(1, 3), direction="i2t")
    assert {"a", "b", "c", "d"} <= {text.get_text() for text in draw_alignment(alignment).axes[0].texts}


def test_words_to_words_draw_a_matrix():
    side = MapSide(labels=WORDS[:2])
    figure = draw_alignment(AlignmentMap(np.array([[0.5, 0.5], [1, 0]]), side, side))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["red", "$ball"]
    assert pixels(alignment_png(AlignmentMap(np.array([[0.5, 0.5], [1, 0]]), side, side)))[0, 0, 3] == 255

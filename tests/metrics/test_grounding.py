"""Every metric of grounding where the right answer is known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from vl_alignment.analysis.attention import MapSide
from vl_alignment.metrics.grounding import (
    area_under_curve,
    attention_density,
    attention_iou,
    attention_mass,
    inside_shares,
    normalised_entropy,
    place_areas,
    pointing_game,
    rank_correlation,
)
from vl_alignment.models.errors import DataError

SIDE, CELLS = 24, 4
AREAS = place_areas(MapSide(grid=(CELLS, CELLS)).rectangles(), SIDE, SIDE)
UNIFORM = np.full((1, CELLS * CELLS), 1 / (CELLS * CELLS))


def mask_of(y0, y1, x0, x1):
    mask = np.zeros((1, SIDE, SIDE), dtype=bool)
    mask[0, y0:y1, x0:x1] = True
    return mask


def on_place(*places):
    attention = np.zeros((1, CELLS * CELLS))
    attention[0, list(places)] = 1 / len(places)
    return attention


CELL_5 = mask_of(6, 12, 6, 12)  # just the cell in row 1, column 1


def test_areas_of_a_grid_share_the_picture_exactly():
    assert np.allclose(AREAS.sum(axis=0), 1) and np.allclose(AREAS.sum(axis=(1, 2)), 36)
    third = place_areas([[0, 0, 1 / 3, 1]], 2, 2)  # two thirds of the left pixels
    assert np.allclose(third, [[[2 / 3, 0], [2 / 3, 0]]])
    point, thin = place_areas([[0.5, 0.5, 0.5, 0.5], [1, 0, 1, 1]], 10, 10).sum(axis=(1, 2))
    assert point == pytest.approx(1e-4, rel=1e-3) and thin == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(DataError, match="rectangles"):
        place_areas([0, 0, 1, 1], 2, 2)


def test_attention_on_the_true_object_scores_one():
    inside = inside_shares(CELL_5, AREAS)
    attention = on_place(5)
    assert pointing_game(attention, inside) == attention_mass(attention, inside) == 1
    assert attention_iou(attention_density(attention, AREAS), CELL_5) == 1
    assert normalised_entropy(attention) == 0


def test_attention_elsewhere_scores_nothing():
    inside = inside_shares(CELL_5, AREAS)
    attention = on_place(0, 15)
    assert pointing_game(attention, inside) == attention_mass(attention, inside) == 0
    assert attention_iou(attention_density(attention, AREAS), CELL_5) == 0


@pytest.mark.parametrize("mask", [CELL_5, mask_of(0, 24, 0, 12), mask_of(3, 10, 5, 22)])
def test_uniform_attention_scores_its_area_share(mask):
    share = mask.mean()
    inside = inside_shares(mask, AREAS)
    assert attention_mass(UNIFORM, inside) == pytest.approx(share)
    assert attention_iou(attention_density(UNIFORM, AREAS), mask) == pytest.approx(share)
    assert normalised_entropy(UNIFORM) == pytest.approx(1)


def test_uniform_attention_points_at_the_share_of_the_places_that_are_on_the_object():
    inside = inside_shares(mask_of(0, 24, 0, 12), AREAS)
    assert pointing_game(UNIFORM, inside) == 0.5
    assert pointing_game(on_place(0, 3), inside) == 0.5  # a tie of a hit and a miss


def test_half_a_place_counts_half_and_hits_by_the_minimum():
    inside = inside_shares(mask_of(6, 12, 6, 15), AREAS)  # cell 5, and half of cell 6
    assert attention_mass(on_place(5, 6), inside) == pytest.approx(0.75)
    assert pointing_game(on_place(6), inside, minimum=0.5) == 1
    assert pointing_game(on_place(6), inside, minimum=0.6) == 0
    assert attention_iou(attention_density(on_place(5, 6), AREAS), mask_of(6, 12, 6, 15)) == pytest.approx(54 / 72)


def test_an_object_smaller_than_a_place_can_be_pointed_at():
    inside = inside_shares(mask_of(7, 9, 7, 9), AREAS)
    assert inside.max() == pytest.approx(4 / 36)
    assert pointing_game(on_place(5), inside) == 1 and pointing_game(on_place(6), inside) == 0


def test_the_threshold_of_the_overlap_is_a_share_of_the_largest_density():
    attention = np.zeros((1, 16))
    attention[0, [5, 6]] = 0.7, 0.3
    density = attention_density(attention, AREAS)
    assert density.sum() == pytest.approx(1)
    assert attention_iou(density, CELL_5, threshold=0.5) == 1
    assert attention_iou(density, CELL_5, threshold=0.4) == pytest.approx(0.5)


def test_density_of_overlapping_boxes_adds_up():
    areas = place_areas([[0, 0, 0.5, 1], [0, 0, 1, 1]], 2, 2)
    density = attention_density([[0.5, 0.5]], areas)
    assert np.allclose(density, [[[0.375, 0.125], [0.375, 0.125]]])


def test_what_no_place_touches_is_not_scored():
    areas = place_areas([[0, 0, 0.5, 1]], SIDE, SIDE)
    inside = inside_shares(mask_of(0, 24, 20, 24), areas)
    assert np.isnan(pointing_game([[1.0]], inside)) and np.isnan(attention_mass([[1.0]], inside))
    assert np.isnan(attention_iou(attention_density([[1.0]], areas), np.zeros((1, SIDE, SIDE))))
    assert np.isnan(normalised_entropy([[1.0]]))


def test_rank_correlation_is_spearmans():
    assert rank_correlation([[0.1, 0.2, 0.7]], [[1, 5, 90]]) == pytest.approx(1)
    assert rank_correlation([[0.1, 0.2, 0.7]], [[3, 2, 1]]) == pytest.approx(-1)
    assert np.isnan(rank_correlation([[0.5, 0.5]], [[1, 2]]))
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, 4, (5, 9)), draw.random((5, 9))
    expected = [spearmanr(*pair).statistic for pair in zip(one, other, strict=True)]
    assert np.allclose(rank_correlation(one, other), expected)


def test_a_score_that_is_one_place_gives_the_areas_of_its_step():
    # Four places, the score is whether the first is there: at once lost, or lost at the end.
    first, last = [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]
    assert np.allclose(area_under_curve([first, last]), [0.125, 0.875])
    assert np.allclose(area_under_curve([[2.0, 2.0, 2.0]], [0, 0.1, 1]), 2)
    assert area_under_curve([[1, 0, 0]], [0, 0.2, 1]) == pytest.approx(0.1)
    with pytest.raises(DataError, match="rising"):
        area_under_curve([[1, 2, 3]], [0, 1, 1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="items, places"):
        pointing_game(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(DataError, match="do not fit places"):
        inside_shares(np.ones((1, 3, 3)), AREAS)
    with pytest.raises(DataError, match="does not fit masks"):
        attention_iou(np.ones((1, 3, 3)), CELL_5)

"""Looks and probes whose scores are known without measuring."""

import numpy as np
import pytest

from vl_alignment.analysis.attention import AlignmentMap, MapSide
from vl_alignment.analysis.grounding_scores import (
    Change,
    Look,
    Probe,
    bootstrap_interval,
    change_scores,
    entropy_scores,
    look_scores,
    probe_scores,
    spatial_attention,
    summarise_scores,
)
from vl_alignment.analysis.grounding_truth import MASK_SIDE

GRID = MapSide(grid=(4, 4))


def cell_mask(*cells):
    mask = np.zeros((4, 4), dtype=bool)
    mask.flat[list(cells)] = True
    return mask.repeat(MASK_SIDE // 4, axis=0).repeat(MASK_SIDE // 4, axis=1)


def weights_on(*cells):
    weights = np.zeros((1, 16))
    weights[0, list(cells)] = 1 / len(cells)
    return weights


def looks_at(places, truths, kind=""):
    pairs = enumerate(zip(places, truths, strict=True))
    return [Look(f"picture {n}", kind, weights_on(at), GRID.rectangles(), cell_mask(on)) for n, (at, on) in pairs]


def test_attention_on_the_object_scores_one_and_its_controls_what_chance_gives():
    summary = summarise_scores(look_scores(looks_at(range(4), range(4))), resamples=100)
    for metric in ("pointing_game", "attention_mass", "attention_iou"):
        found = summary[metric]
        assert (found["mean"], found["low"], found["high"]) == pytest.approx((1, 1, 1))
        assert (found["items"], found["pictures"], found["shuffled"]) == (4, 4, 0)
        assert found["uniform"] == pytest.approx(1 / 16)


def test_the_step_with_the_largest_mass_is_the_one_that_counts():
    steps = np.concatenate([weights_on(3), weights_on(5, 6), weights_on(0)])
    scores = look_scores([Look("a", "stage_", steps, GRID.rectangles(), cell_mask(5))])
    assert scores["stage_attention_mass"].values["mean"] == pytest.approx([0.5])
    assert scores["stage_pointing_game"].values["mean"] == pytest.approx([0.5])  # a tie of two places
    assert np.isnan(scores["stage_attention_mass"].values["shuffled"]).all()  # no other picture


def test_looks_that_nothing_can_score_on_are_left_out():
    boxes = np.array([[0.0, 0.0, 0.25, 0.25]])
    assert look_scores([Look("a", "", np.ones((1, 1)), boxes, cell_mask(15))]) == {}


def additive(parts):
    """The score is the sum of what each kept place gives."""
    return lambda keep: keep @ np.asarray(parts, dtype=np.float64)


def test_attention_on_what_the_score_is_made_of_is_faithful():
    parts = np.array([0.0, 1.0, 0.0, 0.0])
    probes = [Probe("a", np.array([0.1, 0.7, 0.15, 0.05]), additive(parts))]
    scores = probe_scores(probes)
    # All is lost with the first place, or gained with it: four steps of a quarter.
    assert scores["deletion_auc"].values["mean"] == pytest.approx([0.125])
    assert scores["insertion_auc"].values["mean"] == pytest.approx([0.875])
    assert scores["faithfulness"].values["mean"] == pytest.approx([0.75])
    against = probe_scores([Probe("a", np.array([0.3, 0.1, 0.3, 0.3]), additive(parts))])
    assert against["faithfulness"].values["mean"] == pytest.approx([-0.75])


def test_rank_correlation_follows_the_effects():
    parts = np.array([0.1, 0.4, 0.2, 0.3])
    own = probe_scores([Probe("a", parts, additive(parts)), Probe("b", parts[::-1], additive(parts))])
    assert own["rank_correlation"].values["mean"][0] == pytest.approx(1)
    assert own["rank_correlation"].values["shuffled"][1] == pytest.approx(1)
    assert np.isnan(own["rank_correlation"].values["uniform"]).all()


def test_random_order_is_not_faithful_on_average():
    draw = np.random.default_rng(0)
    probes = [Probe(str(n), draw.random(12), additive(draw.random(12))) for n in range(300)]
    found = summarise_scores(probe_scores(probes), resamples=500)["faithfulness"]
    assert abs(found["mean"]) < 0.15 and abs(found["uniform"]) < 0.15 and found["low"] < 0 < found["high"]


def test_places_that_look_at_words_give_words_their_places():
    weights = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]])
    shares, rectangles = spatial_attention(AlignmentMap(weights, MapSide(grid=(2, 2)), MapSide(labels=("a", "b"))))
    assert np.allclose(shares, [[0.45, 0.05, 0.25, 0.25], [0.05, 0.45, 0.25, 0.25]]) and rectangles.shape == (4, 4)


def test_entropy_is_the_mean_over_queries():
    alignment = AlignmentMap(np.array([[1.0, 0, 0, 0], [0.25] * 4]), MapSide(labels=("a", "b")), MapSide(grid=(2, 2)))
    found = summarise_scores(entropy_scores([("a", alignment)]))["entropy"]
    assert found["mean"] == pytest.approx(0.5) and found["low"] is None and found["uniform"] == 1


def test_items_of_one_picture_are_drawn_together():
    draw = np.random.default_rng(0)
    values = draw.normal(size=100)
    apart = bootstrap_interval(values, [str(n) for n in range(100)], 2000)
    copied = bootstrap_interval(values.repeat(20), [str(n) for n in range(100) for _ in range(20)], 2000)
    assert apart == pytest.approx(copied)
    assert apart[1] - apart[0] == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


def test_pictures_that_change_where_words_are_attended_to_correlate_wholly():
    draw = np.random.default_rng(0)
    places = draw.random((5, 16))
    scores = change_scores([Change("a", places[:2], 3 * places[:2]), Change("b", places[2:], -places[2:])])
    found = scores["place_correlation"].values
    assert found["mean"] == pytest.approx([1, -1])
    assert abs(found["shuffled"][0]) < 0.9
    nothing = change_scores([Change("a", places[:2], np.zeros((2, 16)))])
    assert np.isnan(nothing["place_correlation"].values["mean"]).all() and summarise_scores(nothing) == {}

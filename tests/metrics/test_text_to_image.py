import numpy as np
import pytest
import torch

from vl_alignment.data.blocks.captions import make_descriptions
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.spoken_attributes import spoken_attributes
from vl_alignment.data.blocks.statements import matching_objects
from vl_alignment.metrics import text_to_image
from vl_alignment.metrics.text_to_image import attribute_accuracy, mismatched_captions, r_precision
from vl_alignment.models.errors import ConfigurationError, DataError


def codes(number=12, size=4, noise=1.0, seed=0):
    """Codes of captions, and of pictures that are as near to their own as the noise lets them."""
    draw = np.random.default_rng(seed)
    sentences = draw.normal(size=(number, size))
    return sentences + noise * draw.normal(size=sentences.shape), sentences


def plain_loop(images, sentences, labels):
    """R-precision where every mismatched caption of the set is a candidate."""
    right = 0
    for row, image in enumerate(images):
        cosines = [image @ other / np.linalg.norm(image) / np.linalg.norm(other) for other in sentences]
        others = [cosines[other] for other in range(len(images)) if labels[other] != labels[row]]
        right += cosines[row] > max(others)
    return 100 * right / len(images)


def test_r_precision_equals_a_plain_loop_where_all_captions_are_candidates():
    images, sentences = codes()
    expected = plain_loop(images, sentences, range(12))
    assert 0 < expected < 100
    assert r_precision(images, sentences, candidates=12) == pytest.approx(expected)
    assert r_precision(torch.tensor(images), torch.tensor(sentences), candidates=12) == pytest.approx(expected)


@pytest.mark.parametrize("column", ["image_ids", "captions"])
def test_captions_of_one_picture_or_of_one_text_are_no_mismatched_ones(column):
    images, sentences = codes(noise=0.5)
    labels = [f"name {row // 3}" for row in range(12)]
    value = r_precision(images, sentences, **{column: labels}, candidates=10)
    assert value == pytest.approx(plain_loop(images, sentences, labels))
    with pytest.raises(DataError, match=r"record 0: .* 9 mismatched captions, 10 are wanted.*candidates=1"):
        r_precision(images, sentences, **{column: labels}, candidates=11)


def test_candidates_are_drawn_anew_for_each_picture_and_by_the_seed():
    images, sentences = codes(number=60, noise=2.0)
    values = [r_precision(images, sentences, candidates=5, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert values[0] == values[1] and len(set(values)) > 1
    labels = [np.arange(60)]
    drawn = [text_to_image._draw_others(7, labels, 4, np.random.default_rng(seed)) for seed in range(600)]
    assert all(len(set(rows)) == 4 and 7 not in rows for rows in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=60)
    assert counts[7] == 0 and counts.sum() == 2400 and np.delete(counts, 7).min() > 15  # 40.7 on average


def test_random_codes_reach_chance_and_constant_ones_nothing():
    draw = np.random.default_rng(0)
    images, sentences = draw.normal(size=(2, 1500, 8))
    assert r_precision(images, sentences, candidates=10) == pytest.approx(10, abs=2.5)
    constant = np.ones((20, 3))
    assert r_precision(constant, constant, candidates=10) == 0.0
    assert r_precision(np.zeros((20, 3)), constant, candidates=10) == 0.0


def test_blocks_of_rows_change_nothing(monkeypatch):
    images, sentences = codes(number=30)
    whole = r_precision(images, sentences, candidates=10)
    monkeypatch.setattr(text_to_image, "BLOCK_BYTES", 1)
    assert r_precision(images, sentences, candidates=10) == whole


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"candidates": 1}, ConfigurationError, "candidates=1"),
        ({"candidates": 100}, DataError, "11 mismatched captions, 99 are wanted"),
        ({"image_ids": ["a"]}, DataError, "1 image_ids for 12 pictures"),
        ({"image_codes": np.zeros((0, 4))}, DataError, r"codes of pictures.*shape \(0, 4\)"),
        ({"image_codes": np.zeros((12, 3))}, DataError, "one shape"),
        ({"image_codes": np.full((12, 4), np.nan)}, DataError, "record 0: the code of the picture is not finite"),
    ],
)
def test_bad_input_is_named(changes, error, message):
    images, sentences = codes()
    with pytest.raises(error, match=message):
        r_precision(**{"image_codes": images, "sentence_codes": sentences, **changes})


def test_mismatched_captions_are_false_of_the_picture():
    scenes = [make_scene(5, "train", index, minimum_objects=1, maximum_objects=3) for index in range(40)]
    captions = [make_descriptions(scene)[0].text for scene in scenes]
    rows = mismatched_captions(captions)
    assert np.array_equal(rows, mismatched_captions(captions))
    assert not np.array_equal(rows, mismatched_captions(captions, seed=1))
    for scene, row in zip(scenes, rows, strict=True):
        assert not all(matching_objects(scene, phrase) for phrase in spoken_attributes(captions[row]))


def test_captions_that_only_leave_things_out_are_not_mismatched():
    captions = ["a red cube", "a cube", "a red thing", "a small red cube and a blue ball", "a red ball"]
    for seed in range(5):
        rows = mismatched_captions(captions, seed=seed)
        assert rows[0] in (3, 4)  # the ball is no red cube
        assert rows[3] == 4  # neither is a red ball the cube or the blue ball
        assert rows[4] in (0, 1, 3)


def test_captions_without_attributes_or_without_a_contradiction_are_named():
    with pytest.raises(DataError, match="record 1: caption 'a bird' names no attributes"):
        mismatched_captions(["a red cube", "a bird"])
    with pytest.raises(DataError, match="contradicts no other caption of the 2"):
        mismatched_captions(["a red cube", "a red cube"])


def test_attribute_accuracy_counts_ties_against_the_pictures():
    assert attribute_accuracy(np.array([-1.0, -2.0, -3.0, 0.0]), np.array([-2.0, -1.0, -3.0, -np.inf])) == 50.0
    with pytest.raises(DataError, match="record 1: the fit of a picture is NaN"):
        attribute_accuracy(np.array([0.0, np.nan]), np.zeros(2))
    for own, other in [(np.zeros(0), np.zeros(0)), (np.zeros(2), np.zeros(3))]:
        with pytest.raises(DataError, match="one length"):
            attribute_accuracy(own, other)

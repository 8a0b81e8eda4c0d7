import numpy as np
import pytest
import torch

from vl_alignment.analysis.attention import (
    AlignmentMap,
    MapSide,
    m4c_alignment_maps,
    mac_alignment_maps,
    scan_alignment_map,
    scan_alignment_maps,
)
from vl_alignment.models.errors import ConfigurationError, DataError

WORDS = ["a", "red", "ball"]
ATTENTION = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
BOXES = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]])


def test_boxes_of_a_grid_line_by_line():
    assert np.array_equal(MapSide(grid=(2, 2)).rectangles(), BOXES)
    assert MapSide(grid=(1, 4)).rectangles()[3].tolist() == [0.75, 0, 1, 1]


def test_words_to_regions():
    alignment = scan_alignment_map(ATTENTION, WORDS, BOXES)
    assert alignment.weights.shape == (3, 4)
    assert alignment.queries.labels == tuple(WORDS)
    assert alignment.keys.is_spatial


def test_padding_of_both_sides_is_removed():
    padded = np.zeros((5, 6))
    padded[:3, :4] = ATTENTION
    padded[3:] = 1 / 6  # a padded word looks anywhere
    boxes = np.concatenate([BOXES, np.zeros((2, 4))])
    mask = np.array([1, 1, 1, 1, 0, 0])
    alignment = scan_alignment_map(padded, WORDS, boxes, region_mask=mask)
    assert np.array_equal(alignment.weights, ATTENTION)
    assert np.array_equal(alignment.keys.boxes, BOXES)


def test_regions_to_words():
    attention = np.full((4, 5), [0.2, 0.3, 0.5, 0.0, 0.0])  # [R, L] with two padded words
    alignment = scan_alignment_map(attention, WORDS, BOXES, direction="i2t")
    assert alignment.weights.shape == (4, 3)
    assert alignment.keys.labels == tuple(WORDS)


def test_a_batch_of_tensors():
    attentions = torch.tensor(np.stack([ATTENTION, ATTENTION[::-1].copy()]), dtype=torch.bfloat16, requires_grad=True)
    maps = scan_alignment_maps(attentions, [WORDS, WORDS[:2]], grid=(2, 2), tolerance=0.02)
    assert [len(alignment.weights) for alignment in maps] == [3, 2]
    assert maps[1].weights[0, 0] == pytest.approx(0.7, abs=0.01)
    with pytest.raises(DataError, match="attention of 2 pairs, but words of 1"):
        scan_alignment_maps(attentions, [WORDS], grid=(2, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": ATTENTION * 0.9}, r"query . sum to 0\.9000, not to one"),
        ({"attention": ATTENTION.T}, "do not fit 3 queries"),
        ({"attention": np.where(ATTENTION == 0.7, np.nan, ATTENTION)}, "finite"),
        ({"attention": ATTENTION - [0.2, -0.2, 0, 0]}, "not negative"),
        ({"attention": ATTENTION[None]}, r"got shape \(1, 3, 4\)"),
        ({"words": [*WORDS, "extra"]}, "4 words but attention for 3"),
        ({"words": []}, "do not fit 0 queries"),
        ({"boxes": BOXES[:3]}, "3 keys"),
        ({"boxes": BOXES * 96}, "fractions of the picture"),
        ({"boxes": BOXES[:, :2]}, r"shape \[n, 4\]"),
        ({"region_mask": np.ones(3)}, "does not fit 4 regions"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(DataError, match=message):
        scan_alignment_map(**{"attention": ATTENTION, "words": WORDS, "boxes": BOXES} | changes)


def test_a_side_is_just_one_thing():
    with pytest.raises(ConfigurationError, match="just one"):
        scan_alignment_map(ATTENTION, WORDS)
    with pytest.raises(ConfigurationError, match="just one"):
        scan_alignment_map(ATTENTION, WORDS, BOXES, grid=(2, 2))
    with pytest.raises(ConfigurationError, match="'t2i' or 'i2t'"):
        scan_alignment_map(ATTENTION, WORDS, BOXES, direction="both")


def test_half_precision_needs_a_tolerance():
    half = ATTENTION * 1.005
    with pytest.raises(DataError, match="not to one"):
        scan_alignment_map(half, WORDS, BOXES)
    assert AlignmentMap(half, MapSide(labels=WORDS), MapSide(boxes=BOXES), tolerance=0.01)


TOKENS = ["<start>", "what", "shape", "<end>"]
# Two steps over the four tokens and two of padding, and over a grid of one line with three cells.
STEPS = np.array([[0.1, 0.2, 0.6, 0.1, 0.0, 0.0], [0.0, 0.25, 0.25, 0.0, 0.3, 0.2]])
CELLS = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


def test_reasoning_steps_over_words_and_cells():
    maps = mac_alignment_maps(STEPS, CELLS, TOKENS, grid=(1, 3))
    assert maps.words.queries.labels == maps.image.queries.labels == ("step 1", "step 2")
    assert maps.words.keys.labels == ("what", "shape")
    assert maps.image.keys.grid == (1, 3)
    assert np.array_equal(maps.image.weights, CELLS)


@pytest.mark.parametrize("tokens", [TOKENS, [*TOKENS, "<pad>", "<pad>"]])
def test_attention_on_markers_and_padding_is_left_out_and_told(tokens):
    maps = mac_alignment_maps(STEPS, CELLS, tokens, grid=(1, 3))
    assert maps.words.weights == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert maps.elsewhere == pytest.approx([0.2, 0.5])
    assert maps.word_weights == pytest.approx(STEPS[:, 1:3])


def test_a_question_without_markers_loses_nothing():
    maps = mac_alignment_maps(torch.tensor(CELLS, requires_grad=True), CELLS, ["is", "it", "red"], grid=(1, 3))
    assert np.array_equal(maps.words.weights, CELLS)
    assert not maps.elsewhere.any()


def test_a_step_without_attention_on_words_is_not_made_up():
    nowhere = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])
    maps = mac_alignment_maps(nowhere, CELLS, TOKENS, grid=(1, 3))
    assert maps.words.weights.tolist() == [[0.5, 0.5], [0, 1]]
    assert maps.elsewhere.tolist() == [1, 0]
    assert not maps.word_weights[0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_attentions": STEPS[:1]}, r"\[steps, words\] and \[steps, cells\], got \(1, 6\), \(2, 3\)"),
        ({"question_attentions": STEPS[0]}, r"got \(6,\)"),
        ({"question_attentions": STEPS * 0.9}, "sum to 0.9000"),
        ({"question_attentions": STEPS * np.nan}, "finite"),
        ({"image_attentions": CELLS * 2}, "sum to 2.0000"),
        ({"tokens": [*TOKENS, *TOKENS]}, "8 tokens but attention for 6 only"),
        ({"tokens": ["<start>", "<end>"]}, "none of the question's tokens is a word"),
        ({"grid": (2, 2)}, "2 queries and 4 keys"),
    ],
)
def test_bad_steps_are_named(changes, message):
    good = {"question_attentions": STEPS, "image_attentions": CELLS, "tokens": TOKENS, "grid": (1, 3)}
    with pytest.raises(DataError, match=message):
        mac_alignment_maps(**good | changes)


# Of M4C: two words in three pieces between markers, a grid of one cell, two tokens in three slots, two steps.
PIECES = [-1, 0, 0, 1, -1]
READ = [0.05, 0.1, 0.1, 0.2, 0.05, 0.1, 0.06, 0.24, 0.0, 0.1, 0.0]


def layers(*last_rows, steps=2):
    """One head a layer, whose last rows are those of the decoding steps; entities look at the first marker."""
    size = len(last_rows[0])
    matrix = np.zeros((1, size, size))
    matrix[:, : size - steps, 0] = 1
    matrix[:, size - steps :] = last_rows
    return matrix


def reading(attentions=None, **changes):
    arguments = {"words": ["red", "ball"], "word_of_piece": PIECES, "objects": MapSide(grid=(1, 1))}
    arguments |= {"tokens": MapSide(boxes=BOXES[:2]), "ocr_slots": 3, "steps": [0]} | changes
    return m4c_alignment_maps([layers(READ, READ)] if attentions is None else attentions, **arguments)


def test_parts_of_what_a_decoding_step_reads():
    maps = reading(steps=[0, 1])
    assert maps.words.weights == pytest.approx(np.array([[0.5, 0.5]] * 2))  # the pieces of a word together
    assert maps.tokens.weights == pytest.approx(np.array([[0.2, 0.8]] * 2))
    assert maps.objects.weights.tolist() == [[1.0], [1.0]]
    # On the rest: both markers and the word before.
    assert maps.shares == pytest.approx(np.array([[0.4, 0.1, 0.3, 0.2]] * 2))
    assert np.array_equal(maps.tokens.keys.boxes, BOXES[:2]) and maps.words.keys.labels == ("red", "ball")


def test_layers_and_heads_count_alike():
    marker = [1.0] + [0.0] * 10
    two_heads = np.concatenate([layers(READ, marker), layers(marker, marker)])
    maps = reading([torch.tensor(two_heads), torch.tensor(np.concatenate([layers(marker, READ)] * 2))])
    assert maps.shares == pytest.approx(np.array([[0.1, 0.025, 0.075, 0.8]]))
    assert maps.tokens.weights == pytest.approx(np.array([[0.2, 0.8]]))


def test_a_part_without_attention_gets_equal_weights_and_no_share():
    nothing = [1.0] + [0.0] * 10
    maps = reading([layers(nothing, nothing)])
    assert maps.words.weights.tolist() == maps.tokens.weights.tolist() == [[0.5, 0.5]]
    assert maps.shares.tolist() == [[0, 0, 0, 1]]
    without_text = reading(tokens=None)
    assert without_text.tokens is None and without_text.shares[0, 2] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attentions": [layers(READ, READ)[0]]}, r"\[heads, N, N\]"),
        ({"attentions": [layers(READ, READ) * 0.9]}, "sum to 0.9000"),
        ({"steps": [2]}, r"11 positions do not fit 5 pieces of words, 1 objects, 2 OCR tokens in 3 slots.*\[2\]"),
        ({"steps": []}, "do not fit"),
        ({"ocr_slots": 1}, "2 OCR tokens in 1 slots"),
        ({"words": ["a", "red", "ball"]}, "needs a piece"),
    ],
)
def test_bad_input_of_m4c_is_named(changes, message):
    with pytest.raises(DataError, match=message):
        reading(**changes)

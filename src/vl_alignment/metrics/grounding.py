"""How well attention agrees with the truth, and with what a model's score depends on: arrays, many items at once.

A place is a rectangle of the picture: a cell of a grid, a detector's box, a printed word. Attention is spread evenly
over the area of each place; where that area lies on the true mask, the attention is right.

    rectangles [P, 4] --place_areas--> areas [P, H, W] -+--inside_shares(masks)--> shares [N, P] --> pointing game, mass
                                attention [N, P] -------+--attention_density--> density [N, H, W] --> IoU
"""

from typing import TypeAlias

import numpy as np
from scipy.stats import rankdata

from ..models.errors import DataError

__all__ = [
    "area_under_curve",
    "attention_density",
    "attention_iou",
    "attention_mass",
    "inside_shares",
    "normalised_entropy",
    "place_areas",
    "pointing_game",
    "rank_correlation",
]

Array: TypeAlias = np.ndarray

THINNEST = 1e-3
TIE = 1e-9


def place_areas(rectangles: Array, height: int, width: int) -> Array:
    """Say how much of each pixel each place covers.

    Args:
        rectangles: [P, 4] as [x0, y0, x1, y1] in [0, 1]. What is thinner than a thousandth of the picture counts as
            that thick.
        height: Pixels from top to bottom.
        width: Pixels from left to right.

    Returns:
        Shares in [0, 1], float32 [P, height, width]; a place's sum is its area in pixels.

    Raises:
        DataError: The rectangles have another shape.
    """
    rectangles = np.asarray(rectangles, dtype=np.float64)
    if rectangles.ndim != 2 or rectangles.shape[1] != 4:
        raise DataError(f"rectangles must have the shape [places, 4], got {rectangles.shape}")
    x0, y0, x1, y1 = rectangles.clip(0, 1).T
    rows, columns = _covered(y0, y1, height), _covered(x0, x1, width)
    return (rows[:, :, None] * columns[:, None, :]).astype(np.float32)


def inside_shares(masks: Array, areas: Array) -> Array:
    """Say which share of each place's area lies inside each mask: [N, H, W], [P, H, W] -> [N, P] in [0, 1]."""
    masks, areas = _flat(masks), _flat(areas)
    if masks.shape[1] != areas.shape[1]:
        raise DataError(f"masks of {masks.shape[1]} pixels do not fit places on {areas.shape[1]} pixels")
    return masks.astype(np.float32) @ areas.T / areas.sum(axis=1)


def attention_density(attention: Array, areas: Array) -> Array:
    """Spread attention evenly over the pixels of each place.

    Args:
        attention: [N, P]; every row sums to one.
        areas: [P, H, W]; see `place_areas`.

    Returns:
        [N, H, W]; every picture sums to one.
    """
    flat = _flat(areas)
    density = np.asarray(attention) / flat.sum(axis=1) @ flat
    return density.reshape(-1, *areas.shape[1:])


def pointing_game(attention: Array, inside: Array, minimum: float = 0.5) -> Array:
    """Say whether the place with the largest weight is on the true object (Zhang et al. 2018, there by pixels).

    A place is on the object if at least `minimum` of it lies inside the mask, or if no place lies further inside: an
    object that is smaller than the places can be pointed at too. Of several largest weights each counts equally, so
    that uniform attention scores the share of the places that are on the object.

    Args:
        attention: [N, P].
        inside: [N, P]; see `inside_shares`.
        minimum: Share of a place in (0, 1].

    Returns:
        1 for a hit and 0 for a miss, between them for ties [N]; NaN where no place touches the object.
    """
    attention, inside = _pair(attention, inside)
    best = inside.max(axis=1, keepdims=True)
    on_object = inside >= np.minimum(minimum, best) - TIE
    largest = attention >= attention.max(axis=1, keepdims=True) * (1 - TIE)
    hits = (largest & on_object).sum(axis=1) / largest.sum(axis=1)
    return np.where(best[:, 0] > 0, hits, np.nan)


def attention_mass(attention: Array, inside: Array) -> Array:
    """Sum the attention inside the true mask: 1 if all of it is there; uniform over a grid gives the mask's area share.

    Args:
        attention: [N, P]; every row sums to one.
        inside: [N, P]; see `inside_shares`.

    Returns:
        [N] in [0, 1]; NaN where no place touches the object.
    """
    attention, inside = _pair(attention, inside)
    return np.where(inside.max(axis=1) > 0, (attention * inside).sum(axis=1), np.nan)


def attention_iou(density: Array, masks: Array, threshold: float = 0.5) -> Array:
    """Intersection over union of the true mask with the pixels that get much attention.

    Args:
        density: [N, H, W]; see `attention_density`.
        masks: [N, H, W], true on the object.
        threshold: Much is at least this share, in (0, 1], of the picture's largest density.

    Returns:
        [N] in [0, 1]; NaN where a mask is empty.
    """
    density, masks = _flat(density), _flat(masks).astype(bool)
    if density.shape != masks.shape:
        raise DataError(f"attention on {density.shape} pixels does not fit masks of {masks.shape}")
    much = density >= threshold * density.max(axis=1, keepdims=True)
    shares = (much & masks).sum(axis=1) / (much | masks).sum(axis=1)
    return np.where(masks.any(axis=1), shares, np.nan)


def normalised_entropy(attention: Array) -> Array:
    """Entropy of each row of attention [N, P] over that of uniform attention: 0 for one place, 1 for all alike.

    NaN where there is one place alone.
    """
    attention = np.asarray(attention, dtype=np.float64)
    if attention.shape[1] < 2:
        return np.full(len(attention), np.nan)
    logarithms = np.log(attention, where=attention > 0, out=np.zeros_like(attention))
    return np.clip(-(attention * logarithms).sum(axis=1) / np.log(attention.shape[1]), 0, 1)


def rank_correlation(attention: Array, effects: Array) -> Array:
    """Spearman's correlation of attention with the effect of occluding each place (Jain and Wallace 2019).

    Args:
        attention: [N, P].
        effects: [N, P], by how much the model's score falls without the place.

    Returns:
        [N] in [-1, 1], ties having their mean rank; NaN where either side is the same everywhere.
    """
    one, other = (rankdata(side, axis=1) for side in _pair(attention, effects))
    one, other = (side - side.mean(axis=1, keepdims=True) for side in (one, other))
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.where(scale > 0, (one * other).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan)


def area_under_curve(scores: Array, shares: Array | None = None) -> Array:
    """Mean height of the deletion or insertion curve of each item (Petsiuk et al. 2018), by trapezoids.

    Deletion takes the places away in the order of their attention, the largest first: the lower the area, the more the
    score depended on what was attended to. Insertion starts with none of them: the higher, the better.

    Args:
        scores: [N, S] of the model, at each share of the places.
        shares: [S], rising from 0 to 1; equal steps by default.

    Returns:
        [N], in the unit of the scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    places = np.linspace(0, 1, scores.shape[1]) if shares is None else np.asarray(shares, dtype=np.float64)
    if places.shape != scores.shape[1:] or len(places) < 2 or (np.diff(places) <= 0).any():
        raise DataError(f"a curve needs at least two points at rising shares, got {scores.shape} at {places.tolist()}")
    return np.trapezoid(scores, places, axis=1) / (places[-1] - places[0])


def _covered(low: Array, high: Array, pixels: int) -> Array:
    """Which share of each pixel of a line lies between low and high [P], fractions of the line: [P, pixels]."""
    low = np.minimum(low, 1 - THINNEST)
    high = np.maximum(high, low + THINNEST)
    edges = np.arange(pixels)
    return (np.minimum(high[:, None] * pixels, edges + 1) - np.maximum(low[:, None] * pixels, edges)).clip(0, 1)


def _flat(pictures: Array) -> Array:
    """[N, H, W] -> [N, H * W]."""
    pictures = np.asarray(pictures)
    return pictures.reshape(len(pictures), -1)


def _pair(one: Array, other: Array) -> tuple[Array, Array]:
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 2:
        raise DataError(f"both must be [items, places], got {one.shape} and {other.shape}")
    return one, other

"""Alignment as one picture: what every query looks at, for all models in one shape.

attentions of a model --(its builder)--> AlignmentMap --draw_alignment--> Figure --alignment_png--> bytes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from ..models.errors import ConfigurationError, DataError

__all__ = [
    "AlignmentMap",
    "MapSide",
    "ReadingMaps",
    "ReasoningMaps",
    "attngan_alignment_maps",
    "m4c_alignment_maps",
    "mac_alignment_maps",
    "scan_alignment_map",
    "scan_alignment_maps",
]

Array: TypeAlias = np.ndarray | torch.Tensor

# What the package's tokenizers put around words.
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>")


@dataclass(frozen=True)
class MapSide:
    """What the rows or the columns of an alignment are: words, boxes of a picture, or the cells of a grid over it.

    Attributes:
        labels: One string each.
        boxes: [n, 4] as [x0, y0, x1, y1] in [0, 1] of the picture's width and height.
        grid: (rows, columns) of equal cells that cover the picture, counted line by line.
    """

    labels: tuple[str, ...] | None = None
    boxes: np.ndarray | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.labels, self.boxes, self.grid)) != 1:
            raise ConfigurationError(
                "a side of an alignment map is described by labels, boxes or a grid: give just one"
            )
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        if self.boxes is not None:
            boxes = to_numpy(self.boxes)
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise DataError(f"boxes must have the shape [n, 4], got {boxes.shape}")
            if not (np.isfinite(boxes).all() and boxes.min() >= -1e-3 and boxes.max() <= 1 + 1e-3):
                raise DataError("boxes must be fractions of the picture's width and height, in [0, 1]")
            object.__setattr__(self, "boxes", boxes)

    @property
    def size(self) -> int:
        """How many rows or columns this side has."""
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        return len(self.labels if self.labels is not None else self.boxes)  # type: ignore[arg-type]

    @property
    def is_spatial(self) -> bool:
        """Whether this side lies on the picture."""
        return self.labels is None

    def rectangles(self) -> np.ndarray:
        """Give the boxes [n, 4], those of the cells for a grid."""
        if self.boxes is not None:
            return self.boxes
        if self.grid is None:
            raise ConfigurationError("labels have no place on the picture")
        rows, columns = self.grid
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        return np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=1)


@dataclass(frozen=True)
class AlignmentMap:
    """One alignment without padding: `weights` [queries, keys], and what its two sides are.

    Attributes:
        weights: Float64 [queries, keys]; every row sums to one.
        queries: What the rows are.
        keys: What the columns are.
        picture: What boxes and grids lie on.
        tolerance: How far the sum of a row may be from one; half precision needs about 0.01.

    Raises:
        DataError: The sides do not fit the weights, or a row is no distribution.
    """

    weights: np.ndarray
    queries: MapSide
    keys: MapSide
    picture: Image.Image | None = None
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        weights = to_numpy(self.weights).astype(np.float64)
        object.__setattr__(self, "weights", weights)
        expected = (self.queries.size, self.keys.size)
        if weights.shape != expected or 0 in expected:
            raise DataError(f"weights of shape {weights.shape} do not fit {expected[0]} queries and {expected[1]} keys")
        if not np.isfinite(weights).all() or weights.min() < -self.tolerance:
            raise DataError("attention weights must be finite and not negative; look for NaN features")
        sums = weights.sum(axis=1)
        worst = int(np.abs(sums - 1).argmax())
        if abs(sums[worst] - 1) > self.tolerance:
            raise DataError(
                f"the attention weights of query {worst} sum to {sums[worst]:.4f}, not to one; give them after the "
                "softmax, [queries, keys], with the padding named"
            )


def scan_alignment_map(
    attention: Array,
    words: Sequence[str],
    boxes: Array | None = None,
    picture: Image.Image | None = None,
    *,
    grid: tuple[int, int] | None = None,
    region_mask: Array | None = None,
    direction: str = "t2i",
    tolerance: float = 1e-3,
) -> AlignmentMap:
    """Describe one image-caption pair of SCAN, with the padding removed.

    Args:
        attention: Query-major, after the softmax: [L, R] for "t2i", [R, L] for "i2t"; L may exceed the words.
        words: The caption's tokens, without padding.
        boxes: [R, 4] in [0, 1]; or give `grid`.
        picture: The image that the boxes lie on.
        grid: (rows, columns) of the regions where they are the cells of a feature map.
        region_mask: [R], true where a region is not padding.
        direction: "t2i": words look at regions; "i2t": regions look at words.
        tolerance: As in `AlignmentMap`.

    Raises:
        ConfigurationError: An unknown direction, or neither or both of boxes and grid.
        DataError: The sizes do not fit, or a row does not sum to one.
    """
    if direction not in ("t2i", "i2t"):
        raise ConfigurationError(f"direction must be 't2i' or 'i2t', got {direction!r}")
    weights = to_numpy(attention)
    if weights.ndim != 2:
        raise DataError(f"the attention of one pair is a matrix, got shape {weights.shape}")
    weights = weights if direction == "t2i" else weights.T  # [L, R]
    if len(words) > len(weights):
        raise DataError(f"{len(words)} words but attention for {len(weights)} only")
    weights = weights[: len(words)]
    boxes = None if boxes is None else to_numpy(boxes)
    if region_mask is not None:
        kept = to_numpy(region_mask).astype(bool)
        if kept.shape != (weights.shape[1],):
            raise DataError(f"a region mask of shape {kept.shape} does not fit {weights.shape[1]} regions")
        weights = weights[:, kept]
        boxes = None if boxes is None else boxes[kept]
    word_side, region_side = MapSide(labels=tuple(words)), MapSide(boxes=boxes, grid=grid)
    if direction == "t2i":
        return AlignmentMap(weights, word_side, region_side, picture, tolerance)
    return AlignmentMap(weights.T, region_side, word_side, picture, tolerance)


def scan_alignment_maps(
    attentions: Array,
    words: Sequence[Sequence[str]],
    boxes: Array | Sequence[Array] | None = None,
    pictures: Sequence[Image.Image | None] | None = None,
    *,
    region_mask: Array | None = None,
    **options: Any,
) -> list[AlignmentMap]:
    """Describe a batch of pairs: `attentions` [B, L, R], `boxes` [B, R, 4]; the rest as in `scan_alignment_map`."""
    if len(attentions) != len(words):
        raise DataError(f"attention of {len(attentions)} pairs, but words of {len(words)}")
    return [
        scan_alignment_map(
            attentions[pair],
            words[pair],
            None if boxes is None else boxes[pair],
            None if pictures is None else pictures[pair],
            region_mask=None if region_mask is None else region_mask[pair],
            **options,
        )
        for pair in range(len(words))
    ]


@dataclass(frozen=True)
class ReasoningMaps:
    """Where MAC looked for one question: a row a reasoning step in both maps.

    Attributes:
        words: [T, W]: the steps' attention over the question's words alone; every row is rescaled to sum to one.
        image: [T, N]: the steps' attention over the cells of the picture.
        elsewhere: [T]: the share of each step's attention that lay on markers and padding, before it was left out.
    """

    words: AlignmentMap
    image: AlignmentMap
    elsewhere: np.ndarray

    @property
    def word_weights(self) -> np.ndarray:
        """The attention that the words had in the model [T, W]: with `elsewhere`, a row sums to one."""
        return self.words.weights * (1 - self.elsewhere)[:, None]


def mac_alignment_maps(
    question_attentions: Array,
    image_attentions: Array,
    tokens: Sequence[str],
    picture: Image.Image | None = None,
    *,
    grid: tuple[int, int],
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    tolerance: float = 1e-3,
) -> ReasoningMaps:
    """Describe what MAC attends to for one question, step by step.

    Markers are no words and padding is none either, yet the control unit may attend to both (the published PyTorch
    cell does not mask padding). They are left out, the words' weights are rescaled to sum to one, and what was left out
    stands in `elsewhere`. A step without any attention on words gets equal weights there, and 1 in `elsewhere`.

    Args:
        question_attentions: [T, L], after the softmax.
        image_attentions: [T, N], after the softmax.
        tokens: The question's tokens with or without their padding, which are at most L; the rest is padding.
        picture: The image that the cells lie on.
        grid: (rows, columns) of the cells, N in all, counted line by line.
        special_tokens: Tokens that are no words.
        tolerance: As in `AlignmentMap`.

    Raises:
        DataError: The sizes do not fit, a row does not sum to one, or no token is a word.
    """
    weights, places = to_numpy(question_attentions).astype(np.float64), to_numpy(image_attentions)
    if weights.ndim != 2 or places.ndim != 2 or len(weights) != len(places):
        raise DataError(
            f"the attentions of one question are [steps, words] and [steps, cells], got {weights.shape}, {places.shape}"
        )
    if len(tokens) > weights.shape[1]:
        raise DataError(f"{len(tokens)} tokens but attention for {weights.shape[1]} only")
    words = [position for position, token in enumerate(tokens) if token not in special_tokens]
    if not words:
        raise DataError(f"none of the question's tokens is a word: {list(tokens)}")
    steps = MapSide(labels=tuple(f"step {step}" for step in range(1, len(weights) + 1)))
    # Checked as the model gave it, before anything is rescaled.
    positions = MapSide(labels=tuple(str(position) for position in range(weights.shape[1])))
    weights = AlignmentMap(weights, steps, positions, tolerance=tolerance).weights
    inside = weights[:, words].sum(axis=1)  # [T]
    shares = _rescaled(weights[:, words])
    return ReasoningMaps(
        AlignmentMap(shares, steps, MapSide(labels=tuple(tokens[word] for word in words)), picture, tolerance),
        AlignmentMap(places, steps, MapSide(grid=grid), picture, tolerance),
        np.clip(1 - inside, 0, 1),
    )


def attngan_alignment_maps(
    attentions: Sequence[Array], words: Sequence[str], picture: Image.Image | None = None, *, tolerance: float = 1e-3
) -> list[AlignmentMap]:
    """Describe what the places of one generated picture attend to, stage by stage, with the padding removed.

    Args:
        attentions: [H * W, L] a stage, after the softmax over the words; L may exceed the words.
        words: The caption's tokens, without padding.
        picture: The generated picture.
        tolerance: As in `AlignmentMap`.

    Returns:
        One map a stage: the places of its grid are the queries, the words the keys.

    Raises:
        DataError: The places are no square grid, there are more words than columns, or a row does not sum to one.
    """
    maps = []
    for attention in attentions:
        weights = to_numpy(attention)
        side = round(len(weights) ** 0.5)
        if weights.ndim != 2 or side * side != len(weights) or len(words) > weights.shape[1]:
            raise DataError(f"the attention of a stage is [H * W, L], got {weights.shape} for {len(words)} words")
        places, texts = MapSide(grid=(side, side)), MapSide(labels=tuple(words))
        maps.append(AlignmentMap(weights[:, : len(words)], places, texts, picture, tolerance))
    return maps


@dataclass(frozen=True)
class ReadingMaps:
    """Where M4C looked for the words of one answer: a row a word in every map, each rescaled to sum to one.

    Attributes:
        words: [T, W]: over the words of the question.
        objects: [T, O]: over the objects, or the cells of a grid.
        tokens: [T, n]: over the OCR tokens of the picture; None where it has none.
        shares: [T, 4]: the attention on the question's words, the objects, the OCR tokens, and on the rest (markers of
            the question and words of the answer), before the maps were rescaled; a row sums to one.
    """

    words: AlignmentMap
    objects: AlignmentMap
    tokens: AlignmentMap | None
    shares: np.ndarray


def m4c_alignment_maps(
    attentions: Sequence[Array],
    words: Sequence[str],
    word_of_piece: Sequence[int],
    objects: MapSide,
    tokens: MapSide | None = None,
    picture: Image.Image | None = None,
    *,
    ocr_slots: int,
    steps: Sequence[int],
    tolerance: float = 1e-3,
) -> ReadingMaps:
    """Describe what M4C's decoding steps attend to for one question: the mean over all layers and heads.

    A word of the question gets what its pieces get together. A step without any attention on a part gets equal weights
    there, and 0 in `shares`.

    Args:
        attentions: [heads, N, N] a layer, after the softmax, N entities and steps in all: the question's L pieces, the
            objects, the OCR slots, the decoding steps.
        words: Of the question.
        word_of_piece: The word that each of the L pieces is of, -1 for markers and padding.
        objects: Their boxes or the grid.
        tokens: The boxes of the OCR tokens, which fill the first slots; None without text.
        picture: The image that they lie on.
        ocr_slots: OCR slots of the model's input.
        steps: The decoding steps that are wanted, from 0.
        tolerance: As in `AlignmentMap`.

    Raises:
        DataError: The sizes do not fit, a row does not sum to one, or the question has no word.
    """
    layers = [to_numpy(layer).astype(np.float64) for layer in attentions]
    if not layers or any(layer.ndim != 3 or layer.shape[1] != layer.shape[2] for layer in layers):
        raise DataError(f"the attention of a layer is [heads, N, N], got {[layer.shape for layer in layers]}")
    first_step = len(word_of_piece) + objects.size + ocr_slots
    count = layers[0].shape[1] - first_step  # of decoding steps
    found = tokens.size if tokens is not None else 0
    if found > ocr_slots or not steps or not all(0 <= step < count for step in steps):
        raise DataError(
            f"{layers[0].shape[1]} positions do not fit {len(word_of_piece)} pieces of words, {objects.size} objects, "
            f"{found} OCR tokens in {ocr_slots} slots and the decoding steps {list(steps)}"
        )
    if not words or not set(range(len(words))) <= set(word_of_piece):
        raise DataError(f"every word of the question needs a piece: {list(words)}, {list(word_of_piece)}")
    mean = np.mean([layer.mean(axis=0) for layer in layers], axis=0)[[first_step + step for step in steps]]
    queries = MapSide(labels=tuple(f"word {number}" for number in range(1, len(steps) + 1)))
    positions = MapSide(labels=tuple(str(position) for position in range(mean.shape[1])))
    # Checked as the model gave it, before anything is rescaled.
    weights = AlignmentMap(mean, queries, positions, tolerance=tolerance).weights

    pieces = np.asarray(word_of_piece)
    of_words = np.stack([weights[:, : len(pieces)][:, pieces == word].sum(axis=1) for word in range(len(words))], 1)
    of_objects = weights[:, len(pieces) : len(pieces) + objects.size]
    of_tokens = weights[:, len(pieces) + objects.size : first_step][:, :found]
    shares = np.stack([part.sum(axis=1) for part in (of_words, of_objects, of_tokens)], axis=1)  # [T, 3]
    return ReadingMaps(
        AlignmentMap(_rescaled(of_words), queries, MapSide(labels=tuple(words)), picture, tolerance),
        AlignmentMap(_rescaled(of_objects), queries, objects, picture, tolerance),
        None if tokens is None else AlignmentMap(_rescaled(of_tokens), queries, tokens, picture, tolerance),
        np.concatenate([shares, np.clip(1 - shares.sum(axis=1, keepdims=True), 0, 1)], axis=1),
    )


def _rescaled(weights: np.ndarray) -> np.ndarray:
    """Make every row [n] sum to one; equal weights where nothing is."""
    inside = weights.sum(axis=1, keepdims=True)
    return np.where(inside > 0, weights / np.where(inside > 0, inside, 1), 1 / weights.shape[1])


def to_numpy(array: Array) -> np.ndarray:
    """Take an array, a list or a tensor of any device and float type to NumPy."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    return np.asarray(array)

"""Whether generated pictures show what their captions say: R-precision, and captions that a picture must not fit.

Ties count against the model, so that one that gives every caption the same score is never right.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from ..data.blocks.spoken_attributes import contradict, spoken_attributes
from ..models.errors import ConfigurationError, DataError

__all__ = ["CANDIDATES", "attribute_accuracy", "found_captions", "mismatched_captions", "r_precision"]

CANDIDATES = 100
"""Captions among which R-precision looks for a picture's own: that one and 99 others (Xu et al. 2018)."""

# Rows of candidates are gathered in blocks of about this size.
BLOCK_BYTES = 64 * 2**20

Codes: TypeAlias = np.ndarray | torch.Tensor


def r_precision(
    image_codes: Codes,
    sentence_codes: Codes,
    *,
    image_ids: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> float:
    """Measure how often a picture is nearest to its own caption among `candidates` captions, in percent.

    The measure is the cosine of DAMSM's codes. The other captions are drawn anew for each picture from the rest of the
    set; chance is 100 / `candidates`.

    Args:
        image_codes: Of N pictures [N, d].
        sentence_codes: Of the caption of each picture [N, d].
        image_ids: N names; captions of one picture (or of one original of several generated ones) are never held
            against each other. By default every row is a picture of its own.
        captions: N texts; a caption with the same text as a picture's own is no mismatched one.
        candidates: The own caption and this many less one mismatched ones.
        seed: Of the drawing.

    Raises:
        ConfigurationError: `candidates` is below 2.
        DataError: There are no pictures, shapes or lengths disagree, a code is not finite, or a picture has fewer
            mismatched captions than are wanted.

    Source: Xu et al. 2018, section 4.1.
    """
    found = found_captions(
        image_codes, sentence_codes, image_ids=image_ids, captions=captions, candidates=candidates, seed=seed
    )
    return 100.0 * int(found.sum()) / len(found)


def found_captions(
    image_codes: Codes,
    sentence_codes: Codes,
    *,
    image_ids: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> np.ndarray:
    """Say of each picture whether its own caption was found, bool [N]; arguments and errors as of `r_precision`."""
    if candidates < 2:
        raise ConfigurationError(f"candidates={candidates} must be 2 or more: the own caption and mismatched ones")
    images, sentences = _unit_rows(image_codes, "picture"), _unit_rows(sentence_codes, "caption")
    if images.shape != sentences.shape:
        raise DataError(f"codes of pictures {images.shape} and captions {sentences.shape} must have one shape [N, d]")
    number = len(images)
    labels = [_numbered(name, column, number) for name, column in (("image_ids", image_ids), ("captions", captions))]
    draw = np.random.default_rng(seed)
    size = max(1, BLOCK_BYTES // (candidates * images.itemsize * images.shape[1]))
    found = np.zeros(number, dtype=bool)
    for start in range(0, number, size):
        rows = np.arange(start, min(start + size, number))
        others = np.stack([_draw_others(row, labels, candidates - 1, draw) for row in rows])
        compared = np.concatenate([rows[:, None], others], axis=1)  # [rows, candidates], the own one first
        # One product for all of them: equal codes give equal cosines to the last bit.
        cosines = np.einsum("nd,ncd->nc", images[rows], sentences[compared])
        found[rows] = cosines[:, 0] > cosines[:, 1:].max(axis=1)
    return found


def mismatched_captions(captions: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """Choose for each picture of the blocks world a caption of another one that it must not fit.

    Some object of the chosen caption contradicts every object of the picture's own: where the own caption names all
    that there is (the blocks world's descriptions), the chosen one is false of any picture that the own one is true of.

    Args:
        captions: The own captions of N pictures.
        seed: Of the drawing.

    Returns:
        Rows of the chosen captions, int64 [N].

    Raises:
        DataError: A caption names no attributes, or contradicts no other one of the set.
    """
    said = [spoken_attributes(caption) for caption in captions]
    for row, own in enumerate(said):
        if not own:
            raise DataError(f"caption {captions[row]!r} names no attributes of blocks; leave it out", record=row)
    draw = np.random.default_rng(seed)
    chosen = np.empty(len(said), dtype=np.int64)
    for row, own in enumerate(said):
        order = (int(other) for other in draw.permutation(len(said)))
        found = next((other for other in order if _excludes(own, said[other])), None)
        if found is None:
            raise DataError(
                f"caption {captions[row]!r} contradicts no other caption of the {len(said)}; measure on more pictures",
                record=row,
            )
        chosen[row] = found
    return chosen


def attribute_accuracy(own_fit: np.ndarray, mismatched_fit: np.ndarray) -> float:
    """Return the percentage of N pictures that fit their own caption better than a mismatched one.

    Args:
        own_fit: How well each picture fits its own caption [N].
        mismatched_fit: How well it fits a mismatched one [N].

    Raises:
        DataError: There are no pictures, the numbers disagree, or a fit is NaN.
    """
    own, other = np.asarray(own_fit, dtype=np.float64), np.asarray(mismatched_fit, dtype=np.float64)
    if own.ndim != 1 or len(own) == 0 or own.shape != other.shape:
        raise DataError(f"fits must be two rows of one length that is not 0, not {own.shape} and {other.shape}")
    wrong = np.isnan(own) | np.isnan(other)
    if wrong.any():
        raise DataError("the fit of a picture is NaN; look at the picture", record=int(wrong.argmax()))
    return 100.0 * float((own > other).mean())


def _excludes(own: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> bool:
    """Whether some object of the other caption can be none of the own one's."""
    return any(all(contradict(phrase, named) for named in own) for phrase in other)


def _draw_others(row: int, labels: Sequence[np.ndarray], count: int, draw: np.random.Generator) -> np.ndarray:
    """Rows of `count` different captions that are mismatched with that of a row."""
    number = len(labels[0])

    def mismatched(rows: np.ndarray) -> np.ndarray:
        kept = rows != row
        for column in labels:
            kept &= column[rows] != column[row]
        return rows[kept]

    # Mostly a few more than needed are enough; only sets with many captions a picture have to look at all.
    found = mismatched(draw.choice(number, size=min(number, count + count // 4 + 4), replace=False))
    if len(found) < count:
        found = draw.permutation(mismatched(np.arange(number)))
    if len(found) < count:
        raise DataError(
            f"the picture has {len(found)} mismatched captions, {count} are wanted; measure on more pictures, or give "
            f"candidates={len(found) + 1}, which makes chance {100 / (len(found) + 1):.3g} %",
            record=row,
        )
    return found[:count]


def _numbered(name: str, column: Sequence[str] | None, number: int) -> np.ndarray:
    """N names as numbers, equal where the names are; all different without names."""
    if column is None:
        return np.arange(number)
    if len(column) != number:
        raise DataError(f"there are {len(column)} {name} for {number} pictures")
    return np.unique(np.asarray(column, dtype=str), return_inverse=True)[1]


def _unit_rows(codes: Codes, what: str) -> np.ndarray:
    """Codes [N, d] in float32 at least and of length 1; zeros stay zeros, whose cosine is 0 with everything."""
    if isinstance(codes, torch.Tensor):
        codes = (codes.float() if codes.dtype in (torch.float16, torch.bfloat16) else codes).detach().cpu().numpy()
    rows = np.asarray(codes)
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"the codes of {what}s must be [N, d] with entries, got shape {rows.shape}")
    rows = rows.astype(np.result_type(rows.dtype, np.float32), copy=False)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise DataError(f"the code of the {what} is not finite; look for a diverged model", record=int(finite.argmin()))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-8)

"""What a run reached on every test item, from its predictions: what resampling the test set needs.

Items that share a picture are one unit, since they are right or wrong together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..metrics.retrieval import RECALL_LEVELS

__all__ = [
    "OUTCOME_COLUMNS",
    "ItemOutcomes",
    "OutcomeReader",
    "answer_outcomes",
    "drawing_outcomes",
    "retrieval_outcomes",
    "soft_answer_outcomes",
]

# What is read of predictions; their texts are many and not needed.
OUTCOME_COLUMNS = ("item_id", "image_id", "direction", "prediction", "reference", "rank", "score", "found")

Columns: TypeAlias = Mapping[str, Sequence[Any]]
Part: TypeAlias = tuple[Sequence[str], np.ndarray]
OutcomeReader: TypeAlias = Callable[[Columns], "ItemOutcomes"]


@dataclass(frozen=True)
class ItemOutcomes:
    """A metric of one run, taken apart by picture.

    Attributes:
        units: The names of U pictures, in ascending order.
        sums: What the items of each picture scored, in percent [P, U]; one part for an accuracy, one a direction for
            Rsum.
        counts: How many items of each part a picture has [P, U].
    """

    units: tuple[str, ...]
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_parts(cls, parts: Sequence[Part]) -> "ItemOutcomes":
        """Sum up the items of each part by picture.

        Args:
            parts: The picture and the score of each item of a part.
        """
        names = np.unique(np.concatenate([np.asarray(units, dtype=str) for units, _ in parts]))
        rows = [np.searchsorted(names, np.asarray(units, dtype=str)) for units, _ in parts]
        scores = [np.asarray(values, dtype=np.float64) for _, values in parts]
        size = len(names)
        sums = [np.bincount(row, weights=score, minlength=size) for row, score in zip(rows, scores, strict=True)]
        counts = [np.bincount(row, minlength=size).astype(np.float64) for row in rows]
        return cls(tuple(names.tolist()), np.stack(sums), np.stack(counts))

    @property
    def value(self) -> float:
        """The metric: over each part the mean of its items, and the sum of the parts."""
        return float((self.sums.sum(axis=1) / self.counts.sum(axis=1)).sum())

    def contributions(self) -> np.ndarray:
        """Numbers [U] whose mean is the metric, and whose spread is that of the metric over pictures, to first order.

        Where every picture has as many items they are its scores.
        """
        means = self.sums.sum(axis=1) / self.counts.sum(axis=1)
        deviations = self.sums - means[:, None] * self.counts
        return self.value + (deviations / self.counts.mean(axis=1)[:, None]).sum(axis=0)


def retrieval_outcomes(columns: Columns) -> ItemOutcomes:
    """Rsum: what each query adds to the recalls of its direction; a caption belongs to its picture."""
    ranks = np.asarray(columns["rank"])
    hits = 100.0 * (ranks[:, None] < np.array(RECALL_LEVELS)).sum(axis=1)
    sentences = np.asarray(columns["direction"]) == "sentence_retrieval"
    items, owners = (np.asarray(columns[name], dtype=str) for name in ("item_id", "reference"))
    return ItemOutcomes.of_parts([(items[sentences], hits[sentences]), (owners[~sentences], hits[~sentences])])


def answer_outcomes(columns: Columns) -> ItemOutcomes:
    """Accuracy: right or wrong."""
    pairs = zip(columns["prediction"], columns["reference"], strict=True)
    right = np.array([100.0 * (prediction == reference) for prediction, reference in pairs])
    return ItemOutcomes.of_parts([(columns["image_id"], right)])


def soft_answer_outcomes(columns: Columns) -> ItemOutcomes:
    """Soft accuracy, which the score of a prediction is."""
    return ItemOutcomes.of_parts([(columns["image_id"], 100.0 * np.asarray(columns["score"], dtype=np.float64))])


def drawing_outcomes(columns: Columns) -> ItemOutcomes:
    """R-precision: whether a drawn picture's own caption was found; item ids are those of pictures with a number."""
    pictures = [str(item).rpartition("#")[0] for item in columns["item_id"]]
    return ItemOutcomes.of_parts([(pictures, 100.0 * np.asarray(columns["found"], dtype=np.float64))])

"""Recall at K as an `evaluate.Metric`: one row a query, offline, gathered over processes."""

from typing import Any

import datasets
import evaluate
import numpy as np

from ..models.errors import DataError
from .retrieval import rank_metrics

__all__ = ["RetrievalRecall"]

DESCRIPTION = "Recall at 1, 5 and 10 in percent, their sum, and the median and mean rank of the best right candidate."

INPUTS = """
Args:
    predictions (list of list of float): for every query the score of each candidate, higher is better.
    references (list of list of int): for every query the indices of the right candidates, at least one.
Returns:
    r1, r5, r10: percentage of queries whose best right candidate is among the first 1, 5, 10; a tie with a wrong
    candidate counts against the model.
    rsum: r1 + r5 + r10.
    median_rank, mean_rank: of the best right candidate, counted from 1.
"""


class RetrievalRecall(evaluate.Metric):
    """Measure one direction of a retrieval; both directions are two of these or one `retrieval_metrics`.

    It needs no network. With `num_process=2` (and `process_id`, `experiment_id`) each process adds its own queries and
    process 0 computes over all of them; the others get None.

    Example:
        >>> RetrievalRecall().compute(predictions=[[0.9, 0.1], [0.8, 0.2]], references=[[0], [1]])["r1"]
        50.0
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
        if predictions is None or len(predictions) == 0:
            raise DataError("there are no queries to measure; add a batch with at least one row before compute()")
        pairs = zip(predictions, references, strict=True)
        return rank_metrics(np.array([_rank(query, *pair) for query, pair in enumerate(pairs)]))


def _rank(query: int, scores: np.ndarray, right: np.ndarray) -> int:
    """Count the wrong candidates of `scores` [N] that score at least as high as the best of `right` [M]."""
    scores, right = np.asarray(scores, dtype=np.float64), np.unique(np.asarray(right, dtype=np.int64))
    if len(right) == 0:
        raise DataError("the query has no right candidate; leave it out", record=query)
    if right[0] < 0 or right[-1] >= len(scores):
        raise DataError(f"references must lie in 0..{len(scores) - 1}, got {right.tolist()}", record=query)
    if np.isnan(scores).any():
        raise DataError("a score is NaN; look for NaN features or a diverged model", record=query)
    best = scores[right].max()
    return int((scores >= best).sum() - (scores[right] >= best).sum())

"""Differences over the test set: which of them other test pictures would show, alone and together with other seeds.

All runs of a study meet the same pictures, so that pictures are drawn for all of them at once: differences are paired.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..models.errors import ResultsError
from ..training.runs import RunDirectory
from .outcomes import OUTCOME_COLUMNS, ItemOutcomes
from .statistics import Result
from .tasks import task_of

__all__ = ["RESAMPLES", "ItemDifference", "item_difference", "load_outcomes", "picture_error", "resampled_metrics"]

RESAMPLES = 10_000
BLOCK_BYTES = 32 * 2**20  # of the pictures drawn at a time
# Metrics are kept with all their digits; what differs by more was not measured on these predictions.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class ItemDifference:
    """One function minus another, as other test pictures would show it for these trained models.

    Attributes:
        mean: The difference, meaned over the seeds.
        low, high: The interval of its bootstrap over pictures (percentiles).
        p_value: Two-sided, of no difference.
        pictures: How many there are.
    """

    mean: float
    low: float
    high: float
    p_value: float
    pictures: int


def load_outcomes(output: Path | str, results: Sequence[Result]) -> dict[str, ItemOutcomes]:
    """Read what the runs of a folder reached on every test item, {run_id: outcomes}.

    Runs without predictions, as in committed results, are left out; so are those whose predictions cannot be read or
    do not give the metric of their results (retrieval in several folds), with a warning.
    """
    found: dict[str, ItemOutcomes] = {}
    for result in results:
        run_id = str(result.get("run_id"))
        path = RunDirectory(Path(output) / run_id).predictions
        if not path.exists():
            continue
        try:
            found[run_id] = _read(path, result)
        except ResultsError as error:
            warnings.warn(f"{error} The run is left out of comparisons over test items.", stacklevel=2)
    return found


def _read(path: Path, result: Result) -> ItemOutcomes:
    import pyarrow
    import pyarrow.parquet

    task = task_of([result])
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read([name for name in file.schema_arrow.names if name in OUTCOME_COLUMNS])
        outcomes = task.outcomes(table.to_pydict())
    except KeyError as error:
        raise ResultsError(f"The predictions do not say {error}; another version wrote them.", path=path) from error
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        raise ResultsError(f"The predictions cannot be read ({error}).", path=path) from error
    measured = result["metrics"].get(task.metric)
    if measured is None or abs(outcomes.value - measured) > TOLERANCE * max(1.0, abs(measured)):
        raise ResultsError(f"The predictions give {task.metric} {outcomes.value}, the results {measured}.", path=path)
    return outcomes


def resampled_metrics(outcomes: Sequence[ItemOutcomes], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw the test pictures anew, with replacement and the same ones for all runs, and measure each run on them.

    Args:
        outcomes: Of R runs on one test set of U pictures.
        resamples: B.
        seed: Of the drawing.

    Returns:
        The metric [B, R]. Memory beside it is bounded: how often each picture was drawn is a row of a matrix, and the
        sums over pictures are products with it, block by block.

    Raises:
        ResultsError: The runs were tested on different items.
    """
    first = outcomes[0]
    for other in outcomes[1:]:
        if other.units != first.units or not np.array_equal(other.counts, first.counts):
            raise ResultsError("the runs were tested on different items; compare runs of one test set")
    draw = np.random.default_rng(seed)
    size, parts = len(first.units), len(first.counts)
    scores = np.concatenate([run.sums for run in outcomes]).T  # [U, R * P]
    block = max(1, BLOCK_BYTES // (8 * size))
    measured = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = draw.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        totals = times @ first.counts.T  # [rows, P]
        measured.append(((times @ scores).reshape(rows, -1, parts) / totals[:, None]).sum(axis=-1))
    return np.concatenate(measured)


def item_difference(
    resampled: tuple[np.ndarray, np.ndarray],
    values: tuple[float, float],
    pictures: int,
    confidence: float = 0.95,
) -> ItemDifference:
    """Compare two functions over test pictures, the mean over their shared seeds.

    Args:
        resampled: `resampled_metrics` of the function's runs and of the other's [B, K], seed by seed.
        values: The means of their metric over these seeds.
        pictures: How many were drawn from.
        confidence: Of the interval.
    """
    gaps = np.sort(resampled[0].mean(axis=1) - resampled[1].mean(axis=1))
    low, high = np.quantile(gaps, [0.5 - confidence / 2, 0.5 + confidence / 2])
    # Of the draws with no difference or one to the other side, the observed one counted among them.
    tail = min(np.count_nonzero(gaps <= 0), np.count_nonzero(gaps >= 0)) + 1
    p_value = min(1.0, 2.0 * tail / (len(gaps) + 1))
    return ItemDifference(values[0] - values[1], float(low), float(high), p_value, pictures)


def picture_error(runs: Sequence[tuple[ItemOutcomes, ItemOutcomes]]) -> float:
    """The standard error that the choice of test pictures adds to a mean difference over seeds.

    Every seed's models meet the same pictures: with d_ki the difference of seed k on picture i, the variance of its
    mean over K seeds and N pictures is that of the seeds' means over K, which holds what is particular to one seed and
    picture, and the variance of the pictures over N (two crossed random effects). The second is estimated here, from
    the mean squares of a two-way layout, and is 0 where pictures do not differ by more than by chance.

    Args:
        runs: The outcomes of both functions for each of at least two seeds.
    """
    gaps = np.stack([one.contributions() - other.contributions() for one, other in runs])  # [K, N]
    seeds, pictures = gaps.shape
    if pictures < 2:
        return 0.0
    by_picture, by_seed, mean = gaps.mean(axis=0), gaps.mean(axis=1), gaps.mean()
    of_pictures = seeds * ((by_picture - mean) ** 2).sum() / (pictures - 1)
    residuals = gaps - by_picture - by_seed[:, None] + mean
    of_residuals = (residuals**2).sum() / ((seeds - 1) * (pictures - 1))
    return float(np.sqrt(max(0.0, of_pictures - of_residuals) / (seeds * pictures)))

"""Means and intervals over seeds, and differences between functions paired by seed.

The interval is Student's t over the seeds of one function. It says what another seed would change, not what another
test set would.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from scipy.special import stdtrit

from ..models.errors import ResultsError

__all__ = [
    "Difference",
    "Estimate",
    "Summary",
    "estimate",
    "paired_differences",
    "row_key",
    "seeds_of",
    "summarise",
    "values_of",
]

Result: TypeAlias = Mapping[str, Any]

RELEASED = " (released)"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval, which one seed alone does not have.

    Attributes:
        mean: The mean of the values.
        standard_deviation: With n - 1 in the denominator; None for one value.
        half_interval: Half the width of the t-interval around the mean; None for one value.
        count: How many values, one a seed.
    """

    mean: float
    standard_deviation: float | None
    half_interval: float | None
    count: int

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return None if self.half_interval is None else self.mean - self.half_interval

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return None if self.half_interval is None else self.mean + self.half_interval

    def text(self, decimals: int = 1) -> str:
        """Write the mean and half the interval: `62.4 ± 0.8`, and `62.4 ± -` for one seed."""
        half = "-" if self.half_interval is None else f"{self.half_interval:.{decimals}f}"
        return f"{self.mean:.{decimals}f} ± {half}"


@dataclass(frozen=True)
class Summary:
    """One metric of one alignment function over its seeds; `alignment_function` is a `row_key`."""

    alignment_function: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True)
class Difference:
    """One function minus another in one metric, seed by seed.

    Attributes:
        alignment_function: The `row_key` of the function.
        reference: The `row_key` of the function that is subtracted.
        metric: The name of the metric.
        seeds: The seeds that both have.
        estimate: Of the differences; None where no seed is shared.
    """

    alignment_function: str
    reference: str
    metric: str
    seeds: tuple[int, ...]
    estimate: Estimate | None

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero, else 0.

        Differences that agree to the last digit count as 0: recalls move in steps of one test item, so that a few
        seeds can agree by accident, and an interval of no width would call that certain.
        """
        estimate = self.estimate
        if estimate is None or estimate.low is None or estimate.high is None or not estimate.standard_deviation:
            return 0
        return 1 if estimate.low > 0 else -1 if estimate.high < 0 else 0

    @property
    def identical(self) -> bool:
        """Whether both functions gave exactly the same number for at least two seeds."""
        estimate = self.estimate
        return estimate is not None and estimate.count > 1 and estimate.mean == 0 and estimate.standard_deviation == 0


def estimate(values: Iterable[float], confidence: float = 0.95) -> Estimate:
    """Estimate the mean of `values` with its t-interval at `confidence`.

    Raises:
        ResultsError: There is no value, or one is not finite.
    """
    values = [float(value) for value in values]
    if not values:
        raise ResultsError("there are no values to average; are any runs finished?")
    if not all(math.isfinite(value) for value in values):
        raise ResultsError(f"a metric is not a finite number: {values}; leave out the run that diverged")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, None, 1)
    if min(values) == max(values):
        return Estimate(values[0], 0.0, 0.0, count)  # no rounding errors for equal values
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    quantile = float(stdtrit(count - 1, 0.5 + confidence / 2))
    return Estimate(mean, deviation, quantile * deviation / math.sqrt(count), count)


def row_key(result: Result) -> str:
    """Name the row of a run: its alignment function, with ` (released)` for the released layout."""
    name = result.get("alignment_function")
    if not name:
        raise ResultsError("the result does not name its alignment_function", path=result.get("run_id"))
    return f"{name}{RELEASED}" if result.get("released_layout") else str(name)


def values_of(results: Sequence[Result], metric: str) -> dict[str, dict[int, float]]:
    """Collect `metric` as {row key: {seed: value}}, in the order of `results`; runs without it are left out.

    Raises:
        ResultsError: The runs are of several data sets or tasks, or a function has one seed twice.
    """
    _check_comparable(results)
    values: dict[str, dict[int, float]] = {}
    for result in results:
        by_seed = values.setdefault(row_key(result), {})
        seed = int(result.get("seed", 0))
        if seed in by_seed:
            raise ResultsError(f"{row_key(result)} with seed {seed} is there twice", path=result.get("run_id"))
        if metric in result.get("metrics", {}):
            by_seed[seed] = float(result["metrics"][metric])
    return {name: by_seed for name, by_seed in values.items() if by_seed}


def seeds_of(results: Sequence[Result]) -> dict[str, tuple[int, ...]]:
    """List the seeds of every row as {row key: seeds in ascending order}."""
    seeds: dict[str, list[int]] = {}
    for result in results:
        seeds.setdefault(row_key(result), []).append(int(result.get("seed", 0)))
    return {name: tuple(sorted(numbers)) for name, numbers in seeds.items()}


def summarise(
    results: Sequence[Result], metrics: Sequence[str] | None = None, confidence: float = 0.95
) -> list[Summary]:
    """Estimate every metric of every alignment function over its seeds.

    Args:
        results: The contents of `results.json` files of one task on one data set.
        metrics: The names to summarise; all that occur, in their order of appearance, by default.
        confidence: Of the intervals.

    Returns:
        One `Summary` for each pair of function and metric that was measured, by function, then metric.
    """
    if metrics is None:
        metrics = list(dict.fromkeys(name for result in results for name in result.get("metrics", {})))
    by_metric = {metric: values_of(results, metric) for metric in metrics}
    return [
        Summary(name, metric, estimate(by_metric[metric][name].values(), confidence))
        for name in seeds_of(results)
        for metric in metrics
        if name in by_metric[metric]
    ]


def paired_differences(
    results: Sequence[Result], reference: str, metric: str = "rsum", confidence: float = 0.95
) -> list[Difference]:
    """Subtract the function `reference` from every other function, seed by seed.

    One seed means the same initial weights and batches for every function, so that the pairs share their noise.

    Raises:
        ResultsError: No run of `reference` has the metric.
    """
    values = values_of(results, metric)
    if reference not in values:
        raise ResultsError(
            f"no run of the reference {reference!r} has {metric!r}; there are {', '.join(values) or 'no runs'}"
        )
    differences = []
    for name, by_seed in values.items():
        if name == reference:
            continue
        seeds = tuple(sorted(by_seed.keys() & values[reference].keys()))
        gaps = [by_seed[seed] - values[reference][seed] for seed in seeds]
        differences.append(Difference(name, reference, metric, seeds, estimate(gaps, confidence) if gaps else None))
    return differences


def _check_comparable(results: Sequence[Result]) -> None:
    """Refuse to average runs of different tasks or data sets."""
    for what, values in (
        ("tasks", {str(result.get("task")) for result in results}),
        ("data sets", {_dataset_identity(result) for result in results}),
    ):
        if len(values) > 1:
            raise ResultsError(f"the runs are of several {what} ({', '.join(sorted(values))}); compare one at a time")


def _dataset_identity(result: Result) -> str:
    dataset = result.get("dataset") or {}
    return f"{dataset.get('name')} {dataset.get('content_hash') or ''}".strip()

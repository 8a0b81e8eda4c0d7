"""Functions against each other: differences over seeds and test items, corrected for how many there are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from ..models.errors import ResultsError
from .function_classes import FunctionClass
from .layout import Column, Row, Table, display_name, ordered
from .outcomes import ItemOutcomes
from .resampling import RESAMPLES, ItemDifference, item_difference, picture_error, resampled_metrics
from .statistics import RELEASED, Difference, Result, paired_differences, row_key, values_of
from .tasks import Task, task_of

__all__ = [
    "PairedComparison",
    "default_reference",
    "difference_table",
    "holm",
    "paired_comparisons",
    "smallest_detectable_difference",
]

POWER = 0.8
QUANTILES = 4000
SMALLEST_P = 1e-12


@dataclass(frozen=True)
class PairedComparison:
    """One function minus another, with both sources of chance.

    Attributes:
        difference: Over the seeds that both have, with their interval.
        items: Over the test pictures, for the models of these seeds; None without predictions.
        picture_error: What the choice of pictures adds to the standard error over seeds; 0 where that is not known.
        p_value: Of no difference, over seeds and, where they are known, pictures; None for fewer than two seeds.
        adjusted_p: The same after Holm's correction for all comparisons.
        low, high: The interval that Holm's step for this comparison asks for: it leaves out zero exactly where the
            corrected p-value is small enough. None for fewer than two seeds.
        supported: Whether it is.
        detectable: The smallest difference that so many seeds would have shown in four of five studies.
    """

    difference: Difference
    items: ItemDifference | None = None
    picture_error: float = 0.0
    p_value: float | None = None
    adjusted_p: float | None = None
    low: float | None = None
    high: float | None = None
    supported: bool = False
    detectable: float | None = None

    @property
    def alignment_function(self) -> str:
        """The `row_key` of the function."""
        return self.difference.alignment_function

    @property
    def reference(self) -> str:
        """The `row_key` of the function that is subtracted."""
        return self.difference.reference

    @property
    def mean(self) -> float | None:
        """The mean difference over seeds."""
        return None if self.difference.estimate is None else self.difference.estimate.mean

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is supported, else 0."""
        return 0 if not self.supported or self.mean is None else 1 if self.mean > 0 else -1

    def interval_text(self, confidence: float) -> str | None:
        """The interval over both sources, uncorrected, as tables have it; None for fewer than two seeds."""
        if self.p_value is None or self.mean is None:
            return None
        half = self.half_interval(1 - confidence)
        return _interval(self.mean - half, self.mean + half)

    def half_interval(self, level: float) -> float:
        """Half the interval that leaves out `level` of chance; needs two seeds.

        The squares of the two sources' own half intervals add up, Student's t over seeds and the normal one over
        pictures, so that it is never narrower than that over seeds alone, and errs on the safe side for two seeds.
        """
        estimate = self.difference.estimate
        assert estimate is not None and estimate.standard_deviation is not None
        over_seeds = stdtrit(estimate.count - 1, level / 2) * estimate.standard_deviation / sqrt(estimate.count)
        return float(np.hypot(over_seeds, ndtri(level / 2) * self.picture_error))


def default_reference(results: Sequence[Result]) -> str:
    """Choose what the others are compared with: the dot product, else the first row of the table."""
    task = task_of(results)
    names = ordered(values_of(results, task.metric))
    if not names:
        raise ResultsError(f"no finished run has an {task.metric_title}")
    return "dot" if "dot" in names else names[0]


def paired_comparisons(
    results: Sequence[Result],
    reference: str | None = None,
    outcomes: Mapping[str, ItemOutcomes] | None = None,
    *,
    classes: Sequence[FunctionClass] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> list[PairedComparison]:
    """Compare every function with `reference`, functions of one class with each other, and layouts of one function.

    Args:
        results: Of one task on one data set.
        reference: `dot` by default, or the first row.
        outcomes: By run_id, of `load_outcomes`; a pair is compared over test items where the runs of all its shared
            seeds have them.
        classes: Of functions under the runs' configuration; under the paper's by default.
        confidence: With which all comparisons together hold.
        resamples: Of the test pictures.

    Raises:
        ResultsError: No run of `reference` has the metric, or runs were tested on different items.
    """
    task = task_of(results)
    reference = reference or default_reference(results)
    classes = task.same_class if classes is None else classes
    differences = _family(results, reference, task, classes, confidence)
    over_items = _over_items(differences, results, outcomes or {}, confidence, resamples)
    compared = []
    for difference, (items, error) in zip(differences, over_items, strict=True):
        comparison = PairedComparison(difference, items, error)
        compared.append(replace(comparison, p_value=_p_value(comparison)))
    return _corrected(compared, 1 - confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that all of them hold together (Holm 1979): the smallest for all, the next for one less.

    SciPy has corrections of the false discovery rate only.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def smallest_detectable_difference(
    standard_deviation: float,
    count: int,
    *,
    picture_error: float = 0.0,
    power: float = POWER,
    significance: float = 0.05,
) -> float:
    """The true difference that the test of so many seeds finds with probability `power`.

    Args:
        standard_deviation: Of the differences between seeds.
        count: How many seeds, two at least.
        picture_error: What the choice of pictures adds to the standard error; 0 leaves a paired t-test over seeds.
        power: Wanted.
        significance: Of the two-sided test.
    """
    freedom, over_seeds = count - 1, standard_deviation / sqrt(count)
    # How a study of so many seeds estimates the spread: quantiles of it, over which its own threshold is averaged.
    estimated = np.sqrt(chdtri(freedom, (np.arange(QUANTILES) + 0.5) / QUANTILES) / freedom)
    of_seeds = stdtrit(freedom, significance / 2) * over_seeds * estimated
    threshold = np.hypot(of_seeds, ndtri(significance / 2) * picture_error)
    error = float(np.hypot(over_seeds, picture_error))

    def missing(difference: float) -> float:
        return power - float(ndtr((difference - threshold) / error).mean())  # a find with the wrong sign is none

    return float(brentq(missing, 0.0, threshold.max() + 10 * error))


def difference_table(comparisons: Sequence[PairedComparison], task: Task, confidence: float = 0.95) -> Table:
    """Lay out comparisons: what seeds, what test items and what both leave open, and p-values."""
    over_items, interval = any(one.items for one in comparisons), f"{confidence:.0%} interval"
    columns = [Column("difference", "Mean"), Column("seeds", "Over seeds", interval)]
    if over_items:
        columns += [Column("items", f"Over test {task.items}", interval), Column("both", "Over both", interval)]
        columns += [Column("items_p", f"Over test {task.items}", "p-value")]
    columns += [Column("p_value", "Over both" if over_items else "Over seeds", "p-value")]
    columns += [Column("adjusted_p", "Corrected", "p-value"), Column("detectable", "Smallest detectable")]
    rows = []
    for number, one in enumerate(comparisons):
        name, cells = f"{display_name(one.alignment_function)} − {display_name(one.reference)}", _cells(one, confidence)
        rows.append(Row(f"comparison {number}", name, tuple(cells[column.key] for column in columns)))
    count = sum(one.p_value is not None for one in comparisons)
    caption = f"Differences in {task.points}, paired by seed: Student's t, what other seeds would change"
    if over_items:
        caption += (
            f" on these test {task.items}. Paired by test item: {RESAMPLES:,} bootstrap resamples of pictures, what "
            "other pictures would change for these very models. Over both: the two together, where there are several "
            "seeds"
        )
    caption += (
        f". Corrected: for {count} comparison{'s' * (count != 1)} (Holm). Smallest detectable: the true difference "
        "that so many seeds find in four of five studies, after the correction."
    )
    return Table(caption, tuple(columns), tuple(rows), mark_best=False, heading="Difference")


def _cells(one: PairedComparison, confidence: float) -> dict[str, float | str | None]:
    estimate, items = one.difference.estimate, one.items
    return {
        "difference": one.mean,
        "seeds": None if estimate is None else _interval(estimate.low, estimate.high),
        "items": None if items is None else _interval(items.low, items.high),
        "both": None if items is None else one.interval_text(confidence),
        "items_p": None if items is None else _p_text(items.p_value),
        "p_value": _p_text(one.p_value),
        "adjusted_p": _p_text(one.adjusted_p),
        "detectable": one.detectable,
    }


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def _p_text(value: float | None) -> str | None:
    return None if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _family(
    results: Sequence[Result], reference: str, task: Task, classes: Sequence[FunctionClass], confidence: float
) -> list[Difference]:
    """The differences from the reference, then those within classes that are not among them."""
    rows = ordered(values_of(results, task.metric))
    found = {gap.alignment_function: gap for gap in paired_differences(results, reference, task.metric, confidence)}
    right_of = {name: name.removesuffix(RELEASED) for name in rows if name.endswith(RELEASED)}
    # A function in the released layout is held against itself: what the layout does, and nothing else.
    family = [found[name] for name in rows if name in found and right_of.get(name, reference) in (reference, None)]
    for name, right in right_of.items():
        if right != reference and right in rows:
            family += _within(results, right, [name], task, confidence)
    for same in classes:
        base, *others = [name for name in same.functions if name in rows] or [""]
        if others and base != reference:
            family += _within(results, base, [name for name in others if name != reference], task, confidence)
    return family


def _within(
    results: Sequence[Result], base: str, others: Iterable[str], task: Task, confidence: float
) -> list[Difference]:
    gaps = paired_differences(results, base, task.metric, confidence)
    return [gap for gap in gaps if gap.alignment_function in set(others)]


def _over_items(
    differences: Sequence[Difference],
    results: Sequence[Result],
    outcomes: Mapping[str, ItemOutcomes],
    confidence: float,
    resamples: int,
) -> list[tuple[ItemDifference | None, float]]:
    """Compare each pair over test items, on the same resamples for all."""
    cells = {(row_key(result), int(result.get("seed", 0))): str(result.get("run_id")) for result in results}
    known = [run_id for run_id in cells.values() if run_id in outcomes]
    if not known:
        return [(None, 0.0)] * len(differences)
    resampled = resampled_metrics([outcomes[run_id] for run_id in known], resamples)
    column = {run_id: number for number, run_id in enumerate(known)}
    found: list[tuple[ItemDifference | None, float]] = []
    for difference in differences:
        sides = [
            [cells[name, seed] for seed in difference.seeds]
            for name in (difference.alignment_function, difference.reference)
        ]
        if not difference.seeds or not all(run_id in column for side in sides for run_id in side):
            found.append((None, 0.0))
            continue
        runs = [(outcomes[one], outcomes[other]) for one, other in zip(*sides, strict=True)]
        drawn = [resampled[:, [column[run_id] for run_id in side]] for side in sides]
        values = [float(np.mean([outcomes[run_id].value for run_id in side])) for side in sides]
        items = item_difference((drawn[0], drawn[1]), (values[0], values[1]), len(runs[0][0].units), confidence)
        found.append((items, picture_error(runs) if len(runs) > 1 else 0.0))
    return found


def _p_value(comparison: PairedComparison) -> float | None:
    """The level at which the interval just reaches zero; None for fewer than two seeds."""
    estimate = comparison.difference.estimate
    if estimate is None or estimate.standard_deviation is None:
        return None
    # Differences that agree to the last digit decide nothing: see `Difference.sign`.
    if not estimate.standard_deviation or not estimate.mean:
        return 1.0

    def beyond(level: float) -> float:
        return comparison.half_interval(level) - abs(estimate.mean)

    return SMALLEST_P if beyond(SMALLEST_P) < 0 else float(brentq(beyond, SMALLEST_P, 1.0, xtol=SMALLEST_P))


def _corrected(comparisons: Sequence[PairedComparison], significance: float) -> list[PairedComparison]:
    """Correct for all comparisons that have a p-value, and give each the interval of its step in Holm's procedure."""
    tested = [number for number, one in enumerate(comparisons) if one.p_value is not None]
    p_values = [comparisons[number].p_value or 0.0 for number in tested]
    corrected = list(comparisons)
    left, stopped = len(tested), False
    adjusted = holm(p_values)
    for place in np.argsort(p_values, kind="stable").tolist():
        one, level = comparisons[tested[place]], significance / left
        supported = not stopped and p_values[place] <= level
        mean, half = one.mean or 0.0, one.half_interval(level)
        corrected[tested[place]] = replace(
            one,
            adjusted_p=adjusted[place],
            low=mean - half,
            high=mean + half,
            supported=supported,
            detectable=_detectable(one, significance / len(tested)),
        )
        # Once a step fails, all further ones do, at the level of that step.
        stopped = stopped or not supported
        left -= supported
    return corrected


def _detectable(one: PairedComparison, significance: float) -> float | None:
    estimate = one.difference.estimate
    if estimate is None or not estimate.standard_deviation:
        return None
    return smallest_detectable_difference(
        estimate.standard_deviation, estimate.count, picture_error=one.picture_error, significance=significance
    )

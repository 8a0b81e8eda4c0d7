"""What a comparison shows, in sentences chosen by the data: nothing is called a difference that its interval spans."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..models.errors import ResultsError
from .layout import display_name, ordered
from .statistics import Difference, Result, paired_differences, seeds_of, values_of
from .tables import control_values, dataset_title
from .tasks import Check, SameClass, Task, task_of

__all__ = ["Finding", "default_reference", "findings"]


@dataclass(frozen=True)
class Finding:
    """One sentence and how firm it is.

    `supported`: an interval leaves out zero; `open`: none does; `fact`: a count or a plain number; `warning`: something
    that a reader must know before trusting the rest.
    """

    kind: Literal["supported", "open", "fact", "warning"]
    text: str


def findings(
    results: Sequence[Result],
    controls: Sequence[Mapping[str, Any]] = (),
    *,
    reference: str | None = None,
    confidence: float = 0.95,
) -> list[Finding]:
    """State what the runs show about the metric of their task.

    Every function is compared with `reference` (`dot` by default) by paired differences, and functions of one class
    with each other. The intervals hold together at `confidence` (Bonferroni).
    """
    task = task_of(results)
    reference = reference or default_reference(results)
    rows = ordered(values_of(results, task.metric))
    classes = [(same, *_members(same, rows)) for same in task.same_class]
    gaps = paired_differences(results, reference, task.metric)
    for _, base, others in classes:
        further = _minus(results, task, base, others)
        gaps += [gap for gap in further if reference not in (gap.reference, gap.alignment_function)]
    # Only what has an interval is a comparison that could go wrong by chance.
    count = max(1, sum(gap.estimate is not None and gap.estimate.count > 1 for gap in gaps))
    each = 1 - (1 - confidence) / count
    found = [_coverage(results, task)]
    if len(rows) > 1:
        differences = paired_differences(results, reference, task.metric, each)
        found += _against_reference(differences, reference, task, count, confidence)
    for same, base, others in classes:
        found += _same_class(same, _minus(results, task, base, others, each))
    return found + [finding for check in task.checks for finding in _checked(check, results, controls)]


def default_reference(results: Sequence[Result]) -> str:
    """Choose what the others are compared with: the dot product, else the first row of the table."""
    task = task_of(results)
    names = ordered(values_of(results, task.metric))
    if not names:
        raise ResultsError(f"no finished run has an {task.metric_title}")
    return "dot" if "dot" in names else names[0]


def _coverage(results: Sequence[Result], task: Task) -> Finding:
    seeds = {name: len(numbers) for name, numbers in seeds_of(results).items()}
    size = (results[0].get("dataset") or {}).get("test")
    where = f"on {dataset_title(results)}" + (f" ({size:,} test {task.items})" if isinstance(size, int) else "")
    functions = f"{len(seeds)} alignment function{'s' * (len(seeds) != 1)}"
    fewest, most = min(seeds.values()), max(seeds.values())
    if fewest != most:
        short = _listed([name for name, number in seeds.items() if number < most])
        text = f"{functions} {where}, {most} seeds at most, and fewer for {short}."
        return Finding("warning", text)
    if most == 1:
        text = f"{functions} {where}, one seed each: there are no intervals, so no difference can be shown yet."
        return Finding("warning", text)
    return Finding("fact", f"{functions} {where}, {most} seeds each.")


def _against_reference(
    differences: Sequence[Difference], reference: str, task: Task, count: int, confidence: float
) -> list[Finding]:
    base = display_name(reference)
    together = f"{confidence:.0%} interval" + (f"s that hold for all {count} comparisons together" if count > 1 else "")
    found = []
    for sign, word in ((1, "above"), (-1, "below")):
        chosen = [item for item in differences if item.sign == sign]
        if chosen:
            gaps = "; ".join(f"{display_name(item.alignment_function)} by {_gap(item)}" for item in chosen)
            found.append(Finding("supported", f"{task.metric_title} {word} {base}: {gaps} ({together})."))
    same = [item.alignment_function for item in differences if item.identical]
    if same:
        found.append(Finding("fact", f"Exactly the same {task.metric_name} as {base} for every seed: {_listed(same)}."))
    undecided = [item for item in differences if item.sign == 0 and not item.identical]
    halves = [item.estimate.half_interval for item in undecided if item.estimate and item.estimate.half_interval]
    if halves:
        names = _listed([item.alignment_function for item in undecided if item.estimate and item.estimate.count > 1])
        width = f"{min(halves):.1f}" if len(halves) == 1 else f"{min(halves):.1f} to {max(halves):.1f}"
        reach = f"the intervals reach {width} {task.points} either way."
        found.append(Finding("open", f"Not told apart from {base} by these seeds: {names}; {reach}"))
    alone = [item.alignment_function for item in undecided if item.estimate is None or item.estimate.count < 2]
    if alone:
        found.append(
            Finding("open", f"No interval yet, for want of a second seed shared with {base}: {_listed(alone)}.")
        )
    return found


def _members(same: SameClass, rows: Sequence[str]) -> tuple[str, list[str]]:
    """Find the first function of a class that was run, and the others; "" where none was."""
    base, *others = [name for name in same.functions if name in rows] or [""]
    return base, others


def _minus(
    results: Sequence[Result], task: Task, base: str, others: Sequence[str], confidence: float = 0.95
) -> list[Difference]:
    if not others:
        return []
    differences = {item.alignment_function: item for item in paired_differences(results, base, task.metric, confidence)}
    return [differences[name] for name in others]


def _same_class(same: SameClass, differences: Sequence[Difference]) -> list[Finding]:
    gaps = [
        f"{display_name(item.alignment_function)} is {'above' if item.sign > 0 else 'below'} "
        f"{display_name(item.reference)} by {_gap(item)}"
        for item in differences
        if item.sign
    ]
    if not gaps:
        return []
    explanation = "so this is a matter of initialisation and optimisation, or a fault"
    return [Finding("supported", f"{'; '.join(gaps)}, although {same.reason}, {explanation}.")]


def _checked(check: Check, results: Sequence[Result], controls: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Hold the worst result, or every control that `check` is about, against the control that knows too little."""
    by_name = {name: _means(group) for name, group in control_values(controls).items()}
    floor = next((metrics for name, metrics in by_name.items() if check.floor in name.lower()), {}).get(check.metric)
    if floor is None:
        return []
    if check.subject is None:
        means = {row: sum(seeds.values()) / len(seeds) for row, seeds in values_of(results, check.metric).items()}
        worst = sorted(means, key=means.__getitem__, reverse=check.lower_is_better)[:1]
        judged = {display_name(row): means[row] for row in worst}
    else:
        judged = {
            name: metrics[check.metric]
            for name, metrics in by_name.items()
            if check.subject in name.lower() and check.metric in metrics
        }
    found = []
    for name, value in judged.items():
        more, less = (floor, value) if check.lower_is_better else (value, floor)
        above = more > check.factor * less + check.points
        text = (check.above if above else check.within).format(
            name=name, value=value, floor=floor, ratio=more / less if less else math.inf, gap=more - less
        )
        # Results should be above, controls should not.
        found.append(Finding("fact" if above == (check.subject is None) else "warning", text))
    return found


def _means(group: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for metrics in group for name, value in metrics.items() if value is not None}
    values = {name: [metrics[name] for metrics in group if metrics.get(name) is not None] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}


def _gap(difference: Difference) -> str:
    estimate = difference.estimate
    assert estimate is not None and estimate.low is not None and estimate.high is not None  # its sign is not 0
    low, high = sorted((abs(estimate.low), abs(estimate.high)))
    return f"{abs(estimate.mean):.1f} [{low:.1f}, {high:.1f}]"


def _listed(rows: Sequence[str]) -> str:
    names = [display_name(row) for row in ordered(rows)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

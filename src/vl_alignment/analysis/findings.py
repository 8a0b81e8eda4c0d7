"""What a comparison shows, in sentences chosen by the data: nothing is called a difference that its interval spans."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .differences import PairedComparison, default_reference, holm, paired_comparisons
from .function_classes import FunctionClass
from .layout import display_name, ordered
from .ranking import Ranking, rank_blocks, rank_functions
from .statistics import RELEASED, Result, seeds_of, values_of
from .tables import control_values, dataset_title
from .tasks import Check, Task, task_of

__all__ = ["Finding", "findings"]


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
    comparisons: Sequence[PairedComparison] | None = None,
    classes: Sequence[FunctionClass] | None = None,
    confidence: float = 0.95,
) -> list[Finding]:
    """State what the runs show about the metric of their task.

    Every function is compared with `reference` (`dot` by default), and functions of one class with each other. A
    difference is stated where its p-value, after Holm's correction for all comparisons, is small enough.

    Args:
        results: The contents of `results.json` files of one data set.
        controls: As of `results_table`.
        reference: What the others are compared with.
        comparisons: Of `paired_comparisons` with the same reference, where they were made with test items; made over
            seeds alone by default.
        classes: As of `paired_comparisons`.
        confidence: With which all comparisons together hold.
    """
    task = task_of(results)
    reference = reference or default_reference(results)
    if comparisons is None:
        comparisons = paired_comparisons(results, reference, classes=classes, confidence=confidence)
    rows = ordered(values_of(results, task.metric))
    found = [_coverage(results, task), *_mixed_versions(results), *_hardly_learned(results, controls, task)]
    if len(rows) > 1:
        with_reference = [item for item in comparisons if item.reference == reference]
        count = sum(item.p_value is not None for item in comparisons)
        found += _against_reference(with_reference, reference, task, count, confidence)
        found += _over_items_alone(comparisons, task, confidence)
    for same in task.same_class if classes is None else classes:
        found += _same_class(same, comparisons)
    found += _released(comparisons)
    ranking = rank_functions(rank_blocks(results), confidence)
    if ranking is not None:
        found.append(_ranked(ranking))
    return found + [finding for check in task.checks for finding in _checked(check, results, controls)]


def _coverage(results: Sequence[Result], task: Task) -> Finding:
    seeds = {name: len(numbers) for name, numbers in seeds_of(results).items()}
    size = (results[0].get("dataset") or {}).get("test")
    where = f"on {dataset_title(results)}" + (f" ({size:,} test {task.items})" if isinstance(size, int) else "")
    released = sum(name.endswith(RELEASED) for name in seeds)
    right = len(seeds) - released
    functions = f"{right} alignment function{'s' * (right != 1)}" + f", {released} as released," * bool(released)
    fewest, most = min(seeds.values()), max(seeds.values())
    if fewest != most:
        short = _listed([name for name, number in seeds.items() if number < most])
        text = f"{functions} {where}, {most} seeds at most, and fewer for {short}."
        return Finding("warning", text)
    if most == 1:
        text = f"{functions} {where}, one seed each: there are no intervals, so no difference can be shown yet."
        return Finding("warning", text)
    return Finding("fact", f"{functions} {where}, {most} seeds each.")


def _mixed_versions(results: Sequence[Result]) -> list[Finding]:
    """Name the packages of which the runs had several versions: what they differ in may come from those."""
    found: dict[str, dict[str, int]] = {}
    for result in results:
        for package, version in (result.get("versions") or {}).items():
            runs = found.setdefault(package, {})
            runs[version] = runs.get(version, 0) + 1
    mixed = [
        f"{package} " + ", ".join(f"{version} ({count} run{'s' * (count != 1)})" for version, count in runs.items())
        for package, runs in found.items()
        if len(runs) > 1
    ]
    if not mixed:
        return []
    text = "The runs were made with several versions, from which a difference may come: " + "; ".join(mixed)
    return [Finding("warning", f"{text}.")]


def _hardly_learned(results: Sequence[Result], controls: Sequence[Mapping[str, Any]], task: Task) -> list[Finding]:
    """Name runs that stayed nearer to the control that knows too little than they came to the median of all runs.

    The layout of the released code is left out: what it costs has a finding of its own.
    """
    by_name = {name: _means(group) for name, group in control_values(controls).items()}
    # The first check is about learning at all, others are about parts of it.
    about = [(check, _floor(check, by_name)) for check in task.checks if check.subject is None]
    known = [(check, floor) for check, floor in about if {check.metric, task.metric} <= set(floor)]
    if not known:
        return []
    check, floor = known[0]
    if not _is_above(check, _median(values_of(results, check.metric)), floor[check.metric]):
        return []
    rows = values_of(results, task.metric)
    bottom, middle = floor[task.metric], _median(rows)
    found = []
    for row, values in rows.items():
        for seed, value in values.items():
            if not row.endswith(RELEASED) and abs(value - bottom) < abs(value - middle):
                rest = [number for other, number in values.items() if other != seed]
                without = f" Without it the mean of {display_name(row)} is {sum(rest) / len(rest):.1f}." if rest else ""
                text = (
                    f"{display_name(row)}, seed {seed}, hardly learned: its {task.metric_name}, {value:.1f}, is less "
                    f"than half way from the control that knows too little to the median of all runs. It counts in "
                    f"every mean, interval and test.{without}"
                )
                found.append(Finding("warning", text))
    return found


def _against_reference(
    comparisons: Sequence[PairedComparison], reference: str, task: Task, count: int, confidence: float
) -> list[Finding]:
    base = display_name(reference)
    together = f"{confidence:.0%} interval{'s' * (count > 1)}{_sources(comparisons, task)}"
    together += f", corrected for {count} comparisons" if count > 1 else ""
    found = []
    for sign, word in ((1, "above"), (-1, "below")):
        chosen = [item for item in comparisons if item.sign == sign]
        if chosen:
            gaps = "; ".join(f"{display_name(item.alignment_function)} by {_gap(item)}" for item in chosen)
            found.append(Finding("supported", f"{task.metric_title} {word} {base}: {gaps} ({together})."))
    same = [item.alignment_function for item in comparisons if item.difference.identical]
    if same:
        found.append(Finding("fact", f"Exactly the same {task.metric_name} as {base} for every seed: {_listed(same)}."))
    undecided = [item for item in comparisons if item.sign == 0 and not item.difference.identical]
    tested = [item for item in undecided if item.p_value is not None]
    halves = [
        (item.high - item.low) / 2
        for item in tested
        if item.low is not None and item.high is not None and item.high > item.low
    ]
    if halves:
        names = _listed([item.alignment_function for item in tested])
        reach = f"the intervals reach {_range(halves)} {task.points} either way"
        detectable = _range([item.detectable for item in tested if item.detectable is not None])
        missed = f"one study in five would miss a true difference of {detectable}"
        text = f"Not told apart from {base} by these seeds: {names}; {reach}, and {missed}."
        found.append(Finding("open", text))
    alone = [item.alignment_function for item in undecided if item.p_value is None]
    if alone:
        found.append(
            Finding("open", f"No interval yet, for want of a second seed shared with {base}: {_listed(alone)}.")
        )
    return found


def _sources(comparisons: Sequence[PairedComparison], task: Task) -> str:
    """Say what chance the intervals are about, where it is not the seeds alone."""
    tested = [item for item in comparisons if item.p_value is not None]
    return f" over seeds and test {task.items}" if tested and all(item.items for item in tested) else ""


def _over_items_alone(comparisons: Sequence[PairedComparison], task: Task, confidence: float) -> list[Finding]:
    """What one seed's models show: of them, not of their functions."""
    alone = [item for item in comparisons if item.items is not None and item.p_value is None]
    adjusted = holm([item.items.p_value for item in alone if item.items is not None])
    gaps = [
        f"{display_name(item.alignment_function)} {'above' if item.items.mean > 0 else 'below'} "
        f"{display_name(item.reference)} by {_interval(item.items.mean, item.items.low, item.items.high)}"
        for item, p_value in zip(alone, adjusted, strict=True)
        if item.items is not None and p_value < 1 - confidence
    ]
    if not gaps:
        return []
    text = f"Of the models at hand, other test {task.items} would show the same: {'; '.join(gaps)}"
    return [Finding("fact", f"{text}. Whether their functions differ takes more seeds.")]


def _ranked(ranking: Ranking) -> Finding:
    names = list(ranking.mean_ranks)
    text = f"By ranks over {ranking.blocks} seeds (Friedman p = {ranking.p_value:.2g}) "
    if not ranking.separates:
        possible = len(names) - 1
        return Finding(
            "fact",
            f"{text}no function is told apart from the best, {display_name(names[0])}: mean ranks have to be "
            f"{ranking.critical_difference:.1f} apart, of {possible} at most.",
        )
    behind = _listed([name for name in names if name not in ranking.like_the_best])
    return Finding(
        "fact",
        f"{text}the best, {display_name(names[0])}, is told apart from {behind}: their mean ranks are at least "
        f"{ranking.critical_difference:.1f} apart.",
    )


def _released(comparisons: Sequence[PairedComparison]) -> list[Finding]:
    """State what the layout of the released code changes."""
    layouts = [item for item in comparisons if item.alignment_function == f"{item.reference}{RELEASED}"]
    gaps = [
        f"{'raises' if item.sign > 0 else 'lowers'} {display_name(item.reference)} by {_gap(item)}"
        for item in layouts
        if item.sign
    ]
    return [Finding("supported", f"The layout of the released code {', '.join(gaps)}.")] if gaps else []


def _same_class(same: FunctionClass, comparisons: Sequence[PairedComparison]) -> list[Finding]:
    """State the gaps within a class, each once, from the side of its first function."""
    inside = [item for item in comparisons if {item.alignment_function, item.reference} <= set(same.functions)]
    gaps = [
        f"{display_name(item.alignment_function)} is {'above' if item.sign > 0 else 'below'} "
        f"{display_name(item.reference)} by {_gap(item)}"
        for item in inside
        if item.sign
    ]
    if not gaps:
        return []
    explanation = "so this is a matter of initialisation and optimisation, or a fault"
    return [Finding("supported", f"{'; '.join(gaps)}, although {same.reason}, {explanation}.")]


def _checked(check: Check, results: Sequence[Result], controls: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Hold the worst result, or every control that `check` is about, against the control that knows too little."""
    by_name = {name: _means(group) for name, group in control_values(controls).items()}
    floor = _floor(check, by_name).get(check.metric)
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
        above = _is_above(check, value, floor)
        text = (check.above if above else check.within).format(
            name=name, value=value, floor=floor, ratio=more / less if less else math.inf, gap=more - less
        )
        # Results should be above, controls should not.
        found.append(Finding("fact" if above == (check.subject is None) else "warning", text))
    return found


def _is_above(check: Check, value: float, floor: float) -> bool:
    """Tell whether `value` is better than the control by as much as the check asks."""
    more, less = (floor, value) if check.lower_is_better else (value, floor)
    return more > check.factor * less + check.points


def _floor(check: Check, controls: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    """The metrics of the control that knows too little; none where it was not made."""
    return next((metrics for name, metrics in controls.items() if check.floor in name.lower()), {})


def _median(values: Mapping[str, Mapping[int, float]]) -> float:
    return statistics.median(value for by_seed in values.values() for value in by_seed.values())


def _means(group: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for metrics in group for name, value in metrics.items() if value is not None}
    values = {name: [metrics[name] for metrics in group if metrics.get(name) is not None] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in values.items()}


def _gap(comparison: PairedComparison) -> str:
    assert comparison.mean is not None  # its sign is not 0
    return _interval(comparison.mean, comparison.low or 0.0, comparison.high or 0.0)


def _interval(mean: float, low: float, high: float) -> str:
    """The size of a difference that is said to lie above or below."""
    low, high = sorted((abs(low), abs(high)))
    return f"{abs(mean):.1f} [{low:.1f}, {high:.1f}]"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _listed(rows: Sequence[str]) -> str:
    names = [display_name(row) for row in ordered(rows)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

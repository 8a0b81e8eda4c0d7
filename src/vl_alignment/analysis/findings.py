"""What a comparison shows, in sentences chosen by the data: nothing is called a difference that its interval spans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..models.errors import ResultsError
from .statistics import Difference, Result, paired_differences, seeds_of, values_of
from .tables import control_values, dataset_title, display_name, ordered

__all__ = ["Finding", "default_reference", "findings"]

# In the matrix form these are one function class each: W of the one is W transposed of the other.
SAME_CLASS = {"general_query": "general_key"}
# A control that should be at chance may exceed it by this much before it is called a leak.
CHANCE_MARGIN = 2.0


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
    """State what the runs show about Rsum.

    Every function is compared with `reference` (`dot` by default) by paired differences, and each key form with the
    query form of the same function class. The intervals hold together at `confidence` (Bonferroni).
    """
    reference = reference or default_reference(results)
    rows = set(values_of(results, "rsum"))
    pairs = [(query, key) for query, key in SAME_CLASS.items() if {query, key} <= rows]
    # Only what has an interval is a comparison that could go wrong by chance.
    gaps = [*paired_differences(results, reference), *(_key_minus_query(results, *pair) for pair in pairs)]
    count = max(1, sum(gap.estimate is not None and gap.estimate.count > 1 for gap in gaps))
    each = 1 - (1 - confidence) / count
    found = [_coverage(results)]
    if len(rows) > 1:
        found += _against_reference(paired_differences(results, reference, "rsum", each), reference, count, confidence)
    for pair in pairs:
        found += _same_class(_key_minus_query(results, *pair, each))
    return found + _about_controls(results, controls)


def default_reference(results: Sequence[Result]) -> str:
    """Choose what the others are compared with: the dot product, else the first row of the table."""
    names = ordered(values_of(results, "rsum"))
    if not names:
        raise ResultsError("no finished run has an Rsum")
    return "dot" if "dot" in names else names[0]


def _coverage(results: Sequence[Result]) -> Finding:
    seeds = {name: len(numbers) for name, numbers in seeds_of(results).items()}
    size = (results[0].get("dataset") or {}).get("test")
    where = f"on {dataset_title(results)}" + (f" ({size:,} test images)" if isinstance(size, int) else "")
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
    differences: Sequence[Difference], reference: str, count: int, confidence: float
) -> list[Finding]:
    base = display_name(reference)
    together = f"{confidence:.0%} interval" + (f"s that hold for all {count} comparisons together" if count > 1 else "")
    found = []
    for sign, word in ((1, "above"), (-1, "below")):
        chosen = [item for item in differences if item.sign == sign]
        if chosen:
            gaps = "; ".join(f"{display_name(item.alignment_function)} by {_gap(item)}" for item in chosen)
            found.append(Finding("supported", f"Rsum {word} {base}: {gaps} ({together})."))
    same = [item.alignment_function for item in differences if item.identical]
    if same:
        found.append(Finding("fact", f"Exactly the same Rsum as {base} for every seed: {_listed(same)}."))
    undecided = [item for item in differences if item.sign == 0 and not item.identical]
    halves = [item.estimate.half_interval for item in undecided if item.estimate and item.estimate.half_interval]
    if halves:
        names = _listed([item.alignment_function for item in undecided if item.estimate and item.estimate.count > 1])
        width = f"{min(halves):.1f}" if len(halves) == 1 else f"{min(halves):.1f} to {max(halves):.1f}"
        text = (
            f"Not told apart from {base} by these seeds: {names}; the intervals reach {width} Rsum points either way."
        )
        found.append(Finding("open", text))
    alone = [item.alignment_function for item in undecided if item.estimate is None or item.estimate.count < 2]
    if alone:
        found.append(
            Finding("open", f"No interval yet, for want of a second seed shared with {base}: {_listed(alone)}.")
        )
    return found


def _key_minus_query(results: Sequence[Result], query: str, key: str, confidence: float = 0.95) -> Difference:
    differences = paired_differences(results, query, "rsum", confidence)
    return next(item for item in differences if item.alignment_function == key)


def _same_class(difference: Difference) -> list[Finding]:
    key, query = display_name(difference.alignment_function), display_name(difference.reference)
    if difference.sign == 0:
        return []
    word = "above" if difference.sign > 0 else "below"
    text = (
        f"{key} is {word} {query} by {_gap(difference)}, although W of the one is W transposed of the other: both can "
        "express the same alignments, so this is a matter of initialisation and optimisation, or a fault."
    )
    return [Finding("supported", text)]


def _about_controls(results: Sequence[Result], controls: Sequence[Mapping[str, Any]]) -> list[Finding]:
    by_name = {name: _means(group) for name, group in control_values(controls).items()}
    chance = next((metrics for name, metrics in by_name.items() if "chance" in name.lower()), None)
    if chance is None:
        return []
    found = []
    level = chance.get("sentence_retrieval_r1")
    recalls = values_of(results, "sentence_retrieval_r1")
    if level and recalls:
        means = {row: sum(seeds.values()) / len(seeds) for row, seeds in recalls.items()}
        row = min(means, key=means.__getitem__)
        times = f"{means[row]:.1f} %, {means[row] / level:.0f} times chance ({level:.2f} %)"
        text = f"The lowest sentence-retrieval R@1, that of {display_name(row)}, is {times}."
        found.append(Finding("fact" if means[row] > CHANCE_MARGIN * level else "warning", text))
    for name, metrics in by_name.items():
        if "shuffl" not in name.lower() or not chance.get("rsum") or "rsum" not in metrics:
            continue
        ratio = metrics["rsum"] / chance["rsum"]
        if ratio > CHANCE_MARGIN:
            reason = "something leaks, or the test set is small"
            text = f"The control “{name}” has {ratio:.1f} times the Rsum of chance: {reason}."
            found.append(Finding("warning", text))
        else:
            found.append(Finding("fact", f"The control “{name}” falls to chance (Rsum {metrics['rsum']:.1f})."))
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

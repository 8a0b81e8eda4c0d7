"""Interpretability of many runs: a table by alignment function, and what it has to do with how well a model does.

Question iii of the paper as a number: Spearman's correlation, over runs, of each measure of attention with the task's
metric. Over all runs it tells functions apart as well as seeds; between functions it is that of their medians; within
functions, with the runs ranked among those of their own function, it is what remains between seeds.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ..data.json_text import parse_json
from ..metrics.grounding import rank_correlation
from ..models.errors import ResultsError
from .differences import holm
from .findings import Finding
from .grounding_scores import RESAMPLES
from .layout import Cell, Column, Row, Table, display_name, ordered
from .statistics import Estimate, estimate, row_key
from .tasks import task_of

__all__ = [
    "FEWEST_RUNS",
    "GROUNDING_FILE",
    "SCHEMA_VERSION",
    "Correlation",
    "GroundingSection",
    "RankCorrelation",
    "grounding_markdown",
    "grounding_sections",
    "grounding_summary",
    "load_groundings",
    "performance_correlations",
    "rank_correlation_over_runs",
    "rank_correlation_within",
    "read_grounding",
]

Grounding = Mapping[str, Any]

GROUNDING_FILE = "grounding.json"
SCHEMA_VERSION = 1
FIELLER = 1.06  # of the variance of Fisher's z of rank correlations
LARGEST = 1 - 1e-9
FEWEST_RUNS = 5
"""Ranks of fewer runs can hardly be told from chance: of four, even perfect agreement has p = 0.08."""

_CONTROL_NAMES = {"uniform": "Uniform attention, or random order", "shuffled": "Another picture's attention"}
_PREFIXES = {
    "": "Attention on the truth, %",
    "object_": "Objects looked at, %",
    "stage_": "Stage by stage, %",
}


@dataclass(frozen=True)
class _Shown:
    """How a metric is shown."""

    title: str
    group: str
    scale: float
    decimals: int


_TRUTHS = {"pointing_game": "Pointing game", "attention_mass": "Mass inside", "attention_iou": "IoU"}
_SHOWN = {
    **{
        prefix + name: _Shown(title, group, 100.0, 1)
        for prefix, group in _PREFIXES.items()
        for name, title in _TRUTHS.items()
    },
    "rank_correlation": _Shown("Rank correlation", "Attention and the score", 1.0, 3),
    "deletion_auc": _Shown("Deletion", "Attention and the score", 1.0, 3),
    "insertion_auc": _Shown("Insertion", "Attention and the score", 1.0, 3),
    "faithfulness": _Shown("Insertion less deletion", "Attention and the score", 1.0, 3),
    "place_correlation": _Shown("Where the picture changes", "Attention and the score", 1.0, 3),
    "entropy": _Shown("Entropy", "", 1.0, 3),
}


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation over runs, its interval, and the permutation test's p of none.

    Attributes:
        value: In [-1, 1].
        low, high: Its 95 % interval.
        p_value: Two-sided.
        runs: How many there are.
    """

    value: float
    low: float
    high: float
    p_value: float
    runs: int

    def text(self) -> str:
        """For instance `0.81 (0.42 to 0.95, p = 0.002)`."""
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, {p_value})"


@dataclass(frozen=True)
class Correlation:
    """What one measure of attention has to do with the task's metric.

    Attributes:
        metric: Of the attention.
        runs: That have both.
        overall: Over all runs; None for fewer than `FEWEST_RUNS`, or where one side is the same everywhere.
        between: Of the functions' medians; None for fewer than `FEWEST_RUNS` functions.
        within: Of the ranks that runs have within their function, over functions with at least two seeds; None where
            too few runs are left for that.
    """

    metric: str
    runs: int
    overall: RankCorrelation | None
    between: RankCorrelation | None
    within: RankCorrelation | None


@dataclass(frozen=True)
class GroundingSection:
    """What a page shows of runs that were measured alike.

    Attributes:
        table: By alignment function, with the controls.
        header: Of the rows.
        rows: The correlations, in words.
        notes: What a reader has to know.
        findings: What the correlations show.
    """

    table: Table
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_grounding(path: Path) -> dict[str, Any]:
    """Read one grounding.json.

    Raises:
        ResultsError: It is damaged or of a newer version.
    """
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        version = int(found["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ResultsError(f"Cannot be read ({reason}); remove it, and measure again.", path=path) from error
    if version > SCHEMA_VERSION:
        raise ResultsError(f"Has schema version {version}, this version reads {SCHEMA_VERSION}; update.", path=path)
    return found


def load_groundings(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Read the `grounding.json` of the runs that have one; one that cannot be read is left out with a warning."""
    found = []
    for path in (Path(folder) / GROUNDING_FILE for folder in folders):
        if path.exists():
            try:
                found.append(read_grounding(path))
            except ResultsError as error:
                warnings.warn(f"{error} The run is left out of interpretability.", stacklevel=2)
    return found


def grounding_sections(groundings: Sequence[Grounding]) -> list[GroundingSection]:
    """Lay out what was measured, a section for all that was measured alike: task, data set, split, settings."""
    return [_section(group) for group in _measured_alike(groundings)]


def grounding_markdown(groundings: Sequence[Grounding]) -> str:
    """Write the sections as Markdown."""
    parts = []
    for section in grounding_sections(groundings):
        lines = [f"| {' | '.join(section.header)} |", f"|:---|{'---:|' * (len(section.header) - 1)}"]
        lines += [f"| {' | '.join(row)} |" for row in section.rows]
        notes = "\n".join(f"- {note}" for note in section.notes)
        parts += [section.table.caption + ".\n", section.table.to_markdown(), "\n".join(lines) + "\n", notes + "\n"]
    return "\n".join(parts)


def grounding_summary(groundings: Sequence[Grounding]) -> dict[str, Any]:
    """Give the correlations for a JSON file: {"correlations": [...]}, an entry for all that was measured alike."""
    return {
        "correlations": [
            {
                "task": group[0]["task"],
                "dataset": group[0]["dataset"],
                "split": group[0]["split"],
                "performance": task_of(group).metric,
                "measures": [asdict(item) for item in performance_correlations(group)],
            }
            for group in _measured_alike(groundings)
        ]
    }


def performance_correlations(
    groundings: Sequence[Grounding], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Correlation]:
    """Correlate every measure of attention with the task's metric over runs.

    Args:
        groundings: Of runs of one task that were measured alike, each with its `performance`.
        resamples: Of bootstrap and permutations.
        seed: Of both.
    """
    metric = task_of(groundings).metric
    found = []
    for name in _metric_names(groundings):
        runs = [run for run in groundings if name in run["metrics"] and metric in run.get("performance", {})]
        measured = np.array([[run["metrics"][name]["mean"], run["performance"][metric]] for run in runs]).reshape(-1, 2)
        keys = [row_key(run) for run in runs]
        attention, performance = measured.T
        overall = rank_correlation_over_runs(attention, performance, resamples=resamples, seed=seed)
        medians = np.array([_median(side, keys) for side in (attention, performance)])
        between = rank_correlation_over_runs(*medians, resamples=resamples, seed=seed)
        within = rank_correlation_within(attention, performance, keys, resamples=resamples, seed=seed)
        found.append(Correlation(name, len(runs), overall, between, within))
    return found


def _median(values: np.ndarray, functions: Sequence[str]) -> list[float]:
    """One number a function. A median, since a run that hardly learned must not speak for its function."""
    return [float(np.median(values[np.asarray(functions) == name])) for name in sorted(set(functions))]


def rank_correlation_over_runs(
    one: np.ndarray, other: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> RankCorrelation | None:
    """Correlate two numbers of each run [N]; None where there are too few runs, or a side is constant."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    count = len(one)
    if count < FEWEST_RUNS or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    draw = np.random.default_rng(seed)
    value = float(rank_correlation(one[None], other[None])[0])
    rows = draw.integers(count, size=(resamples, count))
    drawn = rank_correlation(one[rows], other[rows])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    shuffled = draw.permuted(np.tile(other, (resamples, 1)), axis=1)
    permuted = rank_correlation(np.broadcast_to(one, shuffled.shape), shuffled)
    # The observed order is one of those that could have been.
    p_value = (np.count_nonzero(np.abs(permuted) >= abs(value) - 1e-12) + 1) / (resamples + 1)
    return RankCorrelation(value, float(low), float(high), float(p_value), count)


def rank_correlation_within(
    one: np.ndarray, other: np.ndarray, functions: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> RankCorrelation | None:
    """Correlate the ranks that the two numbers of each run [N] have within its function (a stratified Spearman).

    Ranks, and not what is left of a function's mean: one run that hardly learned drags the mean down, and all others
    of its function come to stand above the rest on both sides. Functions with one run say nothing of it. Only runs of
    one function are exchanged for the p value; the interval is Fisher's, with as many runs fewer as there are
    functions. None where there are too few runs for that.
    """
    _, place, counts = np.unique(np.asarray(functions), return_inverse=True, return_counts=True)
    kept = np.argsort(place, kind="stable")
    kept = kept[counts[place[kept]] > 1]
    groups = place[kept]
    free = len(groups) - len(set(groups.tolist())) - 2
    if free < 1:
        return None
    first, second = (_ranks_within(np.asarray(side, dtype=np.float64)[kept], groups) for side in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    value = float(first @ second / scale)
    # Rows are sorted by function, so that adding less than one to its number exchanges its own runs alone.
    draws = np.random.default_rng(seed).random((resamples, len(groups)))
    exchanged = second[np.argsort(groups + draws, axis=1)] @ first / scale
    p_value = (np.count_nonzero(np.abs(exchanged) >= abs(value) - 1e-12) + 1) / (resamples + 1)
    middle, half = np.arctanh(np.clip(value, -LARGEST, LARGEST)), 1.96 * np.sqrt(FIELLER / free)
    low, high = np.tanh([middle - half, middle + half])
    return RankCorrelation(value, float(low), float(high), float(p_value), len(groups))


def _ranks_within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank values within their group: from -1 to 1, so that small groups count as much a run, 0 where all are equal."""
    ranks = np.empty(len(values))
    for group in np.unique(groups):
        own = rankdata(values[groups == group])
        ranks[groups == group] = 2 * (own - own.mean()) / max(len(own) - 1, 1)
    return ranks


def _measured_alike(groundings: Sequence[Grounding]) -> list[list[Grounding]]:
    alike: dict[tuple[str, ...], list[Grounding]] = defaultdict(list)
    for grounding in groundings:
        keys = ("task", "dataset", "split", "pictures", "settings")
        alike[tuple(str(grounding[key]) for key in keys)].append(grounding)
    return list(alike.values())


def _section(groundings: Sequence[Grounding]) -> GroundingSection:
    first, task = groundings[0], task_of(groundings)
    names = _metric_names(groundings)
    shown = {name: _SHOWN[name] for name in names}
    columns = tuple(Column(name, how.title, how.group, decimals=how.decimals) for name, how in shown.items())
    by_function: dict[str, list[Grounding]] = defaultdict(list)
    for grounding in groundings:
        by_function[row_key(grounding)].append(grounding)
    keys = ordered(by_function)
    rows = [Row(key, display_name(key), tuple(_cell(by_function[key], name) for name in names)) for key in keys]
    for control, title in _CONTROL_NAMES.items():
        rows.append(Row(control, title, tuple(_control(groundings, name, control) for name in names), control=True))
    settings = first["settings"]
    caption = (
        f"Interpretability on {first['dataset']} ({first['split']}, {first['pictures']:,} pictures): mean ± half the "
        "95 % interval, over seeds (Student's t) where a function has several, else over pictures (bootstrap)"
    )
    table = Table(caption, columns, tuple(rows), mark_best=False)
    correlations = performance_correlations(groundings, seed=int(settings["seed"]))
    over_runs = f"Spearman with {task.metric_name} (95 % interval)"
    header = ("Measure", "Runs", over_runs, "Between functions", "Within functions")
    lines = tuple(
        (
            _full_title(item.metric),
            str(item.runs),
            item.overall.text() if item.overall else "-",
            item.between.text() if item.between else "-",
            item.within.text() if item.within else "-",
        )
        for item in correlations
    )
    found = tuple(_findings(correlations, task.metric_name))
    return GroundingSection(table, header, lines, _notes(groundings, settings), found)


def _findings(correlations: Sequence[Correlation], metric_name: str) -> Iterator[Finding]:
    """Say which measures go with how well models do, over all of them and among those of one function."""
    for where, side in (("Over {runs} models", "overall"), ("Among models of one function", "within")):
        known = [(item.metric, found) for item in correlations if (found := getattr(item, side)) is not None]
        if not known:
            continue
        adjusted = holm([found.p_value for _, found in known])
        shown = [
            f"{_full_title(metric)} {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            for (metric, found), p_value in zip(known, adjusted, strict=True)
            if p_value < 0.05
        ]
        where = where.format(runs=known[0][1].runs)
        measures = f"corrected for {len(known)} measures"
        if shown:
            text = f"{where} {metric_name} goes with these measures of attention (Spearman's correlation): "
            yield Finding("supported", f"{text}{'; '.join(shown)} (95 % intervals one by one, p {measures}).")
        else:
            text = f"{where} no measure of attention has been shown to go with {metric_name} (p {measures})."
            yield Finding("open", text)


def _full_title(metric: str) -> str:
    return f"{_SHOWN[metric].group}: {_SHOWN[metric].title}".removeprefix(": ")


def _notes(groundings: Sequence[Grounding], settings: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        f"Attention counts as much for IoU from {settings['threshold']:.0%} of its largest density. Occluded places "
        f"become {'the mean over all measured places' if settings['occlusion'] == 'mean' else 'zeros'}; curves are in "
        "the unit of the model's score, lower is better for deletion, higher for insertion.",
        "Intervals of correlations draw the runs anew (bootstrap), p values permute them; they are not corrected for "
        "the number of measures. Runs of one function are alike: the overall correlation tells functions apart too. "
        "Between functions, a function is its median. Within functions, runs are ranked among those of their own "
        "function, only these are exchanged, and the interval is Fisher's.",
    ]
    if len(groundings) < FEWEST_RUNS:
        notes.append(
            f"There are {len(groundings)} runs, too few to correlate interpretability with performance: at least "
            f"{FEWEST_RUNS} are needed, and many more to show a moderate correlation."
        )
    return tuple(notes)


def _cell(groundings: Sequence[Grounding], name: str) -> Cell:
    found = [grounding["metrics"][name] for grounding in groundings if name in grounding["metrics"]]
    if not found:
        return None
    scale = _SHOWN[name].scale
    if len(found) > 1:
        return estimate(scale * summary["mean"] for summary in found)
    (summary,) = found
    half = None if summary["low"] is None else scale * (summary["high"] - summary["low"]) / 2
    return Estimate(scale * summary["mean"], None, half, 1)


def _control(groundings: Sequence[Grounding], name: str, control: str) -> Cell:
    values = [grounding["metrics"].get(name, {}).get(control) for grounding in groundings]
    known = [value for value in values if value is not None]
    return _SHOWN[name].scale * float(np.mean(known)) if known else None


def _metric_names(groundings: Sequence[Grounding]) -> list[str]:
    measured = {name for grounding in groundings for name in grounding["metrics"]}
    return [name for name in _SHOWN if name in measured]

"""The paper's tables from a list of runs: Tables 2, 3a and 5, 3b, 4, and each beside the published values."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from ..models.alignment import ALIGNMENT_FUNCTIONS
from ..models.errors import ConfigurationError, ResultsError
from .differences import PairedComparison
from .layout import Cell, Column, Row, Table, display_name, ordered
from .statistics import RELEASED, Result, estimate, seeds_of, values_of
from .tasks import TASKS, Task, task_of

__all__ = [
    "breakdown_table",
    "control_values",
    "dataset_title",
    "paper_tables",
    "published_comparison",
    "published_functions",
    "published_table",
    "released_table",
    "results_table",
    "runs_csv",
]

DATASET_TITLES = {
    **{"flickr30k": "Flickr30k", "coco": "COCO", "clevr": "CLEVR", "textvqa": "TextVQA", "stvqa": "ST-VQA"},
    # COCO has published values of two tasks.
    **{"cub": "CUB", "coco-pictures": "COCO"},
}


def results_table(
    results: Sequence[Result], controls: Sequence[Mapping[str, Any]] = (), confidence: float = 0.95
) -> Table:
    """Lay out runs as the paper's table of their task: Table 2, Tables 3a and 5, 3b or 4.

    Args:
        results: The contents of `results.json` files of one data set.
        controls: {"name": ..., "metrics": {...}} each; those of one name (one a seed) share a row below the results.
        confidence: Of the intervals.

    Raises:
        ResultsError: There are no results, or they cannot be averaged, or a control has no name or no metrics.
    """
    if not results:
        raise ResultsError("there are no finished runs to put into a table")
    task = task_of(results)
    caption = f"{task.title} on {dataset_title(results)}, {_note(task, confidence)}"
    measured = {name for result in results for name in result.get("metrics", {})}
    columns = tuple(column for column in task.columns if column.key in measured)
    return Table(caption, columns, _rows(results, controls, columns, confidence))


def breakdown_table(
    results: Sequence[Result], controls: Sequence[Mapping[str, Any]] = (), confidence: float = 0.95
) -> Table | None:
    """Lay out the task's second table: accuracy by program depth, or by question family.

    Returns:
        None where the task has none, or nothing was measured.
    """
    task = task_of(results)
    if task.breakdown is None:
        return None
    prefix = task.breakdown.prefix
    measured = {name for result in results for name in result.get("metrics", {})}
    if task.breakdown.of_question_types:
        endings = [name for name in (results[0].get("dataset") or {}).get("question_types") or {}]
    else:
        found = (name.removeprefix(prefix) for name in measured if name.startswith(prefix))
        endings = [str(number) for number in sorted(int(ending) for ending in found if ending.isdecimal())]
    columns = tuple(
        Column(f"{prefix}{ending}", ending.replace("_", " ").capitalize(), task.breakdown.title)
        for ending in endings
        if f"{prefix}{ending}" in measured
    )
    if not columns:
        return None
    caption = f"{task.metric_title} by {task.breakdown.by} on {dataset_title(results)}, {_note(task, confidence)}"
    return Table(caption, columns, _rows(results, controls, columns, confidence))


def _rows(
    results: Sequence[Result], controls: Sequence[Mapping[str, Any]], columns: Sequence[Column], confidence: float
) -> tuple[Row, ...]:
    values = {column.key: values_of(results, column.key) for column in columns}
    rows = []
    for name in ordered(seeds_of(results)):
        every = [values[column.key].get(name, {}).values() for column in columns]
        cells = tuple(estimate(cell, confidence) if cell else None for cell in every)
        rows.append(Row(name, display_name(name), cells))
    return (*rows, *_control_rows(controls, columns, confidence))


def _note(task: Task, confidence: float) -> str:
    return f"{task.units}: mean ± half the {confidence:.0%} interval over the seeds."


def published_table(dataset: str = "flickr30k") -> Table:
    """Lay out the published values of a data set: Table 2 without R@5, which it lacks, Tables 3a and 5, 3b or 4.

    Raises:
        ConfigurationError: The paper has no values for the data set.
    """
    published = {name: task for task in TASKS for name in _published(task)["datasets"]}
    if dataset not in published:
        raise ConfigurationError(f"the paper has values for {', '.join(published)}, not for {dataset!r}")
    task = published[dataset]
    values = _published(task)["datasets"][dataset]
    columns = tuple(column for column in TASKS[task].columns if any(column.key in row for row in values.values()))
    rows = tuple(
        Row(name, display_name(name), tuple(row.get(column.key) for column in columns)) for name, row in values.items()
    )
    return Table(f"Published: {_source(task)}, {DATASET_TITLES[dataset]}.", columns, rows)


def published_comparison(
    results: Sequence[Result], datasets: Sequence[str] | None = None, confidence: float = 0.95
) -> Table:
    """Put the runs beside the published values of their task: R@1 of both directions and Rsum, or all accuracies.

    Args:
        results: As in `results_table`.
        datasets: Of the published values; all of the task by default.
        confidence: Of the intervals.
    """
    task = task_of(results)
    name = str(results[0]["task"])
    published = {key: _published(name)["datasets"][key] for key in datasets or _published(name)["datasets"]}
    here = f"This study ({dataset_title(results)})"
    own = {column.key: column for column in task.columns}
    ours = tuple(replace(own[key], title=title, group=here) for key, title in task.compared.items())
    columns = ours + tuple(
        replace(own[key], key=f"{dataset}_{key}", title=title, group=f"{DATASET_TITLES[dataset]}, published")
        for dataset in published
        for key, title in task.compared.items()
    )
    rows = []
    for row in _rows(results, (), ours, confidence):
        function = row.key.removesuffix(RELEASED)
        theirs = [values.get(function, {}).get(key) for values in published.values() for key in task.compared]
        rows.append(replace(row, cells=(*row.cells, *theirs)))
    caption = f"Beside the published values ({_source(name)}; one run each, no intervals). {task.published_note}"
    return Table(caption, columns, tuple(rows))


def paper_tables(results: Sequence[Result], confidence: float = 0.95) -> dict[str, Table]:
    """Lay out runs as the paper's table of their task, the published value beside each measured one.

    Args:
        results: As in `results_table`.
        confidence: Of the intervals.

    Returns:
        {data set: table}: that of the runs where the paper has it, else every one that it has for the task. Columns
        are the paper's; both values of one metric share a group.
    """
    task, name = task_of(results), str(results[0]["task"])
    known = _published(name)["datasets"]
    own = str((results[0].get("dataset") or {}).get("name"))
    tables = {}
    for dataset in [own] if own in known else known:
        published = known[dataset]
        there = [column for column in task.columns if any(column.key in row for row in published.values())]
        columns = tuple(
            replace(column, key=f"{column.key}{ending}", title=title, group=column.full_title)
            for column in there
            for ending, title in (("", dataset_title(results)), ("_published", f"{DATASET_TITLES[dataset]}, published"))
        )
        rows = []
        for row in _rows(results, (), there, confidence):
            theirs = published.get(row.key.removesuffix(RELEASED), {})
            pairs = zip(there, row.cells, strict=True)
            cells = tuple(cell for column, own in pairs for cell in (own, theirs.get(column.key)))
            rows.append(replace(row, cells=cells))
        beside = f"measured beside published ({_source(name)}; one run each, no intervals)"
        caption = f"{task.title} on {dataset_title(results)}, {beside}. {task.published_note}"
        tables[dataset] = Table(caption, columns, tuple(rows))
    return tables


def released_table(
    results: Sequence[Result], comparisons: Sequence[PairedComparison], confidence: float = 0.95
) -> Table | None:
    """Lay out what the layout of the authors' released code changes, beside the gaps of the paper's table.

    Args:
        results: With runs of some functions in both layouts.
        comparisons: Of these; see `paired_comparisons`.
        confidence: Of the intervals.

    Returns:
        None where no function has both layouts.
    """
    task, name = task_of(results), str(results[0]["task"])
    layouts = {item.reference: item for item in comparisons if item.alignment_function == f"{item.reference}{RELEASED}"}
    if not layouts:
        return None
    values, touched = values_of(results, task.metric), task.released_functions or list(layouts)
    published = {key: known for key, known in _published(name)["datasets"].items() if _has(known, task.metric)}
    unit = "" if task.metric == "rsum" else " (%)"
    ours, change = f"{task.metric_title}{unit}", "Released − right"
    columns = [Column("right", "Right layout", ours), Column("released", "Released layout", ours)]
    columns += [Column("gap", "Mean", change), Column("interval", f"{confidence:.0%} interval", change)]
    columns += [Column(key, DATASET_TITLES[key], "Published, from the other rows") for key in published]
    rows = []
    for function in ordered(layouts):
        item = layouts[function]
        cells = [estimate(values[key].values(), confidence) for key in (function, f"{function}{RELEASED}")]
        theirs = [_below_the_others(known, function, touched, task.metric) for known in published.values()]
        rows.append(Row(function, display_name(function), (*cells, item.mean, item.interval_text(confidence), *theirs)))
    caption = (
        f"What the released layout changes on {dataset_title(results)}, paired by seed, beside the gaps of the paper "
        f"({_source(name)}): a function's value less the mean of the rows that the layout does not touch."
    )
    return Table(caption, tuple(columns), tuple(rows), mark_best=False)


def _has(known: Mapping[str, Mapping[str, float]], metric: str) -> bool:
    return any(metric in row for row in known.values())


def _below_the_others(
    known: Mapping[str, Mapping[str, float]], function: str, touched: Sequence[str], metric: str
) -> float | None:
    others = [row[metric] for name, row in known.items() if name not in touched and metric in row]
    own = known.get(function, {}).get(metric)
    return None if own is None or not others else own - sum(others) / len(others)


def runs_csv(results: Sequence[Result]) -> str:
    """Write the raw numbers: one line a run, one column a metric."""
    metrics = list(dict.fromkeys(name for result in results for name in result.get("metrics", {})))
    fields = ("run_id", "alignment_function", "released_layout", "seed")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*fields, *metrics])
    for result in results:
        measured = result.get("metrics", {})
        writer.writerow([*(result.get(field, "") for field in fields), *(measured.get(name, "") for name in metrics)])
    return out.getvalue()


def dataset_title(results: Sequence[Result]) -> str:
    """Name the data set of the runs as readers know it."""
    name = str((results[0].get("dataset") or {}).get("name", "the data set"))
    return DATASET_TITLES.get(name, name)


def control_values(controls: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """Collect the metrics of the controls by name, after checking that each has both."""
    grouped: dict[str, list[Mapping[str, float]]] = {}
    for control in controls:
        if not control.get("name") or not isinstance(control.get("metrics"), Mapping):
            raise ResultsError(f"a control needs a name and metrics, got {sorted(control)}")
        grouped.setdefault(str(control["name"]), []).append(control["metrics"])
    return grouped


def _control_rows(controls: Sequence[Mapping[str, Any]], columns: Sequence[Column], confidence: float) -> list[Row]:
    rows = []
    for name, group in control_values(controls).items():
        cells: list[Cell] = []
        for column in columns:
            values = [metrics[column.key] for metrics in group if metrics.get(column.key) is not None]
            # A control may be exact (chance) or have been run once: a number alone has no interval.
            several = estimate(values, confidence) if len(values) > 1 else None
            cells.append(several or (float(values[0]) if values else None))
        if any(cell is not None for cell in cells):
            rows.append(Row(f"control: {name}", name, tuple(cells), control=True))
    return rows


def published_functions(task: str) -> list[str]:
    """Name the alignment functions that the paper's table of a task has, in the order of `ALIGNMENT_FUNCTIONS`."""
    published = {name for rows in _published(task)["datasets"].values() for name in rows}
    return [name for name in ALIGNMENT_FUNCTIONS if name in published]


@cache
def _published_data() -> dict[str, Any]:
    return json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))


def _published(task: str) -> dict[str, Any]:
    return _published_data()[task]


def _source(task: str) -> str:
    return f"{_published_data()['source']}, {_published(task)['tables']}"

"""The paper's Table 2 from a list of runs: as Markdown, as plain text, as CSV, and beside the published values."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, TypeAlias

from ..models.errors import ConfigurationError, ResultsError
from .statistics import RELEASED, Estimate, Result, estimate, seeds_of, values_of

__all__ = [
    "Column",
    "Row",
    "Table",
    "display_name",
    "ordered",
    "published_comparison",
    "published_table",
    "retrieval_table",
    "runs_csv",
]

# The paper's order and names: † transforms the key, * the query.
PAPER_NAMES = {
    "cosine": "Cosine similarity",
    "dot": "Dot product",
    "scaled_dot": "Scaled dot product",
    "general_query": "General*",
    "general_key": "General†",
    "biased_general_query": "Biased general*",
    "biased_general_key": "Biased general†",
    "activated_general_key": "Activated general†",
    # Not in the paper's tables:
    "activated_general_query": "Activated general*",
    "additive": "Additive",
}
# The released code lays these scores out as [image, word, region] and then reads them as [image, region, word].
SCRAMBLED_WHEN_RELEASED = ("general_key", "biased_general_query", "biased_general_key", "activated_general_key")
DIRECTION_TITLES = {"sentence_retrieval": "Sentence retrieval", "image_retrieval": "Image retrieval"}
DATASET_TITLES = {"flickr30k": "Flickr30k", "coco": "COCO"}

Cell: TypeAlias = Estimate | float | None


@dataclass(frozen=True)
class Column:
    """A column: the metric it holds, its title, and the title that it shares with its neighbours."""

    key: str
    title: str
    group: str = ""

    @property
    def full_title(self) -> str:
        """The title where there is only one line for it."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Row:
    """A row: an `Estimate` has an interval, a number has none by nature, None was not measured."""

    key: str
    name: str
    cells: tuple[Cell, ...]
    control: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of alignment functions, then rows of controls."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    decimals: int = 1
    mark_best: bool = True

    def text_of(self, cell: Cell) -> str:
        """Write one cell; `-` where nothing was measured."""
        if cell is None:
            return "-"
        return cell.text(self.decimals) if isinstance(cell, Estimate) else f"{cell:.{self.decimals}f}"

    def best(self) -> list[frozenset[str]]:
        """Name the keys of the rows with the highest mean, for every column; controls never win.

        Rows that are written alike win together, and a column with fewer than two rows has no winner.
        """
        winners = []
        for column in range(len(self.columns)):
            means = {row.key: _mean(row.cells[column]) for row in self.rows if not row.control}
            rounded = {key: round(mean, self.decimals) for key, mean in means.items() if mean is not None}
            highest = max(rounded.values(), default=None)
            alone = len(rounded) < 2 or not self.mark_best
            winners.append(frozenset(() if alone else (key for key, mean in rounded.items() if mean == highest)))
        return winners

    def to_markdown(self) -> str:
        """Write a Markdown table: the best mean of every column bold, controls in italics."""
        best = self.best()
        lines = [f"| Alignment function | {' | '.join(column.full_title for column in self.columns)} |"]
        lines.append(f"|:---|{'---:|' * len(self.columns)}")
        for row in self.rows:
            cells = [self.text_of(cell) for cell in row.cells]
            cells = [f"**{text}**" if row.key in best[i] else text for i, text in enumerate(cells)]
            name = row.name.replace("*", r"\*")
            lines.append(f"| {f'_{name}_' if row.control else name} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def to_text(self, width: int | None = None) -> str:
        """Write the table for a terminal; one wider than `width` characters is cut between groups of columns."""
        names = max(len(name) for name in ("Alignment function", *(row.name for row in self.rows)))
        widths = [
            max(len(text) for text in (column.title, *(self.text_of(row.cells[i]) for row in self.rows)))
            for i, column in enumerate(self.columns)
        ]
        parts: list[list[int]] = [[]]
        for _, group in groupby(range(len(self.columns)), key=lambda column: self.columns[column].group):
            group_columns = list(group)
            used = names + sum(widths[i] + 2 for i in (*parts[-1], *group_columns))
            if parts[-1] and width is not None and used > width:
                parts.append([])
            parts[-1] += group_columns
        return "\n".join(self._text_part(part, names, widths) for part in parts)

    def _text_part(self, part: Sequence[int], names: int, widths: Sequence[int]) -> str:
        groups = ""
        for position, column in enumerate(part):
            group = self.columns[column].group
            first = position == 0 or self.columns[part[position - 1]].group != group
            # A group's title stands over its first column and may run over the next ones.
            if first and group:
                groups = groups.ljust(names + 2 + sum(widths[i] + 2 for i in part[:position])) + group
        rule = "-" * (names + sum(widths[i] + 2 for i in part))
        header = "Alignment function".ljust(names)
        lines = [groups, header + "".join(f"  {self.columns[i].title:>{widths[i]}}" for i in part), rule]
        before = False
        for row in self.rows:
            if row.control and not before:
                lines.append(rule)
            before = row.control
            lines.append(row.name.ljust(names) + "".join(f"  {self.text_of(row.cells[i]):>{widths[i]}}" for i in part))
        return "\n".join(line.rstrip() for line in lines if line) + "\n"

    def to_csv(self) -> str:
        """Write one line a row: for every column its mean, half its interval and the number of seeds, unrounded."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        suffixes = ("", "_half_interval", "_seeds")
        header = [f"{column.key}{suffix}" for column in self.columns for suffix in suffixes]
        writer.writerow(["row", "name", "control", *header])
        for row in self.rows:
            cells: list[object] = []
            for cell in row.cells:
                spread = (cell.half_interval, cell.count) if isinstance(cell, Estimate) else (None, None)
                cells += ["" if value is None else value for value in (_mean(cell), *spread)]
            writer.writerow([row.key, row.name, int(row.control), *cells])
        return out.getvalue()


def retrieval_table(
    results: Sequence[Result], controls: Sequence[Mapping[str, Any]] = (), confidence: float = 0.95
) -> Table:
    """Lay out runs as the paper's Table 2: sentence retrieval, image retrieval, Rsum.

    Args:
        results: The contents of `results.json` files of one data set.
        controls: {"name": ..., "metrics": {...}} each; those of one name (one a seed) share a row below the results.
        confidence: Of the intervals.

    Raises:
        ResultsError: There are no results, or they cannot be averaged, or a control has no name or no metrics.
    """
    if not results:
        raise ResultsError("there are no finished runs to put into a table")
    columns = tuple(
        Column(f"{direction}_{name}", title, group)
        for direction, group in DIRECTION_TITLES.items()
        for name, title in (("r1", "R@1"), ("r5", "R@5"), ("r10", "R@10"), ("rsum", "Rsum"))
    ) + (Column("rsum", "Rsum"),)
    values = {column.key: values_of(results, column.key) for column in columns}
    rows = []
    for name in ordered(seeds_of(results)):
        every = [values[column.key].get(name, {}).values() for column in columns]
        rows.append(
            Row(name, display_name(name), tuple(estimate(cell, confidence) if cell else None for cell in every))
        )
    caption = (
        f"Retrieval on {dataset_title(results)}, percent: mean ± half the {confidence:.0%} interval over the seeds."
    )
    return Table(caption, columns, (*rows, *_control_rows(controls, columns, confidence)))


def published_table(dataset: str = "flickr30k") -> Table:
    """Lay out the published Table 2 of "flickr30k" or "coco"; it has no R@5."""
    if dataset not in DATASET_TITLES:
        raise ConfigurationError(f"Table 2 was published for {', '.join(DATASET_TITLES)}, not for {dataset!r}")
    columns = tuple(
        Column(f"{direction}_{name.replace('@', '')}", name.capitalize(), group)
        for direction, group in DIRECTION_TITLES.items()
        for name in ("r@1", "r@10", "rsum")
    ) + (Column("rsum", "Rsum"),)
    rows = tuple(
        Row(name, display_name(name), tuple(_published(name, dataset, column.key) for column in columns))
        for name in _published_rows()
    )
    return Table(f"Published: {_published_data()['source']}, {DATASET_TITLES[dataset]}.", columns, rows)


def published_comparison(
    results: Sequence[Result], datasets: Sequence[str] = tuple(DATASET_TITLES), confidence: float = 0.95
) -> Table:
    """Put R@1 of both directions and Rsum of the runs beside the published values."""
    metrics = {"sentence_retrieval_r1": "Sentence R@1", "image_retrieval_r1": "Image R@1", "rsum": "Rsum"}
    ours = retrieval_table(results, confidence=confidence)
    position = {column.key: i for i, column in enumerate(ours.columns)}
    here = f"This study ({dataset_title(results)})"
    columns = [Column(key, title, here) for key, title in metrics.items()]
    columns += [
        Column(f"{dataset}_{key}", title, f"{DATASET_TITLES[dataset]}, published")
        for dataset in datasets
        for key, title in metrics.items()
    ]
    rows = []
    for row in ours.rows:
        function = row.key.removesuffix(RELEASED)
        published = [_published(function, dataset, key) for dataset in datasets for key in metrics]
        rows.append(replace(row, cells=(*(row.cells[position[key]] for key in metrics), *published)))
    caption = (
        f"Beside the published values ({_published_data()['source']}; one run each, no intervals). The published rows "
        f"{', '.join(display_name(name) for name in SCRAMBLED_WHEN_RELEASED)} come from code that reads their scores "
        "along the wrong axes; released_layout=True repeats that."
    )
    return Table(caption, tuple(columns), tuple(rows))


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


def display_name(row: str) -> str:
    """Give the paper's name of a row: `general_key` is General†; a function of the user's keeps its own."""
    function = row.removesuffix(RELEASED)
    return PAPER_NAMES.get(function, function) + row[len(function) :]


def ordered(rows: Iterable[str]) -> list[str]:
    """Sort rows as the paper does, functions it does not have after them, each released layout after its own row."""
    order = {name: position for position, name in enumerate(PAPER_NAMES)}

    def position(row: str) -> tuple[bool, int, str, bool]:
        function = row.removesuffix(RELEASED)
        return row.endswith(RELEASED), order.get(function, len(order)), function, function != row

    return sorted(rows, key=position)


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
        rows.append(Row(f"control: {name}", name, tuple(cells), control=True))
    return rows


@cache
def _published_data() -> dict[str, Any]:
    return json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))


def _published_rows() -> dict[str, Any]:
    return _published_data()["table2"]["rows"]


def _published(function: str, dataset: str, metric: str) -> float | None:
    """Look up a published value by our metric name; `rsum` is the sum of the two directions."""
    row = _published_rows().get(function)
    if row is None:
        return None
    if metric == "rsum":
        return sum(row[direction][dataset]["rsum"] for direction in DIRECTION_TITLES)
    direction = next(name for name in DIRECTION_TITLES if metric.startswith(name))
    name = metric.removeprefix(f"{direction}_")
    return float(row[direction][dataset]["rsum" if name == "rsum" else f"r@{name[1:]}"])


def _mean(cell: Cell) -> float | None:
    return cell.mean if isinstance(cell, Estimate) else cell

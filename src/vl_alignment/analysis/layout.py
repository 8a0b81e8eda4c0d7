"""A table of alignment functions: their names and order, and the table as Markdown, as plain text and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from .statistics import RELEASED, Estimate

__all__ = ["PAPER_NAMES", "Cell", "Column", "Row", "Table", "display_name", "ordered"]

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

Cell: TypeAlias = Estimate | float | str | None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: The metric it holds.
        title: Above it.
        group: The title that it shares with its neighbours.
        lower_is_better: Whether the lowest mean is the best.
        decimals: Of its numbers; None for the table's.
    """

    key: str
    title: str
    group: str = ""
    lower_is_better: bool = False
    decimals: int | None = None

    @property
    def full_title(self) -> str:
        """The title where there is only one line for it."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Row:
    """A row: an `Estimate` has an interval, a number has none by nature, a text stands as it is, None is unknown."""

    key: str
    name: str
    cells: tuple[Cell, ...]
    control: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of alignment functions, then rows of controls; `heading` says what the rows are."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    decimals: int = 1
    mark_best: bool = True
    heading: str = "Alignment function"

    def text_of(self, cell: Cell, column: Column | None = None) -> str:
        """Write one cell, with the decimals of its column; `-` where nothing is known."""
        if cell is None or isinstance(cell, str):
            return cell or "-"
        decimals = self._decimals(column)
        return cell.text(decimals) if isinstance(cell, Estimate) else f"{cell:.{decimals}f}"

    def texts(self, row: Row) -> list[str]:
        """Write the cells of a row."""
        return [self.text_of(cell, column) for cell, column in zip(row.cells, self.columns, strict=True)]

    def _decimals(self, column: Column | None) -> int:
        return self.decimals if column is None or column.decimals is None else column.decimals

    def best(self) -> list[frozenset[str]]:
        """Name the keys of the rows with the best mean, for every column; controls never win.

        Rows that are written alike win together, and a column with fewer than two rows has no winner.
        """
        winners = []
        for number, column in enumerate(self.columns):
            means = {row.key: _mean(row.cells[number]) for row in self.rows if not row.control}
            rounded = {key: round(mean, self._decimals(column)) for key, mean in means.items() if mean is not None}
            best = (min if column.lower_is_better else max)(rounded.values(), default=None)
            alone = len(rounded) < 2 or not self.mark_best
            winners.append(frozenset(() if alone else (key for key, mean in rounded.items() if mean == best)))
        return winners

    def heat(self) -> list[dict[str, float]]:
        """Place the rows of every column between its worst mean, 0, and its best, 1, as {row key: place}; no controls.

        A column of one value, and one whose rows are not to be compared, has no places.
        """
        places: list[dict[str, float]] = []
        for number, column in enumerate(self.columns):
            found = {row.key: _mean(row.cells[number]) for row in self.rows if not row.control and self.mark_best}
            means = {key: -mean if column.lower_is_better else mean for key, mean in found.items() if mean is not None}
            low, high = min(means.values(), default=0.0), max(means.values(), default=0.0)
            places.append({key: (mean - low) / (high - low) for key, mean in means.items()} if low < high else {})
        return places

    def to_markdown(self) -> str:
        """Write a Markdown table: the best mean of every column bold, controls in italics."""
        best = self.best()
        lines = [f"| {self.heading} | {' | '.join(column.full_title for column in self.columns)} |"]
        lines.append(f"|:---|{'---:|' * len(self.columns)}")
        for row in self.rows:
            cells = self.texts(row)
            cells = [f"**{text}**" if row.key in best[i] else text for i, text in enumerate(cells)]
            name = row.name.replace("*", r"\*")
            lines.append(f"| {f'_{name}_' if row.control else name} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def to_text(self, width: int | None = None) -> str:
        """Write the table for a terminal; one wider than `width` characters is cut between groups of columns."""
        names = max(len(name) for name in (self.heading, *(row.name for row in self.rows)))
        widths = [
            max(len(text) for text in (column.title, *(self.texts(row)[i] for row in self.rows)))
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
        header = self.heading.ljust(names)
        lines = [groups, header + "".join(f"  {self.columns[i].title:>{widths[i]}}" for i in part), rule]
        before = False
        for row in self.rows:
            if row.control and not before:
                lines.append(rule)
            before = row.control
            texts = self.texts(row)
            lines.append(row.name.ljust(names) + "".join(f"  {texts[i]:>{widths[i]}}" for i in part))
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
                first = cell if isinstance(cell, str) else _mean(cell)
                cells += ["" if value is None else value for value in (first, *spread)]
            writer.writerow([row.key, row.name, int(row.control), *cells])
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


def _mean(cell: Cell) -> float | None:
    return cell.mean if isinstance(cell, Estimate) else None if isinstance(cell, str) else cell

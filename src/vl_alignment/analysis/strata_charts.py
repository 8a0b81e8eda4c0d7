"""Charts of recalls by group of test items, one a direction, for a page or as files: the paper's Figures 1 and 2."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from .charts import LINE, STYLE, chart_figure, dashes, inline_svg, series_name, stand_in
from .layout import display_name
from .statistics import RELEASED, Estimate
from .strata import DIRECTION_TITLES, QUERIES, RECALL_LEVEL, StrataRecalls, Stratum

__all__ = ["strata_charts"]


def strata_charts(measured: StrataRecalls) -> dict[str, str]:
    """Draw what each function reaches in each group, with intervals over pictures, as {direction: inline SVG}.

    Groups that are numbers are joined by a line; others stand below each other.
    """
    draw = _number_chart if measured.strata.ordinal else _group_chart
    return {
        direction: draw(measured, direction, groups)
        for direction, groups in measured.strata.groups.items()
        if measured.recalls[direction]
    }


def _group_chart(measured: StrataRecalls, direction: str, groups: Sequence[Stratum]) -> str:
    rows = measured.rows
    with matplotlib.rc_context(STYLE):
        figure = chart_figure(0.7 + len(groups) * (0.14 + 0.075 * len(rows)) + _legend_height(rows))
        axes = figure.add_subplot()
        axes.grid(axis="y", visible=False)
        for place, row in enumerate(rows):
            y = np.arange(len(groups)) + (place - (len(rows) - 1) / 2) * 0.8 / len(rows)
            cells = measured.recalls[direction][row]
            axes.errorbar([cell.mean for cell in cells], y, xerr=_halves(cells), **_marks(row, rows))
        for border in range(1, len(groups)):
            axes.axhline(border - 0.5, color=LINE, linewidth=0.6)
        axes.set_yticks(range(len(groups)), [group.name for group in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel(f"R@{RECALL_LEVEL}, percent: bars are 95 % intervals over test pictures")
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
        return _finished(figure, axes, measured, direction)


def _number_chart(measured: StrataRecalls, direction: str, groups: Sequence[Stratum]) -> str:
    rows = measured.rows
    with matplotlib.rc_context(STYLE):
        figure = chart_figure(3.0 + _legend_height(rows))
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            x = np.arange(len(groups)) + (place - (len(rows) - 1) / 2) * 0.5 / len(rows)
            cells = measured.recalls[direction][row]
            style = _marks(row, rows) | {"linestyle": dashes(row), "linewidth": 1.2}
            axes.errorbar(x, [cell.mean for cell in cells], yerr=_halves(cells), **style)
        axes.set_xticks(range(len(groups)), [f"{group.name}\n{len(group.queries):,}" for group in groups])
        axes.set_xlabel(f"{measured.strata.title}; below it how many {QUERIES[direction]}")
        axes.set_ylabel(f"R@{RECALL_LEVEL}, percent")
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        return _finished(figure, axes, measured, direction)


def _finished(figure: Any, axes: Any, measured: StrataRecalls, direction: str) -> str:
    title = f"{DIRECTION_TITLES[direction]} by {measured.strata.title}"
    axes.set_title(title, loc="left", fontsize=11)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, handlelength=2.6)
    label = f"{title} for {len(measured.rows)} alignment functions; the numbers are in the table."
    return inline_svg(figure, f"strata-{measured.strata.key}-{direction}", label)


def _marks(row: str, rows: Sequence[str]) -> dict[str, Any]:
    return {
        "color": stand_in(series_name(row, rows)),
        "marker": "D" if row.endswith(RELEASED) else "o",
        "markersize": 4,
        "markeredgewidth": 0,
        "linestyle": "",
        "elinewidth": 1,
        "label": display_name(row),
    }


def _halves(cells: Sequence[Estimate]) -> list[float]:
    return [cell.half_interval or 0.0 for cell in cells]


def _legend_height(rows: Sequence[str]) -> float:
    return 0.22 * ((len(rows) + 1) // 2)

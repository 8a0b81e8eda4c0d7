"""The report's plots as SVG to stand inside a page: they take their colours and their font from it."""

import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .layout import PAPER_NAMES, display_name, ordered
from .statistics import RELEASED, Result, estimate, row_key, values_of
from .tasks import Task, task_of

__all__ = [
    "LINE",
    "SERIES",
    "STYLE",
    "chart_figure",
    "curve_charts",
    "dashes",
    "inline_svg",
    "prefixed_svg",
    "interval_chart",
    "series_name",
    "stand_in",
    "standalone_svg",
]

# Matplotlib writes colours as hexadecimal numbers. These stand in for the page's own, which differ by theme.
TEXT, LINE = "#010101", "#020202"
# One CSS variable a function, `--series-dot`; functions of the user's share the last three.
SERIES = (*PAPER_NAMES, "other-1", "other-2", "other-3")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vl-alignment",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "legend.frameon": False,
}
# An interval from two seeds can be wider than all results together; beyond this many times their range it is cut.
WIDEST = 1.5
Point = tuple[float, float]


def series_name(row: str, rows: Sequence[str]) -> str:
    """Choose the colour of a row: a function of the user's takes the next of three."""
    function = row.removesuffix(RELEASED)
    if function in PAPER_NAMES:
        return function
    others = ordered({name.removesuffix(RELEASED) for name in rows} - set(PAPER_NAMES))
    return f"other-{others.index(function) % 3 + 1}"


def interval_chart(results: Sequence[Result]) -> str:
    """Draw the task's metric of every function: a dot a seed, their mean and interval; an arrow where that is cut."""
    task = task_of(results)
    title = task.metric_title
    values = values_of(results, task.metric)
    rows = ordered(values)
    every = [value for seeds in values.values() for value in seeds.values()]
    spread = max(max(every) - min(every), 0.02 * abs(max(every)), 0.5)
    low, high = min(every) - WIDEST * spread, max(every) + WIDEST * spread
    with matplotlib.rc_context(STYLE):
        figure = chart_figure(0.55 + 0.3 * len(rows))
        axes = figure.add_subplot()
        axes.grid(axis="y", visible=False)
        for place, row in enumerate(rows):
            numbers = list(values[row].values())
            colour = stand_in(series_name(row, rows))
            result = estimate(numbers)
            if result.low is not None and result.high is not None:
                ends = max(result.low, low), min(result.high, high)
                axes.plot(ends, (place, place), color=colour, linewidth=2, solid_capstyle="butt")
                for end, whole, mark in ((ends[0], result.low, "<"), (ends[1], result.high, ">")):
                    axes.plot(end, place, marker="|" if end == whole else mark, color=colour, markersize=6)
            axes.plot(numbers, [place] * len(numbers), "o", color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
            axes.plot(result.mean, place, "o", color=colour, markersize=8, markeredgewidth=0)
        axes.set_yticks(range(len(rows)), [display_name(row) for row in rows])
        axes.tick_params(length=0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f"{title}: small dots are seeds, bars the 95 % interval")
        label = f"{title} of {len(rows)} alignment functions with intervals; the numbers are in the table."
        return inline_svg(figure, f"intervals-{task.metric}", label)


def curve_charts(curves: Mapping[str, Sequence[Mapping[str, Any]]], results: Sequence[Result]) -> dict[str, str]:
    """Draw the learning curves as {name: svg}, those of the task's metric and of losses.

    A thin line is a run, a thick one a function's mean.

    Args:
        curves: {run_id: records}; a record holds `step` or `epoch` or both, and values, which may be nested.
        results: Runs that say which function a run_id is; curves of other runs are left out.
    """
    task = task_of(results)
    endings = (task.metric, "loss")  # of the names that are worth a chart
    rows = {str(result.get("run_id")): row_key(result) for result in results}
    lines: dict[str, dict[str, list[list[Point]]]] = {}
    units: dict[str, str] = {}
    for run, records in curves.items():
        if run not in rows:
            continue
        for name, (unit, points) in _curves_of(records, task, endings).items():
            units[name] = unit
            lines.setdefault(name, {}).setdefault(rows[run], []).append(points)
    names = sorted(lines, key=lambda name: next(i for i, ending in enumerate(endings) if name.endswith(ending)))
    return {name: _curve_chart(name, units[name], lines[name], task) for name in names}


def _curves_of(
    records: Sequence[Mapping[str, Any]], task: Task, endings: tuple[str, ...]
) -> dict[str, tuple[str, list[Point]]]:
    """Collect {name: (what x counts, points)} of one run; x is the epoch where each has one value, else the step."""
    parts = tuple(column.key for column in task.columns if column.key != task.metric)
    kept: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        flat = {key: value for key, value in record.items() if not isinstance(value, Mapping)}
        for outer, inner in record.items():
            if isinstance(inner, Mapping):
                flat |= {f"{outer}_{key}": value for key, value in inner.items()}
        for name, value in flat.items():
            if name.endswith(endings) and not name.endswith(parts) and isinstance(value, int | float):
                kept.setdefault(name, []).append(flat)
    found = {}
    for name, rows in kept.items():
        epochs = [row.get("epoch") for row in rows]
        unit = "epoch" if None not in epochs and len(set(epochs)) == len(epochs) else "step"
        points = [(float(row[unit]), float(row[name])) for row in rows if row.get(unit) is not None]
        if points:
            found[name] = (unit, sorted(points))
    return found


def _curve_chart(name: str, unit: str, by_row: Mapping[str, list[list[Point]]], task: Task) -> str:
    rows = ordered(by_row)
    title = name.replace("_", " ").replace(task.metric, task.metric_name)
    with matplotlib.rc_context(STYLE):
        figure = chart_figure(2.9 + 0.22 * ((len(rows) + 1) // 2))
        axes = figure.add_subplot()
        for row in rows:
            style: dict[str, Any] = {"color": stand_in(series_name(row, rows)), "linestyle": dashes(row)}
            for points in by_row[row]:
                axes.plot(*zip(*points, strict=True), linewidth=0.8, alpha=0.35, **style)
            x, mean = _mean_curve(by_row[row])
            axes.plot(
                x,
                mean,
                linewidth=2 if len(x) < 60 else 1.2,
                marker="o" if len(x) == 1 else "",
                label=display_name(row),
                **style,
            )
        axes.set_xlabel(unit)
        axes.set_title(title[0].upper() + title[1:], loc="left", fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(length=0)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9, handlelength=2.6)
        return inline_svg(figure, f"curve-{name}", f"{title} by {unit} for {len(rows)} alignment functions.")


def _mean_curve(runs: Sequence[Sequence[Point]]) -> tuple[list[float], list[float]]:
    """Average over the runs where all of them have a point."""
    by_run = [dict(points) for points in runs]
    shared = sorted(set(by_run[0]).intersection(*by_run[1:]))
    return shared, [float(np.mean([points[x] for points in by_run])) for x in shared]


def dashes(row: str) -> str:
    """Tell the forms of one function apart without colour: key solid, query dashed, released dotted."""
    return ":" if row.endswith(RELEASED) else "--" if row.endswith("_query") else "-"


def chart_figure(height: float) -> Figure:
    """Make a figure as wide as a phone at its natural size, so that its text is never scaled down much."""
    figure = Figure(figsize=(5.4, height), layout="constrained")
    figure.patch.set_alpha(0)
    FigureCanvasSVG(figure)
    return figure


def stand_in(series: str) -> str:
    """Return the colour to draw in that `inline_svg` replaces by the page's colour of a `series_name`."""
    return f"#03{SERIES.index(series):02x}03"


def inline_svg(figure: Figure, identity: str, label: str) -> str:
    """Turn `figure` into an inline SVG element with identifiers of its own and the page's colours."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A style element would hold for the whole page.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    # Several figures share a page: matplotlib names their parts alike.
    text = prefixed_svg(text, f"{identity}-")
    text = text.replace(TEXT, "currentColor").replace(LINE, "var(--line)")
    for series in SERIES:
        text = text.replace(stand_in(series), f"var(--series-{series})")
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label={quoteattr(label)} ', 1)


def prefixed_svg(svg: str, prefix: str) -> str:
    """Return an SVG element whose identifiers, and what refers to them, begin with `prefix`."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return svg.replace('xlink:href="#', f'xlink:href="#{prefix}').replace("url(#", f"url(#{prefix}")


def standalone_svg(svg: str) -> str:
    """Turn an inline SVG into a file that any program shows: with the page's light colours on white."""
    page = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", page[: page.index("@media")]))
    text = re.sub(r"var\((--[\w-]+)\)", lambda match: colours[match.group(1)], svg)
    text = text.replace("currentColor", colours["--text"])
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f"{re.sub(r'(<svg [^>]*>)', lambda match: match.group() + ground, text, count=1)}\n"

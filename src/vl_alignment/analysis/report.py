"""One HTML file that holds a whole comparison: findings, tables, plots, attention on pictures, methods, raw numbers.

It asks for nothing outside itself, so that it can be mailed, committed, and read years later.
"""

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..models.errors import ResultsError
from .charts import curve_charts, interval_chart, prefixed_svg, series_name
from .differences import default_reference, difference_table, paired_comparisons
from .findings import findings
from .function_classes import FunctionClass
from .grounding_report import grounding_sections
from .layout import Column, Table, display_name, ordered
from .outcomes import ItemOutcomes
from .ranking import rank_blocks, rank_functions, rank_table
from .statistics import Result, row_key, seeds_of
from .strata import StrataRecalls
from .strata_charts import strata_charts
from .tables import breakdown_table, dataset_title, published_comparison, released_table, results_table, runs_csv
from .tasks import task_of

__all__ = ["render_sections", "render_study", "render_tables", "report_content", "write_page", "write_report"]

Picture = tuple[str, Mapping[str, bytes]]

# Where the words in pictures come from. What a model is given that no reader could see is an oracle's.
_TEXT_SOURCES = {
    "true": "the true ones at their true places (an oracle's)",
    "corrupted": "the true ones at their true places (an oracle's), {character_error_rate:.0%} of letters changed",
    "read": "read by {reader}",
    "published": "as published with the data set",
}


def write_report(
    output: Path | str,
    results: Sequence[Result],
    *,
    title: str = "Comparison of alignment functions",
    controls: Sequence[Mapping[str, Any]] = (),
    pictures: Sequence[Picture] = (),
    grounding: Sequence[Mapping[str, Any]] = (),
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    notes: Sequence[str] | str = (),
    methods: Mapping[str, object] | None = None,
    reference: str | None = None,
    outcomes: Mapping[str, ItemOutcomes] | None = None,
    classes: Sequence[FunctionClass] | None = None,
    strata: Sequence[StrataRecalls] = (),
) -> Path:
    """Write the report of `results` and return its path.

    Args:
        output: The file, or a folder to put `report.html` into.
        results: The contents of `results.json` files of one data set.
        title: The heading of the page.
        controls: {"name": ..., "metrics": {...}} each, and perhaps "description"; printed below the results.
        pictures: (caption, {alignment function: PNG}) for each test image; a reader switches between the functions.
        grounding: The contents of the runs' `grounding.json` files: where models look, in numbers.
        curves: {run_id: records}, the learning curves (`history.jsonl`); a record has `step` or `epoch`.
        notes: Sentences that a reader should know.
        methods: Further lines of the methods (settings, machine); a mapping becomes a list.
        reference: The function that the others are compared with, `dot` by default.
        outcomes: Of `load_outcomes`, for comparisons over test items.
        classes: Of functions under the runs' configuration, which can only differ by chance; the paper's by default.
        strata: Of `measure_strata`, what retrieval reaches by group of test items.

    Raises:
        ResultsError: There are no results, they cannot be compared, or the file cannot be written.
    """
    content = report_content(
        results,
        controls=controls,
        pictures=pictures,
        grounding=grounding,
        curves=curves,
        notes=notes,
        methods=methods,
        reference=reference,
        outcomes=outcomes,
        classes=classes,
        strata=strata,
    )
    return write_page(output, title, content["subtitle"], render_sections(content))


def report_content(
    results: Sequence[Result],
    *,
    controls: Sequence[Mapping[str, Any]] = (),
    pictures: Sequence[Picture] = (),
    grounding: Sequence[Mapping[str, Any]] = (),
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    notes: Sequence[str] | str = (),
    methods: Mapping[str, object] | None = None,
    reference: str | None = None,
    outcomes: Mapping[str, ItemOutcomes] | None = None,
    classes: Sequence[FunctionClass] | None = None,
    strata: Sequence[StrataRecalls] = (),
) -> dict[str, Any]:
    """Return what `render_sections` writes about one data set; arguments and errors as of `write_report`.

    Returns:
        `findings` and `subtitle` among other things.
    """
    task = task_of(results)
    table = results_table(results, controls)
    comparisons = paired_comparisons(results, reference, outcomes, classes=classes)
    ranking = rank_functions(rank_blocks(results))
    rows = [row.key for row in table.rows if not row.control]
    switch = ordered({name for _, drawn in pictures for name in drawn})
    looks = grounding_sections(grounding)
    found = findings(results, controls, reference=reference, comparisons=comparisons, classes=classes)
    return {
        "task": task,
        "subtitle": _subtitle(results),
        "findings": [*found, *(finding for section in looks for finding in section.findings)],
        "reference": display_name(reference or default_reference(results)),
        "table": table,
        "breakdown": breakdown_table(results, controls),
        "differences": difference_table(comparisons, task) if comparisons else None,
        "layouts": released_table(results, comparisons),
        "ranks": None if ranking is None else rank_table(ranking, task),
        "strata": [(found.table(), [Markup(svg) for svg in strata_charts(found).values()]) for found in strata],
        "published": published_comparison(results),
        "descriptions": {str(c["name"]): str(c["description"]) for c in controls if c.get("description")},
        "interval_chart": Markup(interval_chart(results)),
        "curve_charts": [Markup(svg) for svg in curve_charts(curves or {}, results).values()],
        "pictures": [
            (caption, {name: _data_uri("image/webp", _webp(drawn[name])) for name in switch if name in drawn})
            for caption, drawn in pictures
        ],
        "switch": switch,
        "grounding": looks,
        "series": {row: series_name(row, rows) for row in rows},
        "notes": [notes] if isinstance(notes, str) else list(notes),
        "methods": _methods(results, methods or {}),
        "downloads": _downloads(results, table),
    }


def render_sections(content: Mapping[str, Any], *, prefix: str = "", level: int = 2) -> str:
    """Render a `report_content` for a page.

    Args:
        content: About one data set.
        prefix: Of the sections' anchors, where a page has several data sets.
        level: Of their headings.
    """
    template = _environment().get_template("report_sections.html.jinja")
    sections = template.render(content, prefix=prefix, level=level)
    # Charts are drawn before anybody knows what other data set shares the page.
    return re.sub(r"<svg\b.*?</svg>", lambda chart: prefixed_svg(chart.group(), prefix), sections, flags=re.DOTALL)


def render_study(parts: Sequence[Mapping[str, Any]]) -> str:
    """Render the contents of a page about several data sets.

    Args:
        parts: `name`, `title`, `subtitle`, `findings` and rendered `sections` each.
    """
    return _environment().get_template("study_sections.html.jinja").render(parts=parts)


def render_tables(tables: Mapping[str, Table]) -> str:
    """Render tables for a page of their own; the names are their anchors."""
    return _environment().get_template("table_page.html.jinja").render(tables=tables)


def write_page(output: Path | str, title: str, subtitle: Sequence[str], sections: str) -> Path:
    """Write a page that asks for nothing outside itself, and return its path.

    Args:
        output: The file, or a folder to put `report.html` into.
        title: Its heading.
        subtitle: Parts of the line below.
        sections: HTML of `render_sections` or `render_study`.

    Raises:
        ResultsError: It cannot be written.
    """
    path = Path(output)
    path = path if path.suffix.lower() in (".html", ".htm") else path / "report.html"
    template = _environment().get_template("report.html.jinja")
    switched = 'class="drawn"' in sections  # there are pictures to switch between
    page = template.render(title=title, subtitle=subtitle, sections=Markup(sections), switched=switched)
    writing = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writing.write_text(page, encoding="utf-8")
        os.replace(writing, path)
    except OSError as error:
        raise ResultsError(
            f"the report cannot be written ({error.strerror}); choose another folder", path=path
        ) from error
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vl_alignment.analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["display_name"] = display_name
    environment.filters["groupby_in_order"] = _column_groups
    environment.filters["group_starts"] = _group_starts
    return environment


def _column_groups(columns: Sequence[Column]) -> list[list[Column]]:
    return [list(group) for _, group in groupby(columns, key=lambda column: column.group)]


def _group_starts(columns: Sequence[Column]) -> set[int]:
    return {i for i, column in enumerate(columns) if i == 0 or column.group != columns[i - 1].group}


def _subtitle(results: Sequence[Result]) -> list[str]:
    models = ", ".join(sorted({str(result.get("model", "")).upper() for result in results} - {""}))
    finished = max((str(result.get("finished") or "") for result in results), default="")[:10]
    parts = [
        models,
        f"on {dataset_title(results)}",
        f"{len(results)} run{'s' * (len(results) != 1)}",
        finished and f"finished {finished}",
    ]
    return [part for part in parts if part]


def _methods(results: Sequence[Result], further: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """List what somebody needs to judge the numbers or to get them again, as (term, lines)."""
    task = task_of(results)
    dataset = results[0].get("dataset") or {}
    splits = [name for name in ("train", "validation", "test") if isinstance(dataset.get(name), int)]
    sizes = ", ".join(f"{dataset[name]:,} {name}" for name in splits)
    digest = dataset.get("content_hash")
    training = [result.get("training") or {} for result in results]
    lines: dict[str, list[str]] = {
        "Data set": [
            f"{dataset.get('name', 'unknown')}{f': {sizes} {task.items}' if sizes else ''}",
            *([f"content hash {digest}"] if digest else []),
            *_mix_lines(dataset.get("question_types") or {}),
            *_text_lines(dataset.get("ocr") or {}),
        ],
        "Model": _distinct(result.get("model") for result in results),
        "Seeds": _seed_lines(results),
        "Training": [
            f"{name}: {', '.join(values)}"
            for name in ("epochs", "steps", "device", "precision")
            if (values := _distinct(run.get(name) for run in training))
        ],
        "Time": _time_lines([float(run["seconds"]) for run in training if run.get("seconds") is not None]),
        "Measured with": _lines(results[0].get("evaluation") or {}),
        "Intervals": [
            "Student's t at 95 % over the seeds of a row, which does not cover the choice of the test set. Differences "
            "are paired by seed, and by test item where predictions are at hand: then their intervals are over seeds "
            "and test pictures, two crossed sources of chance. The findings hold together at 95 % (Holm)."
        ],
        **{term: [line] for term, line in task.methods.items()},
    }
    lines |= {term: _lines(value) for term, value in further.items()}
    versions = {f"{name} {version}" for result in results for name, version in (result.get("versions") or {}).items()}
    lines |= {
        "Versions": sorted(versions),
        "Commit": _distinct(result.get("commit") for result in results),
        "Command": _distinct(result.get("command") for result in results),
    }
    return [(term, values) for term, values in lines.items() if values]


def _mix_lines(counts: Mapping[str, int]) -> list[str]:
    """Write how many per cent of the test questions are of each type that has a name."""
    shares = [
        f"{100 * number / sum(counts.values()):.0f} % {name.replace('_', ' ')}"
        for name, number in counts.items()
        if name
    ]
    return [f"test questions by type: {', '.join(shares)}"] if shares else []


def _text_lines(ocr: Mapping[str, Any]) -> list[str]:
    """Write where the words in the pictures come from."""
    source = ocr.get("source")
    return [f"words in the pictures: {_TEXT_SOURCES[source].format(**ocr)}"] if source in _TEXT_SOURCES else []


def _seed_lines(results: Sequence[Result]) -> list[str]:
    """List the seeds with the rows that have them; those of most rows need no names."""
    rows: dict[tuple[int, ...], list[str]] = {}
    for name, seeds in seeds_of(results).items():
        rows.setdefault(seeds, []).append(display_name(name))
    common, *others = sorted(rows, key=lambda seeds: -len(rows[seeds]))
    lines = [f"{', '.join(map(str, common))} for every function" + (" not named here" if others else "")]
    return lines + [f"{', '.join(map(str, seeds))} for {', '.join(rows[seeds])}" for seeds in others]


def _time_lines(seconds: Sequence[float]) -> list[str]:
    if not seconds:
        return []
    shortest, longest = (f"{end(seconds):.0f}" for end in (min, max))
    each = longest if shortest == longest else f"{shortest} to {longest}"
    return [f"{each} seconds of training a run, {sum(seconds) / 60:.1f} minutes in all"]


def _lines(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}: {entry}" for name, entry in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(entry) for entry in value]
    return [str(value)]


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value is not None and value != ""))


def _downloads(results: Sequence[Result], table: Table) -> list[tuple[str, str, str]]:
    """Give (file name, what it is, data URI) of the raw numbers."""
    records = "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in sorted(results, key=row_key))
    return [
        ("runs.csv", "every run, one line each", _data_uri("text/csv", runs_csv(results).encode())),
        ("table.csv", "the table above with its intervals", _data_uri("text/csv", table.to_csv().encode())),
        ("results.jsonl", "every run with its settings", _data_uri("application/x-ndjson", records.encode())),
    ]


def _webp(picture: bytes) -> bytes:
    """A picture as WebP: a sixth of a PNG, where a page holds dozens of them."""
    encoded = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(encoded, "WEBP", quality=85, method=6)
    return encoded.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"

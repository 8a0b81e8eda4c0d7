"""The main job: train and compare alignment functions on one data set, from the data to the report."""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..models.alignment import alignment_specification
from ..models.errors import ConfigurationError, ResultsError
from ..training.folder_lock import only_program
from ..training.runs import RunDirectory, load_results, read_json_file, rebuild_results, write_file, write_json
from ..training.studies import Study
from .attention_pictures import attention_pictures, sample_pictures
from .best_against_worst import write_best_against_worst
from .controls import question_controls, retrieval_controls, text_question_controls, text_to_image_controls
from .differences import difference_table, paired_comparisons
from .failures import clear_failure, failure_findings, read_failure, record_failure, run_key
from .function_classes import FunctionClass, function_classes
from .grounding_report import load_groundings
from .layout import Table
from .outcomes import ItemOutcomes
from .ranking import rank_blocks, rank_functions, rank_table
from .report import Picture, render_sections, report_content, write_page
from .resampling import load_outcomes
from .run_examples import write_run_examples
from .strata_report import measure_strata, write_strata
from .table_files import write_table_files
from .tables import (
    breakdown_table,
    paper_tables,
    published_functions,
    released_table,
    results_table,
    runs_csv,
)
from .tasks import task_of

__all__ = [
    "compare",
    "failed_runs",
    "make_controls",
    "planned_runs",
    "read_controls",
    "run_classes",
    "write_comparison",
]

CONTROLS_FILE = "controls.json"


SAMPLES_TITLE = "Samples: a row a test caption, a column the same noise"
_CONTROLS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "retrieval": retrieval_controls,
    "question-answering": question_controls,
    "text-question-answering": text_question_controls,
    "text-to-image": text_to_image_controls,
}


def planned_runs(
    functions: Sequence[str] | None, seeds: Sequence[int], task: str = "retrieval"
) -> list[tuple[int, str]]:
    """The cells of a comparison, seed by seed, so that an interrupted one holds whole seeds.

    Args:
        functions: Names of the table; those of the paper's table for the task where None.
        seeds: One run of every function each.
        task: Of the study.

    Raises:
        ConfigurationError: A function is unknown, or a function or seed is named twice, or none is.
    """
    names = published_functions(task) if functions is None else list(functions)
    for name in names:
        alignment_specification(name)
    if not names or not seeds or len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise ConfigurationError("name every function and every seed once, and at least one of each")
    return [(seed, name) for seed in seeds for name in names]


def compare(
    study: Study,
    output: str | Path,
    runs: Sequence[tuple[int, str]],
    *,
    controls: bool = True,
    released_layout: bool = False,
    command: str | None = None,
    announce: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train every run, keep `results.jsonl` up to date after each, and make the controls.

    Finished runs are kept and an interrupted one goes on where it was: call it again with the same arguments. One that
    fails is recorded below `failures` and does not stop the rest. It is the short form of `run_study`: one data set,
    one run after another, all in this process.

    Args:
        study: What the runs share.
        output: Folder of the runs.
        runs: (seed, alignment function) each; see `planned_runs`.
        controls: Whether to make the controls too.
        released_layout: Whether the models compute as the authors' released code does.
        command: What is recorded as the command; what was typed, where None.
        announce: Called with a line as each run starts and ends.

    Returns:
        The results of the runs that went well, in their order.

    Raises:
        ConfigurationError: Another program works in the folder.
        Exception: Of the first run, when none went well.
    """
    output = Path(output)
    with only_program(output):
        results = _trained(study, output, runs, released_layout, command, announce)
        if controls:
            announce("controls")
            make_controls(study, output, results[0])
    return results


def _trained(
    study: Study,
    output: Path,
    runs: Sequence[tuple[int, str]],
    released_layout: bool,
    command: str | None,
    announce: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train every run; return the results of those that went well."""
    results, errors = [], []
    for number, (seed, name) in enumerate(runs, start=1):
        announce(f"[{number}/{len(runs)}] {name}, seed {seed}")
        key = run_key(name, seed, released_layout)
        try:
            result = study.run_cell(output, name, seed, released_layout=released_layout, command=command)
        except Exception as error:
            errors.append(error)
            record_failure(output, key, error)
            announce(f"[{number}/{len(runs)}] {name}, seed {seed}: FAILED, {read_failure(output, key)}")
            continue
        clear_failure(output, key)
        results.append(result)
        rebuild_results(output)
        task, seconds = task_of([result]), result["training"]["seconds"]
        value = f"{task.metric_title} {result['metrics'][task.metric]:.1f}"
        announce(f"[{number}/{len(runs)}] {name}, seed {seed}: {value} after {seconds:.0f} s")
    if not results:
        raise errors[0]
    return results


def failed_runs(output: Path, runs: Sequence[tuple[int, str]], released_layout: bool = False) -> dict[str, str]:
    """{run: what went wrong} of those (seed, alignment function) that are recorded as failed."""
    found = {f"{name}, seed {seed}": read_failure(output, run_key(name, seed, released_layout)) for seed, name in runs}
    return {title: failure for title, failure in found.items() if failure is not None}


def make_controls(study: Study, output: str | Path, first: Mapping[str, Any]) -> None:
    """Write `controls.json`: what a model reaches that cannot know, and one that knows everything.

    Args:
        study: What the runs share.
        output: Folder of the runs; controls that are trained go into its sub-folder `controls`.
        first: Results of the run whose function and seed those repeat.
    """
    write_json(Path(output) / CONTROLS_FILE, _CONTROLS[study.task](study, Path(output), first))


def write_comparison(
    output: str | Path,
    study: Study | None = None,
    *,
    pictures: int = 4,
    section: str | None = None,
    noun_tagger: str | None = None,
) -> str:
    """Write tables, `differences.md`, `results.csv` and `report.html` from a folder's results.

    `table` is the layout of the paper's with the controls, `paper` the published value beside each measured one; both
    are `.md`, `.tex`, `.csv` and `.html`.

    `differences.md` holds paired comparisons over seeds, and over test items where predictions are there, and ranks;
    `released`, where functions ran in both layouts, what the released one changes.

    Of retrieval `strata` holds recalls by what the pictures hold and by the nouns of captions, as tables and charts.
    Of models that draw pictures, `samples/{function}.png` is a grid of them, the same captions and noise for each.
    What attention there is to draw stands in `best-against-worst` too, of the best function above that of the worst.
    Beside each run of the built-in world stand examples for its card; see `write_run_examples`.

    Args:
        output: Folder of the runs.
        study: For the attention pictures and the breakdowns of retrieval; without it there are none.
        pictures: Test images whose attention is drawn.
        section: A name under which the report becomes part of a page about several data sets, for which `section.html`
            and `section.json` are written too.
        noun_tagger: What counts nouns; see `measure_strata`.

    Returns:
        The table in the layout of the paper's, as plain text.

    Raises:
        ResultsError: If there are no results, the controls cannot be read, or a file cannot be written.
    """
    output = Path(output)
    results = load_results(output)
    if not results:
        raise ResultsError("there are no finished runs; run the comparison first", path=output)
    controls = read_controls(output)
    title = f"Alignment functions on {results[0]['dataset']['name']}"
    table = _write_tables(output, title, results, controls)
    outcomes = load_outcomes(output, results)
    classes = run_classes(output, results)
    _write_differences(output, title, results, outcomes, classes)
    strata = [] if study is None else measure_strata(study, output, results, noun_tagger)
    write_strata(output, f"{title}, by group of test items", strata)
    drawn = _pictures(study, output, results, pictures) if study is not None and pictures else []
    write_best_against_worst(output, results, [picture for picture in drawn if picture[0] != SAMPLES_TITLE])
    if study is not None and pictures:
        write_run_examples(study, output, results)
    content = report_content(
        results,
        controls=controls,
        pictures=drawn,
        grounding=load_groundings([output / result["run_id"] for result in results]),
        curves=_curves(output, results),
        notes=study.notes if study is not None else (),
        methods=_methods(output, results, study),
        outcomes=outcomes,
        classes=classes,
        strata=strata,
    )
    content["findings"] += failure_findings(output, results)
    write_page(output, title, content["subtitle"], render_sections(content))
    if section is not None:
        _write_section(output, section, results, content)
    return table.to_text()


def _write_tables(
    output: Path, title: str, results: Sequence[dict[str, Any]], controls: Sequence[dict[str, Any]]
) -> Table:
    """Write the tables in the paper's layout and the raw numbers; return the first."""
    table, breakdown = results_table(results, controls), breakdown_table(results, controls)
    parts = {"results": table} if breakdown is None else {"results": table, "breakdown": breakdown}
    write_table_files(output, "table", title, parts)
    write_table_files(output, "paper", f"{title}, beside the paper", paper_tables(results))
    write_file(output / "results.csv", runs_csv(results))
    return table


def _write_section(output: Path, section: str, results: Sequence[dict[str, Any]], content: Mapping[str, Any]) -> None:
    """Write what `run_study` joins to a page."""
    write_file(output / "section.html", render_sections(content, prefix=f"{section}-", level=3))
    name = f"{task_of(results).title} on {results[0]['dataset']['name']}"
    described = {"title": name, "subtitle": content["subtitle"]}
    write_json(output / "section.json", {**described, "findings": [asdict(found) for found in content["findings"]]})


def run_classes(output: Path, results: Sequence[dict[str, Any]]) -> list[FunctionClass]:
    """The classes of functions under the configuration that the runs share; under the paper's where it is not there."""
    for result in results:
        run = RunDirectory(output / result["run_id"]).read_run() or {}
        if "model" in run and not result["released_layout"]:
            with contextlib.suppress(ConfigurationError):  # of another version
                return function_classes(AutoConfig.for_model(**run["model"]))
    return task_of(results).same_class


def _write_differences(
    output: Path,
    title: str,
    results: Sequence[dict[str, Any]],
    outcomes: Mapping[str, ItemOutcomes],
    classes: Sequence[FunctionClass],
) -> None:
    """Write what is compared, unless there is one function alone; an old file would be of other runs."""
    path = output / "differences.md"
    task, ranking = task_of(results), rank_functions(rank_blocks(results))
    comparisons = paired_comparisons(results, outcomes=outcomes, classes=classes)
    tables = [difference_table(comparisons, task)] if comparisons else []
    layouts = released_table(results, comparisons)
    if layouts is not None:
        write_table_files(output, "released", f"{title}: right and released layout", {"released": layouts})
    tables += [] if ranking is None else [rank_table(ranking, task)]
    if tables:
        text = "\n".join(f"{table.caption}\n\n{table.to_markdown()}" for table in tables)
        write_file(path, text)
    else:
        path.unlink(missing_ok=True)


def _pictures(study: Study, output: Path, results: Sequence[dict[str, Any]], count: int) -> list[Picture]:
    """Draw the report's pictures, and write grids of samples where models draw."""
    drawn = attention_pictures(study, output, results, count)
    grids = sample_pictures(study, output, results)
    for name, grid in grids.items():
        write_file(output / "samples" / f"{name.replace(' ', '-')}.png", grid)
    return [(SAMPLES_TITLE, grids), *drawn] if grids else drawn


def read_controls(output: Path) -> list[dict[str, Any]]:
    """Read the controls of a comparison; none where there is no such file.

    Raises:
        ResultsError: It cannot be read.
    """
    path = output / CONTROLS_FILE
    if not path.exists():
        return []
    controls = read_json_file(path, "remove it, and make the controls again")
    if not isinstance(controls, list):
        raise ResultsError("These are no controls: a list is expected.", path=path)
    return controls


def _curves(output: Path, results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The learning curves of the runs; a damaged one is left out with a warning, since no result hangs on it."""
    curves = {}
    for result in results:
        try:
            curves[result["run_id"]] = RunDirectory(output / result["run_id"]).read_history()
        except ResultsError as error:
            warnings.warn(f"{error} It is not drawn.", stacklevel=2)
    return {run_id: rows for run_id, rows in curves.items() if rows}


def _methods(output: Path, results: Sequence[dict[str, Any]], study: Study | None) -> dict[str, object]:
    run = RunDirectory(output / results[0]["run_id"]).read_run() or {}
    methods: dict[str, object] = {"Settings": run.get("settings", {}), "Machine": run.get("machine", {})}
    if study is not None and study.preparation_seconds:
        methods["Preparation"] = f"{study.preparation_seconds:.0f} s once, {study.preparation}"
    return methods

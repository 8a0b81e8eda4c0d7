"""What went wrong in a folder of runs: one file for each piece of work, until it goes well."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.atomic_files import cannot_write
from ..models.errors import ResultsError
from ..training.runs import read_json_file, write_json
from .findings import Finding
from .layout import display_name
from .statistics import Result

__all__ = ["clear_failure", "failure_findings", "read_failure", "record_failure", "run_key"]

REPORT_KEY = "report"  # a page that is there says nothing of an earlier one that was not


def run_key(alignment_function: str, seed: int, released_layout: bool = False) -> str:
    """The key of a run, by which its failure is found."""
    return f"run-{alignment_function}-{seed}" + "-released" * released_layout


def record_failure(folder: Path, key: str, failure: BaseException | str) -> None:
    """Write down what went wrong: an error with its traceback, or how a process ended.

    Raises:
        ResultsError: It cannot be written.
    """
    described: dict[str, Any] = {"error": "ProcessEnded", "message": str(failure), "traceback": None}
    if isinstance(failure, BaseException):
        described |= {"error": type(failure).__name__, "traceback": "".join(traceback.format_exception(failure))}
    file = _file(folder, key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(file.parent, error, ResultsError) from error
    write_json(file, described)


def read_failure(folder: Path, key: str) -> str | None:
    """What went wrong in a line; None where nothing did."""
    file = _file(folder, key)
    if not file.exists():
        return None
    try:
        failure = read_json_file(file, "its log says more")
        return f"{failure['error']}: {failure['message']}"
    except (ResultsError, KeyError, TypeError):  # that something went wrong is known all the same
        return f"what went wrong cannot be read from {file}"


def clear_failure(folder: Path, key: str) -> None:
    """Forget it, since it went well now."""
    _file(folder, key).unlink(missing_ok=True)


def failure_findings(folder: Path, results: Sequence[Result]) -> list[Finding]:
    """Say of every piece of work that failed, and has no results since, what went wrong."""
    done = {run_key(row["alignment_function"], row["seed"], row["released_layout"]) for row in results}
    found = []
    for file in sorted(folder.glob("failures/*.json")):
        if file.stem not in {*done, REPORT_KEY}:
            first, *_ = (read_failure(folder, file.stem) or "").splitlines() or [""]
            found.append(Finding("warning", f"{_title(file.stem)} failed and is not on this page: {first}"))
    return found


def _title(key: str) -> str:
    """What the work of a key is called in a sentence."""
    run = re.fullmatch(r"run-(.+)-(\d+)(-released)?", key)
    if run is None:
        return f"The work “{key}”"
    return f"{display_name(run[1])}{' (released)' if run[3] else ''}, seed {run[2]},"


def _file(folder: Path, key: str) -> Path:
    return folder / "failures" / f"{key}.json"

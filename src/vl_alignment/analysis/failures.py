"""What went wrong in a folder of runs: one file for each piece of work, until it goes well."""

import json
import traceback
from pathlib import Path
from typing import Any

from ..training.runs import write_json

__all__ = ["clear_failure", "read_failure", "record_failure", "run_key"]


def run_key(alignment_function: str, seed: int, released_layout: bool = False) -> str:
    """The key of a run, by which its failure is found."""
    return f"run-{alignment_function}-{seed}" + "-released" * released_layout


def record_failure(folder: Path, key: str, failure: BaseException | str) -> None:
    """Write down what went wrong: an error with its traceback, or how a process ended."""
    described: dict[str, Any] = {"error": "ProcessEnded", "message": str(failure), "traceback": None}
    if isinstance(failure, BaseException):
        described |= {"error": type(failure).__name__, "traceback": "".join(traceback.format_exception(failure))}
    _file(folder, key).parent.mkdir(parents=True, exist_ok=True)
    write_json(_file(folder, key), described)


def read_failure(folder: Path, key: str) -> str | None:
    """What went wrong in a line; None where nothing did."""
    if not _file(folder, key).exists():
        return None
    failure = json.loads(_file(folder, key).read_text(encoding="utf-8"))
    return f"{failure['error']}: {failure['message']}"


def clear_failure(folder: Path, key: str) -> None:
    """Forget it, since it went well now."""
    _file(folder, key).unlink(missing_ok=True)


def _file(folder: Path, key: str) -> Path:
    return folder / "failures" / f"{key}.json"

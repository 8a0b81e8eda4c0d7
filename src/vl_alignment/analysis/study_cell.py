"""One piece of a study's work in a process of its own, so that what fails or is killed takes nothing else with it.

python -m vl_alignment.analysis.study_cell PLAN OUTPUT PART run FUNCTION SEED [--released] --key KEY
python -m vl_alignment.analysis.study_cell PLAN OUTPUT PART {controls,grounding,report} --key KEY

PLAN is the copy of the part's plan that the study keeps in its folder: edits of the plan are for the next call.
What went wrong stands in the part's folder, below `failures`.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.confidential import masked_output
from ..models.errors import ResultsError
from ..training.runs import load_results
from .comparison import make_controls, write_comparison
from .failures import clear_failure, record_failure
from .grounding import GroundingSettings, ground_run, run_folders
from .study_plan import StudyPart, read_plan

__all__ = ["DONE", "FAILED", "INTERRUPTED", "main"]

DONE, FAILED, INTERRUPTED = 0, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the work; see the module's docstring.

    Returns:
        0 when done, 130 when interrupted after saving, 1 after a failure.
    """
    parsed = _parser().parse_args(arguments)
    if parsed.follow:
        _follow_parent()
    folder = parsed.output / parsed.part
    try:
        _WORK[parsed.work](read_plan(parsed.plan).part(parsed.part), folder, parsed)
    except KeyboardInterrupt as interruption:
        print(interruption, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        record_failure(folder, parsed.key, error)
        traceback.print_exc()
        return FAILED
    clear_failure(folder, parsed.key)
    return DONE


def _run(part: StudyPart, folder: Path, parsed: argparse.Namespace) -> None:
    study = part.prepare(folder)
    study.run_cell(folder, parsed.function, parsed.seed, released_layout=parsed.released, command=parsed.command)


def _controls(part: StudyPart, folder: Path, parsed: argparse.Namespace) -> None:
    results = load_results(folder)
    finished = {(row["alignment_function"], row["seed"], row["released_layout"]): row for row in results}
    planned = ((cell.alignment_function, cell.seed, cell.released_layout) for cell in part.cells)
    first = next((finished[key] for key in planned if key in finished), None)
    if first is None:
        raise ResultsError("no run is finished that the controls could repeat", path=folder)
    make_controls(part.prepare(folder), folder, first)


def _grounding(part: StudyPart, folder: Path, parsed: argparse.Namespace) -> None:
    # What is built in is known by its models; the same call by `vl-alignment grounding` then finds the same request.
    preset = None if part.data_dir is None else part.preset
    settings = GroundingSettings(limit=part.grounding)
    for run in run_folders([folder]):
        ground_run(run, settings, preset=preset, data_dir=part.data_dir, regions=part.regions, device="auto")


def _report(part: StudyPart, folder: Path, parsed: argparse.Namespace) -> None:
    write_comparison(
        folder, part.prepare(folder), pictures=part.pictures, section=part.name, noun_tagger=part.noun_tagger
    )


_WORK: dict[str, Any] = {
    "run": _run,
    "controls": _controls,
    "grounding": _grounding,
    "report": _report,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("part")
    parser.add_argument("work", choices=sorted(_WORK))
    parser.add_argument("function", nargs="?")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--released", action="store_true")
    parser.add_argument("--key", required=True, help="names the file of a failure")
    parser.add_argument("--command", help="what is recorded as the command")
    parser.add_argument("--follow", action="store_true", help="stop when standard input ends")
    return parser


def _follow_parent() -> None:
    """Save and stop when the study's process is gone, however it went: its end of the pipe closes."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    with masked_output():
        status = main()
    sys.exit(status)

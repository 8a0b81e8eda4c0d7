"""A whole study: many runs on several tasks, several at a time, each in a process of its own; it can be interrupted.

{output}/
  {part}/                 as `compare` writes it: runs, results.jsonl, controls.json, tables, report.html
  {part}/part.json        what its runs were made of
  {part}/plan.yaml        what the plan said of it when the processes were last started
  {part}/failures/        what went wrong, one file a run, until it goes well
  {part}/logs/            what the processes wrote
  report.html             all parts on one page
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from tqdm import tqdm

from ..models.errors import ConfigurationError, ResultsError
from ..training.folder_lock import only_program
from ..training.interruption import InterruptionGuard, TrainingInterrupted
from ..training.runs import load_results, read_json_file, rebuild_results, recorded_command
from .failures import read_failure, record_failure, run_key
from .report import render_study, write_page
from .statistics import Result
from .study_cell import DONE, INTERRUPTED
from .study_checks import PLAN_FILE, changed_runs, check_part, keep_plan
from .study_plan import Cell, StudyPart, StudyPlan

__all__ = ["StudySummary", "finished_cells", "run_study", "waiting_cells"]

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class StudySummary:
    """What `run_study` leaves.

    Attributes:
        done: Runs that are finished, now or before.
        failed: {title: error} of those that are not.
    """

    done: int
    failed: dict[str, str]


@dataclass
class _Work:
    """A piece of work of one part: a run, the controls, where models look, or the report."""

    part: StudyPart
    kind: str
    title: str
    arguments: list[str] = field(default_factory=list)

    key: str = ""

    @classmethod
    def of_cell(cls, part: StudyPart, cell: Cell) -> "_Work":
        released = ["--released"] if cell.released_layout else []
        key = run_key(cell.alignment_function, cell.seed, cell.released_layout)
        return cls(part, "run", cell.title, [cell.alignment_function, str(cell.seed), *released], key)


def run_study(
    plan: StudyPlan,
    *,
    only: Sequence[str] | None = None,
    command: str | None = None,
    announce: Callable[[str], None] = print,
) -> StudySummary:
    """Do everything that a plan says and is not done yet: runs, controls, tables, reports.

    A run that fails is recorded and does not stop the rest; the next call tries it again. Interrupted runs go on from
    their newest checkpoint.

    Args:
        plan: Of `read_plan`.
        only: Names of the parts to work on; another process may work on the rest. The page shows all that is there.
        command: What is recorded as the command; what was typed, where None.
        announce: Called with a line for every run that ends.

    Raises:
        ConfigurationError: Another process works on one of the parts, earlier runs of a part were made of something
            else, or a part is unknown.
        TrainingInterrupted: After Ctrl-C or kill, when the runs have saved.
    """
    whole, plan = plan, plan.only(only) if only else plan
    with contextlib.ExitStack() as held:
        for part in plan.parts:
            held.enter_context(only_program(plan.output / part.name))
            check_part(plan.output / part.name, part)
            for line in changed_runs(plan.output / part.name, part):
                announce(f"warning: {line}")
            keep_plan(plan.output / part.name, part)
        with InterruptionGuard() as interruption:
            scheduler = _Scheduler(plan, command or recorded_command(), announce, interruption)
            _do_all(scheduler, plan)
        _write_report(whole)
    return StudySummary(len(finished_cells(plan)), scheduler.failed)


def _do_all(scheduler: "_Scheduler", plan: StudyPlan) -> None:
    """Make the runs, and of parts that have some the controls, where models look, and the report."""
    finished = _finished_results(plan)
    seconds = _seconds(finished) if scheduler.devices else {}
    cells = waiting_cells(plan, set(finished), seconds)
    scheduler.work_through([_Work.of_cell(plan.part(cell.part), cell) for cell in cells], len(finished))
    for part in plan.parts:
        if (plan.output / part.name).is_dir():
            rebuild_results(plan.output / part.name)
    written = {cell.part for cell in finished_cells(plan)}
    parts = [part for part in plan.parts if part.name in written]
    wanted = {
        "controls": [part for part in parts if part.controls],
        "grounding": [part for part in parts if part.grounding],
        "report": parts,
    }
    for kind, of_parts in wanted.items():
        scheduler.work_through([_Work(part, kind, f"{part.name}: {kind}", key=kind) for part in of_parts])


def _write_report(plan: StudyPlan) -> None:
    """Join the parts' reports to one page, whose summary states what intervals support."""
    parts: list[dict[str, Any]] = []
    for part in plan.parts:
        folder = plan.output / part.name
        if not (folder / "section.json").exists():
            continue
        try:
            described = read_json_file(folder / "section.json", "it is written again by the next call")
            told = [found for found in described["findings"] if found["kind"] in ("supported", "warning")]
            sections = Markup((folder / "section.html").read_text(encoding="utf-8"))
            shown = {name: described[name] for name in ("title", "subtitle")}
        except (ResultsError, OSError, UnicodeDecodeError, KeyError, TypeError) as error:
            warnings.warn(f"{part.name} is left out of the page: {error}", stacklevel=2)
            continue
        parts.append({**shown, "name": part.name, "findings": told, "sections": sections})
    if parts:
        names = {part["name"] for part in parts}
        runs = sum(cell.part in names for cell in finished_cells(plan))
        planned = f" of {len(plan.parts)} planned" if len(parts) < len(plan.parts) else ""
        subtitle = [f"{len(parts)} data set{'s' * (len(parts) != 1)}{planned}", f"{runs} run{'s' * (runs != 1)}"]
        write_page(plan.output, "A study of alignment functions", subtitle, render_study(parts))


def finished_cells(plan: StudyPlan) -> set[Cell]:
    """Return the runs that have results."""
    return set(_finished_results(plan))


def _finished_results(plan: StudyPlan) -> dict[Cell, Result]:
    done = {}
    for part in plan.parts:
        folder = plan.output / part.name
        for row in load_results(folder) if folder.is_dir() else ():
            done[Cell(part.name, row["alignment_function"], row["seed"], row["released_layout"])] = row
    planned = set(plan.cells)
    return {cell: row for cell, row in done.items() if cell in planned}


def _seconds(finished: Mapping[Cell, Result]) -> dict[str, float]:
    """The mean training time of each part's finished runs."""
    times: dict[str, list[float]] = {}
    for cell, row in finished.items():
        if isinstance(seconds := row["training"].get("seconds"), int | float):
            times.setdefault(cell.part, []).append(seconds)
    return {part: sum(one) / len(one) for part, one in times.items()}


def waiting_cells(plan: StudyPlan, finished: set[Cell], seconds: Mapping[str, float] | None = None) -> list[Cell]:
    """Return the runs to do, in the plan's order.

    With several processes the first of every part go before the others, which wait for what it makes for all: a region
    encoder, features, DAMSM.

    Args:
        plan: What is to run.
        finished: Runs that are done.
        seconds: What a run of a part takes, where it is known: the longest go first, and parts of unknown time before.
    """
    cells = [cell for cell in plan.cells if cell not in finished]
    first = {cell.part: cell for cell in reversed(cells)}
    known = seconds or {}

    def order(cell: Cell) -> tuple[bool, float]:
        return plan.processes > 1 and first[cell.part] != cell, -known.get(cell.part, math.inf)

    return sorted(cells, key=order)


class _Scheduler:
    """Keeps so many processes at work, and shows how far they are."""

    def __init__(
        self,
        plan: StudyPlan,
        command: str,
        announce: Callable[[str], None],
        interruption: InterruptionGuard,
    ) -> None:
        self.plan, self.command = plan, command
        self.announce, self.interruption = announce, interruption
        self.devices = _devices(plan)
        self.failed: dict[str, str] = {}

    def work_through(self, waiting: list[_Work], done: int = 0) -> None:
        """Do all of it.

        Raises:
            TrainingInterrupted: On request, after the processes have saved and ended.
        """
        waiting = list(waiting)
        running: dict[int, tuple[_Work, subprocess.Popen]] = {}
        # Shown where somebody looks; elsewhere the lines of `announce` do.
        bar = tqdm(total=done + len(waiting), initial=done, unit="run", disable=None, dynamic_ncols=True)
        try:
            while (waiting or running) and not self.interruption.requested:
                for slot in range(self.plan.processes):
                    if slot not in running and waiting:
                        work = waiting.pop(0)
                        running[slot] = work, self._start(work, slot)
                        self._show(bar, running)
                time.sleep(POLL_SECONDS)
                for slot, (work, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        self._note(work, process.returncode)
                        bar.update()
                        self._show(bar, running)
        finally:
            bar.close()
            for _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()
        if self.interruption.requested:
            raise TrainingInterrupted(f"{len(running)} runs were stopped after saving, {len(waiting)} had not begun.")

    def _start(self, work: _Work, slot: int) -> subprocess.Popen:
        folder = self.plan.output / work.part.name
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        threads = str(self.plan.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        arguments = [str(folder / PLAN_FILE), str(self.plan.output), work.part.name, work.kind, *work.arguments]
        with (folder / "logs" / f"{work.key}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "vl_alignment.analysis.study_cell", *arguments]
                + ["--key", work.key, "--command", self.command, "--follow"],
                stdin=subprocess.PIPE,  # it stops when this process is gone
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on once
            )

    def _note(self, work: _Work, code: int) -> None:
        folder = self.plan.output / work.part.name
        if code == DONE:
            self.announce(f"{work.title}: done{_value(folder, work)}")
            return
        if code == INTERRUPTED:  # by somebody else: it has saved, and the next call goes on
            self.failed[work.title] = "interrupted after saving"
        elif code > 0 and (failure := read_failure(folder, work.key)) is not None:
            self.failed[work.title] = failure
        else:
            self.failed[work.title] = f"ended with {f'signal {-code}' if code < 0 else f'code {code}'}"
            record_failure(folder, work.key, self.failed[work.title])
        self.announce(f"{work.title}: FAILED, {self.failed[work.title]} (log: {folder / 'logs' / f'{work.key}.log'})")

    def _show(self, bar: Any, running: dict[int, tuple[_Work, subprocess.Popen]]) -> None:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        bar.set_postfix_str(f"{len(running)} running{failed}")


def _value(folder: Path, work: _Work) -> str:
    """The result of a run in a few words; nothing for other work."""
    if work.kind != "run":
        return ""
    function, seed, *released = work.arguments
    for row in load_results(folder):
        if (row["alignment_function"], str(row["seed"]), row["released_layout"]) == (function, seed, bool(released)):
            task, metric = work.part.task, work.part.metric or work.part.task.metric
            name = task.metric_title if metric == task.metric else metric
            value = row["metrics"].get(metric)
            measured = "not measured" if value is None else f"{value:.1f}"
            return f", {name} {measured} after {row['training']['seconds']:.0f} s"
    return ""


def _devices(plan: StudyPlan) -> list[str]:
    """The CUDA devices that the runs take in turn, of those that are visible here; none on a CPU.

    Raises:
        ConfigurationError: The plan names one that is not visible.
    """
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = None if given is None else [name.strip() for name in given.split(",") if name.strip()]
    if plan.devices is None:
        count = torch.cuda.device_count()
        return [str(number) for number in range(count)] if visible is None else visible[:count]
    if visible is None:
        return [str(number) for number in plan.devices]
    if max(plan.devices) >= len(visible):
        raise ConfigurationError(
            f"devices={list(plan.devices)} count from 0 among those that CUDA_VISIBLE_DEVICES={given!r} shows, "
            f"which are {len(visible)}"
        )
    return [visible[number] for number in plan.devices]

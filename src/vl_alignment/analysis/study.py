"""A whole study: many runs on several tasks, several at a time, each in a process of its own; it can be interrupted.

{output}/
  {part}/                 as `compare` writes it: runs, results.jsonl, controls.json, tables, report.html
  {part}/part.json        what its runs were made of
  {part}/failures/        what went wrong, one file a run, until it goes well
  {part}/logs/            what the processes wrote
  report.html             all parts on one page
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
from markupsafe import Markup
from tqdm import tqdm

from ..models.errors import ConfigurationError
from ..training.interruption import InterruptionGuard, TrainingInterrupted
from ..training.runs import load_results, rebuild_results, recorded_command, write_json
from .failures import read_failure, record_failure, run_key
from .report import render_study, write_page
from .study_cell import DONE, INTERRUPTED
from .study_plan import Cell, StudyPart, StudyPlan

__all__ = ["StudySummary", "check_part", "finished_cells", "run_study", "waiting_cells"]

POLL_SECONDS = 0.2
# What decides the runs of a part, beside functions, seeds and layouts, which may grow.
_DECIDING = ("preset", "settings", "model", "options", "sizes", "data_dir", "regions", "extractor")


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
    plan_file: str | Path,
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
        plan_file: The file that it was read from, for the processes.
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
            held.enter_context(_alone(plan.output / part.name))
            check_part(plan.output / part.name, part)
        with InterruptionGuard() as interruption:
            scheduler = _Scheduler(plan, Path(plan_file), command or recorded_command(), announce, interruption)
            finished = finished_cells(plan)
            runs = [_Work.of_cell(plan.part(cell.part), cell) for cell in waiting_cells(plan, finished)]
            scheduler.work_through(runs, len(finished))
            for part in plan.parts:
                if (plan.output / part.name).is_dir():
                    rebuild_results(plan.output / part.name)
            written = {cell.part for cell in finished_cells(plan)}
            parts = [part for part in plan.parts if part.name in written]
            scheduler.work_through(
                [_Work(part, "controls", f"{part.name}: controls", key="controls") for part in parts if part.controls]
            )
            scheduler.work_through(
                [
                    _Work(part, "grounding", f"{part.name}: grounding", key="grounding")
                    for part in parts
                    if part.grounding
                ]
            )
            scheduler.work_through([_Work(part, "report", f"{part.name}: report", key="report") for part in parts])
        _write_report(whole)
    return StudySummary(len(finished_cells(plan)), scheduler.failed)


def _write_report(plan: StudyPlan) -> None:
    """Join the parts' reports to one page, whose summary states what intervals support."""
    parts: list[dict[str, Any]] = []
    for part in plan.parts:
        folder = plan.output / part.name
        if not (folder / "section.json").exists():
            continue
        described = json.loads((folder / "section.json").read_text(encoding="utf-8"))
        told = [found for found in described["findings"] if found["kind"] in ("supported", "warning")]
        sections = Markup((folder / "section.html").read_text(encoding="utf-8"))
        parts.append({**described, "name": part.name, "findings": told, "sections": sections})
    if parts:
        shown = {part["name"] for part in parts}
        runs = sum(cell.part in shown for cell in finished_cells(plan))
        planned = f" of {len(plan.parts)} planned" if len(parts) < len(plan.parts) else ""
        subtitle = [f"{len(parts)} data set{'s' * (len(parts) != 1)}{planned}", f"{runs} run{'s' * (runs != 1)}"]
        write_page(plan.output, "A study of alignment functions", subtitle, render_study(parts))


def finished_cells(plan: StudyPlan) -> set[Cell]:
    """Return the runs that have results."""
    done = set()
    for part in plan.parts:
        folder = plan.output / part.name
        if folder.is_dir():
            done |= {
                Cell(part.name, row["alignment_function"], row["seed"], row["released_layout"])
                for row in load_results(folder)
            }
    return done & set(plan.cells)


def waiting_cells(plan: StudyPlan, finished: set[Cell]) -> list[Cell]:
    """Return the runs to do, in the plan's order.

    With several processes the first of every part go before the others, which wait for what it makes for all: a region
    encoder, features, DAMSM.
    """
    cells = [cell for cell in plan.cells if cell not in finished]
    first = {cell.part: cell for cell in reversed(cells)}
    return sorted(cells, key=lambda cell: plan.processes > 1 and first[cell.part] != cell)


class _Scheduler:
    """Keeps so many processes at work, and shows how far they are."""

    def __init__(
        self,
        plan: StudyPlan,
        plan_file: Path,
        command: str,
        announce: Callable[[str], None],
        interruption: InterruptionGuard,
    ) -> None:
        self.plan, self.plan_file, self.command = plan, plan_file.resolve(), command
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
        arguments = [str(self.plan_file), str(self.plan.output), work.part.name, work.kind, *work.arguments]
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
            return f", {name} {row['metrics'][metric]:.1f} after {row['training']['seconds']:.0f} s"
    return ""


def _devices(plan: StudyPlan) -> list[str]:
    """The CUDA devices that the runs take in turn; none on a CPU."""
    import torch

    if plan.devices is not None:
        return [str(device) for device in plan.devices]
    return [str(device) for device in range(torch.cuda.device_count())]


def check_part(folder: Path, part: StudyPart) -> None:
    """Compare with what earlier runs of the folder were made of, and write it down.

    Raises:
        ConfigurationError: It was something else.
    """
    made_of = json.loads(json.dumps({name: getattr(part, name) for name in _DECIDING}))
    file = folder / "part.json"
    if file.exists():
        earlier = json.loads(file.read_text())
        changed = [name for name in _DECIDING if earlier.get(name) != made_of[name]]
        if changed:
            raise ConfigurationError(
                f"{part.name}: the runs in {folder} were made with another {' and '.join(changed)} "
                f"({', '.join(str(earlier.get(name)) for name in changed)}); give the part another name, or remove them"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, made_of)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the folder of a part for this process.

    Raises:
        ConfigurationError: Another process has it, or it cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(output / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise ConfigurationError(f"{output}: another process works on it; wait for it, or stop it") from error
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
    try:
        yield
    finally:
        lock.release()

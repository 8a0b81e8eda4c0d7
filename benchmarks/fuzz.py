"""Feed every reader of the project with thousands of damaged and hostile files.

Each case damages one file of a small valid folder (see `fuzz_mutations.py`) and reads the folder (`fuzz_readers.py`).
It must end in success or in a `VlAlignmentError` whose message names the file or its folder. A failure is anything
else: another exception, a dead process, more than `CPU_SECONDS`, more memory than `MEMORY`, a file beside the folder
that was opened or changed, a started process, or the canary of a hostile pickle.

Cases run in a worker a reader, forked once everything is imported, and again after a case that killed it. A case
follows from its reader and number alone: `--reader NAME --case NUMBER` runs it once more, with its traceback.

    python benchmarks/fuzz.py --output benchmarks/results/fuzz.json
"""

import argparse
import ctypes
import faulthandler
import gc
import logging
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Read when torch, the Hub client and datasets are imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others reserve gibibytes of addresses, which are counted here

from fuzz_mutations import OUTSIDE, mutate_file, restore_file  # noqa: E402
from fuzz_readers import READERS, Reader, make_outside  # noqa: E402
from measuring import Figure, report, say  # noqa: E402

import vl_alignment  # noqa: E402
from vl_alignment.models.errors import VlAlignmentError  # noqa: E402

CPU_SECONDS = 10
WALL_SECONDS = 120  # the machine may be busy with other things
MEMORY = 2**30  # bytes of address space that reading may take
MIB = 2**20
# In memory where there is such a place: a disk waits for each of the many files to be written and removed.
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FILES = 21_000
# Events of `sys.addaudithook` that reading a file never has.
FORBIDDEN = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn"}


@dataclass
class Case:
    """What became of one damaged file."""

    number: int
    file: str
    mutation: str
    outcome: str  # "accepted", "refused" or "failed"
    problem: str = ""
    seconds: float = 0.0
    memory: int = 0


@dataclass
class Totals:
    """What became of all files of a reader."""

    cases: list[Case] = field(default_factory=list)

    def count(self, outcome: str) -> int:
        return sum(case.outcome == outcome for case in self.cases)

    @property
    def slowest(self) -> float:
        return max((case.seconds for case in self.cases), default=0.0)

    @property
    def peak(self) -> float:
        return max((case.memory for case in self.cases), default=0) / MIB


class Watch:
    """Notices whether anything opens or changes a file in a folder, whatever library does it (Linux's inotify)."""

    OPEN_MODIFY_MOVE_CREATE_DELETE = 0x20 | 0x2 | 0xC0 | 0x100 | 0x200

    def __init__(self, folder: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.handle = library.inotify_init1(os.O_NONBLOCK)
        if library.inotify_add_watch(self.handle, os.fsencode(folder), self.OPEN_MODIFY_MOVE_CREATE_DELETE) < 0:
            raise OSError(ctypes.get_errno(), "the folder cannot be watched", str(folder))

    def seen(self) -> list[str]:
        """The names of files that were touched since the last call."""
        names = []
        while True:
            try:
                content = os.read(self.handle, 65_536)
            except BlockingIOError:
                return names
            while content:
                length = struct.unpack_from("iIII", content)[3]
                names.append(content[16 : 16 + length].rstrip(b"\0").decode() or "the folder")
                content = content[16 + length :]


class Worker:
    """Runs the cases of one reader in this process."""

    def __init__(self, name: str, seed: int, root: Path) -> None:
        self.name, self.seed, self.reader = name, seed, READERS[name]
        self.folder, self.outside = root / "case", root / OUTSIDE
        make_outside(self.outside)
        self.folder.mkdir()
        self.kinds = self.reader.make(self.folder)
        self.files = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        self.reader.read(self.folder)  # the valid folder is read, and what is imported late is imported
        self._restore(None)
        self.beside = self._beside()
        self.watch = Watch(self.outside)
        self.events: list[str] = []
        self.listening = False
        self.peak = _peak()

    def contain(self) -> None:
        """Bound this process's memory, and notice what it starts; cannot be undone."""
        sys.addaudithook(self._hear)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, resource.RLIM_INFINITY))

    def run(self, number: int, show: bool = False) -> Case:
        rng = random.Random(f"{self.seed} {self.name} {number}")
        file = rng.choice(sorted(self.kinds))
        mutation = mutate_file(self.folder / file, self.kinds[file], rng, self.outside)
        case = Case(number, file, mutation, "accepted")
        self.watch.seen()
        self.events.clear()
        begin = time.process_time()
        self.listening = True
        try:
            self.reader.read(self.folder)
        except VlAlignmentError as error:
            case.outcome = "refused"
            case.problem = self._objection(error, Path(file).name)
            if show:
                traceback.print_exc()
        except BaseException as error:  # whatever it is, it is what this program is for
            case.problem = _where(error)
            if show:
                traceback.print_exc()
        self.listening = False
        case.seconds, case.memory = time.process_time() - begin, _peak() - self.peak
        case.problem = case.problem or self._trespass()
        if case.problem:
            case.outcome = "failed"
        self._restore(self.folder / file)
        return case

    def _objection(self, error: VlAlignmentError, name: str) -> str:
        """What is wrong with a refusal."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return f"refused after asking for more memory than {MEMORY // MIB} MiB: {_where(cause)}"
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if str(self.folder) not in str(error) and name not in str(error):
            return f"the message names no file: {str(error)[:200]}"
        return "" if len(str(error)) < 20_000 else f"a message of {len(str(error))} characters"

    def _trespass(self) -> str:
        """What was done that reading a folder never does."""
        if touched := self.watch.seen():
            return f"opened outside of the folder: {sorted(set(touched))}"
        if (self.outside / "made").exists():
            return "code of the file ran"
        if self.events:
            return f"{self.events[0]} while reading"
        if (now := self._beside()) != self.beside:
            return f"left files beside the folder: {sorted(now - self.beside)}"
        return ""

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening and event in FORBIDDEN:
            self.events.append(event)

    def _beside(self) -> set[str]:
        return {path.name for path in self.folder.parent.iterdir()}

    def _restore(self, changed: Path | None) -> None:
        if changed is not None:
            restore_file(changed, self.files[changed])
        for path in self.files.keys() - {changed}:
            if not path.exists():
                restore_file(path, self.files[path])
        for name in self._beside() - {self.folder.name, OUTSIDE}:
            shutil.rmtree(self.folder.parent / name, ignore_errors=True)


def _where(error: BaseException) -> str:
    """An exception with the line of this package that it passed last."""
    package = str(Path(vl_alignment.__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(package)]
    place = f"{frames[-1].filename.removeprefix(package)[1:]}:{frames[-1].lineno}" if frames else "a library"
    return f"{type(error).__name__} at {place}: {str(error)[:120]!r}"


def _peak() -> int:
    """The most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize:"))


def _work(name: str, seed: int, root: Path, numbers: range, results: Connection) -> None:
    """The body of a worker: sends one case after the other."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    _be_quiet()
    try:
        worker = Worker(name, seed, root)
    except BaseException:
        results.send(traceback.format_exc())
        raise
    results.send("")
    worker.contain()
    for number in numbers:
        _set_alarms(CPU_SECONDS, WALL_SECONDS)
        results.send(worker.run(number))


def _set_alarms(cpu_seconds: float, wall_seconds: float) -> None:
    """Let the system end this process after so long, wherever it hangs."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)


def _be_quiet() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def fuzz_reader(name: str, seed: int, count: int) -> Totals:
    """Run the cases of one reader, in another worker after each that killed the one before."""
    totals = Totals()
    context = multiprocessing.get_context("fork")
    while len(totals.cases) < count:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=PLACE) as root:
            receiving, sending = context.Pipe(duplex=False)
            numbers = range(len(totals.cases), count)
            process = context.Process(target=_work, args=(name, seed, Path(root), numbers, sending))
            process.start()
            sending.close()
            problem = "the worker died"
            try:
                problem = receiving.recv()
                while not problem:
                    totals.cases.append(receiving.recv())
            except EOFError:
                pass
            process.join()
        if problem:
            raise RuntimeError(f"{name}: the valid folder cannot be read: {problem}")
        if len(totals.cases) < count:
            reason = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit {process.exitcode}"
            problem = f"hung ({reason})" if reason in ("SIGPROF", "SIGALRM") else f"the process died ({reason})"
            totals.cases.append(Case(len(totals.cases), "?", "?", "failed", problem))
    return totals


def _show(name: str, seed: int, number: int) -> None:
    """Run one case in this process and say everything about it; where it hangs, the place."""
    _be_quiet()
    faulthandler.register(signal.SIGPROF, chain=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=PLACE) as root:
        worker = Worker(name, seed, Path(root))
        worker.contain()
        _set_alarms(CPU_SECONDS, WALL_SECONDS)
        print(worker.run(number, show=True))


def figures_of(every: dict[str, Totals], seconds: float) -> dict[str, Figure]:
    """One figure a reader, and those of all together."""
    figures = {}
    for name, totals in every.items():
        told = (
            f"of {len(totals.cases)} files {totals.count('accepted')} accepted, {totals.count('refused')} refused; "
            f"slowest {totals.slowest:.2f} s, peak {totals.peak:.0f} MiB"
        )
        figures[f"{name}: failures"] = Figure(totals.count("failed"), "", told, limit=0)
    cases = [case for totals in every.values() for case in totals.cases]
    sorts = Counter(case.mutation for case in cases)
    figures["files"] = Figure(len(cases), "", ", ".join(f"{sort} {count}" for sort, count in sorts.most_common()))
    figures["failures"] = Figure(sum(case.outcome == "failed" for case in cases), "", "all readers", limit=0)
    figures["slowest file"] = Figure(max(case.seconds for case in cases), "s", "processor time", limit=CPU_SECONDS)
    peak = max(totals.peak for totals in every.values())
    told = "resident, beyond what the worker had before its first file"
    figures["peak memory"] = Figure(peak, "MiB", told, limit=MEMORY / MIB)
    figures["time"] = Figure(seconds, "s", "all readers one after the other, on one core of a busy machine")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=FILES, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=[*READERS], help="only this one; may be repeated")
    parser.add_argument("--case", type=int, help="run this case of one reader alone and show it")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    chosen: dict[str, Reader] = {name: READERS[name] for name in arguments.reader or READERS}
    if arguments.case is not None:
        _show(next(iter(chosen)), arguments.seed, arguments.case)
        return 0
    gc.freeze()  # what is imported is not walked again in every worker
    begin, every = time.perf_counter(), {}
    shares = sum(reader.share for reader in chosen.values())
    for name, reader in chosen.items():
        every[name] = totals = fuzz_reader(name, arguments.seed, math.ceil(arguments.files * (reader.share / shares)))
        told = f"{len(totals.cases)} files in {sum(case.seconds for case in totals.cases):.1f} s of processor time"
        say(f"{time.perf_counter() - begin:.0f} s: {name}, {told}, {totals.count('failed')} failures")
        seen = Counter(case.problem for case in totals.cases if case.problem)
        for problem, count in seen.most_common(40):
            first = next(case for case in totals.cases if case.problem == problem)
            say(f"  {count} x {problem} (--reader {name!r} --case {first.number}: {first.mutation} in {first.file})")
    figures = figures_of(every, time.perf_counter() - begin)
    report(figures, __file__, arguments.output)
    return 1 if figures["failures"].value else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the benchmarks share: figures with targets, medians of calls in turns, peak memory, the table and the file."""

import argparse
import contextlib
import functools
import json
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vl_alignment.training.runs import describe_machine

PRODUCT = {"cpu": (4096, 1024), "cuda": (16384, 4096)}
"""Rows and width of the plain product that says how fast the device multiplies."""


@dataclass
class Figure:
    """One number; `limit` is what it may be at most, or at least where `at_least`."""

    value: float
    unit: str
    reference: str
    limit: float | None = None
    at_least: bool = False

    @property
    def target(self) -> str | None:
        if self.limit is None:
            return None
        return f"at {'least' if self.at_least else 'most'} {self.limit:g} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "met" if (self.value >= self.limit if self.at_least else self.value <= self.limit) else "not met"


class CountedProducts(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions, forward and backward.

    By torch's own formulas; its `FlopCounterMode` follows modules as well, and fails where a loss is differentiated for
    some of the inputs alone.
    """

    operations = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        formula = flop_registry.get(operation._overloadpacket)
        if formula is None:
            with self:  # what torch makes of several others is counted as these
                found = operation.decompose(*arguments, **options)
            return operation(*arguments, **options) if found is NotImplemented else found
        found = operation(*arguments, **options)
        self.operations += formula(*arguments, **options, out_val=found)
        return found


class Measurements:
    """Figures measured on one device in one precision; a benchmark derives from it and adds them."""

    def __init__(self, device: str, precision: str, repeats: int) -> None:
        self.device, self.precision, self.repeats = device, precision, repeats
        self.figures: dict[str, Figure] = {}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device, torch.bfloat16)
        return contextlib.nullcontext()

    def medians(self, title: str, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of each call; the repeats take turns, after one round that does not count."""
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for repeat in range(self.repeats + 1):
            for name, call in calls.items():
                with self.autocast():
                    taken = _seconds(call, self.device)
                if repeat:
                    seconds[name].append(taken)
            say(f"{title}: {'warm' if repeat == 0 else f'{repeat} of {self.repeats}'}")
        return {name: statistics.median(taken) for name, taken in seconds.items()}

    def over_products(self, call: Callable[[], object], seconds: float) -> Figure:
        """How many times as long as its own matrix products and convolutions, at the speed of a plain product."""
        with CountedProducts() as counted, self.autocast():
            call()
        floor = counted.operations / self.product_speed
        amount = f"{counted.operations / 1e9:.3g} GFLOP at {self.product_speed / 1e9:.0f} GFLOP/s"
        return Figure(seconds / floor, "x", f"its matrix products alone, {amount}: {floor:.4f} s")

    @functools.cached_property
    def product_speed(self) -> float:
        """FLOP/s of one large matrix product, [n, d] x [d, d]."""
        rows, size = PRODUCT[self.device]
        one, other = torch.randn(rows, size, device=self.device), torch.randn(size, size, device=self.device)
        return 2 * rows * size**2 / self.medians("plain product", {"product": lambda: one @ other})["product"]

    def allocated_by(self, call: Callable[[], object]) -> int:
        """Peak bytes that torch allocates on the device for a call, beyond what is there."""
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with self.autocast():
            call()
        return torch.cuda.max_memory_allocated() - before


def _seconds(call: Callable[[], object], device: str) -> float:
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def resident_bytes_of(script: str, *arguments: str) -> int:
    """Extra bytes, printed by a script that runs `print_resident_bytes` where nothing ran before."""
    command = [sys.executable, script, *arguments, "--threads", str(torch.get_num_threads())]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_resident_bytes(warm: Callable[[], object], call: Callable[[], object]) -> None:
    """Print how far a call raises the peak of resident memory; `warm` is a small one, by which libraries are loaded."""
    warm()
    before = resident_bytes("VmRSS")
    call()
    print(resident_bytes("VmHWM") - before)


def resident_bytes(field: str) -> int:
    """Resident bytes now (VmRSS) or at the peak (VmHWM); where the system does not say, the peak of `getrusage`.

    On Linux `getrusage` begins with the peak of the parent, so that it is not used there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def say(line: str) -> None:
    """Tell the person who waits, beside the table on standard output."""
    print(line, file=sys.stderr, flush=True)


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 runs under autocast")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="small sizes: tries the program, measures nothing")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, refuse what cannot be run, and set the threads."""
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available; use --device cpu")
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    torch.set_num_threads(arguments.threads)
    return arguments


def run_all(measures: list[Callable[[], None]]) -> None:
    """Run the measurements one after the other."""
    start = time.perf_counter()
    for measure in measures:
        measure()
        say(f"{time.perf_counter() - start:.0f} s so far")


def report(figures: dict[str, Figure], script: str, output: Path | None) -> None:
    """Print the table and write `{figure: {value, unit, target, reference, command, machine}}`."""
    rows = ["| figure | value | target | | beside |", "|---|---:|---|---|---|"]
    for name, figure in figures.items():
        value = f"{figure.value:.3g} {figure.unit}".strip()
        rows.append(f"| {name} | {value} | {figure.target or ''} | {figure.verdict} | {figure.reference} |")
    print("\n".join(rows))
    if output:
        command = shlex.join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]])
        machine = describe_machine() | {"torch": torch.__version__}
        records = {
            name: {
                "value": figure.value,
                "unit": figure.unit,
                "target": figure.target,
                "reference": figure.reference,
                "command": command,
                "machine": machine,
            }
            for name, figure in figures.items()
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(records, indent=2) + "\n")

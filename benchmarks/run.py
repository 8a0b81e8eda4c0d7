"""All of the project's speed and memory figures in one run, as JSON and as a table.

    python benchmarks/run.py --output benchmarks/results/run.json
    python benchmarks/run.py --quick --output benchmarks/results/run.json       tries all of it out
    python benchmarks/run.py --device cuda --output benchmarks/results/run-cuda.json
    python benchmarks/run.py --device cuda --precision bf16 --output benchmarks/results/run-cuda-bf16.json

Each program beside this one runs in a process of its own, one after the other, beside the straightforward version that
it measures against: its figures are medians of repeats that take turns. A program that fails is named in the table, and
does not stop the rest. The table lies beside the JSON as Markdown. The same command again goes on with those that have
no figures yet; `--only` measures the named ones anew and keeps the rest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import say

from vl_alignment.training.runs import write_json

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Program:
    """A program beside this one.

    Attributes:
        name: Of its file.
        title: What it measures.
        quick: Arguments that make it small, where `--quick` is not among its own.
        common: Whether it has the options that `measuring.benchmark_parser` adds.
        cuda: Whether it has something to measure on CUDA.
    """

    name: str
    title: str
    quick: tuple[str, ...] = ("--quick",)
    common: bool = True
    cuda: bool = True


PROGRAMS = (
    Program("similarity", "SCAN's similarity of all pairs"),
    Program("all_pairs", "Retrieval of the size of COCO", cuda=False),
    Program("mac_cell", "MAC's cell"),
    Program("m4c", "M4C's decoding and training step"),
    Program("damsm", "DAMSM's losses"),
    Program("attngan", "AttnGAN's attention and training step"),
    Program("data_loading", "Share of training that computes"),
    Program("feature_reading", "Reading features", ("--pictures", "128", "--repeats", "1"), common=False, cuda=False),
    Program("questions", "Making questions", cuda=False),
)
COMMON = ("device", "precision", "threads", "repeats")


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What two runs must have in common for their figures to stand in one table."""
    return {name: getattr(arguments, name) for name in (*COMMON, "quick")}


def kept(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What an earlier run has written to the output."""
    if not arguments.output.exists():
        return {}
    earlier = json.loads(arguments.output.read_text(encoding="utf-8"))
    for name, one in earlier.items():
        if one["settings"] != settings(arguments):
            sys.exit(
                f"{arguments.output}: {name} was measured with {one['settings']}, not {settings(arguments)}. "
                "Give another --output, or remove the file."
            )
    return earlier


def measure(program: Program, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one program: its seconds, its figures, or why there are none."""
    output = folder / f"{program.name}.json"
    command = [sys.executable, str(FOLDER / f"{program.name}.py"), "--output", str(output)]
    if program.common:
        for name in COMMON:
            command += [f"--{name}", str(getattr(arguments, name))]
    if arguments.quick:
        command += program.quick
    begin = time.perf_counter()
    try:
        status = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=arguments.limit).returncode
        failure = f"exit status {status}" if status else None
    except subprocess.TimeoutExpired:
        failure = f"not done after {arguments.limit:.0f} s"
    found: dict[str, Any] = {
        "title": program.title,
        "seconds": round(time.perf_counter() - begin, 1),
        "settings": settings(arguments),
    }
    if failure is None or output.exists():  # some end with a status of their own where a target is not met
        figures = json.loads(output.read_text(encoding="utf-8"))
        for figure in figures.values():
            figure["command"] = figure["command"].replace(f" --output {output}", "")
        return {**found, "figures": figures}
    return {**found, "failure": failure}


def verdict(figure: dict[str, Any]) -> str:
    """Whether the stated target is met."""
    if not figure["target"]:
        return ""
    words = figure["target"].split()
    limit = float(words[2])
    met = figure["value"] >= limit if words[1] == "least" else figure["value"] <= limit
    return "met" if met else "not met"


def table(measured: dict[str, dict[str, Any]], quick: bool) -> str:
    """The figures in Markdown, a section for each program."""
    lines = ["# All speed and memory figures"]
    if quick:
        lines += ["", "Of a run with `--quick`: small sizes, which try the programs out. No target counts."]
    for name, one in measured.items():
        lines += ["", f"## {one['title']} (`{name}.py`, {one['seconds']:.0f} s)", ""]
        if "failure" in one:
            lines.append(f"No figures: {one['failure']}.")
            continue
        lines += ["| figure | value | target | | beside |", "|:---|---:|:---|:---|:---|"]
        for title, figure in one["figures"].items():
            value, target = f"{figure['value']:.3g} {figure['unit']}".strip(), figure["target"] or ""
            met = "" if quick else verdict(figure)
            lines.append(f"| {title} | {value} | {target} | {met} | {figure['reference']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="small sizes: tries the programs, measures nothing")
    parser.add_argument(
        "--only", nargs="+", choices=[program.name for program in PROGRAMS], help="these alone, in this order, anew"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds for each program (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write; the table goes beside it")
    arguments = parser.parse_args()
    by_name = {program.name: program for program in PROGRAMS}
    names = [program.name for program in PROGRAMS if program.cuda or arguments.device == "cpu"]
    measured = kept(arguments)
    missing = [name for name in names if "figures" not in measured.get(name, {})]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only or missing:
            say(f"{name}: {by_name[name].title}")
            measured[name] = measure(by_name[name], arguments, Path(folder))
            # After each: what is stopped leaves the figures until then.
            measured = {one: measured[one] for one in by_name if one in measured}
            write_json(arguments.output, measured)
            arguments.output.with_suffix(".md").write_text(table(measured, arguments.quick), encoding="utf-8")
    print(table(measured, arguments.quick))
    sys.exit(1 if any("failure" in one for one in measured.values()) else 0)


if __name__ == "__main__":
    main()

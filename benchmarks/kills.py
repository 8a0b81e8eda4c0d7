"""SIGKILL at random moments of extraction, training, evaluation and saving; what is run again to the end must be equal.

    python benchmarks/kills.py --output benchmarks/results/kills.json

A run extracts regions of built-in pictures into a store, trains SCAN on them and measures it. One run is left alone.
Each of the others is killed at one random moment and started again. Then its store, its weights, its learning curve and
its results must be those of the run that was left alone, bit for bit, and nothing half written may be left.
"""

import argparse
import functools
import gc
import json
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from measuring import Figure, report, say
from PIL import Image

from vl_alignment.data.features import extract_regions
from vl_alignment.data.grid_extractor import grid_boxes
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.checkpoints import Checkpoints
from vl_alignment.training.evaluation import load_images
from vl_alignment.training.objectives import RetrievalObjective
from vl_alignment.training.retrieval import train_retrieval_run
from vl_alignment.training.runs import RunDirectory, commit

SIZES = {"train": 64, "validation": 16, "test": 16}
SIDE = 4
PHASES = ("extraction", "training", "evaluation", "saving")
# What counts as evaluation and as saving, wherever it is called from.
PARTS = {
    "evaluation": [(RetrievalObjective, "evaluate")],
    "saving": [
        *((Checkpoints, name) for name in ("save", "prune")),
        *((RunDirectory, name) for name in ("save_model", "write_run", "write_predictions", "write_results")),
    ],
}
TIMES = ("seconds", "step_seconds", "examples_per_second", "started", "finished")
PATIENCE = 600.0


class CellColours:
    """The mean colours of the cells of a grid."""

    name, version, feature_size, regions = "cell_colours", "1", 3, SIDE * SIDE

    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]) / 255
        boxes = np.broadcast_to(grid_boxes(SIDE, SIDE), (len(images), SIDE * SIDE, 4))
        return pixels.reshape(len(images), SIDE * SIDE, 3).astype(np.float32), boxes


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after the n-th time that a phase begins."""

    phase: str
    occurrence: int
    seconds: float


def work(folder: Path, data: datasets.DatasetDict) -> None:
    """One run from pictures to results."""
    store = extract_regions(
        data, CellColours(), folder / "store", batch_size=4, images_per_shard=16, dtype="float32", progress=False
    )
    train_retrieval_run(
        data,
        dataset_name="kills",
        output=folder / "runs",
        settings=TrainingSettings(
            epochs=3,
            batch_size=16,
            learning_rate=2e-3,
            decay_epochs=(2,),
            ema_decay=0.9,
            checkpoint_every_steps=3,
            log_every_steps=1,
            device="cpu",
        ),
        model_fields={"hidden_size": 64, "word_embedding_size": 16, "alignment_function": "general_key"},
        region_store=store,
        minimum_count=1,
        command="kills",
    )


def announced(call: Callable[..., Any], phase: str, pipe: int) -> Callable[..., Any]:
    """A call that says on a pipe when it begins and ends."""

    @functools.wraps(call)
    def announcing(*arguments: Any, **options: Any) -> Any:
        os.write(pipe, f"+{phase} {time.monotonic()}\n".encode())
        try:
            return call(*arguments, **options)
        finally:
            os.write(pipe, f"-{phase} {time.monotonic()}\n".encode())

    return announcing


def started(folder: Path, data: datasets.DatasetDict) -> tuple[int, int]:
    """Start a run in a process of its own; its id, and the pipe on which it announces its phases."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    status = 1
    try:
        os.close(reading)
        # A fork spares each run the seconds that imports take, in which there is nothing to be lost.
        for phase, parts in PARTS.items():
            for kind, name in parts:
                setattr(kind, name, announced(getattr(kind, name), phase, writing))
        global extract_regions, train_retrieval_run
        extract_regions = announced(extract_regions, "extraction", writing)
        train_retrieval_run = announced(train_retrieval_run, "training", writing)
        with (folder.parent / "log.txt").open("a") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
        work(folder, data)
        status = 0
    finally:
        os._exit(status)


def announcements(pipe: int) -> Iterator[tuple[str, float]]:
    """The lines of a pipe until its writer is gone."""
    with os.fdopen(pipe) as lines:
        for line in lines:
            name, seconds = line.split()
            yield name, float(seconds)


def finished(folder: Path, data: datasets.DatasetDict) -> list[tuple[str, int, float]]:
    """Run to the end; each phase's name, which time it was, and its seconds."""
    process, pipe = started(folder, data)
    begun: dict[str, list[tuple[int, float]]] = {phase: [] for phase in PHASES}
    found, counts = [], dict.fromkeys(PHASES, 0)
    for name, seconds in announcements(pipe):
        phase = name[1:]
        if name[0] == "+":
            counts[phase] += 1
            begun[phase].append((counts[phase], seconds))
        else:
            occurrence, start = begun[phase].pop()
            found.append((phase, occurrence, seconds - start))
    if os.waitpid(process, 0)[1] != 0:
        raise SystemExit(f"a run failed; see {folder.parent / 'log.txt'}")
    return found


def killed(folder: Path, data: datasets.DatasetDict, moment: Moment) -> bool:
    """Start a run and kill it at a moment; whether it was killed before it ended."""
    process, pipe = started(folder, data)
    count, deadline = 0, time.monotonic() + PATIENCE
    for name, seconds in announcements(pipe):
        count += name == f"+{moment.phase}"
        if count == moment.occurrence and name[0] == "+":
            time.sleep(max(0.0, seconds + moment.seconds - time.monotonic()))
            os.kill(process, signal.SIGKILL)
            break
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            raise SystemExit("a run hangs")
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(inner) for name, inner in value.items() if name not in TIMES}
    return value


def content(folder: Path) -> dict[str, Any]:
    """All that a run leaves, by the names of its files; JSON without times, the rest as bytes."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name in ("checkpoint.json", "history.jsonl", "results.json", "run.json"):
            text = path.read_text()
            rows = [json.loads(line) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]
            if path.name == "checkpoint.json":  # the rest are checksums, of files that are compared themselves
                rows = [row["state"] for row in rows]
            found[name] = [without_times(row) for row in rows]
        elif path.name.startswith("random_states"):
            # Beside the states Accelerate counts the batches of its session, from which nothing follows here.
            states = torch.load(path, weights_only=False)
            found[name] = {
                state: value.numpy().tobytes() if isinstance(value, torch.Tensor) else pickle.dumps(value)
                for state, value in states.items()
                if state != "step"
            }
        else:
            found[name] = path.read_bytes()
    return found


def half_written(folder: Path) -> list[str]:
    """Files under a temporary name; a lock is empty, and holds nobody off once its program is gone."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name != ".lock"]


def random_moment(phases: list[tuple[str, int, float]], phase: str, random: np.random.Generator) -> Moment:
    """A random moment of a phase."""
    chosen = [one for one in phases if one[0] == phase]
    _, occurrence, seconds = chosen[random.integers(len(chosen))]
    return Moment(phase, occurrence, float(random.uniform(0.0, seconds)))


def measure(kills: int, seed: int, root: Path) -> dict[str, Figure]:
    data = load_images("blocks", None, sizes=SIZES)
    commit()  # known before any run, whatever is committed while they go on
    gc.freeze()  # what is here already need not be looked through again by every run
    whole = root / "whole" / "run"
    whole.mkdir(parents=True)
    phases = finished(whole, data)
    expected = content(whole)
    hits, missed, beside, equal, left = dict.fromkeys(PHASES, 0), 0, 0, 0, 0
    random = np.random.default_rng(seed)
    while sum(hits.values()) < kills:
        moment = random_moment(phases, PHASES[sum(hits.values()) % len(PHASES)], random)  # of each phase in turn
        folder = root / f"killed-{sum(hits.values())}-{missed}" / "run"
        folder.mkdir(parents=True)
        if not killed(folder, data, moment):
            missed += 1  # this run was faster than the first
            if missed > 3 * kills:
                raise SystemExit("runs end before they can be killed")
            continue
        hits[moment.phase] += 1
        beside += bool(half_written(folder))
        finished(folder, data)
        found = content(folder)
        differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        equal += not differing
        left += bool(half_written(folder))
        where = f"{moment.seconds * 1000:.0f} ms into {moment.phase} {moment.occurrence}"
        say(f"{sum(hits.values())} of {kills}, {where}: {', '.join(differing) or 'equal'}")
    figures = {
        "kills": Figure(kills, "", f"SIGKILL, one a run, moments by seed {seed}"),
        "equal_after_running_again": Figure(equal, "", "weights, store, results, bit for bit", kills, at_least=True),
        "left_half_written_by_the_kill": Figure(beside, "", "runs with something half written beside the complete"),
        "left_half_written_at_the_end": Figure(left, "", "the same after running again", 0),
    }
    return figures | {f"kills_in_{phase}": Figure(hits[phase], "", "of these") for phase in PHASES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error("--kills must be at least 1")
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as root:
        figures = measure(arguments.kills, arguments.seed, Path(root))
    report(figures, __file__, arguments.output)
    met = all(figure.verdict in ("", "met") for figure in figures.values())
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

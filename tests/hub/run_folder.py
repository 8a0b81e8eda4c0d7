"""Folders of finished runs, as training writes them, of models of a few numbers that see pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.analysis.synthetic import make_answer_result, make_drawing_result, make_read_answer_result, make_result
from tests.pipelines.repositories import tiny_pipeline

from vl_alignment.training.runs import RunDirectory

RESULTS: dict[str, Callable[..., dict[str, Any]]] = {
    "scan": make_result,
    "mac": make_answer_result,
    "m4c": make_read_answer_result,
    "attngan": make_drawing_result,
}
SETTINGS = {"epochs": 4, "batch_size": 8, "learning_rate": 0.001}


def write_run(output: Path, kind: str = "scan", function: str = "general_key", seed: int = 0) -> Path:
    """Write a run below the folder of all runs: a type of model, its alignment function, a seed that moves weights."""
    result = RESULTS[kind](function, seed)
    run = RunDirectory.named(
        output, model=kind, dataset=result["dataset"]["name"], alignment_function=function, seed=seed
    )
    made = tiny_pipeline(kind, alignment_function=function)
    next(made.model.parameters()).data.add_(seed)
    run.path.mkdir(parents=True)
    run.save_model(made.model, made.processor)
    shared = {name: result[name] for name in ("task", "dataset", "seed", "versions", "commit", "command", "started")}
    run.write_run({**shared, "settings": SETTINGS, "model": made.model.config.to_dict()})
    run.write_results({**result, "run_id": run.run_id})
    return run.path

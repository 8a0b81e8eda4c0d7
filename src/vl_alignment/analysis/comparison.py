"""The main job: train and compare alignment functions on one data set, from the data to the report."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.alignment import ALIGNMENT_FUNCTIONS, alignment_specification
from ..models.errors import ConfigurationError, ResultsError
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..training.preparation import RetrievalStudy, run_study_cell
from ..training.runs import RunDirectory, load_results, rebuild_results, write_json
from .attention import scan_alignment_map
from .controls import retrieval_controls
from .drawing import alignment_png
from .report import Picture, write_report
from .statistics import row_key
from .tables import published_comparison, retrieval_table, runs_csv

__all__ = ["compare_retrieval", "planned_runs", "write_comparison"]


PUBLISHED_FUNCTIONS = [name for name, row in ALIGNMENT_FUNCTIONS.items() if row.published]


def planned_runs(functions: Sequence[str] | None, seeds: Sequence[int]) -> list[tuple[int, str]]:
    """The cells of a comparison, seed by seed, so that an interrupted one holds whole seeds.

    Args:
        functions: Names of the table; the paper's eight where None.
        seeds: One run of every function each.

    Raises:
        ConfigurationError: A function is unknown, or a function or seed is named twice, or none is.
    """
    names = list(PUBLISHED_FUNCTIONS if functions is None else functions)
    for name in names:
        alignment_specification(name)
    if not names or not seeds or len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise ConfigurationError("name every function and every seed once, and at least one of each")
    return [(seed, name) for seed in seeds for name in names]


def compare_retrieval(
    study: RetrievalStudy,
    output: str | Path,
    runs: Sequence[tuple[int, str]],
    *,
    controls: bool = True,
    released_layout: bool = False,
    command: str | None = None,
    announce: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train every run, keep `results.jsonl` up to date after each, and make the controls.

    Finished runs are kept and an interrupted one goes on where it was: call it again with the same arguments.

    Args:
        study: What the runs share.
        output: Folder of the runs.
        runs: (seed, alignment function) each; see `planned_runs`.
        controls: Whether to make the controls too.
        released_layout: Whether the models compute as the authors' released code does.
        command: What is recorded as the command; what was typed, where None.
        announce: Called with a line as each run starts and ends.

    Returns:
        The results of these runs, in their order.
    """
    results = []
    for number, (seed, name) in enumerate(runs, start=1):
        announce(f"[{number}/{len(runs)}] {name}, seed {seed}")
        result = run_study_cell(study, output, name, seed, released_layout=released_layout, command=command)
        results.append(result)
        rebuild_results(output)
        rsum, seconds = result["metrics"]["rsum"], result["training"]["seconds"]
        announce(f"[{number}/{len(runs)}] {name}, seed {seed}: Rsum {rsum:.1f} after {seconds:.0f} s")
    if controls:
        announce("controls")
        write_json(Path(output) / "controls.json", retrieval_controls(study, Path(output), results[0]))
    return results


def write_comparison(output: str | Path, study: RetrievalStudy | None = None, *, pictures: int = 4) -> str:
    """Write `table.md`, `published.md`, `results.csv` and `report.html` from the results in a folder.

    Args:
        output: Folder of the runs.
        study: For the attention pictures; without it there are none.
        pictures: Test images whose attention is drawn.

    Returns:
        The table in the layout of the paper's Table 2, as plain text.

    Raises:
        ResultsError: If there are no results.
    """
    output = Path(output)
    results = load_results(output)
    if not results:
        raise ResultsError("there are no finished runs; run the comparison first", path=output)
    controls = _read_controls(output)
    table = retrieval_table(results, controls)
    (output / "table.md").write_text(table.to_markdown() + "\n", encoding="utf-8")
    (output / "published.md").write_text(published_comparison(results).to_markdown() + "\n", encoding="utf-8")
    (output / "results.csv").write_text(runs_csv(results), encoding="utf-8")
    drawn = attention_pictures(study, output, results, pictures) if study is not None and pictures else []
    write_report(
        output,
        results,
        title=f"Alignment functions on {results[0]['dataset']['name']}",
        controls=controls,
        pictures=drawn,
        curves=_curves(output, results),
        notes=study.notes if study is not None else (),
        methods=_methods(output, results, study),
    )
    return table.to_text()


def attention_pictures(
    study: RetrievalStudy, output: Path, results: Sequence[dict[str, Any]], count: int
) -> list[Picture]:
    """Draw, for the first test images, how each function's model of the first seed attends from words to regions."""
    if study.store is None:
        return []
    test = study.data["test"]
    count = min(count, len(test))
    drawn: list[tuple[str, dict[str, bytes]]] = [(test[row]["captions"][0], {}) for row in range(count)]
    first_seed = min(result["seed"] for result in results)
    for result in results:
        folder = RunDirectory(output / result["run_id"]).model
        if result["seed"] != first_seed or not folder.exists():
            continue
        model = ScanForImageTextRetrieval.from_pretrained(folder).eval()
        tokenizer = _tokenizer(folder)
        for row in range(count):
            drawn[row][1][row_key(result)] = _attention_png(model, tokenizer, study, test[row])
    return [picture for picture in drawn if picture[1]]


@torch.no_grad()
def _attention_png(model: Any, tokenizer: Any, study: RetrievalStudy, record: dict[str, Any]) -> bytes:
    assert study.store is not None
    image_ids = [record["image_id"]]
    features = torch.from_numpy(np.asarray(study.store.features(image_ids), dtype=np.float32))
    encoded = tokenizer(record["captions"][:1], return_tensors="pt")
    attentions = model(**encoded, region_features=features, return_loss=False, output_attentions=True).attentions
    words = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    picture = record["image"].convert("RGB") if record.get("image") is not None else None
    return alignment_png(
        scan_alignment_map(
            attentions[0].numpy(),
            words,
            study.store.boxes(image_ids)[0],
            picture,
            direction=model.config.direction,
        )
    )


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _read_controls(output: Path) -> list[dict[str, Any]]:
    path = output / "controls.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _curves(output: Path, results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    curves = {}
    for result in results:
        path = output / result["run_id"] / "history.jsonl"
        if path.exists():
            curves[result["run_id"]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return curves


def _methods(output: Path, results: Sequence[dict[str, Any]], study: RetrievalStudy | None) -> dict[str, object]:
    run = RunDirectory(output / results[0]["run_id"]).read_run() or {}
    methods: dict[str, object] = {"Settings": run.get("settings", {}), "Machine": run.get("machine", {})}
    if study is not None and study.preparation_seconds:
        methods["Preparation"] = (
            f"{study.preparation_seconds:.0f} s once, for training the region encoder and extracting the regions"
        )
    return methods

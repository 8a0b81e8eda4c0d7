"""How interpretable a trained model's attention is, in numbers: `evaluate_grounding`, and the same for many runs.

model + split --gather--> looks and probes --score--> {metric: mean, interval, controls} -> grounding.json of the run
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator

from ..data.coco import load_coco_captions
from ..data.coco_segments import CocoSegments
from ..data.named_data import check_splits, data_folder
from ..data.question_records import QuestionData
from ..models.errors import ConfigurationError, DataError, ResultsError
from ..training.evaluation import LoadedSplit, built_in_preset, load_split, model_task, split_images
from ..training.preparation import BUILT_IN
from ..training.presets import get_preset
from ..training.runs import RunDirectory, commit, read_result, versions, write_json
from .grounding_models import gather_answers, gather_captions, gather_drawings, gather_readings
from .grounding_report import GROUNDING_FILE, SCHEMA_VERSION, read_grounding
from .grounding_scores import (
    RESAMPLES,
    Gathered,
    change_scores,
    entropy_scores,
    look_scores,
    probe_scores,
    summarise_scores,
)
from .grounding_truth import coco_places

__all__ = ["GroundingSettings", "evaluate_grounding", "ground_run", "run_folders"]

OCCLUSIONS = ("mean", "zero")
LIMIT = 200
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class GroundingSettings:
    """How attention is measured.

    Attributes:
        limit: Pictures at most, the first ones of the split.
        seed: Of resampling, random orders, the drawing of other pictures' attention, and noise.
        threshold: Share of the largest density from which attention counts as much, for the overlap.
        occlusion: What an occluded place becomes: the "mean" over the places of all pictures, or "zero".
        resamples: Of the bootstrap over pictures.
    """

    limit: int = LIMIT
    seed: int = 0
    threshold: float = 0.5
    occlusion: str = "mean"
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        if self.limit < 2 or self.resamples < 1 or not 0 < self.threshold <= 1:
            raise ConfigurationError(
                f"limit={self.limit}, resamples={self.resamples}, threshold={self.threshold}: need at least 2 pictures "
                "and 1 resample, and a threshold in (0, 1]"
            )
        if self.occlusion not in OCCLUSIONS:
            raise ConfigurationError(f"occlusion={self.occlusion!r}: the choices are {', '.join(OCCLUSIONS)}")


def evaluate_grounding(
    folder: str | Path,
    preset: str | None = None,
    *,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    split: str | None = None,
    sizes: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    settings: GroundingSettings | None = None,
) -> dict[str, Any]:
    """Measure where a model looks against where it should, and against what its score depends on.

    Truth is there for blocks (noun phrases of captions, programs of questions, printed words) and, with the preset
    "coco" and COCO's own annotation files below `data_dir` (`annotations/instances_*.json` and `captions_*.json`), for
    the nouns of captions that name a category. Elsewhere, and for drawn pictures, what needs no truth is measured.

    Args:
        folder: Of `save_pretrained`.
        preset: As of `training.evaluation.evaluate`.
        data_dir: Folder of the data set.
        regions: Stored regions of the kind the model was trained on.
        split: Name of the split; of COCO's own files the part of their names, such as val2017.
        sizes: Images a split; of what is built in, only those that are measured are made by default.
        options: As of `evaluate`.
        device: "auto" or "cpu".
        settings: By default `GroundingSettings()`.

    Returns:
        {"task", "dataset", "split", "pictures", "settings", "metrics": {name: {"mean", "low", "high", "items",
        "pictures", "uniform", "shuffled"}}} and what identifies model and versions. Shares and correlations, not
        percent; curves in the unit of the model's score.

    Raises:
        CheckpointError: If the model cannot be loaded.
        ConfigurationError: If a setting is wrong, or preset or regions do not fit the model.
        DataError: If the split does not exist or the data cannot be used.
    """
    settings = settings or GroundingSettings()
    task = model_task(folder)
    if task not in _GATHERERS:
        raise ConfigurationError(
            f"{folder} holds a model for {task}; attention is measured for {', '.join(_GATHERERS)}"
        )
    preset = preset or built_in_preset(folder)
    load = partial(load_split, folder, preset, regions=regions, options=options)
    places_of = None
    if preset == "coco":
        split, data, segments = _coco(data_dir, split)
        loaded = load(split=split, data=data)

        def places_of(caption: str, record: Mapping[str, Any]) -> list[Any]:
            return coco_places(caption, record["image_id"], segments)
    else:
        sizes = _few(preset, split, settings.limit) if sizes is None else sizes
        loaded = load(data_dir=data_dir, split=split, sizes=sizes)
    loaded = _limited(loaded, settings.limit)
    loaded.model.to(Accelerator(cpu=device == "cpu").device)
    gathered = _GATHERERS[task](loaded, settings, places_of)
    config = loaded.model.config
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "dataset": loaded.name,
        "split": loaded.split,
        "pictures": len(split_images(loaded.part)[loaded.split]),
        "model": config.model_type,
        "alignment_function": config.alignment_function,
        "released_layout": config.released_layout,
        "settings": asdict(settings),
        "metrics": _scored(gathered, settings),
        "versions": versions(),
        "commit": commit(),
    }


def ground_run(
    folder: str | Path,
    settings: GroundingSettings | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = print,
    **arguments: Any,
) -> dict[str, Any]:
    """Measure the model of a finished run into its `grounding.json`, or take what is there with the same settings.

    Args:
        folder: Of the run.
        settings: By default `GroundingSettings()`.
        options: As of `evaluate_grounding`; the run's own source of printed words where none is named.
        announce: Called with a line for each run.
        arguments: Others of `evaluate_grounding`.

    Returns:
        What `evaluate_grounding` gives, with "run_id", "seed", "request", and the run's own "performance".

    Raises:
        ResultsError: If the run is not finished, or an earlier measurement cannot be read.
    """
    settings = settings or GroundingSettings()
    run = RunDirectory(folder)
    if not run.results.exists() or not run.model.exists():
        raise ResultsError("there is no finished run here; give the folder of a run, or of several", path=folder)
    result, path = read_result(run.results), run.path / GROUNDING_FILE
    source = result["dataset"].get("ocr")
    if not options and source and source["source"] != "published":
        options = {"ocr": source["source"], **{name: value for name, value in source.items() if name != "source"}}
    request = {name: str(value) for name, value in {**arguments, "options": options}.items() if value is not None}
    request |= {name: str(value) for name, value in asdict(settings).items()}
    request |= {"finished": str(result.get("finished"))}  # a run that was trained anew is measured anew
    if path.exists():
        earlier = read_grounding(path)
        if earlier.get("request") == request:
            announce(f"{run.run_id}: measured before")
            return earlier
    announce(f"{run.run_id}: measuring")
    measured = evaluate_grounding(run.model, options=options, settings=settings, **arguments)
    own = {"run_id": run.run_id, "seed": result["seed"], "performance": result["metrics"], "request": request}
    measured |= own
    write_json(path, measured)
    return measured


def run_folders(paths: Sequence[str | Path]) -> list[Path]:
    """Take folders of runs, or of several runs, for the runs in them, in the order of their names.

    Raises:
        ResultsError: There is no finished run in one of them.
    """
    folders: list[Path] = []
    for path in map(Path, paths):
        found = (
            [path] if (path / "results.json").exists() else sorted(file.parent for file in path.glob("*/results.json"))
        )
        if not found:
            raise ResultsError("there is no finished run in this folder", path=path)
        folders += [folder for folder in found if folder not in folders]
    return folders


# By the task of the model; `places_of` says where a caption's nouns are, if the data set does.
_GATHERERS: dict[str, Callable[[LoadedSplit, GroundingSettings, Any], Gathered]] = {
    "retrieval": lambda loaded, settings, places_of: gather_captions(loaded, settings.occlusion, places_of),
    "question-answering": lambda loaded, settings, _: gather_answers(loaded, settings.occlusion),
    "text-question-answering": lambda loaded, settings, _: gather_readings(loaded, settings.occlusion),
    "text-to-image": lambda loaded, settings, _: gather_drawings(loaded, settings.occlusion, settings.seed),
}


def _scored(gathered: Gathered, settings: GroundingSettings) -> dict[str, dict[str, Any]]:
    scores = {
        **look_scores(gathered.looks, threshold=settings.threshold, seed=settings.seed),
        **probe_scores(gathered.probes, seed=settings.seed),
        **change_scores(gathered.changes, seed=settings.seed),
        **entropy_scores(gathered.maps),
    }
    return summarise_scores(scores, resamples=settings.resamples, seed=settings.seed)


def _few(preset: str, split: str | None, limit: int) -> dict[str, int] | None:
    """Of what is built in, the pictures to make: as many as are measured, and one of every other split."""
    data = get_preset(preset)["data"]
    if data["name"] not in BUILT_IN:
        return None
    split = split or data.get("test_split", "test")
    check_splits([split], SPLITS)
    most = data.get("sizes", {}).get(split, limit)
    return {name: min(limit, most) if name == split else 1 for name in SPLITS}


def _limited(loaded: LoadedSplit, limit: int) -> LoadedSplit:
    """Keep the first pictures of the split."""
    images = split_images(loaded.part)
    few = datasets.DatasetDict({name: table.select(range(min(limit, len(table)))) for name, table in images.items()})
    part = loaded.part.with_images(few) if isinstance(loaded.part, QuestionData) else few
    return replace(loaded, part=part)


def _coco(data_dir: str | Path | None, split: str | None) -> tuple[str, datasets.DatasetDict, CocoSegments]:
    """Read pictures, captions and outlines of one of COCO's own parts."""
    folder = data_folder("coco", data_dir)
    parts = {file.stem.removeprefix("instances_"): file for file in (folder / "annotations").glob("instances_*.json")}
    if split is None and len(parts) == 1:
        split = next(iter(parts))
    if split not in parts:
        known = ", ".join(sorted(parts)) or "none"
        raise DataError(
            f"annotations/instances_{split or '*'}.json: give one of the parts that are there ({known}) with --split",
            path=folder,
        )
    captions = folder / "annotations" / f"captions_{split}.json"
    return split, load_coco_captions(captions, folder / split, split=split), CocoSegments(parts[split])

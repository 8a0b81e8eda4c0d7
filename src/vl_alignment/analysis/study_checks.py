"""What a part's folder remembers of its plan, and whether the runs in it were made as the plan would make them now."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..models.errors import ConfigurationError, ResultsError
from ..training.epoch_loop import FREE_SETTINGS
from ..training.preparation import preset_settings
from ..training.presets import get_preset
from ..training.runs import RunDirectory, load_results, read_json_file, write_file, write_json
from .statistics import Result
from .study_plan import StudyPart

__all__ = ["PLAN_FILE", "changed_runs", "check_part", "keep_plan"]

PLAN_FILE = "plan.yaml"

# What decides the runs of a part, beside functions, seeds and layouts, which may grow.
_DECIDING = ("preset", "settings", "model", "options", "sizes", "extractor")
# Where the data lie may change: results hold the hash of their content.
_PLACES = ("data_dir", "regions")
_FREE = (FREE_SETTINGS - {"epochs"}) | {"seed"}
# Fields that follow from the data, the regions or DAMSM, of which a plan knows nothing yet.
_FOUND_LATER = {
    *("vision_config", "freeze_vision", "feature_size", "region_extractor", "grid_size", "ocr_feature_size"),
    *("vocab_size", "pad_token_id", "word_vector_size", "id2label", "label2id", "text_config", "damsm_config"),
}
_ABSENT = object()


def check_part(folder: Path, part: StudyPart) -> None:
    """Compare with what earlier runs of the folder were made of, where there are any, and write it down.

    Raises:
        ConfigurationError: It was something else.
        ResultsError: What they were made of cannot be read.
    """
    made_of = json.loads(json.dumps({name: getattr(part, name) for name in (*_DECIDING, *_PLACES)}))
    file = folder / "part.json"
    earlier = None
    if file.exists() and _holds_runs(folder):
        earlier = read_json_file(file, "remove it, if the runs beside it are those of this plan")
        if not isinstance(earlier, dict):
            raise ResultsError("It does not say what the runs beside it were made of; remove it.", path=file)
        changed = [name for name in _DECIDING if earlier.get(name) != made_of[name]]
        if changed:
            raise ConfigurationError(
                f"{part.name}: the runs in {folder} were made with another {' and '.join(changed)} "
                f"({', '.join(str(earlier.get(name)) for name in changed)}); give the part another name, or remove them"
            )
    if earlier != made_of:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, made_of)


def _holds_runs(folder: Path) -> bool:
    """Whether something was trained here: until then a plan may be put right."""
    results = folder / "results.jsonl"
    return (
        (results.exists() and results.stat().st_size > 0)
        or any(folder.glob("*/results.json"))
        or any(folder.glob("*/checkpoints/epoch-*"))
    )


def keep_plan(folder: Path, part: StudyPart) -> None:
    """Write what the plan says of a part beside its runs, for the processes: its own file may be edited meanwhile."""
    plain = json.loads(json.dumps({name: value for name, value in asdict(part).items() if value is not None}))
    write_file(folder / PLAN_FILE, yaml.safe_dump({"parts": [plain]}, allow_unicode=True, sort_keys=False))


def changed_runs(folder: Path, part: StudyPart) -> list[str]:
    """Say of finished runs what the plan would make otherwise now: presets change from version to version.

    Only of runs whose run.json is there. Fields that one of two versions does not know do not count while they are at
    their default, nor do those that the data decide.
    """
    if not folder.is_dir():
        return []
    planned = {(cell.alignment_function, cell.seed, cell.released_layout) for cell in part.cells}
    runs: dict[str, list[str]] = {}
    for result in load_results(folder):
        if (result["alignment_function"], result["seed"], result["released_layout"]) in planned:
            changes = "; ".join(_changes(RunDirectory(folder / result["run_id"]), result, part))
            if changes:
                runs.setdefault(changes, []).append(result["run_id"])
    return [
        f"{part.name}: {', '.join(names)} {'was' if len(names) == 1 else 'were'} made otherwise than this plan would "
        f"now ({changes}); kept as {'it is' if len(names) == 1 else 'they are'}, and compared with the others"
        for changes, names in runs.items()
    ]


def _changes(directory: RunDirectory, result: Result, part: StudyPart) -> list[str]:
    try:
        run = directory.read_run()
    except ResultsError as error:
        warnings.warn(f"{error} What it was made with is not known.", stacklevel=2)
        return []
    if not isinstance(run, dict):
        return []
    config = part.configuration(result["alignment_function"], result["released_layout"])
    settings = preset_settings(part.preset, part.settings)
    now = settings.to_dict(), config.to_dict()
    default = type(settings)().to_dict(), type(config)().to_dict()
    dataset = part.options.get("dataset", get_preset(part.preset)["data"]["name"])
    return [
        *_differences("data set", {"name": dataset}, run.get("dataset"), {}, frozenset()),
        *_differences("setting", now[0], run.get("settings"), default[0], _FREE),
        *_differences("model", now[1], run.get("model"), default[1], _FOUND_LATER),
        *_differences("text_config", _named_text_fields(part), _text_fields(run), {}, _FOUND_LATER),
    ]


def _named_text_fields(part: StudyPart) -> Mapping[str, Any]:
    """What the plan says of a text encoder inside the model; the rest of its configuration is of transformers."""
    return {**get_preset(part.preset)["model"], **part.model}.get("text_config") or {}


def _text_fields(run: Mapping[str, Any]) -> Any:
    model = run.get("model")
    return model.get("text_config") if isinstance(model, Mapping) else None


def _differences(
    what: str, now: Mapping[str, Any], then: Any, default: Mapping[str, Any], ignored: frozenset[str] | set[str]
) -> Iterator[str]:
    """Yield `what name: earlier value -> value` of every field that is not ignored."""
    if not isinstance(then, Mapping):  # written by another program, or before there was such a part
        return
    for name in sorted(set(now) - ignored):
        value = json.loads(json.dumps(now[name], default=str))
        if name in then:
            if then[name] != value:
                yield f"{what} {name}: {then[name]!r} -> {value!r}"
        elif default.get(name, _ABSENT) not in (now[name], _ABSENT):
            yield f"{what} {name}: not known then -> {value!r}"

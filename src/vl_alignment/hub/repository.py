"""One finished run as the flat folder that a repository of the Hub holds."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoProcessor

from ..data.confidential import without_secrets
from ..models.errors import CheckpointError, ResultsError, VlAlignmentError
from ..training.runs import RunDirectory, read_result
from .flat_code import save_with_code, without_local_paths
from .model_card import build_run_card

__all__ = ["write_card", "write_repository", "write_weights"]

CARD = "README.md"
# What is made of a run for its card, if it is there.
EXAMPLES = ("examples.json", "*.png", "*.jpg")
# What run.json says about the training; the model's own fields are in config.json.
TRAINING_FIELDS = ("task", "dataset", "settings", "seed", "versions", "commit", "command", "machine")


def write_repository(run: Path, folder: Path, *, repo_id: str) -> None:
    """Write everything that a repository of this run holds: weights, code, results, and the card last.

    Args:
        run: The folder of a finished run.
        folder: Where to; made. Equal runs give equal files.
        repo_id: `namespace/name`, which the card's examples load.

    Raises:
        ResultsError: The run has no results, or they are damaged or of another model.
        CheckpointError: Its model is missing, half written, or holds numbers that are not finite.
        HubError: Its alignment function cannot travel, or the Hub would refuse the card.
    """
    write_weights(run, folder)
    write_card(run, folder, repo_id=repo_id)


def write_weights(run: Path, folder: Path) -> None:
    """Write all but the card; see `write_repository`."""
    directory, result = RunDirectory(run), _result_of(run)
    description = directory.read_run()
    model, processor = _load(directory.model)
    _check_same_model(result, model.config, directory)
    save_with_code(model, processor, folder)
    _write_json(folder / "results.json", without_local_paths(result))
    if description is not None:
        kept = {name: description[name] for name in TRAINING_FIELDS if name in description}
        _write_json(folder / "training_arguments.json", without_local_paths(kept))
    for pattern in EXAMPLES:
        for file in sorted(directory.path.glob(pattern)):
            shutil.copyfile(file, folder / file.name)


def write_card(run: Path, folder: Path, *, repo_id: str) -> None:
    """Write the card beside what `write_weights` wrote; see `write_repository`."""
    (folder / CARD).write_text(build_run_card(run, repo_id=repo_id), encoding="utf-8")


def _result_of(run: Path) -> dict[str, Any]:
    directory = RunDirectory(run)
    if not directory.path.is_dir():
        raise ResultsError("There is no such folder of a run.", path=run)
    if not directory.results.exists():
        remedy = "train it to its end first (the same command again goes on)" if directory.run_file.exists() else ""
        raise ResultsError(f"There are no results: {remedy or 'this is no folder of a run'}.", path=directory.results)
    return read_result(directory.results)


def _load(folder: Path) -> tuple[Any, Any]:
    """Load model and processor, which shows that they are whole.

    Raises:
        CheckpointError: They are not.
    """
    for name in ("config.json", "model.safetensors", "processor_config.json"):
        if not (folder / name).is_file():
            raise CheckpointError(f"half written: there is no {name}; train the run once more", path=folder)
    try:
        model = AutoModel.from_pretrained(folder, trust_remote_code=False)
        return model.eval(), AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except VlAlignmentError:
        raise
    except Exception as error:  # what json, tokenizers and transformers raise has no common base
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"cannot be loaded: {reason}; train the run once more", path=folder) from error


def _check_same_model(result: dict[str, Any], config: Any, directory: RunDirectory) -> None:
    """Refuse weights that are not those of the results.

    Raises:
        ResultsError: Type of model, alignment function or layout differ.
    """
    found = (config.model_type, config.alignment_function, config.released_layout)
    stated = (result["model"], result["alignment_function"], result["released_layout"])
    if found != stated:
        raise ResultsError(f"The results are of {stated}, but the model beside them is {found}.", path=directory.path)


def _write_json(path: Path, value: Any) -> None:
    # Of a run by an earlier version, or of somebody else's.
    path.write_text(without_secrets(json.dumps(value, indent=2, ensure_ascii=False)) + "\n", encoding="utf-8")

"""Small networks that are trained once and kept: what names their folder, and how they are found again."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets

from vl_alignment.data.json_text import parse_json
from vl_alignment.models.errors import CheckpointError, ResultsError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.epoch_loop import FREE_SETTINGS
from vl_alignment.training.runs import RunDirectory

__all__ = ["best_validation", "identity_key", "load_kept", "pictures_hash", "weight_settings"]

Kept = TypeVar("Kept")

# What the weights do not depend on: such settings give the same network.
_NOT_IN_KEY = (FREE_SETTINGS - {"epochs"}) | {
    *("epoch_captions", "all_negatives_epochs", "gather_negatives", "validation_captions"),
    *("questions_per_image", "short_questions_epochs", "short_questions_share", "first_question_types"),
    "text_encoder_factor",
}
# Settings that came later: where they are as before, a network that was trained before is still the same.
_LATER = {"warmup_factor": 0.0, "decay_steps": []}


def weight_settings(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings that the weights of a network of pictures alone depend on."""
    return {
        name: value
        for name, value in settings.to_dict().items()
        if name not in _NOT_IN_KEY and not (name in _LATER and value == _LATER[name])
    }


def pictures_hash(
    data: Mapping[str, datasets.Dataset], *, texts: Sequence[str], pictures: Sequence[str] = ("image",)
) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over all splits' columns of texts and of encoded pictures."""
    digest = hashlib.sha256()
    for name in sorted(data):
        split = data[name].select_columns([*texts, *pictures])
        for column in pictures:
            split = split.cast_column(column, datasets.Image(decode=False))
        for record in split:
            digest.update(json.dumps([name, *(record[column] for column in texts)]).encode())
            for column in pictures:
                value = record[column]
                digest.update(hashlib.sha256(value["bytes"] or Path(value["path"]).read_bytes()).digest())
    return digest.hexdigest()[:16]


def identity_key(identity: Mapping[str, Any]) -> str:
    """Return what stands for all that a network depends on in the name of its folder."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def best_validation(run: RunDirectory, metric: str) -> dict[str, float]:
    """Return the metrics of the validation whose weights were kept, the first of the best by a metric.

    Raises:
        CheckpointError: The learning curve cannot be read, or holds no validation.
    """
    try:
        validations = [row["validation"] for row in run.read_history() if metric in row.get("validation", ())]
    except ResultsError as error:
        raise CheckpointError(f"{error} Remove the folder and train again.") from error
    if not validations:
        raise CheckpointError(f"It holds no {metric}; remove the folder and train again.", path=run.history)
    best = max(validations, key=lambda metrics: metrics[metric])
    return {name: round(value, 2) for name, value in best.items()}


def load_kept(
    kind: Callable[..., Kept], folder: str | Path, information_name: str, schema_version: int, what: str
) -> Kept:
    """Return what is known of the finished network in a folder.

    Args:
        kind: Takes `folder` and the fields of the information file.
        folder: Of the network.
        information_name: Of the file that is written last.
        schema_version: The newest that can be read.
        what: The network in words.

    Raises:
        CheckpointError: There is none, it is damaged, or a newer version wrote it.
    """
    folder = Path(folder)
    try:
        information = parse_json((folder / information_name).read_text())
        version = information.pop("schema_version")
        if version > schema_version:
            raise CheckpointError(
                f"The {what} has schema version {version}, this vl-alignment reads up to {schema_version}; "
                "update vl-alignment.",
                path=folder,
            )
        return kind(folder=folder, **information)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no finished {what} here; train it first.", path=folder) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{information_name} is damaged ({error}); remove the folder and train again.", path=folder
        ) from error

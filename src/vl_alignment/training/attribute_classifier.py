"""The attribute classifier of the blocks world: trained once on real pictures, kept, its accuracy measured.

It tells whether a generated picture shows what its caption says. It learns from pixels and scenes; of captions it reads
none. What it says of real pictures of the test split is the ceiling of what generated pictures can reach.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator
from accelerate.utils import set_seed

from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.attribute_phrases import (
    COLUMNS,
    AttributeClassifier,
    AttributeFeatures,
    AttributePhraseObjective,
    DescribedPictures,
)
from vl_alignment.training.kept_models import (
    best_validation,
    identity_key,
    load_kept,
    pictures_hash,
    weight_settings,
)
from vl_alignment.training.loop import train
from vl_alignment.training.optimisation import build_accelerator
from vl_alignment.training.runs import RunDirectory, one_program_at_a_time, versions, write_json

__all__ = [
    "TrainedAttributeClassifier",
    "attribute_classifier_settings",
    "load_attribute_classifier",
    "train_attribute_classifier",
]

SCHEMA_VERSION = 1
INFORMATION_NAME = "attribute_classifier.json"

WIDTHS = (32, 64, 128)
IMAGE_SIZE = 64
PICTURES = 3000
SETTINGS: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "decay_epochs": (5, 7),
    "decay_factor": 0.3,
    "warmup_steps": 30,
    "gradient_clipping": None,
}


@dataclass(frozen=True)
class TrainedAttributeClassifier:
    """A trained attribute classifier on disk.

    Args:
        folder: Of the classifier, with `attribute_classifier.json`.
        image_size: Side of its pictures in pixels.
        widths: Channels of its stages.
        metrics: On the validation split: `log_likelihood`, `phrase_f1` and `attribute_accuracy` of real pictures.
        seconds: All that making it took: reading the pictures, training, evaluation.
        steps: Of the optimiser.
        data_hash: Of the pictures and scenes it was trained and selected on.
        settings: Of the training.
        versions: Of the packages.
    """

    folder: Path
    image_size: int
    widths: list[int]
    metrics: dict[str, float]
    seconds: float
    steps: int
    data_hash: str
    settings: dict[str, Any]
    versions: dict[str, str]

    def model(self) -> AttributeClassifier:
        """Return the classifier, in evaluation mode.

        Raises:
            CheckpointError: The weights are missing or damaged.
        """
        return AttributeClassifier.from_pretrained(RunDirectory(self.folder).model)

    def features(self) -> AttributeFeatures:
        """Return the classifier as a network whose features pictures are compared by.

        Raises:
            CheckpointError: The weights are missing or damaged.
        """
        return AttributeFeatures(self.model())


def attribute_classifier_settings(**changes: Any) -> TrainingSettings:
    """Return the settings that the classifier is trained with, some of them changed."""
    return TrainingSettings.from_dict({**SETTINGS, **changes})


def train_attribute_classifier(
    data: datasets.DatasetDict,
    output: str | Path,
    *,
    settings: TrainingSettings | None = None,
    widths: tuple[int, int, int] = WIDTHS,
    image_size: int = IMAGE_SIZE,
    pictures: int = PICTURES,
    accelerator: Accelerator | None = None,
) -> TrainedAttributeClassifier:
    """Train the attribute classifier of a blocks data set, or take it from an earlier call.

    It is kept under `output` in a folder named by data and settings; an interrupted training goes on.

    Args:
        data: Splits "train" and "validation" with image_id, image, captions and scene; others are not touched.
        output: Folder of all attribute classifiers.
        settings: Default: `attribute_classifier_settings()`.
        widths: Channels of the classifier's stages.
        image_size: Side of the pictures that it looks at, a multiple of 8; larger ones are made smaller.
        pictures: So many of the training pictures, the first, are enough.
        accelerator: Made from the settings if not given.

    Raises:
        ConfigurationError: The data set is not of the blocks world, or a setting does not fit.
        DataError: A split is missing or empty.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    started = time.monotonic()
    settings = settings if settings is not None else attribute_classifier_settings()
    splits = {name: _checked_split(data, name) for name in ("train", "validation")}
    splits["train"] = splits["train"].select(range(min(pictures, len(splits["train"]))))
    AttributeClassifier(widths, image_size)  # refuses what does not fit before pictures are read
    identity = {
        "schema_version": SCHEMA_VERSION,
        "image_size": image_size,
        "widths": list(widths),
        "data_hash": pictures_hash(splits, texts=("image_id", "scene")),
        "settings": weight_settings(settings),
    }
    run = RunDirectory(Path(output) / f"attribute-classifier-{identity_key(identity)}")
    accelerator = accelerator if accelerator is not None else build_accelerator(settings, run)
    with one_program_at_a_time(run.path, accelerator):
        if not (run.path / INFORMATION_NAME).exists():
            _train(run, splits, identity, settings, accelerator, started)
    return load_attribute_classifier(run.path)


def _train(
    run: RunDirectory,
    splits: Mapping[str, datasets.Dataset],
    identity: Mapping[str, Any],
    settings: TrainingSettings,
    accelerator: Accelerator,
    started: float,
) -> None:
    """Train the classifier that `identity` describes, and write what it reached."""
    run.check_writable()
    pictures = {name: DescribedPictures(split, identity["image_size"]) for name, split in splits.items()}
    objective = AttributePhraseObjective(pictures["train"], pictures["validation"], settings)
    set_seed(settings.seed)
    model = AttributeClassifier(tuple(identity["widths"]), identity["image_size"])
    prepared = time.monotonic() - started
    summary = train(model, objective, settings, run, accelerator=accelerator)
    if accelerator.is_main_process:
        information = {
            **identity,
            "metrics": best_validation(run, objective.selection_metric),
            "seconds": round(prepared + summary.seconds, 1),
            "steps": summary.steps,
            "versions": versions(),
        }
        write_json(run.path / INFORMATION_NAME, information)
        shutil.rmtree(run.checkpoints)


def load_attribute_classifier(folder: str | Path) -> TrainedAttributeClassifier:
    """Return the finished attribute classifier in a folder.

    Raises:
        CheckpointError: There is none, it is damaged, or a newer version wrote it.
    """
    return load_kept(TrainedAttributeClassifier, folder, INFORMATION_NAME, SCHEMA_VERSION, "attribute classifier")


def _checked_split(data: datasets.DatasetDict, name: str) -> datasets.Dataset:
    if name not in data or not len(data[name]):
        raise DataError(
            f"The attribute classifier needs a split {name!r} that is not empty; the data set has {sorted(data)}."
        )
    if missing := [column for column in COLUMNS if column not in data[name].column_names]:
        raise ConfigurationError(
            f"The {name} split has no column {missing[0]!r}: the attribute classifier learns from scenes of the blocks "
            "world."
        )
    return data[name]

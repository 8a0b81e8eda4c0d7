"""A small region encoder for the blocks world: trained once on attributes, kept, its time counted.

It learns from pixels to name the shape, colour, material and size of the object in each cell, as a ResNet is trained
on ImageNet before its regions are used; captions are never read, and the test split is never trained on. The heads
are left behind: the regions are the cells' features.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import ResNetConfig, ResNetModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vl_alignment.data.features import RegionStore, extract_regions
from vl_alignment.data.grid_extractor import TransformersGridExtractor
from vl_alignment.data.json_text import parse_json
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.vision import vision_feature_size
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.kept_models import (
    best_validation,
    identity_key,
    load_kept,
    pictures_hash,
    weight_settings,
)
from vl_alignment.training.loop import train
from vl_alignment.training.optimisation import build_accelerator
from vl_alignment.training.region_attributes import (
    COLUMNS,
    EMPTY_CELL_WEIGHT,
    AttributeCells,
    RegionAttributeModel,
    RegionAttributeObjective,
)
from vl_alignment.training.runs import RunDirectory, one_program_at_a_time, versions, write_json

__all__ = [
    "BlocksRegions",
    "RegionEncoder",
    "blocks_regions",
    "load_region_encoder",
    "region_encoder_settings",
    "train_region_encoder",
]

SCHEMA_VERSION = 1
INFORMATION_NAME = "region_encoder.json"
EXTRACTOR_NAME = "blocks_region_encoder"

VISION_FIELDS: dict[str, Any] = {
    "layer_type": "basic",
    "embedding_size": 32,
    "hidden_sizes": [48, 96, 128],
    "depths": [1, 1, 1],
}
SETTINGS: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 32,
    "learning_rate": 3e-3,
    "decay_epochs": (9, 13),
    "decay_factor": 0.3,
    "warmup_steps": 30,
    "gradient_clipping": None,
}


@dataclass(frozen=True)
class RegionEncoder:
    """A trained region encoder on disk.

    Args:
        folder: Of the encoder, with `region_encoder.json`.
        image_size: Side of its pictures in pixels.
        regions: Cells of a picture.
        feature_size: Width of a region.
        metrics: Accuracy in percent on cells of the validation split: each attribute's and their mean where there is
            an object, and of the cells without one.
        seconds: All that making it took: reading the pictures, training, evaluation.
        steps: Of the optimiser.
        label: Which cells an object labelled.
        data_hash: Of the pictures and scenes it was trained and selected on.
        vision_config: Of the backbone, the fields that were chosen.
        settings: Of the training.
        versions: Of the packages.
    """

    folder: Path
    image_size: int
    regions: int
    feature_size: int
    metrics: dict[str, float]
    seconds: float
    steps: int
    label: str
    data_hash: str
    vision_config: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]

    @property
    def model_folder(self) -> Path:
        """Weights, configuration and image processor, for `from_pretrained`."""
        return RunDirectory(self.folder).model

    def backbone(self) -> ResNetModel:
        """Return the trained backbone, in evaluation mode.

        Raises:
            CheckpointError: The weights are missing or damaged.
        """
        try:
            return ResNetModel.from_pretrained(self.model_folder, local_files_only=True).eval()
        except Exception as error:  # safetensors and transformers each raise errors of their own
            reason = str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"The backbone cannot be loaded ({reason}); train it again.", path=self.folder
            ) from error

    def image_processor(self) -> Any:
        """Return what makes the backbone's pixel values."""
        return AutoImageProcessor.from_pretrained(self.model_folder, local_files_only=True)


def region_encoder_settings(**changes: Any) -> TrainingSettings:
    """Return the settings that the encoder is trained with, some of them changed."""
    return TrainingSettings.from_dict({**SETTINGS, **changes})


def train_region_encoder(
    data: datasets.DatasetDict,
    output: str | Path,
    *,
    settings: TrainingSettings | None = None,
    vision_fields: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    label: str = "cover",
    accelerator: Accelerator | None = None,
) -> RegionEncoder:
    """Train the region encoder of a blocks data set, or take it from an earlier call.

    It is kept under `output` in a folder named by data and settings; an interrupted training goes on.

    Args:
        data: Splits "train" and "validation"; others are not touched.
        output: Folder of all region encoders.
        settings: Default: `region_encoder_settings()`.
        vision_fields: Fields of `ResNetConfig` in place of `VISION_FIELDS`; a cell is 4 pixels wide after the first
            stage, 8 after the second, 16 after the third.
        image_size: Side of the pictures, a multiple of a cell's; default: that of the data set's.
        label: Which cells an object labels, "cover" or "centers"; see `AttributeCells`.
        accelerator: Made from the settings if not given.

    Raises:
        ConfigurationError: The data set is not of the blocks world, or a setting does not fit.
        DataError: A split is missing or empty.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    started = time.monotonic()
    settings = settings if settings is not None else region_encoder_settings()
    config, fields_chosen = _vision_config(vision_fields)
    splits = {name: _checked_split(data, name) for name in ("train", "validation")}
    if image_size is None:
        image_size = int(splits["train"][0]["image"].width)
    stride = _stride(config)
    if image_size < stride or image_size % stride:
        raise ConfigurationError(f"image_size={image_size} must be a multiple of {stride}, the side of a cell.")
    if label not in EMPTY_CELL_WEIGHT:
        raise ConfigurationError(
            f"label={label!r} is no way to label cells; choose one of {sorted(EMPTY_CELL_WEIGHT)}."
        )
    identity = {
        "schema_version": SCHEMA_VERSION,
        "image_size": image_size,
        "label": label,
        "data_hash": _data_hash(splits),
        "vision_config": fields_chosen,
        "settings": weight_settings(settings),
    }
    run = RunDirectory(Path(output) / f"region-encoder-{identity_key(identity)}")
    accelerator = accelerator if accelerator is not None else build_accelerator(settings, run)
    with one_program_at_a_time(run.path, accelerator):
        if not (run.path / INFORMATION_NAME).exists():
            _train(run, splits, identity, config, settings, accelerator, started)
    return load_region_encoder(run.path)


def _train(
    run: RunDirectory,
    splits: Mapping[str, datasets.Dataset],
    identity: Mapping[str, Any],
    config: ResNetConfig,
    settings: TrainingSettings,
    accelerator: Accelerator,
    started: float,
) -> None:
    """Train the encoder that `identity` describes, and write what it reached."""
    run.check_writable()
    image_size = identity["image_size"]
    grid = image_size // _stride(config)
    processor = SquareImageProcessorPil(size={"height": image_size, "width": image_size})
    cells = {name: AttributeCells(split, image_size, grid, identity["label"]) for name, split in splits.items()}
    objective = RegionAttributeObjective(cells["train"], cells["validation"], settings, processor)
    set_seed(settings.seed)
    model = RegionAttributeModel(config)
    prepared = time.monotonic() - started
    summary = train(model, objective, settings, run, accelerator=accelerator)
    if accelerator.is_main_process:
        metrics = best_validation(run, RegionAttributeObjective.selection_metric)
        information = {
            **identity,
            "regions": grid * grid,
            "feature_size": vision_feature_size(config),
            "metrics": metrics,
            "seconds": round(prepared + summary.seconds, 1),
            "steps": summary.steps,
            "versions": versions(),
        }
        write_json(run.path / INFORMATION_NAME, information)
        shutil.rmtree(run.checkpoints)


def _stride(config: ResNetConfig) -> int:
    """Pixels along a side of a cell."""
    return 2 ** (len(config.hidden_sizes or ()) + 1)


def load_region_encoder(folder: str | Path) -> RegionEncoder:
    """Return the finished region encoder in a folder.

    Raises:
        CheckpointError: There is none, it is damaged, or a newer version wrote it.
    """
    return load_kept(RegionEncoder, folder, INFORMATION_NAME, SCHEMA_VERSION, "region encoder")


class BlocksRegions(NamedTuple):
    """Regions of a blocks data set.

    Args:
        store: Of all splits, float32.
        encoder: What made them; `encoder.model_folder` is the vision model that travels with a retrieval model.
        seconds: Spent on training the encoder and on extraction, whenever that was.
    """

    store: RegionStore
    encoder: RegionEncoder
    seconds: float


def blocks_regions(
    data: datasets.DatasetDict,
    cache_dir: str | Path,
    *,
    settings: TrainingSettings | None = None,
    vision_fields: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    label: str = "cover",
    pictures: int | None = None,
    dtype: str = "float32",
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> BlocksRegions:
    """Train the region encoder on the train split and extract the regions of all splits, or take both from the cache.

    Args:
        data: A blocks data set.
        cache_dir: Where encoder and regions are kept.
        settings: Of the encoder's training; see `train_region_encoder`.
        vision_fields: Of the encoder.
        image_size: Of the encoder.
        label: Of the encoder.
        pictures: So many of the training pictures, the first, are enough to train the encoder; None takes all.
        dtype: Of the stored regions, "float32" or "float16".
        accelerator: Of the encoder's training; one of its processes extracts. To be given where there are several.
        progress: Whether extraction shows a progress bar.

    Raises:
        ConfigurationError: As of `train_region_encoder`.
        DataError: As of `train_region_encoder` and `extract_regions`.
    """
    learned_from = datasets.DatasetDict(data)
    if pictures is not None and pictures < len(data["train"]):
        learned_from["train"] = data["train"].select(range(pictures))
    encoder = train_region_encoder(
        learned_from,
        cache_dir,
        settings=settings,
        vision_fields=vision_fields,
        image_size=image_size,
        label=label,
        accelerator=accelerator,
    )
    # Ids do not tell pictures of two sizes apart, so the store is named by the pictures themselves.
    folder = encoder.folder / f"regions-{_data_hash(data)}-{dtype}"
    timing = folder / "seconds.json"
    main = accelerator is None or accelerator.is_main_process
    with one_program_at_a_time(folder, accelerator):
        if main and not timing.exists():
            started = time.monotonic()
            # The model, not its folder: a store's version should not hold the path of this machine. On the CPU and with
            # the same scaling, so that a model that gets these weights sees the same from pixels.
            extractor = TransformersGridExtractor(encoder.backbone(), image_size=encoder.image_size)
            extractor.name = EXTRACTOR_NAME  # results then say that the regions' maker was trained on attributes
            extract_regions(data, extractor, folder, dtype=dtype, progress=progress)
            write_json(timing, {"seconds": round(time.monotonic() - started, 1)})
    seconds = _seconds(timing)
    return BlocksRegions(RegionStore.open(folder), encoder, round(encoder.seconds + seconds, 1))


def _seconds(timing: Path) -> float:
    """Return how long extracting the regions took, as the file beside them says.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return float(parse_json(timing.read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"It is damaged ({error}); remove it, the regions are kept.", path=timing) from error


def _vision_config(chosen: Mapping[str, Any] | None) -> tuple[ResNetConfig, dict[str, Any]]:
    """Return the backbone's configuration, and the fields that make it."""
    values = {**VISION_FIELDS, **(chosen or {})}
    known = {field.name for field in fields(ResNetConfig)}
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(f"Unknown fields {unknown} of a ResNet's configuration.")
    try:
        return ResNetConfig(**values), json.loads(json.dumps(values))
    except Exception as error:  # strict configurations raise errors of huggingface_hub, no ValueErrors
        raise ConfigurationError(f"vision_fields={values} make no ResNet: {error}") from error


def _checked_split(data: datasets.DatasetDict, name: str) -> datasets.Dataset:
    if name not in data or not len(data[name]):
        raise DataError(
            f"The region encoder needs a split {name!r} that is not empty; the data set has {sorted(data)}."
        )
    if missing := [column for column in COLUMNS if column not in data[name].column_names]:
        raise ConfigurationError(
            f"The {name} split has no column {missing[0]!r}: the region encoder learns from scenes of the blocks world."
        )
    return data[name]


def _data_hash(data: Mapping[str, datasets.Dataset]) -> str:
    """Return what stands for ids, pictures, scenes and masks of all splits."""
    return pictures_hash(data, texts=("image_id", "scene"), pictures=("image", "masks"))

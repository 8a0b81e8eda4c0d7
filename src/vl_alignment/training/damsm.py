"""DAMSM from data to results.json, and the one DAMSM that all generators of a study are trained and judged with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator

from ..data.content import content_hash
from ..data.vocabulary import build_word_tokenizer
from ..metrics.image_features import tensors_sha256
from ..models.configuration_damsm import DamsmConfig
from ..models.errors import DataError
from ..models.modeling_damsm import DamsmModel
from ..models.processing_attngan import AttnGanProcessor
from ..models.processing_base import SquareImageProcessorPil
from .arguments import TrainingSettings
from .damsm_objective import DamsmObjective
from .kept_models import identity_key, weight_settings
from .runs import RunDirectory, one_program_at_a_time
from .single_run import SPLITS, train_single_run

__all__ = ["shared_damsm", "train_damsm_run"]

MAX_WORDS = 18
# What the weights depend on beside data, settings and the image encoder that is given.
DECIDING_ARGUMENTS = ("dataset_name", "model_fields", "image_size", "reading", "max_words", "minimum_count")


def train_damsm_run(
    dataset_dict: datasets.DatasetDict,
    *,
    dataset_name: str,
    output: Any,
    settings: TrainingSettings,
    model_fields: Mapping[str, Any],
    image_size: int,
    reading: Mapping[str, Any] | None = None,
    max_words: int = MAX_WORDS,
    vision_model: Any = None,
    tokenizer: Any = None,
    minimum_count: int = 1,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train DAMSM once, measure the R-precision of its best weights on the test split, and write the run directory.

    A finished run is not repeated, an interrupted one goes on from its newest checkpoint.

    Args:
        dataset_dict: Splits "train", "validation" and "test"; see `DamsmObjective`.
        dataset_name: For the run's name and results.
        output: Folder of all runs.
        settings: With the seed.
        model_fields: Fields of `DamsmConfig`; the size of the vocabulary is taken from the data.
        image_size: Pixels of the pictures, the last stage's of the generator that is trained with this model.
        reading: Further arguments of `CaptionedPictures`.
        max_words: Tokens of a caption at most.
        vision_model: A trained image encoder whose weights become part of the model: `InceptionV3` or a backbone of
            transformers. None trains the network of `vision_config` from the start.
        tokenizer: Made from the training captions where None.
        minimum_count: Words rarer than this in the training captions are unknown.
        accelerator: Made from the settings if not given.
        command: For the results; what was typed, where None.

    Returns:
        The content of results.json, on every process.

    Raises:
        ConfigurationError: Settings do not fit one another, the data, or an earlier run in the same folder.
        DataError: The data cannot be used.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    missing = [name for name in SPLITS if name not in dataset_dict]
    if missing:
        raise DataError(f"The data set {dataset_name!r} lacks the splits {missing}; it has {sorted(dataset_dict)}.")
    if tokenizer is None:
        texts = (text for captions in dataset_dict["train"]["captions"] for text in captions)
        tokenizer = build_word_tokenizer(texts, minimum_count=minimum_count, marks=False)
    words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = DamsmConfig(**{**model_fields, **words})

    def build() -> tuple[DamsmModel, DamsmObjective]:
        model = DamsmModel(config)
        if vision_model is not None:
            model.vision_model.load_state_dict(vision_model.state_dict())  # type: ignore[union-attr]
        objective = DamsmObjective(
            dataset_dict,
            tokenizer,
            settings,
            image_size=image_size,
            processor=picture_processor(tokenizer, image_size, max_words),
            reading={**(reading or {}), "max_words": max_words},
        )
        return model, objective

    dataset: dict[str, Any] = {"name": dataset_name, "content_hash": content_hash(dataset_dict)}
    dataset |= {split: len(dataset_dict[split]) for split in SPLITS} | {"image_size": image_size}
    return train_single_run(
        build,
        task=DamsmObjective.task,
        config=config,
        dataset=dataset,
        output=output,
        settings=settings,
        accelerator=accelerator,
        command=command,
    )


def shared_damsm(
    dataset_dict: datasets.DatasetDict,
    cache_dir: str | Path,
    *,
    accelerator: Accelerator | None = None,
    **arguments: Any,
) -> tuple[RunDirectory, dict[str, Any]]:
    """Train the DAMSM of a study, or take it from the cache, where another program's training is waited for.

    Args:
        dataset_dict: As of `train_damsm_run`.
        cache_dir: Where it is kept, in a folder named by data and settings.
        accelerator: Made from the settings if not given; to be given where there are several processes.
        arguments: Further ones of `train_damsm_run`, but for the output.

    Returns:
        Its run, and the content of results.json.
    """
    vision_model = arguments.get("vision_model")
    identity = {
        "content_hash": content_hash(dataset_dict),
        "settings": weight_settings(arguments["settings"]),
        "vision_model": None if vision_model is None else tensors_sha256(vision_model),
        **{name: value for name, value in arguments.items() if name in DECIDING_ARGUMENTS},
    }
    folder = Path(cache_dir) / f"damsm-{identity_key(identity)}"
    with one_program_at_a_time(folder, accelerator):
        result = train_damsm_run(dataset_dict, output=folder, accelerator=accelerator, **arguments)
    return RunDirectory(folder / result["run_id"]), result


def picture_processor(tokenizer: Any, image_size: int, max_words: int) -> AttnGanProcessor:
    """Return what reads captions for DAMSM and AttnGAN, and brings pictures to [-1, 1] at their size."""
    pictures = SquareImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return AttnGanProcessor(pictures, tokenizer, max_words=max_words)

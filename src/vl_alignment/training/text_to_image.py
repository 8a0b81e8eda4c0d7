"""One run of text-to-image generation from data to results.json: what `train`, `compare` and the example call."""

from collections.abc import Mapping
from typing import Any

import datasets
from accelerate import Accelerator

from ..data.content import content_hash
from ..models.configuration_attngan import AttnGanConfig
from ..models.errors import DataError
from ..models.modeling_attngan import AttnGanDiscriminators, AttnGanForTextToImageGeneration
from .adversarial_loop import AdversarialSummary, train_adversarial
from .adversarial_settings import AdversarialSettings
from .picture_judges import PictureJudges
from .single_run import SPLITS, train_single_run
from .text_to_image_task import TextToImageTask

__all__ = ["train_text_to_image_run"]


def train_text_to_image_run(
    dataset_dict: datasets.DatasetDict,
    *,
    dataset_name: str,
    output: Any,
    settings: AdversarialSettings,
    model_fields: Mapping[str, Any],
    judges: PictureJudges,
    processor: Any,
    reading: Mapping[str, Any] | None = None,
    pictures_per_image: int = 1,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train AttnGAN once, measure the pictures of its best average on the test split, and write the run directory.

    A finished run is not repeated, an interrupted one goes on from its newest checkpoint.

    Args:
        dataset_dict: Splits "train", "validation" and "test"; see `TextToImageTask`.
        dataset_name: For the run's name and results.
        output: Folder of all runs.
        settings: With the seed.
        model_fields: Fields of `AttnGanConfig`, `alignment_function` among them; those of the text encoder are DAMSM's.
        judges: Of drawn pictures; their DAMSM also trains the generator.
        processor: An `AttnGanProcessor`, DAMSM's.
        reading: Further arguments of `CaptionedPictures`.
        pictures_per_image: Pictures drawn for each one of the test split.
        accelerator: Made from the settings if not given.
        command: For the results; what was typed, where None.

    Returns:
        The content of results.json, on every process.

    Raises:
        ConfigurationError: Settings do not fit one another, the data, or an earlier run in the same folder.
        DataError: The data cannot be used.
        NonFiniteLossError: A loss or gradient is not finite; the message names it.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    missing = [name for name in SPLITS if name not in dataset_dict]
    if missing:
        raise DataError(f"The data set {dataset_name!r} lacks the splits {missing}; it has {sorted(dataset_dict)}.")
    damsm = judges.damsm
    config = AttnGanConfig.for_damsm(damsm.config, **model_fields)

    def build() -> tuple[AttnGanForTextToImageGeneration, TextToImageTask]:
        model = AttnGanForTextToImageGeneration.from_damsm(damsm, **model_fields)
        task = TextToImageTask(
            dataset_dict,
            processor.tokenizer,
            settings,
            stage_sizes=config.stage_sizes,
            judges=judges,
            processor=processor,
            reading={**(reading or {}), "max_words": processor.max_words},
            pictures_per_image=pictures_per_image,
        )
        return model, task

    def train_model(model: Any, task: Any, *rest: Any, **arguments: Any) -> AdversarialSummary:
        return train_adversarial(model, AttnGanDiscriminators(model.config), damsm, task, *rest, **arguments)

    return train_single_run(
        build,
        task=TextToImageTask.task,
        config=config,
        dataset=_dataset(dataset_dict, dataset_name, config),
        output=output,
        settings=settings,
        train_model=train_model,
        accelerator=accelerator,
        command=command,
    )


def _dataset(data: datasets.DatasetDict, name: str, config: AttnGanConfig) -> dict[str, Any]:
    """Return what identifies the data in a result."""
    dataset: dict[str, Any] = {"name": name, "content_hash": content_hash(data)}
    return dataset | {split: len(data[split]) for split in SPLITS} | {"image_size": config.image_size}

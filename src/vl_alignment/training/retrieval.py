"""One run of image-text retrieval from data to results.json: what `train`, `compare` and the example call."""

from collections.abc import Callable, Mapping
from typing import Any

import datasets
from accelerate import Accelerator

from vl_alignment.data.features import RegionStore
from vl_alignment.data.retrieval import content_hash
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import DataError
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval
from vl_alignment.models.processing_base import SquareImageProcessorPil
from vl_alignment.models.processing_scan import ScanProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import RetrievalObjective
from vl_alignment.training.single_run import (
    SPLITS,
    backbone_fields,
    described_regions,
    start_from_backbone,
    train_single_run,
)

__all__ = ["train_retrieval_run"]


def train_retrieval_run(
    dataset_dict: datasets.DatasetDict,
    *,
    dataset_name: str,
    output: Any,
    settings: TrainingSettings,
    model_fields: Mapping[str, Any],
    region_store: RegionStore | None = None,
    image_processor: Callable[..., Any] | None = None,
    vision_model: Any = None,
    tokenizer: Any = None,
    minimum_count: int = 4,
    folds: int = 1,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train SCAN once, evaluate its best weights on the test split, and write the run directory.

    A finished run is not repeated, an interrupted one goes on from its newest checkpoint.

    Args:
        dataset_dict: Splits "train", "validation" and "test"; see `RetrievalObjective`.
        dataset_name: For the run's name and results.
        output: Folder of all runs.
        settings: With the seed.
        model_fields: Fields of `ScanConfig`, `alignment_function` among them; sizes of vocabulary and features are
            taken from the data.
        region_store: Features of the images; None trains from pixels.
        image_processor: For pixels.
        vision_model: A trained backbone whose configuration and weights become part of the model.
        tokenizer: Made from the training captions where None.
        minimum_count: Words rarer than this in the training captions are unknown.
        folds: Of the final evaluation.
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
        tokenizer = build_word_tokenizer(texts, minimum_count=minimum_count)
    config = _config(model_fields, tokenizer, region_store, vision_model)

    def build() -> tuple[ScanForImageTextRetrieval, RetrievalObjective]:
        model = ScanForImageTextRetrieval(config)
        start_from_backbone(model, vision_model)
        objective = RetrievalObjective(
            dataset_dict,
            tokenizer,
            settings,
            region_store=region_store,
            image_processor=image_processor,
            # A processor cannot be saved without an image processor; a model of region features refuses pixels itself.
            processor=ScanProcessor(image_processor or SquareImageProcessorPil(), tokenizer),
            folds=folds,
        )
        return model, objective

    return train_single_run(
        build,
        task=RetrievalObjective.task,
        config=config,
        dataset=_dataset(dataset_dict, dataset_name, region_store),
        output=output,
        settings=settings,
        accelerator=accelerator,
        command=command,
    )


def _dataset(data: datasets.DatasetDict, name: str, store: RegionStore | None) -> dict[str, Any]:
    """Return what identifies the data in a result."""
    dataset: dict[str, Any] = {"name": name, "content_hash": content_hash(data)}
    dataset |= {split: len(data[split]) for split in SPLITS}
    return dataset | described_regions(store)


def _config(fields: Mapping[str, Any], tokenizer: Any, store: RegionStore | None, vision_model: Any) -> ScanConfig:
    words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return ScanConfig(**{**fields, **words, **backbone_fields(store, vision_model)})

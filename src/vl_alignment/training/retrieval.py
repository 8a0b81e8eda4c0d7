"""One run of image-text retrieval from data to results.json: what `train`, `compare` and the example call."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import datasets
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from transformers import PreTrainedConfig

from vl_alignment.data.features import RegionStore
from vl_alignment.data.retrieval import content_hash
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval
from vl_alignment.models.processing_scan import ScanImageProcessorPil, ScanProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.loop import FREE_SETTINGS, TrainingSummary, build_accelerator, train
from vl_alignment.training.objectives import RetrievalObjective
from vl_alignment.training.runs import (
    RunDirectory,
    commit,
    describe_machine,
    read_result,
    recorded_command,
    versions,
)

__all__ = ["train_retrieval_run"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


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
    run = RunDirectory.named(
        output,
        model="scan",
        dataset=dataset_name,
        alignment_function=config.alignment_function,
        seed=settings.seed,
        released_layout=config.released_layout,
    )
    description = _description(dataset_dict, dataset_name, config, settings, region_store)
    description = _compared_with_earlier(run, description)
    if run.finished:
        logger.info("%s is finished", run.run_id)
        return read_result(run.results)

    accelerator = accelerator if accelerator is not None else build_accelerator(settings, run)
    set_seed(settings.seed)
    model = ScanForImageTextRetrieval(config)
    if vision_model is not None:
        model.model.vision_model.load_state_dict(vision_model.state_dict())
    objective = RetrievalObjective(
        dataset_dict,
        tokenizer,
        settings,
        region_store=region_store,
        image_processor=image_processor,
        # A processor cannot be saved without an image processor; a model of region features refuses pixels itself.
        processor=ScanProcessor(image_processor or ScanImageProcessorPil(), tokenizer),
        folds=folds,
    )
    objective.check_model(model)
    run.check_writable()
    if accelerator.is_main_process:
        run.write_run({**description, "command": command or recorded_command(), "machine": describe_machine()})
    summary = train(model, objective, settings, run, accelerator=accelerator)
    return _finish(run, objective, accelerator, lambda metrics: _result(description, config, metrics, summary, command))


def _finish(
    run: RunDirectory,
    objective: RetrievalObjective,
    accelerator: Accelerator,
    result: Callable[[dict[str, float]], dict[str, Any]],
) -> dict[str, Any]:
    """Evaluate the best weights on the test split and write predictions, then results."""
    best = ScanForImageTextRetrieval.from_pretrained(run.model).to(accelerator.device)
    evaluation = objective.evaluate(best, "test", accelerator)
    written: list[Any] = [None]
    if accelerator.is_main_process:
        run.write_predictions(evaluation.predictions)
        run.write_results(result(evaluation.metrics))
        written = [read_result(run.results)]
    broadcast_object_list(written)
    return written[0]


def _config(fields: Mapping[str, Any], tokenizer: Any, store: RegionStore | None, vision_model: Any) -> ScanConfig:
    values = {**fields, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if store is not None:
        values |= {"feature_size": store.feature_size, "region_extractor": store.extractor}
    if vision_model is not None:
        values["vision_config"] = vision_model.config.to_dict()
    return ScanConfig(**values)


def _own_fields(config: ScanConfig) -> dict[str, Any]:
    """Return the fields that the model declares, without those of every transformers config."""
    return {name: value for name, value in config.to_dict().items() if name not in PreTrainedConfig().to_dict()}


def _description(
    dataset_dict: datasets.DatasetDict,
    dataset_name: str,
    config: ScanConfig,
    settings: TrainingSettings,
    store: RegionStore | None,
) -> dict[str, Any]:
    """Return what run.json holds but for command and machine."""
    dataset: dict[str, Any] = {"name": dataset_name, "content_hash": content_hash(dataset_dict)}
    dataset |= {name: len(dataset_dict[name]) for name in SPLITS}
    if store is not None:
        dataset["regions"] = {"extractor": store.extractor, "version": store.extractor_version}
    return {
        "task": RetrievalObjective.task,
        "dataset": dataset,
        "model": {"model_type": config.model_type, **_own_fields(config)},
        "settings": settings.to_dict(),
        "seed": settings.seed,
        "versions": versions(),
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _compared_with_earlier(run: RunDirectory, description: dict[str, Any]) -> dict[str, Any]:
    """Return the description with the earlier start of the run.

    Raises:
        ConfigurationError: The run in this folder had other data, another model or other settings.
    """
    started = run.results.exists() or any(run.checkpoints.glob("epoch-*"))
    earlier = run.read_run() if started else None
    if earlier is None:
        return description
    free = FREE_SETTINGS - {"epochs"} if run.results.exists() else FREE_SETTINGS
    for part in ("dataset", "model", "settings"):
        then, now = earlier.get(part, {}), json.loads(json.dumps(description[part]))
        # Fields that only one of two versions of this package knows do not count.
        names = sorted((set(then) & set(now)) - (free if part == "settings" else set()))
        changed = [f"{name} {then[name]!r} -> {now[name]!r}" for name in names if then[name] != now[name]]
        if changed:
            raise ConfigurationError(
                f"{run.path} holds a run with another {part} ({'; '.join(changed)}); "
                "use another output folder, or remove that one."
            )
    return {**description, "started": earlier.get("started", description["started"])}


def _result(
    description: dict[str, Any],
    config: ScanConfig,
    metrics: dict[str, float],
    summary: TrainingSummary,
    command: str | None,
) -> dict[str, Any]:
    training = asdict(summary)
    training["seconds"] = round(summary.seconds, 1)
    training["examples_per_second"] = round(summary.examples_per_second, 1)
    return {
        "task": description["task"],
        "dataset": description["dataset"],
        "model": "scan",
        "alignment_function": config.alignment_function,
        "released_layout": config.released_layout,
        "seed": description["seed"],
        "metrics": metrics,
        "training": training,
        "versions": description["versions"],
        "commit": description["commit"],
        "command": command or recorded_command(),
        "started": description["started"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""One run of any task, from a configuration to results.json: compared with an earlier start, trained, tested."""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from transformers import PreTrainedConfig

from vl_alignment.data.features import RegionStore
from vl_alignment.data.processes import on_main_process
from vl_alignment.models.configuration_base import AlignmentConfig
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.epoch_loop import FREE_SETTINGS, TrainingSummary
from vl_alignment.training.folder_lock import only_program
from vl_alignment.training.loop import train
from vl_alignment.training.objectives import Evaluation, Task
from vl_alignment.training.optimisation import build_accelerator
from vl_alignment.training.runs import RunDirectory, commit, describe_machine, read_result, recorded_command, versions

__all__ = ["backbone_fields", "described_regions", "start_from_backbone", "train_single_run"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def train_single_run(
    build: Callable[[], tuple[Any, Task]],
    *,
    task: str,
    config: AlignmentConfig,
    dataset: Mapping[str, Any],
    output: Any,
    settings: TrainingSettings,
    test_split: str = "test",
    train_model: Callable[..., TrainingSummary] = train,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train once, evaluate the best weights, and write the run directory.

    A finished run is not repeated, an interrupted one goes on from its newest checkpoint.

    Args:
        build: Makes the model and the objective; called with the random numbers at their start, and only where there
            is something left to train.
        task: Of the objective.
        config: Of the model.
        dataset: For the results: name, content hash, sizes of the splits.
        output: Folder of all runs.
        settings: With the seed.
        test_split: What the best weights are evaluated on.
        train_model: Trains the model that `build` makes; called as `training.loop.train` is.
        accelerator: Made from the settings if not given.
        command: For the results; what was typed, where None.

    Returns:
        The content of results.json, on every process.

    Raises:
        ConfigurationError: Settings do not fit one another, the data, or an earlier run in the same folder, or another
            program trains in it.
        DataError: The data cannot be used.
        TrainingInterrupted: After Ctrl-C or kill, when a checkpoint is written.
    """
    run = RunDirectory.named(
        output,
        model=config.model_type,
        dataset=dataset["name"],
        alignment_function=config.alignment_function,
        seed=settings.seed,
        released_layout=config.released_layout,
    )
    description = _compared_with_earlier(run, _description(task, dataset, config, settings))
    if run.finished:
        logger.info("%s is finished", run.run_id)
        return read_result(run.results)

    accelerator = accelerator if accelerator is not None else build_accelerator(settings, run)
    set_seed(settings.seed)
    model, objective = build()
    objective.check_model(model)
    run.check_writable()
    with contextlib.ExitStack() as held:
        on_main_process(accelerator, lambda: held.enter_context(only_program(run.path)))
        started_as = {**description, "command": command or recorded_command(), "machine": describe_machine()}
        on_main_process(accelerator, lambda: run.write_run(started_as))
        summary = train_model(model, objective, settings, run, accelerator=accelerator)
        best = type(model).from_pretrained(run.model).to(accelerator.device)
        evaluation = objective.evaluate(best, test_split, accelerator)
        written: list[Any] = [None]

        def write() -> None:
            run.write_predictions(evaluation.predictions)
            run.write_results(_result(description, config, evaluation, summary, command))
            written[0] = read_result(run.results)

        on_main_process(accelerator, write)
        broadcast_object_list(written)
    return written[0]


def described_regions(store: RegionStore | None) -> dict[str, Any]:
    """Return what a result's data set says of stored regions; nothing where the model sees pixels."""
    if store is None:
        return {}
    return {"regions": {"extractor": store.extractor, "version": store.extractor_version}}


def backbone_fields(store: RegionStore | None, vision_model: Any) -> dict[str, Any]:
    """Return the fields of a model's configuration that say what it sees: stored regions, and its backbone."""
    fields: dict[str, Any] = {}
    if store is not None:
        fields |= {"feature_size": store.feature_size, "region_extractor": store.extractor}
    if vision_model is not None:
        # Where it was kept on this machine is nobody's business, and no part of the model.
        fields["vision_config"] = {**vision_model.config.to_dict(), "_name_or_path": ""}
    return fields


def start_from_backbone(model: Any, vision_model: Any) -> None:
    """Copy the weights of a trained backbone, where there is one, into the model's own."""
    if vision_model is not None:
        model.model.vision_model.load_state_dict(vision_model.state_dict())


def _own_fields(config: AlignmentConfig) -> dict[str, Any]:
    """Return the fields that the model declares, without those of every transformers config."""
    return {name: value for name, value in config.to_dict().items() if name not in PreTrainedConfig().to_dict()}


def _description(
    task: str, dataset: Mapping[str, Any], config: AlignmentConfig, settings: TrainingSettings
) -> dict[str, Any]:
    """Return what run.json holds but for command and machine."""
    return {
        "task": task,
        "dataset": dict(dataset),
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
    config: AlignmentConfig,
    evaluation: Evaluation,
    summary: TrainingSummary,
    command: str | None,
) -> dict[str, Any]:
    training = asdict(summary)
    training["seconds"] = round(summary.seconds, 1)
    training["examples_per_second"] = round(summary.examples_per_second, 1)
    # What goes with the metrics where a task has it: bounds and what measured them.
    beside = {"bounds": evaluation.bounds, "evaluation": evaluation.details}
    return {
        "task": description["task"],
        "dataset": description["dataset"],
        "model": config.model_type,
        "alignment_function": config.alignment_function,
        "released_layout": config.released_layout,
        "seed": description["seed"],
        "metrics": evaluation.metrics,
        **{name: values for name, values in beside.items() if values},
        "training": training,
        "versions": description["versions"],
        "commit": description["commit"],
        "command": command or recorded_command(),
        "started": description["started"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""From the name of a preset to everything that its runs share: data, regions, model fields, settings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator

from ..data.features import RegionStore, build_extractor, check_writable, extract_regions, without_failed_images
from ..data.retrieval import load_retrieval_dataset
from ..models.processing_scan import ScanImageProcessorPil
from .arguments import TrainingSettings
from .presets import get_preset
from .region_encoder import blocks_regions
from .retrieval import train_retrieval_run

__all__ = ["RetrievalStudy", "cache_folder", "prepare_retrieval", "run_study_cell"]


@dataclass
class RetrievalStudy:
    """What all runs of one data set share.

    Attributes:
        name: Of the data set, for run names.
        data: Its splits.
        store: The regions of its pictures; None where the model sees pixels.
        model_fields: Fields of `ScanConfig` but the alignment function.
        settings: Fields of `TrainingSettings` but the seed.
        options: The preset's options of the data ("minimum_count", "folds").
        vision_model: A trained backbone that becomes part of each model.
        image_processor: For that backbone.
        preparation_seconds: Spent on training the backbone and extracting regions, whenever that was.
    """

    name: str
    data: datasets.DatasetDict
    store: RegionStore | None
    model_fields: dict[str, Any]
    settings: dict[str, Any]
    options: dict[str, Any]
    vision_model: Any = None
    image_processor: Any = None
    preparation_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def cache_folder() -> Path:
    """Where encoders and regions are kept: `$VL_ALIGNMENT_CACHE`, by default below the Hugging Face cache."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("VL_ALIGNMENT_CACHE") or Path(HF_HOME) / "vl-alignment")


def prepare_retrieval(
    preset: str,
    *,
    output: str | Path,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    extractor: str | None = None,
    sizes: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    model_fields: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> RetrievalStudy:
    """Load the data of a preset and make or open its regions; fails before any training where something is missing.

    Blocks trains its small region encoder once and keeps it in the cache; other data sets take the region store
    `regions`, which `extractor` fills first where it is not complete.

    Args:
        preset: A name of `PRESETS`.
        output: Folder of the runs; checked for writing before anything else.
        data_dir: Folder of the data set; blocks needs none.
        regions: Folder of a region store.
        extractor: Name of a plug-in that fills it.
        sizes: Images a split, for a smaller trial.
        settings: Changes of the preset's training settings.
        model_fields: Changes of the preset's model fields.
        accelerator: To be given where there are several processes: one of them makes the regions.

    Raises:
        ConfigurationError: A name or setting is unknown, or the output folder cannot be written.
        DataError: The data cannot be used.
    """
    chosen = get_preset(preset)
    check_writable(Path(output))
    changed = {**chosen["settings"], **(settings or {})}
    TrainingSettings.from_dict(changed)  # a wrong setting should not wait for the data
    name = chosen["data"]["name"]
    study = RetrievalStudy(
        name=name,
        data=load_retrieval_dataset(name, data_dir, cache_dir=cache_folder() / "datasets", sizes=sizes),
        store=None,
        model_fields={**chosen["model"], **(model_fields or {})},
        settings=changed,
        options=chosen["data"],
    )
    if name == "blocks" and regions is None:
        made = blocks_regions(study.data, cache_folder() / "region-encoders", accelerator=accelerator)
        study.store = made.store
        study.vision_model = made.encoder.backbone()
        study.image_processor = made.encoder.image_processor()
        study.model_fields["freeze_vision"] = True
        study.preparation_seconds = made.seconds
        accuracies = ", ".join(
            f"{name.removeprefix('accuracy_')} {value:.0f} %"
            for name, value in made.encoder.metrics.items()
            if name.startswith("accuracy_")
        )
        study.notes.append(
            "The regions come from pixels through a small convolutional encoder that was trained once, in "
            f"{made.encoder.seconds:.0f} s, to name the attributes of the object in each of {made.encoder.regions} "
            f"cells of the training pictures ({accuracies} on the validation split)."
        )
    elif regions is not None or extractor is not None:
        folder = Path(regions) if regions is not None else Path(output) / "regions"
        if extractor is not None and (accelerator is None or accelerator.is_main_process):
            extract_regions(study.data, build_extractor(extractor), folder)
        if accelerator is not None:
            accelerator.wait_for_everyone()
        study.store = RegionStore.open(folder)
        study.data = without_failed_images(study.data, study.store)
        study.notes.append(f"The regions come from {study.store.extractor} ({study.store.regions} a picture).")
    else:
        side = int(chosen["data"].get("image_size", 224))
        study.image_processor = ScanImageProcessorPil(size={"height": side, "width": side})
    return study


def run_study_cell(
    study: RetrievalStudy,
    output: str | Path,
    alignment_function: str,
    seed: int,
    *,
    released_layout: bool = False,
    accelerator: Accelerator | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Train one function with one seed, or take its finished run; return the content of its results.json.

    Args:
        study: What the runs share.
        output: Folder of the runs.
        alignment_function: A name of the table.
        seed: Of the run.
        released_layout: Whether the model computes as the authors' released code does.
        accelerator: Made from the settings if not given.
        command: What is recorded as the command; what was typed, where None.
    """
    fields = {**study.model_fields, "alignment_function": alignment_function, "released_layout": released_layout}
    return train_retrieval_run(
        study.data,
        dataset_name=study.name,
        output=output,
        settings=TrainingSettings.from_dict({**study.settings, "seed": seed}),
        model_fields=fields,
        region_store=study.store,
        image_processor=study.image_processor,
        vision_model=study.vision_model,
        minimum_count=study.options["minimum_count"],
        folds=study.options["folds"],
        accelerator=accelerator,
        command=command,
    )

"""From the name of a preset to everything that its runs share: data, regions, model fields, settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from accelerate import Accelerator

from ..data.answer_vocabulary import build_answer_vocabulary, write_answer_vocabulary
from ..data.features import (
    build_extractor,
    check_writable,
    extract_regions,
    open_regions,
    without_failed_images,
)
from ..data.named_data import select_split
from ..data.question_answering import QuestionData, load_question_dataset
from ..data.retrieval import load_retrieval_dataset
from ..data.text_question_answering import load_text_question_dataset
from ..data.text_to_image import load_text_to_image_dataset
from ..models.errors import ConfigurationError
from ..models.processing_base import SquareImageProcessorPil
from .arguments import TrainingSettings
from .data_options import changed_options
from .presets import PRESETS, get_preset
from .region_encoder import blocks_regions, region_encoder_settings
from .studies import QuestionStudy, RetrievalStudy, Study, TextQuestionStudy
from .text_to_image_study import TextToImageStudy, with_all_splits

__all__ = ["build_vocabulary", "cache_folder", "load_data", "load_study", "prepare_study", "preset_settings"]


BUILT_IN = ("blocks", "blocks-text")
"""Data sets that are rendered here, whose pictures a small region encoder of their own can see."""


M4C_ANSWER_WORDS = 5000
# Options of the data that belong to its reader.
READER_OPTIONS = ("questions_per_image", "maximum_hops", "ocr", "character_error_rate", "reader", "read_splits")


def _load_pictures(name: str, data_dir: Any, **options: Any) -> datasets.DatasetDict:
    return with_all_splits(load_text_to_image_dataset(name, data_dir, **options))


_LOADERS: dict[str, Any] = {
    RetrievalStudy.task: load_retrieval_dataset,
    QuestionStudy.task: load_question_dataset,
    TextQuestionStudy.task: load_text_question_dataset,
    TextToImageStudy.task: _load_pictures,
}


def cache_folder() -> Path:
    """Where encoders and regions are kept: `$VL_ALIGNMENT_CACHE`, by default below the Hugging Face cache."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("VL_ALIGNMENT_CACHE") or Path(HF_HOME) / "vl-alignment")


def prepare_study(
    preset: str,
    *,
    output: str | Path,
    data_dir: str | Path | None = None,
    regions: str | Path | None = None,
    extractor: str | None = None,
    sizes: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    model_fields: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> Study:
    """Load the data of a preset and make or open what its runs share; fails before any training where that is missing.

    Generators share a DAMSM, which is trained once and kept in the cache. Models that see pictures share regions: for
    blocks a small region encoder is trained once and kept too; other data sets take the region store `regions`, which
    `extractor` fills first where it is not complete.

    Args:
        preset: A name of `PRESETS`.
        output: Folder of the runs; checked for writing before anything else.
        data_dir: Folder of the data set; blocks needs none.
        regions: Folder of a region store, or HDF5 features.
        extractor: Name of a plug-in that fills it.
        sizes: Images a split, for a smaller trial.
        settings: Changes of the preset's training settings.
        model_fields: Changes of the preset's model fields.
        options: Changes of the preset's options of the data; see `changed_options`.
        accelerator: Whose processes make the regions; made where there are several and none is given.

    Raises:
        ConfigurationError: A name or setting is unknown, or the output folder cannot be written.
        DataError: The data cannot be used.
    """
    check_writable(Path(output))
    study = load_study(
        preset, data_dir=data_dir, sizes=sizes, settings=settings, model_fields=model_fields, options=options
    )
    if accelerator is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:  # started by torchrun or Accelerate
        accelerator = Accelerator(cpu=study.settings.get("device") == "cpu")
    if isinstance(study, TextToImageStudy):
        if regions is not None or extractor is not None:
            raise ConfigurationError("A generator draws pictures and sees none: leave regions and extractor out.")
        study.make_judges(cache_folder(), accelerator)
    elif study.name in BUILT_IN and regions is None:
        _make_blocks_regions(study, accelerator)
    elif regions is not None or extractor is not None:
        _open_regions(study, Path(regions) if regions is not None else Path(output) / "regions", extractor, accelerator)
    else:
        side = int(study.options.get("image_size", 224))
        study.image_processor = SquareImageProcessorPil(size={"height": side, "width": side})
    return study


def load_study(
    preset: str,
    *,
    data_dir: str | Path | None = None,
    sizes: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    model_fields: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Study:
    """Load the data of a preset, before anything is made of it; arguments and errors as of `prepare_study`."""
    chosen = get_preset(preset)
    preset_settings(preset, settings)  # a wrong setting should not wait for the data
    changed_data = changed_options(chosen["data"], options or {})
    return _STUDIES[chosen["task"]](
        name=changed_data["name"],
        data=load_data(chosen["task"], changed_data, data_dir, sizes),
        model_fields={**chosen["model"], **(model_fields or {})},
        settings={**chosen["settings"], **(settings or {})},
        options=changed_data,
    )


def preset_settings(preset: str, changes: Mapping[str, Any] | None = None) -> TrainingSettings:
    """Return the settings of a preset, of the class of its task, some of them changed.

    Raises:
        ConfigurationError: A name or value is wrong.
    """
    chosen = get_preset(preset)
    return _STUDIES[chosen["task"]].settings_class.from_dict({**chosen["settings"], **(changes or {})})


_STUDIES: dict[str, type[Study]] = {
    study.task: study for study in (RetrievalStudy, QuestionStudy, TextQuestionStudy, TextToImageStudy)
}


def load_data(
    task: str, options: Mapping[str, Any], data_dir: str | Path | None, sizes: Mapping[str, int] | None
) -> datasets.DatasetDict | QuestionData:
    """Load the data of a preset, given its task and its options of the data; `sizes` are pictures a split."""
    load = _LOADERS[task]
    further = {name: options[name] for name in READER_OPTIONS if name in options} | options.get("loading", {})
    sizes = {**options.get("sizes", {}), **(sizes or {})} or None
    return load(options["name"], data_dir, cache_dir=cache_folder() / "datasets", sizes=sizes, **further)


def build_vocabulary(
    dataset: str,
    path: str | Path,
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    sizes: Mapping[str, int] | None = None,
) -> list[str]:
    """Write the most frequent words of a data set's training answers to a file, and return them.

    Args:
        dataset: A name of `text_question_dataset_names`; with the options of its preset, where it has one.
        path: A text file, for `read_answer_vocabulary`.
        data_dir: Folder of the data set.
        size: Entries at most, special words included; by default the preset's, or M4C's 5,000.
        sizes: Images a split.

    Raises:
        ConfigurationError: The name is unknown, or the size leaves no room for a word.
        DataError: The data cannot be used, or the file cannot be written.
    """
    rows = [row["data"] for row in PRESETS.values() if row["task"] == TextQuestionStudy.task]
    options: dict[str, Any] = next((row for row in rows if row["name"] == dataset), {"name": dataset})
    data = load_data(TextQuestionStudy.task, options, data_dir, sizes)
    answers = select_split(data.questions, "train")["answers"]
    given = (answer for answers_of_one in answers for answer in answers_of_one)
    words = build_answer_vocabulary(given, options.get("answer_words", M4C_ANSWER_WORDS) if size is None else size)
    write_answer_vocabulary(words, path)
    return words


def _make_blocks_regions(study: Study, accelerator: Accelerator | None) -> None:
    """Train the region encoder of blocks and extract the regions, or take both from the cache."""
    options = dict(study.options.get("regions", {}))
    made = blocks_regions(
        study.images,
        cache_folder() / "region-encoders",
        settings=region_encoder_settings(**options.pop("settings", {})),
        accelerator=accelerator,
        **options,
    )
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


def _open_regions(study: Study, folder: Path, extractor: str | None, accelerator: Accelerator | None) -> None:
    """Open a region store, filled first where an extractor is named."""
    if extractor is not None:
        extract_regions(study.images, build_extractor(extractor), folder, processes=accelerator)
    study.store = open_regions(folder, study.images)
    study.images = without_failed_images(study.images, study.store)
    study.notes.append(f"The regions come from {study.store.extractor} ({study.store.regions} a picture).")

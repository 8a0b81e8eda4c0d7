"""From the name of a preset to everything that its runs share: data, regions, model fields, settings."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
from accelerate import Accelerator

from ..data.answer_vocabulary import build_answer_vocabulary, write_answer_vocabulary
from ..data.features import (
    RegionStore,
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
from ..models.processing_base import SquareImageProcessorPil
from .arguments import TrainingSettings
from .data_options import changed_options
from .presets import PRESETS, get_preset
from .question_answering import train_question_run
from .region_encoder import blocks_regions, region_encoder_settings
from .retrieval import train_retrieval_run
from .text_question_answering import train_text_question_run

__all__ = [
    "QuestionStudy",
    "RetrievalStudy",
    "Study",
    "TextQuestionStudy",
    "build_vocabulary",
    "cache_folder",
    "load_data",
    "prepare_study",
]


BUILT_IN = ("blocks", "blocks-text")
"""Data sets that are rendered here, whose pictures a small region encoder of their own can see."""


@dataclass(kw_only=True)
class Study(ABC):
    """What all runs of one data set share.

    Attributes:
        name: Of the data set, for run names.
        data: Its splits.
        store: The regions of its pictures; None where the model sees pixels.
        model_fields: Fields of the model's configuration but the alignment function.
        settings: Fields of `TrainingSettings` but the seed.
        options: The preset's options of the data.
        vision_model: A trained backbone that becomes part of each model.
        image_processor: For that backbone.
        preparation_seconds: Spent on training the backbone and extracting regions, whenever that was.
        notes: What a report says about all runs.
    """

    name: str
    data: Any
    model_fields: dict[str, Any]
    settings: dict[str, Any]
    options: dict[str, Any]
    store: RegionStore | None = None
    vision_model: Any = None
    image_processor: Any = None
    preparation_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    task: ClassVar[str]

    @property
    @abstractmethod
    def images(self) -> datasets.DatasetDict:
        """The splits of pictures."""

    @images.setter
    @abstractmethod
    def images(self, images: datasets.DatasetDict) -> None: ...

    @property
    def sizes(self) -> dict[str, int]:
        """Pictures by split."""
        return {name: len(split) for name, split in self.images.items()}

    @abstractmethod
    def train(self, *, settings: TrainingSettings, model_fields: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """Train one run on the study's data and regions, or take its finished run.

        Args:
            settings: With the seed.
            model_fields: With the alignment function.
            changes: Further arguments of the task's run, in place of the study's own.

        Returns:
            The content of its results.json.
        """

    def run_cell(
        self,
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
            output: Folder of the runs.
            alignment_function: A name of the table.
            seed: Of the run.
            released_layout: Whether the model computes as the authors' released code does.
            accelerator: Made from the settings if not given.
            command: What is recorded as the command; what was typed, where None.
        """
        own = {"alignment_function": alignment_function, "released_layout": released_layout}
        return self.train(
            output=output,
            settings=TrainingSettings.from_dict({**self.settings, "seed": seed}),
            model_fields={**self.model_fields, **own},
            accelerator=accelerator,
            command=command,
        )

    def _shared(self) -> dict[str, Any]:
        return {
            "dataset_name": self.name,
            "region_store": self.store,
            "image_processor": self.image_processor,
            "vision_model": self.vision_model,
            "minimum_count": self.options["minimum_count"],
        }


@dataclass(kw_only=True)
class RetrievalStudy(Study):
    """Image-text retrieval with SCAN."""

    data: datasets.DatasetDict

    task = "retrieval"

    @property
    def images(self) -> datasets.DatasetDict:
        """The data itself: captions stand in the pictures' records."""
        return self.data

    @images.setter
    def images(self, images: datasets.DatasetDict) -> None:
        self.data = images

    def train(self, **arguments: Any) -> dict[str, Any]:
        """See `train_retrieval_run`."""
        own = {"dataset_dict": self.data, "folds": self.options["folds"]}
        return train_retrieval_run(**{**self._shared(), **own, **arguments})


@dataclass(kw_only=True)
class QuestionStudy(Study):
    """Question answering with MAC."""

    data: QuestionData

    task = "question-answering"

    @property
    def images(self) -> datasets.DatasetDict:
        """The table of pictures."""
        return self.data.images

    @images.setter
    def images(self, images: datasets.DatasetDict) -> None:
        self.data = self.data.with_images(images)

    @property
    def test_split(self) -> str:
        """What results are measured on: validation where the answers of the test split are not public."""
        return self.options.get("test_split", "test")

    def train(self, **arguments: Any) -> dict[str, Any]:
        """See `train_question_run`."""
        own = {"data": self.data, "test_split": self.test_split}
        return train_question_run(**{**self._shared(), **own, **arguments})


@dataclass(kw_only=True)
class TextQuestionStudy(QuestionStudy):
    """Question answering by reading, with M4C."""

    task = "text-question-answering"

    @property
    def ocr(self) -> dict[str, Any]:
        """Where the text of the pictures comes from, for the results."""
        source = self.options.get("ocr", "published")
        further = {"corrupted": ("character_error_rate",), "read": ("reader",)}.get(source, ())
        return {"source": source, **{name: self.options[name] for name in further if name in self.options}}

    def train(self, **arguments: Any) -> dict[str, Any]:
        """See `train_text_question_run`."""
        own = {"data": self.data, "test_split": self.test_split, "ocr": self.ocr}
        own |= {name: self.options[name] for name in RUN_OPTIONS if name in self.options}
        return train_text_question_run(**{**self._shared(), **own, **arguments})


M4C_ANSWER_WORDS = 5000
# Options of the data that belong to the run of answering by reading.
RUN_OPTIONS = (
    *("text_encoder", "text_layers", "answer_words", "answer_vocabulary", "word_vectors"),
    *("max_ocr_tokens", "max_question_tokens"),
)
# Options of the data that belong to its reader.
READER_OPTIONS = ("questions_per_image", "maximum_hops", "ocr", "character_error_rate", "reader", "read_splits")
_LOADERS: dict[str, Any] = {
    RetrievalStudy.task: load_retrieval_dataset,
    QuestionStudy.task: load_question_dataset,
    TextQuestionStudy.task: load_text_question_dataset,
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
    """Load the data of a preset and make or open its regions; fails before any training where something is missing.

    Blocks trains its small region encoder once and keeps it in the cache; other data sets take the region store
    `regions`, which `extractor` fills first where it is not complete.

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
        accelerator: To be given where there are several processes: one of them makes the regions.

    Raises:
        ConfigurationError: A name or setting is unknown, or the output folder cannot be written.
        DataError: The data cannot be used.
    """
    chosen = get_preset(preset)
    check_writable(Path(output))
    changed = {**chosen["settings"], **(settings or {})}
    TrainingSettings.from_dict(changed)  # a wrong setting should not wait for the data
    changed_data = changed_options(chosen["data"], options or {})
    study = _STUDIES[chosen["task"]](
        name=changed_data["name"],
        data=load_data(chosen["task"], changed_data, data_dir, sizes),
        model_fields={**chosen["model"], **(model_fields or {})},
        settings=changed,
        options=changed_data,
    )
    if study.name in BUILT_IN and regions is None:
        _make_blocks_regions(study, accelerator)
    elif regions is not None or extractor is not None:
        _open_regions(study, Path(regions) if regions is not None else Path(output) / "regions", extractor, accelerator)
    else:
        side = int(changed_data.get("image_size", 224))
        study.image_processor = SquareImageProcessorPil(size={"height": side, "width": side})
    return study


_STUDIES: dict[str, type[Study]] = {study.task: study for study in (RetrievalStudy, QuestionStudy, TextQuestionStudy)}


def load_data(
    task: str, options: Mapping[str, Any], data_dir: str | Path | None, sizes: Mapping[str, int] | None
) -> datasets.DatasetDict | QuestionData:
    """Load the data of a preset, given its task and its options of the data; `sizes` are pictures a split."""
    load = _LOADERS[task]
    further = {name: options[name] for name in READER_OPTIONS if name in options}
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
    if extractor is not None and (accelerator is None or accelerator.is_main_process):
        extract_regions(study.images, build_extractor(extractor), folder)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    study.store = open_regions(folder, study.images)
    study.images = without_failed_images(study.images, study.store)
    study.notes.append(f"The regions come from {study.store.extractor} ({study.store.regions} a picture).")

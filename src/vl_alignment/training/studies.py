"""What all runs of one data set share, and how one of them is trained: one class a task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
from accelerate import Accelerator

from ..data.features import RegionStore
from ..data.question_answering import QuestionData
from .arguments import TrainingSettings
from .question_answering import train_question_run
from .retrieval import train_retrieval_run
from .text_question_answering import train_text_question_run

__all__ = ["QuestionStudy", "RetrievalStudy", "Study", "TextQuestionStudy"]

# Options of the data that belong to the run of answering by reading.
RUN_OPTIONS = (
    *("text_encoder", "text_layers", "answer_words", "answer_vocabulary", "word_vectors"),
    *("max_ocr_tokens", "max_question_tokens"),
)


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
        settings_class: Of `settings`.
        draws: Whether the models make pictures, and see none.
        preparation: What `preparation_seconds` were for.
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
    settings_class: ClassVar[type[TrainingSettings]] = TrainingSettings
    draws: ClassVar[bool] = False
    preparation: ClassVar[str] = "for training the region encoder and extracting the regions"

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
            settings=self.settings_class.from_dict({**self.settings, "seed": seed}),
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

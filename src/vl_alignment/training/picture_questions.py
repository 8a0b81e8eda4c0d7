"""What answering questions about pictures and answering them by reading share: an objective, and a run's beginning."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl_alignment.data.features import RegionStore
from vl_alignment.data.question_records import QuestionData
from vl_alignment.models.errors import DataError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.question_inputs import QuestionGroups, QuestionRows
from vl_alignment.training.retrieval_inputs import image_inputs
from vl_alignment.training.single_run import described_regions

__all__ = ["PictureQuestionObjective", "check_question_splits", "described_questions"]

Table = TypeVar("Table", bound=QuestionRows)


class PictureQuestionObjective(Generic[Table]):
    """Questions about pictures, by the model's own loss.

    An example is a group of `settings.questions_per_image` questions about one picture, which the model looks at once.
    Nothing here depends on the alignment function, so that all functions see the same batches.

    Args:
        data: Splits "train", "validation", "test" of pictures and questions.
        questions: The table of each split.
        settings: Seed, grouping, and how to evaluate.
        processor: Saved with the weights.
        region_store: Features of the pictures; None trains from pixels.
        image_processor: Makes `pixel_values`; needed without a store.
        blind: Show zeros in place of every picture: the control that only reads the questions.

    Raises:
        DataError: A picture has no regions.
        ConfigurationError: Neither a store nor an image processor is given.
    """

    selection_metric = "accuracy"

    def __init__(
        self,
        data: QuestionData,
        questions: Mapping[str, Table],
        settings: TrainingSettings,
        *,
        processor: Any,
        region_store: RegionStore | None,
        image_processor: Callable[..., Any] | None,
        blind: bool,
    ) -> None:
        self.questions, self.settings = dict(questions), settings
        self.processor, self.blind = processor, blind
        self.images = image_inputs(data.images, region_store, image_processor)

    def check_model(self, model: Any) -> None:
        """Compare vocabularies, answers and features with the model.

        Raises:
            ConfigurationError: They do not fit.
            DataError: A split is missing, no training question has an answer that the model can give, or features are
                unusable.
        """
        missing = [name for name in ("train", "validation") if name not in self.questions]
        if missing:
            raise DataError(f"Training needs the splits {missing}; the data set has {sorted(self.questions)}.")
        self.check_answers(model)
        self.images.check(model)

    def check_answers(self, model: Any) -> None:
        """Compare vocabularies and answers with the model; errors as of `check_model`."""
        raise NotImplementedError

    def groups(self, epoch: int, allowed: np.ndarray) -> QuestionGroups:
        """Return the groups of an epoch, of the allowed [Q] training questions.

        Raises:
            DataError: No picture has enough of them for a group.
        """
        size = self.settings.questions_per_image
        # A stream of its own, apart from the one that orders the examples.
        draw = np.random.default_rng([self.settings.seed, epoch, 3])
        groups = self._table("train").groups(size, draw, allowed)
        if not len(groups):
            raise DataError(
                f"No picture has {size} training questions in epoch {epoch + 1}; lower questions_per_image, or let the "
                "first epochs ask more (short_questions_share, first_question_types)."
            )
        return groups

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the model's loss."""
        return model(**batch).loss

    def inputs(self, split: str, images: np.ndarray, questions: np.ndarray) -> dict[str, Tensor]:
        """Return what the model sees of these pictures and reads of the questions about them."""
        pictures = self.images.batch(split, images)
        if self.blind:
            pictures = {name: torch.zeros_like(tensor) for name, tensor in pictures.items()}
        return {**self._table(split).tokens.batch(questions), **pictures}

    def _training_batch(self, images: Sequence[int], questions: np.ndarray) -> dict[str, Any]:
        """Return the inputs of training questions, and their ids as "ids"."""
        ids = [self._table("train").question_ids[row] for row in questions]
        return {**self.inputs("train", np.array(images), questions), "ids": ids}

    def _shared_batches(self, split: str, accelerator: Accelerator) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield this process's share of a split: rows of questions, and the model's arguments for them."""
        batches = self._table(split).evaluation_batches(self.settings.evaluation_batch_size)
        for number, (images, questions) in enumerate(batches):
            if number % accelerator.num_processes == accelerator.process_index:
                batch = self.inputs(split, images, questions)
                moved = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
                yield torch.from_numpy(questions), moved

    def _row(self, table: Table, row: int) -> dict[str, Any]:
        """Return what a prediction's row says of the question."""
        return {
            "item_id": table.question_ids[row],
            "image_id": table.image_ids[table.image[row]],
            "direction": "answer",
            "question": table.texts[row],
            "question_type": table.types[row],
        }

    def _table(self, split: str) -> Table:
        if split not in self.questions:
            raise DataError(f"There is no split {split!r}; there are {sorted(self.questions)}.")
        return self.questions[split]


def check_question_splits(data: QuestionData, name: str, test_split: str) -> None:
    """Raise a `DataError` unless the data set `name` has what a run trains, selects and tests on."""
    if missing := [split for split in ("train", "validation", test_split) if split not in data.questions]:
        raise DataError(f"The data set {name!r} lacks the splits {missing}; it has {sorted(data.questions)}.")


def described_questions(
    data: QuestionData, name: str, test_split: str, store: RegionStore | None, blind: bool
) -> dict[str, Any]:
    """Return what identifies the data in a result, and the mix of its questions."""
    dataset: dict[str, Any] = {"name": name, "content_hash": data.content_hash}
    dataset |= {split: len(questions) for split, questions in data.questions.items()}
    dataset["images"] = {split: len(pictures) for split, pictures in data.images.items()}
    dataset["question_types"] = dict(sorted(Counter(data.questions[test_split]["question_type"]).items()))
    dataset |= described_regions(store)
    return dataset | ({"blind": True} if blind else {})

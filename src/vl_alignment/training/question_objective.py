"""Question answering as the training loop sees it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl_alignment.data.features import RegionStore
from vl_alignment.data.question_answering import QuestionData
from vl_alignment.metrics.question_answering import question_answering_metrics
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import Evaluation
from vl_alignment.training.question_inputs import QuestionGroups, QuestionTable
from vl_alignment.training.retrieval_inputs import ImageInputs, PixelInputs, RegionInputs

__all__ = ["QuestionObjective"]


class QuestionObjective:
    """Choosing the answer of a question about a picture, by cross-entropy over the training answers.

    An example is a group of `settings.questions_per_image` questions about one picture, which the model looks at
    once. Nothing here depends on the alignment function, so that all functions see the same batches.

    Args:
        data: Splits "train", "validation", "test" of pictures and questions.
        tokenizer: As of transformers.
        id2label: The answers that the model chooses from.
        settings: Seed, grouping, and how to evaluate.
        region_store: Features of the pictures; None trains from pixels.
        image_processor: Makes `pixel_values`; needed without a store.
        processor: Saved with the weights.
        blind: Show zeros in place of every picture: the control that only reads the questions.

    Raises:
        DataError: A question has no words or no picture, a picture no regions.
        ConfigurationError: Neither a store nor an image processor is given.
    """

    task = "question-answering"
    selection_metric = "accuracy"

    def __init__(
        self,
        data: QuestionData,
        tokenizer: Any,
        id2label: Mapping[int, str],
        settings: TrainingSettings,
        *,
        region_store: RegionStore | None = None,
        image_processor: Callable[..., Any] | None = None,
        processor: Any = None,
        blind: bool = False,
    ) -> None:
        self.settings, self.processor, self.blind = settings, processor, blind
        self.id2label = dict(id2label)
        self.vocabulary_size = len(tokenizer)
        label2id = {answer: number for number, answer in self.id2label.items()}
        self.questions = {
            name: QuestionTable(split, data.images[name], tokenizer, label2id, name)
            for name, split in data.questions.items()
        }
        self.images: ImageInputs
        if region_store is not None:
            self.images = RegionInputs(data.images, region_store)
        elif image_processor is not None:
            self.images = PixelInputs(data.images, image_processor)
        else:
            raise ConfigurationError("Images are needed: give a region store, or an image processor for pixels.")

    def check_model(self, model: Any) -> None:
        """Compare vocabularies, answers and features with the model.

        Raises:
            ConfigurationError: They do not fit.
            DataError: A split is missing, no training question has a known answer, or features are unusable.
        """
        missing = [name for name in ("train", "validation") if name not in self.questions]
        if missing:
            raise DataError(f"Training needs the splits {missing}; the data set has {sorted(self.questions)}.")
        if model.config.vocab_size < self.vocabulary_size:
            raise ConfigurationError(
                f"The model's vocab_size={model.config.vocab_size} is smaller than the tokenizer's "
                f"{self.vocabulary_size} words."
            )
        if dict(model.config.id2label) != self.id2label:
            raise ConfigurationError(
                f"The model chooses from {len(model.config.id2label)} answers, the data set from other "
                f"{len(self.id2label)}; give the config the id2label of the training answers."
            )
        table = self.questions["train"]
        if table.unknown_answers == len(table):
            raise DataError("No training question has an answer that the model knows.")
        self.images.check(model)

    def train_dataset(self, epoch: int) -> QuestionGroups:
        """Return the groups of an epoch, in its first epochs of short questions only where that is asked for."""
        table, settings = self.questions["train"], self.settings
        allowed = table.labels >= 0
        if epoch < settings.short_questions_epochs:
            allowed &= table.shortest(settings.short_questions_share)
        # A stream of its own, apart from the one that orders the examples.
        groups = table.groups(settings.questions_per_image, np.random.default_rng([settings.seed, epoch, 3]), allowed)
        if not len(groups):
            raise DataError(
                f"No picture has {settings.questions_per_image} training questions in epoch {epoch + 1}; "
                "lower questions_per_image or raise short_questions_share."
            )
        return groups

    def collate(self, examples: list[tuple[int, np.ndarray]]) -> dict[str, Any]:
        """Return the model's arguments for groups (image row, question rows), and the question ids as "ids"."""
        images = np.array([image for image, _ in examples])
        questions = np.concatenate([rows for _, rows in examples])
        table = self.questions["train"]
        batch: dict[str, Any] = self._inputs("train", images, questions)
        batch["labels"] = torch.from_numpy(table.labels[questions])
        batch["ids"] = [table.question_ids[row] for row in questions]
        return batch

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the cross-entropy of the answers."""
        return model(**batch).loss

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Answer all questions of a split, each process those about a share of the pictures.

        Raises:
            DataError: There is no such split, or its answers are not known.
        """
        table = self._table(split)
        if not any(table.answers):
            raise DataError(f"The answers of {split!r} are not public; measure on the validation split.")
        chosen, probabilities = self.answers(model, split, accelerator)
        predictions = [self.id2label[int(number)] for number in chosen]
        metrics = question_answering_metrics(predictions, table.answers, table.types, table.depths)
        if not final or not accelerator.is_main_process:
            return Evaluation(metrics)
        rows = [
            {
                "item_id": table.question_ids[row],
                "image_id": table.image_ids[table.image[row]],
                "direction": "answer",
                "question": table.texts[row],
                "prediction": predictions[row],
                "reference": table.answers[row],
                "score": float(probabilities[row]),
                "question_type": table.types[row],
                "program_depth": int(table.depths[row]),
            }
            for row in range(len(table))
        ]
        return Evaluation(metrics, rows)

    @torch.no_grad()
    def answers(self, model: Any, split: str, accelerator: Accelerator) -> tuple[np.ndarray, np.ndarray]:
        """Return the class that the model chooses for each question of a split [Q], and its probability [Q]."""
        training = model.training
        model.eval()
        table = self._table(split)
        # Every process fills in its own questions; the sum over processes holds them all.
        found = torch.zeros(2, len(table), dtype=torch.float64)
        for number, (images, questions) in enumerate(table.evaluation_batches(self.settings.evaluation_batch_size)):
            if number % accelerator.num_processes != accelerator.process_index:
                continue
            batch = self._inputs(split, images, questions)
            logits = model(**{name: tensor.to(accelerator.device) for name, tensor in batch.items()}).logits
            probability, chosen = logits.float().softmax(dim=-1).max(dim=-1)
            found[:, torch.from_numpy(questions)] = torch.stack([chosen.double(), probability.double()]).cpu()
        model.train(training)
        if accelerator.num_processes > 1:
            found = accelerator.reduce(found.to(accelerator.device), "sum").cpu()
        return found[0].long().numpy(), found[1].numpy()

    def _inputs(self, split: str, images: np.ndarray, questions: np.ndarray) -> dict[str, Tensor]:
        pictures = self.images.batch(split, images)
        if self.blind:
            pictures = {name: torch.zeros_like(tensor) for name, tensor in pictures.items()}
        return {**self.questions[split].tokens.batch(questions), **pictures}

    def _table(self, split: str) -> QuestionTable:
        if split not in self.questions:
            raise DataError(f"There is no split {split!r}; there are {sorted(self.questions)}.")
        return self.questions[split]

"""Question answering as the training loop sees it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from vl_alignment.data.features import RegionStore
from vl_alignment.data.processes import summed_over_processes
from vl_alignment.data.question_answering import QuestionData
from vl_alignment.metrics.question_answering import question_answering_metrics
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import Evaluation
from vl_alignment.training.picture_questions import PictureQuestionObjective
from vl_alignment.training.question_inputs import QuestionGroups, QuestionTable

__all__ = ["QuestionObjective"]


class QuestionObjective(PictureQuestionObjective[QuestionTable]):
    """Choosing the answer of a question about a picture, by cross-entropy over the training answers.

    Args:
        data: See `PictureQuestionObjective`, also for groups and batches.
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
        self.id2label = dict(id2label)
        self.vocabulary_size = len(tokenizer)
        label2id = {answer: number for number, answer in self.id2label.items()}
        super().__init__(
            data,
            {
                name: QuestionTable(split, data.images[name], tokenizer, label2id, name)
                for name, split in data.questions.items()
            },
            settings,
            processor=processor,
            region_store=region_store,
            image_processor=image_processor,
            blind=blind,
        )

    def check_answers(self, model: Any) -> None:
        """Compare vocabularies and answers with the model; errors as of `check_model`."""
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

    def train_dataset(self, epoch: int) -> QuestionGroups:
        """Return the groups of an epoch, in its first epochs of short questions only where that is asked for."""
        table, settings = self.questions["train"], self.settings
        allowed = table.labels >= 0
        if epoch < settings.short_questions_epochs:
            allowed &= table.shortest(settings.short_questions_share)
        return self.groups(epoch, allowed)

    def collate(self, examples: list[tuple[int, np.ndarray]]) -> dict[str, Any]:
        """Return the model's arguments for groups (image row, question rows), and the question ids as "ids"."""
        questions = np.concatenate([rows for _, rows in examples])
        batch = self._training_batch([image for image, _ in examples], questions)
        return {**batch, "labels": torch.from_numpy(self.questions["train"].labels[questions])}

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
                **self._row(table, row),
                "prediction": predictions[row],
                "reference": table.answers[row],
                "score": float(probabilities[row]),
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
        found = torch.zeros(2, len(self._table(split)), dtype=torch.float64)
        for questions, batch in self._shared_batches(split, accelerator):
            probability, chosen = model(**batch).logits.float().softmax(dim=-1).max(dim=-1)
            found[:, questions] = torch.stack([chosen.double(), probability.double()]).cpu()
        model.train(training)
        found = summed_over_processes(found, accelerator)
        return found[0].long().numpy(), found[1].numpy()

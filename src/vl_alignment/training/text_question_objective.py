"""Question answering by reading as the training loop sees it."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl_alignment.data.features import RegionStore
from vl_alignment.data.question_records import QuestionData
from vl_alignment.metrics.text_question_answering import answer_words, text_answer_metrics, text_answer_scores
from vl_alignment.models.configuration_m4c import ANSWER_PADDING
from vl_alignment.models.decoding_m4c import M4CAnswer, spell_answers
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.decoding_targets import AnswerTargets
from vl_alignment.training.objectives import Evaluation
from vl_alignment.training.retrieval_inputs import ImageInputs, PixelInputs, RegionInputs
from vl_alignment.training.text_question_inputs import DrawnGroups, TextInputs, TextQuestionTable

__all__ = ["TextQuestionObjective"]


class TextQuestionObjective:
    """Answering in words of a vocabulary and words that stand in the picture, by the model's loss of each step.

    An example is a group of `settings.questions_per_image` questions about one picture. Nothing here depends on the
    alignment function, so that all functions see the same batches and the same drawn answers.

    Args:
        data: Splits "train", "validation", "test" of pictures with their text, and questions.
        processor: Saved with the weights; its tokenizer, word vectors and limits make the inputs.
        vocabulary: The words that an answer can be spelled with, the special ones first.
        settings: Seed, grouping, and how to evaluate.
        steps: Decoding steps of the model.
        region_store: Features of the pictures' grids; None trains from pixels.
        image_processor: Makes `pixel_values`; needed without a store.
        blind: Show zeros in place of every picture, and none of its text: the control that only reads the questions.

    Raises:
        DataError: A question has no words or no picture, a picture no regions, or text is not there.
        ConfigurationError: Neither a store nor an image processor is given.
    """

    task = "text-question-answering"
    selection_metric = "accuracy"

    def __init__(
        self,
        data: QuestionData,
        processor: M4CProcessor,
        vocabulary: Sequence[str],
        settings: TrainingSettings,
        *,
        steps: int,
        region_store: RegionStore | None = None,
        image_processor: Callable[..., Any] | None = None,
        blind: bool = False,
    ) -> None:
        self.settings, self.processor, self.blind = settings, processor, blind
        self.vocabulary, self.steps = list(vocabulary), steps
        limit = processor.max_question_tokens
        self.questions = {
            name: TextQuestionTable(split, data.images[name], processor.tokenizer, name, limit)
            for name, split in data.questions.items()
        }
        self.texts = {name: TextInputs(images, processor, name, hidden=blind) for name, images in data.images.items()}
        self.images: ImageInputs
        if region_store is not None:
            self.images = RegionInputs(data.images, region_store)
        elif image_processor is not None:
            self.images = PixelInputs(data.images, image_processor)
        else:
            raise ConfigurationError("Images are needed: give a region store, or an image processor for pixels.")
        self._targets: dict[str, AnswerTargets] = {}

    def targets(self, split: str) -> AnswerTargets:
        """Return what the answers to a split's questions can be spelled with, matched when first asked for."""
        if split not in self._targets:
            table, words = self._table(split), self.texts[split].words
            self._targets[split] = AnswerTargets(
                table.answers, [words[row] for row in table.image], self.vocabulary, self.steps
            )
        return self._targets[split]

    def check_model(self, model: Any) -> None:
        """Compare vocabularies, answers and features with the model.

        Raises:
            ConfigurationError: They do not fit.
            DataError: A split is missing, no training question has an answer that can be spelled, or features are
                unusable.
        """
        missing = [name for name in ("train", "validation") if name not in self.questions]
        if missing:
            raise DataError(f"Training needs the splits {missing}; the data set has {sorted(self.questions)}.")
        known, words = model.config.text_config.vocab_size, len(self.processor.tokenizer)
        if known < words:
            raise ConfigurationError(f"The model's text encoder knows {known} pieces, the tokenizer has {words}.")
        if [*model.config.id2label.values()] != self.vocabulary:
            raise ConfigurationError(
                f"The model's answer vocabulary of {len(model.config.id2label)} words is not the objective's of "
                f"{len(self.vocabulary)}; give the config its id2label."
            )
        if model.config.num_decoding_steps != self.steps:
            raise ConfigurationError(
                f"The model decodes {model.config.num_decoding_steps} steps, the targets have {self.steps}."
            )
        targets = self.targets("train")
        if targets.unspellable + targets.without_answers == len(targets):
            raise DataError("No training question has an answer that vocabulary and text of the pictures can spell.")
        self.images.check(model)

    def train_dataset(self, epoch: int) -> DrawnGroups:
        """Return the groups of an epoch, of questions with an answer that can be spelled."""
        table, settings = self.questions["train"], self.settings
        targets = self.targets("train")
        allowed = np.array([bool(targets.sequences(row)) for row in range(len(table))])
        # A stream of its own, apart from the one that orders the examples.
        groups = table.groups(settings.questions_per_image, np.random.default_rng([settings.seed, epoch, 3]), allowed)
        if not len(groups):
            raise DataError(f"No picture has {settings.questions_per_image} training questions; lower it.")
        return DrawnGroups(groups, epoch)

    def collate(self, examples: list[tuple[int, np.ndarray, int]]) -> dict[str, Any]:
        """Return the model's arguments for groups (image row, question rows, epoch), and question ids as "ids"."""
        images = np.array([image for image, _, _ in examples])
        questions = np.concatenate([rows for _, rows, _ in examples])
        batch: dict[str, Any] = self._inputs("train", images, questions)
        # Drawn anew in every epoch, and alike after a resume.
        draw = np.random.default_rng([self.settings.seed, examples[0][2], int(questions[0]), 4])
        batch |= self.targets("train").batch(questions, batch["ocr_mask"].shape[1], draw)
        batch["ids"] = [self.questions["train"].question_ids[row] for row in questions]
        return batch

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the model's loss."""
        return model(**batch).loss

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Answer all questions of a split greedily, each process those about a share of the pictures.

        Accuracy over unseen words is measured where the training questions are there to say which those are.

        Raises:
            DataError: There is no such split, or its answers are not known.
        """
        table = self._table(split)
        if not all(table.answers):
            raise DataError(f"The answers of {split!r} are not public; measure on the validation split.")
        answers = self.answers(model, split, accelerator)
        predictions = [answer.text for answer in answers]
        metrics = text_answer_metrics(predictions, table.answers, table.types, table.hops, self._seen_words)
        words = [word for answer in answers for word in answer.words]
        metrics["copied_words"] = 100.0 * sum(word.source == "ocr" for word in words) / max(1, len(words))
        if not final or not accelerator.is_main_process:
            return Evaluation(metrics)
        scores = text_answer_scores(predictions, table.answers)["accuracy"]
        return Evaluation(
            metrics, [self._row(table, row, answers[row], float(scores[row])) for row in range(len(table))]
        )

    @cached_property
    def _seen_words(self) -> frozenset[str] | None:
        return answer_words(self.questions["train"].answers) if "train" in self.questions else None

    def _row(self, table: TextQuestionTable, row: int, answer: M4CAnswer, score: float) -> dict[str, Any]:
        return {
            "item_id": table.question_ids[row],
            "image_id": table.image_ids[table.image[row]],
            "direction": "answer",
            "question": table.texts[row],
            "prediction": answer.text,
            "reference": Counter(table.answers[row]).most_common(1)[0][0],
            "score": score,
            "question_type": table.types[row],
            "hops": int(table.hops[row]),
            "source": " ".join(word.source for word in answer.words),
        }

    @torch.no_grad()
    def answers(self, model: Any, split: str, accelerator: Accelerator) -> list[M4CAnswer]:
        """Return the model's answer to each question of a split, in words with their sources."""
        training = model.training
        model.eval()
        table = self._table(split)
        # Every process fills in its own questions; the sum over processes holds them all.
        found = torch.full((len(table), self.steps), ANSWER_PADDING)
        for number, (images, questions) in enumerate(table.evaluation_batches(self.settings.evaluation_batch_size)):
            if number % accelerator.num_processes != accelerator.process_index:
                continue
            batch = self._inputs(split, images, questions)
            sequences = model.generate(
                **{name: tensor.to(accelerator.device) for name, tensor in batch.items()}
            ).sequences.cpu()
            found[torch.from_numpy(questions), : sequences.shape[1]] = sequences
        model.train(training)
        if accelerator.num_processes > 1:
            found = accelerator.reduce(found.to(accelerator.device), "sum").cpu()
        words = [self.texts[split].words[row] for row in table.image]
        return spell_answers(found, dict(enumerate(self.vocabulary)), words)

    def _inputs(self, split: str, images: np.ndarray, questions: np.ndarray) -> dict[str, Tensor]:
        pictures = self.images.batch(split, images)
        if self.blind:
            pictures = {name: torch.zeros_like(tensor) for name, tensor in pictures.items()}
        return {**self.questions[split].tokens.batch(questions), **pictures, **self.texts[split].batch(images)}

    def _table(self, split: str) -> TextQuestionTable:
        if split not in self.questions:
            raise DataError(f"There is no split {split!r}; there are {sorted(self.questions)}.")
        return self.questions[split]

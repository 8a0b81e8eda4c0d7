"""Question answering by reading as the training loop sees it."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor, nn

from vl_alignment.data.answer_vocabulary import SPECIAL_WORDS
from vl_alignment.data.features import RegionStore
from vl_alignment.data.processes import summed_over_processes
from vl_alignment.data.question_records import QuestionData
from vl_alignment.metrics.text_question_answering import (
    answer_ceiling,
    answer_words,
    text_answer_metrics,
    text_answer_scores,
)
from vl_alignment.models.configuration_m4c import ANSWER_PADDING
from vl_alignment.models.decoding_m4c import M4CAnswer, spell_answers
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.processing_m4c import M4CProcessor
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.decoding_targets import AnswerTargets, answer_source
from vl_alignment.training.objectives import Evaluation
from vl_alignment.training.picture_questions import PictureQuestionObjective
from vl_alignment.training.text_question_inputs import DrawnGroups, TextInputs, TextQuestionTable

__all__ = ["TextQuestionObjective", "answer_bounds"]


def answer_bounds(answers: Sequence[Sequence[str]], targets: AnswerTargets) -> dict[str, float]:
    """Return what people's disagreement leaves of the accuracy, and what vocabulary and text leave of that."""
    return {"answer_ceiling": answer_ceiling(answers), "best_accuracy": targets.best_accuracy}


class TextQuestionObjective(PictureQuestionObjective[TextQuestionTable]):
    """Answering in words of a vocabulary and words that stand in the picture, by the model's loss of each step.

    All functions see the same drawn answers too.

    Args:
        data: See `PictureQuestionObjective`, also for groups and batches; its pictures with their text.
        processor: Saved with the weights; its tokenizer, word vectors and limits make the inputs.
        vocabulary: The words that an answer can be spelled with, the special ones first.
        settings: Seed, grouping, and how to evaluate.
        steps: Decoding steps of the model.
        region_store: Features of the pictures' grids; None trains from pixels.
        image_processor: Makes `pixel_values`; needed without a store.
        blind: Show zeros in place of every picture, and none of its text: the control that only reads the questions.
        copy_words: Whether answers are spelled with words of the picture too; without, with the vocabulary alone, for a
            model whose pointer network is ablated.
        seen_words: The `answer_words` of training, for the accuracy over unseen words; those of the split "train" where
            None.

    Raises:
        DataError: A question has no words or no picture, a picture no regions, or text is not there.
        ConfigurationError: Neither a store nor an image processor is given.
    """

    task = "text-question-answering"

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
        copy_words: bool = True,
        seen_words: Collection[str] | None = None,
    ) -> None:
        self.vocabulary, self.steps, self.copy_words = list(vocabulary), steps, copy_words
        super().__init__(
            data,
            {
                name: TextQuestionTable(split, data.images[name], processor, name)
                for name, split in data.questions.items()
            },
            settings,
            processor=processor,
            region_store=region_store,
            image_processor=image_processor,
            blind=blind,
        )
        self.texts = {name: TextInputs(images, processor, name, hidden=blind) for name, images in data.images.items()}
        self._images = data.images
        if seen_words is None and "train" in self.questions:
            seen_words = answer_words(self.questions["train"].answers)
        self.seen_words = seen_words
        self._targets: dict[str, AnswerTargets] = {}
        self._sources: dict[str, list[str]] = {}

    def targets(self, split: str) -> AnswerTargets:
        """Return what the answers to a split's questions can be spelled with, matched when first asked for."""
        if split not in self._targets:
            table = self._table(split)
            words = self._words(split) if self.copy_words else [[] for _ in range(len(table))]
            self._targets[split] = AnswerTargets(table.answers, words, self.vocabulary, self.steps)
        return self._targets[split]

    def check_answers(self, model: Any) -> None:
        """Compare vocabularies and answers with the model; errors as of `check_model`."""
        known, words = model.config.text_config.vocab_size, len(self.processor.tokenizer)
        if known < words:
            raise ConfigurationError(f"The model's text encoder knows {known} pieces, the tokenizer has {words}.")
        if [*model.config.id2label.values()] != self.vocabulary:
            raise ConfigurationError(
                f"The model's answer vocabulary of {len(model.config.id2label)} words is not the objective's of "
                f"{len(self.vocabulary)}; give the config its id2label."
            )
        for name, own in (("num_decoding_steps", self.steps), ("copy_words", self.copy_words)):
            if getattr(model.config, name) != own:
                raise ConfigurationError(f"The model has {name}={getattr(model.config, name)}, the objective {own}.")
        targets = self.targets("train")
        if targets.unspellable + targets.without_answers == len(targets):
            raise DataError("No training question has an answer that vocabulary and text of the pictures can spell.")

    def train_dataset(self, epoch: int) -> DrawnGroups:
        """Return the groups of an epoch, of questions with an answer that can be spelled, and a spelling of each."""
        targets, settings = self.targets("train"), self.settings
        rows = range(len(targets))
        # Drawn anew in every epoch, whatever the batches: alike after a resume and on several processes.
        drawn = targets.draw(rows, np.random.default_rng([settings.seed, epoch, 4]))
        allowed = np.array([bool(targets.sequences(row)) for row in rows])
        if epoch < settings.short_questions_epochs and settings.first_question_types:
            allowed &= np.isin(self.questions["train"].types, settings.first_question_types)
        return DrawnGroups(self.groups(epoch, allowed), drawn)

    def collate(self, examples: list[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, Any]:
        """Return the model's arguments for groups (image, question rows, what they drew), and question ids as "ids"."""
        questions, drawn = (np.concatenate([example[part] for example in examples]) for part in (1, 2))
        batch = self._training_batch([image for image, _, _ in examples], questions)
        return batch | self.targets("train").batch(questions, batch["ocr_mask"].shape[1], drawn)

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the model's loss, the mean over the steps that count.

        Processes take their shares' means; weighted by how many steps each has they make the mean over the whole batch.
        """
        steps = batch["label_mask"].sum()
        return model(**batch).loss * (steps / reduce(steps, "mean").clamp_min(1))

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Answer all questions of a split greedily, each process those about a share of the pictures.

        Raises:
            DataError: There is no such split, or its answers are not known.
        """
        table = self._table(split)
        if not all(table.answers):
            raise DataError(f"The answers of {split!r} are not public; measure on the validation split.")
        answers = self.answers(model, split, accelerator)
        predictions = [answer.text for answer in answers]
        references = _references(table)
        sources = self.answer_sources(split)
        metrics = text_answer_metrics(predictions, table.answers, table.types, table.hops, self.seen_words, sources)
        words = [word for answer in answers for word in answer.words]
        metrics["copied_words"] = 100.0 * sum(word.source == "ocr" for word in words) / max(1, len(words))
        if not final or not accelerator.is_main_process:
            return Evaluation(metrics)
        scores = text_answer_scores(predictions, table.answers)["accuracy"]
        rows = [
            {
                **self._row(table, row),
                "prediction": predictions[row],
                "reference": references[row],
                "answer_source": sources[row],
                "score": float(scores[row]),
                "hops": int(table.hops[row]),
                "source": " ".join(word.source for word in answers[row].words),
            }
            for row in range(len(table))
        ]
        return Evaluation(metrics, rows, answer_bounds(table.answers, self.targets(split)))

    def answer_sources(self, split: str) -> list[str]:
        """Return each question's `answer_source`: where its answer stands, whatever of that a control is shown."""
        if split not in self._sources:
            table, texts = self._table(split), self.texts[split]
            if self.blind:
                texts = TextInputs(self._images[split], self.processor, split)
            known = set(self.vocabulary[len(SPECIAL_WORDS) :])
            self._sources[split] = [
                answer_source(reference, known, texts.words[image])
                for reference, image in zip(_references(table), table.image, strict=True)
            ]
        return self._sources[split]

    @torch.no_grad()
    def answers(self, model: Any, split: str, accelerator: Accelerator) -> list[M4CAnswer]:
        """Return the model's answer to each question of a split, in words with their sources."""
        training = model.training
        model.eval()
        found = torch.full((len(self._table(split)), self.steps), ANSWER_PADDING)
        for questions, batch in self._shared_batches(split, accelerator):
            sequences = model.generate(**batch).sequences.cpu()
            found[questions, : sequences.shape[1]] = sequences
        model.train(training)
        found = summed_over_processes(found, accelerator)
        return spell_answers(found, dict(enumerate(self.vocabulary)), self._words(split))

    def inputs(self, split: str, images: np.ndarray, questions: np.ndarray) -> dict[str, Tensor]:
        """Return what the model sees of these pictures and their text, and reads of the questions about them."""
        return {**super().inputs(split, images, questions), **self.texts[split].batch(images)}

    def _words(self, split: str) -> list[list[str]]:
        """The words in the slots of each question's picture."""
        return [self.texts[split].words[row] for row in self._table(split).image]


def _references(table: TextQuestionTable) -> list[str]:
    """The answer to each question that most people gave."""
    return [Counter(given).most_common(1)[0][0] for given in table.answers]

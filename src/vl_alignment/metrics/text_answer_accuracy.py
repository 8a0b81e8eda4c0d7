"""Accuracy of answers that are read as an `evaluate.Metric`: one row a question, offline, gathered over processes."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from ..models.errors import DataError
from .text_question_answering import UNKNOWN_FAMILY, text_answer_metrics

__all__ = ["TextAnswerAccuracy"]

DESCRIPTION = "TextVQA's soft accuracy, overall and by question family, and ST-VQA's ANLS, in percent."

INPUTS = """
Args:
    predictions (list of str): the answer given to each question.
    references (list of list of str): the answers that people gave to it, ten in TextVQA; with fewer than ten, any of
        them is right.
    question_types (list of str, optional): the family of each question, "" where it is unknown.
Returns:
    accuracy: soft accuracy after the official normalisation of answers, in percent.
    accuracy_{question_type}: the same among the questions of each family present.
    anls: average normalised Levenshtein similarity, those below 0.5 counted as 0, in percent.
"""


class TextAnswerAccuracy(evaluate.Metric):
    """Measure answers that are read from pictures.

    It needs no network. With `num_process=2` (and `process_id`, `experiment_id`) each process adds its own questions
    and process 0 computes over all of them; the others get None.

    Example:
        >>> metric = TextAnswerAccuracy()
        >>> metric.add(prediction="Coca-Cola", reference=["coca cola"] * 8 + ["coke"] * 2, question_type="brand")
        >>> metric.add(prediction="stop", reference=["exit"] * 10)
        >>> metric.compute()
        {'accuracy': 50.0, 'accuracy_brand': 100.0, 'anls': 44.44444444444444}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.List(datasets.Value("string")),
                    "question_types": datasets.Value("string"),
                }
            ),
        )

    def add(
        self,
        *,
        prediction: str | None = None,
        reference: Sequence[str] | None = None,
        question_type: str = UNKNOWN_FAMILY,
    ) -> None:
        """Add one question with the answers that people gave."""
        super().add(prediction=prediction, reference=reference, question_types=question_type)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Add the questions of a batch; `question_types` may be left out."""
        super().add_batch(predictions=predictions, references=references, **_complete(predictions, columns))

    def compute(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> dict[str, float] | None:
        """Compute over everything added, and over the questions given here."""
        if predictions is not None:
            columns = _complete(predictions, columns)
        return super().compute(predictions=predictions, references=references, **columns)

    def _compute(
        self, *, predictions: Any = None, references: Any = None, question_types: Any = None, **_: Any
    ) -> dict[str, float]:
        if predictions is None or len(predictions) == 0:
            raise DataError("there are no questions to measure; add a batch with at least one row before compute()")
        return text_answer_metrics(predictions, references, question_types)


def _complete(predictions: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns with "unknown" in place of an absent one: evaluate knows no optional inputs."""
    if columns.get("question_types") is None:
        return {**columns, "question_types": [UNKNOWN_FAMILY] * len(predictions)}
    return columns

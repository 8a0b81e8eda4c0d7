"""Accuracy of answers as an `evaluate.Metric`: one row a question, offline, gathered over processes."""

from typing import Any

import datasets
import evaluate

from ..models.errors import DataError
from .question_answering import UNKNOWN_DEPTH, UNKNOWN_TYPE, question_answering_metrics

__all__ = ["AnswerAccuracy"]

DESCRIPTION = "Percentage of questions answered right: overall, by question type and by depth of the program."

INPUTS = """
Args:
    predictions (list of str): the answer given to each question.
    references (list of str): the right answer.
    question_types (list of str, optional): the type of each question, "" where it is unknown.
    program_depths (list of int, optional): the depth of each question's program, -1 where it is unknown.
Returns:
    accuracy: percentage of questions whose answer is right.
    accuracy_{question_type}: the same among the questions of each type present.
    accuracy_depth_{n}: the same among the questions of each depth present.
"""


class AnswerAccuracy(evaluate.Metric):
    """Measure the answers to questions, with the breakdowns of the paper's Table 5.

    It needs no network. With `num_process=2` (and `process_id`, `experiment_id`) each process adds its own questions
    and process 0 computes over all of them; the others get None.

    Example:
        >>> metric = AnswerAccuracy()
        >>> metric.add(prediction="yes", reference="yes", question_type="exist")
        >>> metric.add(prediction="3", reference="2", question_type="count", program_depth=4)
        >>> metric.compute()
        {'accuracy': 50.0, 'accuracy_exist': 100.0, 'accuracy_count': 0.0, 'accuracy_depth_4': 0.0}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Value("string"),
                    "question_types": datasets.Value("string"),
                    "program_depths": datasets.Value("int64"),
                }
            ),
        )

    def add(
        self,
        *,
        prediction: str | None = None,
        reference: str | None = None,
        question_type: str = UNKNOWN_TYPE,
        program_depth: int = UNKNOWN_DEPTH,
    ) -> None:
        """Add one question."""
        super().add(
            prediction=prediction, reference=reference, question_types=question_type, program_depths=program_depth
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Add the questions of a batch; `question_types` and `program_depths` may be left out."""
        super().add_batch(predictions=predictions, references=references, **_complete(predictions, columns))

    def compute(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> dict[str, float] | None:
        """Compute over everything added, and over the questions given here."""
        if predictions is not None:
            columns = _complete(predictions, columns)
        return super().compute(predictions=predictions, references=references, **columns)

    def _compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        question_types: Any = None,
        program_depths: Any = None,
        **_: Any,
    ) -> dict[str, float]:
        if predictions is None or len(predictions) == 0:
            raise DataError("there are no questions to measure; add a batch with at least one row before compute()")
        return question_answering_metrics(predictions, references, question_types, program_depths)


def _complete(predictions: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns with "unknown" in place of an absent one: evaluate knows no optional inputs."""
    unknown: dict[str, Any] = {"question_types": UNKNOWN_TYPE, "program_depths": UNKNOWN_DEPTH}
    absent = {name: [value] * len(predictions) for name, value in unknown.items() if columns.get(name) is None}
    return {**columns, **absent}

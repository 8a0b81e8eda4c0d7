"""How good a result is: ranks for retrieval, accuracy for answers, distances and fits for generated pictures.

The `evaluate.Metric` classes are imported on first use, because `evaluate` takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .question_answering import QUESTION_TYPES, majority_accuracy, question_answering_metrics
from .retrieval import RetrievalRanks, chance_metrics, retrieval_metrics, retrieval_ranks
from .text_question_answering import answer_ceiling, text_answer_metrics, text_answer_scores
from .text_to_image import mismatched_captions

if TYPE_CHECKING:
    from .answer_accuracy import AnswerAccuracy
    from .attribute_accuracy import AttributeAccuracy
    from .image_distribution import ImageDistribution
    from .r_precision import RPrecision
    from .recall import RetrievalRecall
    from .text_answer_accuracy import TextAnswerAccuracy

__all__ = [
    "QUESTION_TYPES",
    "AnswerAccuracy",
    "AttributeAccuracy",
    "ImageDistribution",
    "RPrecision",
    "RetrievalRanks",
    "RetrievalRecall",
    "TextAnswerAccuracy",
    "answer_ceiling",
    "chance_metrics",
    "majority_accuracy",
    "mismatched_captions",
    "question_answering_metrics",
    "retrieval_metrics",
    "retrieval_ranks",
    "text_answer_metrics",
    "text_answer_scores",
]

_METRICS = {
    "AnswerAccuracy": ".answer_accuracy",
    "AttributeAccuracy": ".attribute_accuracy",
    "ImageDistribution": ".image_distribution",
    "RPrecision": ".r_precision",
    "RetrievalRecall": ".recall",
    "TextAnswerAccuracy": ".text_answer_accuracy",
}


def __getattr__(name: str) -> Any:
    """Import an `evaluate.Metric` when it is asked for."""
    if name in _METRICS:
        return getattr(import_module(_METRICS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

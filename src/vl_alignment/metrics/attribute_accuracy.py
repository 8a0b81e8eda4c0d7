"""Attribute accuracy as an `evaluate.Metric`: does a picture of blocks fit its own caption or a mismatched one?"""

from typing import Any, Protocol

import datasets
import evaluate
import numpy as np

from ..models.errors import DataError
from .packed_rows import pack_rows, unpack_rows
from .text_to_image import attribute_accuracy, mismatched_captions

__all__ = ["AttributeAccuracy", "AttributeReader"]

DESCRIPTION = "Percentage of pictures that fit their own caption better than a caption with other attributes."

INPUTS = """
Args:
    predictions (pictures [B, 3, H, W] in [-1, 1]): what is measured.
    references (list of str): the caption of each picture.
    seed (int): of the choice of mismatched captions; 0 by default.
Returns:
    attribute_accuracy: in percent; chance is 50, and the same of real pictures is the ceiling. A tie counts against
    the pictures.
    classifier: what judged the pictures.
    images: how many pictures were measured.
    seed: as given.
"""


class AttributeReader(Protocol):
    """What tells how well pictures fit captions; `training.attribute_classifier` trains one."""

    @property
    def name(self) -> str:
        """What it is called in the results."""

    def phrase_fits(self, images: Any) -> Any:
        """Pictures [B, 3, H, W] in [-1, 1] -> how well each fits every phrase that can be said of an object [B, P]."""

    def fit(self, phrase_fits: Any, caption: str) -> float:
        """Return how well a picture fits a caption, from its `phrase_fits` [P]."""


class AttributeAccuracy(evaluate.Metric):
    """Measure whether pictures of the blocks world show the objects of their captions, not those of other captions.

    It needs no network. With `num_process=2` (and `process_id`, `experiment_id`) each process adds its own pictures and
    process 0 computes over all of them; the others get None. Mismatched captions come from all captions added.

    Args:
        classifier: Of `training.attribute_classifier`.
        settings: Of `evaluate.Metric`.

    Example:
        >>> metric = AttributeAccuracy(load_attribute_classifier(folder))  # doctest: +SKIP
        >>> metric.add_batch(predictions=images, references=captions)  # doctest: +SKIP
        >>> metric.compute()["attribute_accuracy"]  # doctest: +SKIP
        97.5
    """

    def __init__(self, classifier: AttributeReader, **settings: Any) -> None:
        super().__init__(**settings)
        self.classifier = classifier

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("binary"), "references": datasets.Value("string")}
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Look at the pictures of a batch; what is kept of each is how well it fits every phrase."""
        if len(predictions) != len(references):
            raise DataError(f"there are {len(references)} captions for {len(predictions)} pictures")
        fits = self.classifier.phrase_fits(predictions) if len(predictions) else []
        super().add_batch(predictions=pack_rows(fits), references=list(references), **columns)

    def add(self, *, prediction: Any = None, reference: Any = None, **columns: Any) -> None:
        """Look at one picture."""
        self.add_batch(predictions=prediction[None], references=[reference], **columns)

    def _compute(self, *, predictions: Any = None, references: Any = None, seed: int = 0) -> dict[str, Any]:
        if predictions is None or len(predictions) == 0:
            raise DataError("there are no pictures to measure; add a batch with at least one row before compute()")
        captions, rows = list(references), unpack_rows(predictions, "fits of pictures")
        mismatched = mismatched_captions(captions, seed=seed)
        own, other = (
            np.array([self.classifier.fit(fits, caption) for fits, caption in zip(rows, chosen, strict=True)])
            for chosen in (captions, [captions[row] for row in mismatched])
        )
        return {
            "attribute_accuracy": attribute_accuracy(own, other),
            "classifier": self.classifier.name,
            "images": len(captions),
            "seed": seed,
        }

"""R-precision as an `evaluate.Metric`: one row a picture, offline, gathered over processes."""

from typing import Any

import datasets
import evaluate

from ..models.errors import DataError
from .packed_rows import pack_rows, unpack_rows
from .text_to_image import CANDIDATES, r_precision

__all__ = ["RPrecision"]

DESCRIPTION = "Percentage of pictures nearest to their own caption among it and 99 mismatched ones, by DAMSM's codes."

INPUTS = """
Args:
    predictions (list of list of float): the code of each picture.
    references (list of list of float): the code of the caption that each picture belongs to.
    image_ids (list of str, optional): names; captions of one picture are never held against each other.
    captions (list of str, optional): the texts; one that equals the picture's own is no mismatched one.
    candidates (int): the own caption and this many less one mismatched ones; 100 by default.
    seed (int): of the drawing of mismatched captions; 0 by default.
Returns:
    r_precision: in percent; a tie counts against the model.
    candidates, seed: as given; chance is 100 / candidates.
    images: how many pictures were measured.
"""


class RPrecision(evaluate.Metric):
    """Measure whether pictures show what their captions say, as DAMSM sees it.

    It needs no network. With `num_process=2` (and `process_id`, `experiment_id`) each process adds its own pictures and
    process 0 computes over all of them; the others get None. Mismatched captions come from all pictures added.

    Example:
        >>> codes = [[1.0, 0.0], [0.0, 1.0]]
        >>> RPrecision().compute(predictions=codes, references=codes, candidates=2)
        {'r_precision': 100.0, 'candidates': 2, 'seed': 0, 'images': 2}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("binary"),
                    "references": datasets.Value("binary"),
                    "image_ids": datasets.Value("string"),
                    "captions": datasets.Value("string"),
                }
            ),
        )

    def add(self, *, prediction: Any = None, reference: Any = None, image_id: str = "", caption: str = "") -> None:
        """Add one picture."""
        self.add_batch(predictions=[prediction], references=[reference], image_ids=[image_id], captions=[caption])

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Add the pictures of a batch; `image_ids` and `captions` may be left out, but not of some batches alone."""
        super().add_batch(
            predictions=pack_rows(predictions), references=pack_rows(references), **_complete(references, columns)
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> dict[str, Any] | None:
        """Compute over everything added, and over the pictures given here."""
        if predictions is not None:
            columns = _complete(predictions, columns)
        return super().compute(predictions=predictions, references=references, **columns)

    def _compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        image_ids: Any = None,
        captions: Any = None,
        candidates: int = CANDIDATES,
        seed: int = 0,
    ) -> dict[str, Any]:
        if predictions is None or len(predictions) == 0:
            raise DataError("there are no pictures to measure; add a batch with at least one row before compute()")
        labels: dict[str, Any] = {
            name: None if "" in set(column) else list(column)
            for name, column in (("image_ids", image_ids), ("captions", captions))
        }
        codes = (unpack_rows(predictions, "codes of pictures"), unpack_rows(references, "codes of captions"))
        value = r_precision(*codes, **labels, candidates=candidates, seed=seed)
        return {"r_precision": value, "candidates": candidates, "seed": seed, "images": len(predictions)}


def _complete(rows: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns with "" in place of an absent one: evaluate knows no optional inputs."""
    absent = {name: [""] * len(rows) for name in ("image_ids", "captions") if columns.get(name) is None}
    return {**columns, **absent}

"""Processor of MAC: pictures or features on a grid and questions -> the model's inputs."""

import torch

from .errors import DataError
from .processing_base import AlignmentProcessor

__all__ = ["MacProcessor"]


class MacProcessor(AlignmentProcessor):
    """Turns questions and pictures into MAC's inputs; see `AlignmentProcessor`.

    Several questions about each picture stand together: those about the first picture first, as many about each.

    Example:
        >>> inputs = processor(text=["what color is the cube?"], images=[picture])  # doctest: +SKIP
        >>> model.answer_words(model(**inputs).logits)  # doctest: +SKIP
    """

    text_name = "question"

    def regions(self, pictures: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features [N, size] of each picture's cells -> region_features [I, N, size].

        Raises:
            DataError: If a picture has another number of cells than the first.
        """
        for index, features in enumerate(pictures):
            if len(features) != len(pictures[0]):
                raise DataError(
                    f"{len(features)} cells beside {len(pictures[0])}; extract all features on one grid", record=index
                )
        return {"region_features": torch.stack(pictures)}

"""Processor of SCAN: pictures or region features and captions -> the model's inputs."""

import torch

from .processing_base import AlignmentProcessor

__all__ = ["ScanProcessor"]


class ScanProcessor(AlignmentProcessor):
    """Turns captions and pictures into SCAN's inputs; see `AlignmentProcessor`.

    Example:
        >>> inputs = processor(text=["a dog runs"], images=[picture])  # doctest: +SKIP
        >>> model(**inputs).logits_per_image  # doctest: +SKIP
    """

    text_name = "caption"

    def regions(self, pictures: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features [R, size] of each picture, R may differ -> region_features [I, R, size], region_mask [I, R]."""
        padded = torch.nn.utils.rnn.pad_sequence(pictures, batch_first=True)
        lengths = torch.tensor([len(features) for features in pictures])
        mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
        return {"region_features": padded, "region_mask": mask}

"""Processor of SCAN: pictures or region features and captions -> the model's inputs."""

from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling

from .errors import DataError

__all__ = ["ScanImageProcessorPil", "ScanProcessor"]


class ScanImageProcessorPil(PilBackend):
    """Resize to a square, rescale to [0, 1], normalise: what the model's own vision backbone expects."""

    resample = PILImageResampling.BICUBIC
    image_mean = [0.485, 0.456, 0.406]  # ImageNet's
    image_std = [0.229, 0.224, 0.225]
    size = {"height": 224, "width": 224}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True


class ScanProcessor(ProcessorMixin):
    """Turns captions and pictures into SCAN's inputs.

    Args:
        image_processor: Of the model's vision backbone; without one, the default, which a model of given region
            features carries along unused.
        tokenizer: The word tokenizer (see `build_word_tokenizer`).

    Example:
        >>> inputs = processor(text=["a dog runs"], images=[picture])  # doctest: +SKIP
        >>> model(**inputs).logits_per_image  # doctest: +SKIP
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        image_processor = ScanImageProcessorPil() if image_processor is None else image_processor
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoProcessor") -> None:
        """Register the image processor as well: a repository that names one of the two alone cannot be loaded."""
        ScanImageProcessorPil.register_for_auto_class()
        super().register_for_auto_class(auto_class)

    def __call__(
        self,
        text: str | list[str] | None = None,
        images: Any = None,
        region_features: Any = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare captions and pictures.

        Args:
            text: One caption or several.
            images: One picture or several (PIL, arrays), for a model with a backbone; or
            region_features: Arrays [R, size] a picture, of one size; R may differ.
            return_tensors: Kept for the habit; only "pt".
            kwargs: Passed to the image processor.

        Returns:
            input_ids and attention_mask [C, L]; pixel_values [I, 3, H, W], or region_features [I, R, size] with
            region_mask [I, R].

        Raises:
            DataError: If nothing is given, a caption has no words, or features are empty or not finite.
        """
        given = [value for value in (text, images, region_features) if value is not None]
        if not given or any(isinstance(value, list) and not value for value in given):
            raise DataError("give text, images or region_features, none of them empty")
        inputs: dict[str, Any] = {}
        if text is not None:
            inputs.update(self._tokenize([text] if isinstance(text, str) else list(text)))
        if images is not None:
            inputs.update(self.image_processor(images, return_tensors="pt", **kwargs))
        if region_features is not None:
            inputs.update(_pad_regions(region_features))
        return BatchFeature(inputs, tensor_type=return_tensors)

    def _tokenize(self, captions: list[str]) -> dict[str, Any]:
        encoded = self.tokenizer(captions, padding=True, return_tensors="pt")
        ends = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id} - {None}
        special = torch.tensor(sorted(ends), dtype=torch.long)
        words = encoded["attention_mask"].bool() & ~torch.isin(encoded["input_ids"], special)
        wordless = (~words.any(dim=1)).nonzero().flatten().tolist()
        if wordless:
            raise DataError(f"caption {captions[wordless[0]]!r} has no words; leave it out", record=wordless[0])
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _pad_regions(region_features: Any) -> dict[str, torch.Tensor]:
    pictures = [torch.as_tensor(features, dtype=torch.float32) for features in region_features]
    for index, features in enumerate(pictures):
        if features.dim() != 2 or 0 in features.shape:
            raise DataError(f"picture has no regions: features of shape {tuple(features.shape)}", record=index)
        if features.shape[1] != pictures[0].shape[1]:
            raise DataError(f"features of size {features.shape[1]} beside {pictures[0].shape[1]}", record=index)
        if not torch.isfinite(features).all():
            raise DataError("features are not finite; extract them again", record=index)
    padded = torch.nn.utils.rnn.pad_sequence(pictures, batch_first=True)
    lengths = torch.tensor([len(features) for features in pictures])
    mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
    return {"region_features": padded, "region_mask": mask}

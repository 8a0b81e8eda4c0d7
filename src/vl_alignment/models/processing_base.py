"""What the processors of the models that read text about pictures share."""

from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling

from .errors import ConfigurationError, DataError

__all__ = ["AlignmentProcessor", "SquareImageProcessorPil"]


class SquareImageProcessorPil(PilBackend):
    """Resize to a square, rescale to [0, 1], normalise: what the models' own vision backbones expect."""

    resample = PILImageResampling.BICUBIC
    image_mean = [0.485, 0.456, 0.406]  # ImageNet's
    image_std = [0.229, 0.224, 0.225]
    size = {"height": 224, "width": 224}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True


class AlignmentProcessor(ProcessorMixin):
    """Turns texts and pictures or region features into a model's inputs.

    Args:
        image_processor: Of the model's vision backbone; without one, the default, which a model of given region
            features carries along unused.
        tokenizer: The word tokenizer (see `build_word_tokenizer`).
    """

    text_name = "text"
    """What the model calls its texts, for messages."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        image_processor = SquareImageProcessorPil() if image_processor is None else image_processor
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoProcessor") -> None:
        """Register the image processor as well: a repository that names one of the two alone cannot be loaded."""
        SquareImageProcessorPil.register_for_auto_class()
        super().register_for_auto_class(auto_class)

    def __call__(
        self,
        text: str | list[str] | None = None,
        images: Any = None,
        region_features: Any = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare texts and pictures.

        Args:
            text: One text or several.
            images: One picture or several (PIL, arrays), for a model with a backbone; or
            region_features: Arrays [R, size] a picture, of one size.
            return_tensors: Kept for the habit; only "pt".
            kwargs: Passed to the image processor.

        Returns:
            input_ids and attention_mask [C, L]; pixel_values [I, 3, H, W], or what `regions` makes of the features.

        Raises:
            DataError: If nothing is given, a text has no words, or features are empty or not finite.
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
            inputs.update(self.regions(checked_regions(region_features)))
        return BatchFeature(inputs, tensor_type=return_tensors)

    def regions(self, pictures: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Make the model's inputs of the features [R, size] of each picture."""
        raise NotImplementedError

    def _tokenize(self, texts: list[str]) -> dict[str, Any]:
        right = self.tokenizer.pad_token is not None and isinstance(self.tokenizer.model_max_length, int | float)
        if not right or "attention_mask" not in self.tokenizer.model_input_names:
            where = self.tokenizer.name_or_path or "the tokenizer"
            raise ConfigurationError(f"{where}: it cannot pad; its tokenizer_config.json is missing or damaged")
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        ends = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id} - {None}
        special = torch.tensor(sorted(ends), dtype=torch.long)
        words = encoded["attention_mask"].bool() & ~torch.isin(encoded["input_ids"], special)
        wordless = (~words.any(dim=1)).nonzero().flatten().tolist()
        if wordless:
            raise DataError(f"{self.text_name} {texts[wordless[0]]!r} has no words; leave it out", record=wordless[0])
        inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        if self.tokenizer.unk_token_id is None or self.tokenizer.unk_token_id != self.tokenizer.pad_token_id:
            return inputs
        return self.without_unknown(texts, inputs, words & (inputs["input_ids"] == self.tokenizer.unk_token_id))

    def without_unknown(
        self, texts: list[str], inputs: dict[str, torch.Tensor], unknown: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Deal with words that the vocabulary lacks, where it has no number for those; published ones may have none.

        Args:
            texts: As they were given.
            inputs: input_ids and attention_mask [C, L].
            unknown: [C, L], true where there is such a word.

        Raises:
            DataError: If there is one.
        """
        rows = unknown.any(dim=1).nonzero().flatten().tolist()
        if rows:
            raise DataError(
                f"{self.text_name} {texts[rows[0]][:200]!r} has a word that the vocabulary lacks, which has no number "
                "for unknown words; use words that the model was trained on",
                record=rows[0],
            )
        return inputs


def checked_regions(region_features: Any) -> list[torch.Tensor]:
    """Return features [R, size] of each picture as float32, of one size and finite."""
    pictures = [torch.as_tensor(features, dtype=torch.float32) for features in region_features]
    for index, features in enumerate(pictures):
        if features.dim() != 2 or 0 in features.shape:
            raise DataError(f"picture has no regions: features of shape {tuple(features.shape)}", record=index)
        if features.shape[1] != pictures[0].shape[1]:
            raise DataError(f"features of size {features.shape[1]} beside {pictures[0].shape[1]}", record=index)
        if not torch.isfinite(features).all():
            raise DataError("features are not finite; extract them again", record=index)
    return pictures

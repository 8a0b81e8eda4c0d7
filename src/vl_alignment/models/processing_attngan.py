"""Processor of AttnGAN and DAMSM: pictures or features and captions -> the models' inputs, and back to pictures."""

import logging
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from transformers.image_transforms import to_pil_image

from .errors import ConfigurationError, DataError
from .processing_base import AlignmentProcessor, SquareImageProcessorPil

__all__ = ["AttnGanProcessor", "pictures_of"]

logger = logging.getLogger(__name__)


class AttnGanProcessor(AlignmentProcessor):
    """Turns captions into AttnGAN's inputs, and captions and pictures into DAMSM's; see `AlignmentProcessor`.

    Args:
        image_processor: Brings pictures to [-1, 1]; by default at 256 x 256 pixels.
        tokenizer: The word tokenizer.
        max_words: Tokens of a caption at most, its marks included (CUB: 18, COCO: 12); what is longer is cut, and said.

    Attributes:
        counts: What had to be mended since the processor was made: `cut_captions`.

    Raises:
        ConfigurationError: If `max_words` is below 3, which leaves no word between the marks.

    Example:
        >>> inputs = processor(text=["a small red bird"])  # doctest: +SKIP
        >>> model.generate(**inputs, num_images=4, seed=0).images  # doctest: +SKIP
    """

    text_name = "caption"

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, max_words: int = 18, **kwargs: Any) -> None:
        if max_words < 3:
            raise ConfigurationError(f"max_words is {max_words}; it must be at least 3")
        if image_processor is None:
            image_processor = SquareImageProcessorPil(
                size={"height": 256, "width": 256}, image_mean=[0.5] * 3, image_std=[0.5] * 3
            )
        self.max_words = max_words
        self.counts: Counter[str] = Counter()
        super().__init__(image_processor, tokenizer, **kwargs)

    def _tokenize(self, texts: list[str]) -> dict[str, Any]:
        encoded = super()._tokenize(texts)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        self._refuse_unknown(texts, ids, mask)
        long = mask.sum(dim=1) > self.max_words
        if not long.any():
            return encoded
        if not self.counts["cut_captions"]:
            first = texts[int(long.nonzero()[0])]
            logger.warning(
                "caption %r has more than %d tokens and is cut (max_words); further ones are counted in silence",
                first[:200],
                self.max_words,
            )
        self.counts["cut_captions"] += int(long.sum())
        ids, mask = ids[:, : self.max_words].clone(), mask[:, : self.max_words]
        if self.tokenizer.eos_token_id is not None and (encoded["input_ids"] == self.tokenizer.eos_token_id).any():
            ids[long, -1] = self.tokenizer.eos_token_id  # the mark of the end, where captions have one
        return {"input_ids": ids, "attention_mask": mask}

    def without_unknown(self, texts: list[str], inputs: dict[str, Tensor], unknown: Tensor) -> dict[str, Tensor]:
        """Leave such words out, as the published code does."""
        known = inputs["attention_mask"].bool() & ~unknown
        ids = [row[kept] for row, kept in zip(inputs["input_ids"], known, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        mask = torch.arange(padded.shape[1]) < known.sum(dim=1, keepdim=True)
        return {"input_ids": padded, "attention_mask": mask.long()}

    def _refuse_unknown(self, texts: list[str], ids: Tensor, mask: Tensor) -> None:
        """Refuse captions of which the vocabulary has no word."""
        ends = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.unk_token_id} - {None}
        known = mask.bool() & ~torch.isin(ids, torch.tensor(sorted(ends), dtype=torch.long))
        unknown = (~known.any(dim=1)).nonzero().flatten().tolist()
        if unknown:
            raise DataError(
                f"caption {texts[unknown[0]][:200]!r} has no word of the vocabulary of {len(self.tokenizer)}; "
                "use words that the model was trained on",
                record=unknown[0],
            )

    def regions(self, pictures: list[Tensor]) -> dict[str, Tensor]:
        """Features [R, size] of each picture, as many of each -> region_features [I, R, size].

        Their mean over the regions is the picture's own vector, as a transformers backbone's is.

        Raises:
            DataError: If a picture has another number of regions than the first.
        """
        for index, features in enumerate(pictures):
            if len(features) != len(pictures[0]):
                raise DataError(
                    f"{len(features)} regions beside {len(pictures[0])}; extract all features on one grid", record=index
                )
        features = torch.stack(pictures)
        return {"region_features": features, "pooled_features": features.mean(dim=1)}

    @staticmethod
    def postprocess(images: Tensor) -> list[Any]:
        """Pictures in [-1, 1] [B, 3, H, W] -> as many PIL pictures."""
        return pictures_of(images)


def pictures_of(images: Tensor) -> list[Any]:
    """Pictures in [-1, 1] [B, 3, H, W] -> as many PIL pictures; beyond the range they are clipped."""
    levels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return [to_pil_image(picture.permute(1, 2, 0).numpy(), do_rescale=False) for picture in levels]

"""What the models refuse among their inputs, said in words: the checks that several of them need."""

import torch
from torch import Tensor

from .errors import DataError

__all__ = ["check_regions", "check_words", "word_mask"]


def check_regions(pixel_values: Tensor | None, region_features: Tensor | None, feature_size: int) -> None:
    """Check that pictures are given in one form, and features in the shape that the model was made for.

    Args:
        pixel_values: [I, 3, H, W]; or
        region_features: [I, R, feature_size].
        feature_size: The width that the model was made for.

    Raises:
        DataError: If neither or both are given, or the features have another width or none at all.
    """
    if (pixel_values is None) == (region_features is None):
        raise DataError("give either pixel_values or region_features")
    if region_features is None:
        return
    if region_features.dim() != 3 or 0 in region_features.shape:
        raise DataError(f"region_features must be [pictures, regions, size], not {tuple(region_features.shape)}")
    if region_features.shape[-1] != feature_size:
        raise DataError(
            f"region_features have size {region_features.shape[-1]}, this model was made for "
            f"{feature_size} (config.feature_size)"
        )


def word_mask(input_ids: Tensor, attention_mask: Tensor | None, pad_token_id: int | None) -> Tensor:
    """Boolean mask [B, L] of the words: the given one, or where the id is not that of padding."""
    if attention_mask is not None:
        return attention_mask.bool()
    if pad_token_id is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    return input_ids != pad_token_id


def check_words(input_ids: Tensor, mask: Tensor, vocab_size: int, text: str) -> None:
    """Check token ids before an embedding fails on them without saying which.

    Args:
        input_ids: [B, L].
        mask: [B, L], true where there is a word.
        vocab_size: Number of word types.
        text: What a row is called: "caption", "question".

    Raises:
        DataError: If a row has no words, is padded on the left, or has ids beyond the vocabulary, or the mask has
            another shape.
    """
    if input_ids.dim() != 2 or len(input_ids) == 0:
        raise DataError(f"input_ids must be [{text}s, words], not {tuple(input_ids.shape)}")
    if mask.shape != input_ids.shape:
        raise DataError(f"attention_mask is {tuple(mask.shape)}, input_ids {tuple(input_ids.shape)}")
    lengths = mask.sum(dim=1)
    if (lengths == 0).any():
        raise DataError(f"{text} has no words; leave it out", record=int((lengths == 0).nonzero()[0]))
    if (mask.cumsum(dim=1) != torch.arange(1, mask.shape[1] + 1, device=mask.device).minimum(lengths[:, None])).any():
        raise DataError(f"{text}s must be padded on the right; set tokenizer.padding_side = 'right'")
    for token_id in (int(input_ids.min()), int(input_ids.max())):
        if not 0 <= token_id < vocab_size:
            raise DataError(
                f"token id {token_id} is outside the vocabulary of {vocab_size}; the tokenizer belongs to another model"
            )

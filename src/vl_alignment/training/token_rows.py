"""Texts tokenised once, from which batches are cut."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["TokenRows"]


class TokenRows:
    """Token ids of many texts in one array.

    Args:
        texts: Tokenised together, with the tokenizer's special tokens.
        tokenizer: As of transformers.
        maximum_length: Longer texts are cut to so many tokens, special ones included; None keeps them whole.

    Attributes:
        lengths: int64 [N], tokens of each text.
        words: int64 [N], tokens that are not special.
        unknown: int64 [N], words that the tokenizer does not know.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, maximum_length: int | None = None) -> None:
        limit = {} if maximum_length is None else {"truncation": True, "max_length": maximum_length}
        asked = {"add_special_tokens": True, "return_special_tokens_mask": True, "return_attention_mask": False}
        encoded = tokenizer(list(texts), **asked, **limit)
        self.words = np.array([len(mask) - sum(mask) for mask in encoded["special_tokens_mask"]], dtype=np.int64)
        self.lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._tokens = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]])
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        counts = np.concatenate([[0], np.cumsum(self._tokens == tokenizer.unk_token_id)])
        self.unknown = counts[self._starts[1:]] - counts[self._starts[:-1]]

    def __len__(self) -> int:
        return len(self.lengths)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of a SHA-256 over the tokens of all texts."""
        return hashlib.sha256(self._tokens.tobytes() + self.lengths.tobytes()).hexdigest()[:16]

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, both [len(rows), longest]."""
        lengths = self.lengths[rows][:, None]
        places = np.arange(int(lengths.max()))[None, :]
        mask = places < lengths  # [len(rows), longest]
        tokens = self._tokens[np.where(mask, self._starts[rows][:, None] + places, 0)]
        input_ids = np.where(mask, tokens, self._padding).astype(np.int64)
        return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}

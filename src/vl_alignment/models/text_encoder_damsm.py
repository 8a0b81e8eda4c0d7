"""The text encoder that DAMSM trains and AttnGAN reads captions with."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .bidirectional_lstm import BidirectionalLstm
from .errors import ConfigurationError

__all__ = ["BidirectionalGru", "DamsmTextEncoder", "validate_text_encoder"]


class BidirectionalGru(nn.GRU):
    """One layer of GRU in both directions, called as `BidirectionalLstm` is.

    Args:
        input_size: n.
        hidden_size: h, of each direction.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Words [B, L, n], mask [B, L] -> states [B, L, 2 h], zero at padding, and the last of each direction."""
        lengths = mask.sum(dim=1).cpu()  # pack_padded_sequence wants them there
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        packed_states, last = super().forward(packed)
        states, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=words.shape[1])
        return states, torch.cat([last[0], last[1]], dim=-1)


_NETWORKS: dict[str, Any] = {"lstm": BidirectionalLstm, "gru": BidirectionalGru}


class DamsmTextEncoder(nn.Module):
    """Token ids [B, L] -> words [B, L, d] and sentences [B, d]: the last states of both directions.

    Args:
        config: A `DamsmConfig` or `AttnGanConfig`, which state the same fields of it.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dropout = config.word_dropout
        self.embedding = nn.Embedding(config.vocab_size, config.word_embedding_size)
        self.recurrence = _NETWORKS[config.recurrence](config.word_embedding_size, config.hidden_size // 2)

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode captions that are padded on the right; words at padding are zero."""
        return self.recurrence(F.dropout(self.embedding(input_ids), self.dropout, self.training), mask)


def validate_text_encoder(config: Any) -> None:
    """Check the fields that `DamsmTextEncoder` reads.

    Args:
        config: A `DamsmConfig` or `AttnGanConfig`.

    Raises:
        ConfigurationError: If a size is not positive, the width odd, or the dropout no probability.
    """
    for name in ("vocab_size", "word_embedding_size", "hidden_size"):
        if getattr(config, name) < 1:
            raise ConfigurationError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if config.hidden_size % 2:
        raise ConfigurationError(f"hidden_size is {config.hidden_size}; two directions need an even number")
    if not 0 <= config.word_dropout < 1:
        raise ConfigurationError(f"word_dropout is {config.word_dropout}; it must be at least 0 and below 1")

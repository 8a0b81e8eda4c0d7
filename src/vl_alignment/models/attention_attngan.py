"""AttnGAN's attention from the picture's sub-regions to the words of its caption, under any alignment function."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import build_alignment_function
from .configuration_attngan import AttnGanConfig
from .errors import DataError

__all__ = ["WordAttention"]


class WordAttention(nn.Module):
    """What the words say about each sub-region.

        features [B, d, H, W] -> queries [B, H * W, d] ------------+-> f(Q, K) -> padding masked -> softmax
        words [B, L, text] -> 1 x 1 convolution -> keys [B, L, d] -+              over the words -> attention
                                                                   +-> sum of the keys, weighted -> context [B, d, H, W]

    Where the score has no activation and the maps are not asked for, one fused kernel does it: nothing of the size of
    the scores is kept.

    Args:
        config: An `AttnGanConfig`.
    """

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__()
        self.released_layout = config.released_layout
        self.word_projection = nn.Linear(config.hidden_size, config.generator_size, bias=False)
        self.alignment = build_alignment_function(
            config.alignment_function,
            config.generator_size,
            config.alignment_activation,
            config.alignment_initialization,
        )

    def forward(
        self, features: Tensor, words: Tensor, mask: Tensor, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            features: [B, d, H, W].
            words: [B, L, text].
            mask: [B, L], true where there is a word; at least one a caption.
            output_attentions: Whether to return the attention.

        Returns:
            The context [B, d, H, W], and the attention [B, H * W, L] on request.

        Raises:
            DataError: If the mask has another shape than the words, or a caption has none.
        """
        if mask.shape != words.shape[:2] or not bool(mask.any(dim=1).all()):
            raise DataError(f"the mask {tuple(mask.shape)} must leave each of the captions {tuple(words.shape)} a word")
        query, key = features.flatten(2).transpose(1, 2), self.word_projection(words)
        seen = self._seen(mask, query.shape[1])
        weights = None
        if self.alignment.is_bilinear and not output_attentions:
            query, transformed, scale = self.alignment.factors(query, key)
            context = _fused(query, transformed, key, seen, scale)
        else:
            scores = self.alignment(query, key).masked_fill(~seen, -torch.inf)  # after the activation, if any
            weights = scores.softmax(dim=-1)
            context = weights.to(key.dtype) @ key
        context = context.transpose(1, 2).unflatten(2, features.shape[2:])
        return context, weights if output_attentions else None

    def _seen(self, mask: Tensor, queries: int) -> Tensor:
        """Which words each query sees: [B, 1, L], or [B, queries, L] in the released layout."""
        if not self.released_layout:
            return mask.unsqueeze(1)
        rows = torch.arange(len(mask) * queries, device=mask.device) % len(mask)
        return mask[rows].unflatten(0, (len(mask), queries))


def _fused(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float) -> Tensor:
    """One head of fused attention; kernels want a dimension for the heads."""
    query, key, value, seen = (side.unsqueeze(1) for side in (query, key, value, seen))
    return F.scaled_dot_product_attention(query, key, value, seen, scale=scale).squeeze(1)

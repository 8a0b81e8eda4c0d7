"""DAMSM's matching of pictures and captions: all pairs of a batch at once, and the losses of both (Xu et al. 2018).

No caption is looped over: the scores of all words with all regions are one matrix product, and so are the attended
vectors of each picture.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import build_alignment_function
from .configuration_damsm import DamsmConfig
from .errors import DataError

__all__ = ["MatchingLosses", "WordRegionMatching", "matching_losses", "sentence_similarity"]


class WordRegionMatching(nn.Module):
    """How well every caption's words find themselves in every picture's regions.

        words [C, L, d] ---+--> f(Q, K) [C, L, I, R] -> softmax over the words -> x gamma1, softmax over the regions
        regions [I, R, d] -+                                                                   |
              +-------------------------------------------------> attended regions [I, C, L, d]
        -> cosine with the words -> log of the sum over the words of exp(gamma2 cosine) -> [I, C]

    Args:
        config: A `DamsmConfig`.
    """

    def __init__(self, config: DamsmConfig) -> None:
        super().__init__()
        self.gamma1, self.gamma2 = float(config.gamma1), float(config.gamma2)
        self.alignment = build_alignment_function(
            config.alignment_function,
            config.hidden_size,
            config.alignment_activation,
            config.alignment_initialization,
        )

    def forward(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Score every picture with every caption.

        Args:
            regions: [I, R, d].
            words: [C, L, d].
            mask: [C, L], true where there is a word.

        Returns:
            [I, C], in float32 at least.
        """
        pictures, captions = len(regions), words.shape[:2]
        queries = self.alignment.transform_query(words).flatten(0, 1)
        keys = self.alignment.transform_key(regions).flatten(0, 1)
        scores = _full(self.alignment.scores(queries, keys)).view(*captions, pictures, -1)  # [C, L, I, R]
        weights = self._weigh(scores, mask[:, :, None, None]).to(regions.dtype)
        attended = weights.flatten(0, 1).transpose(0, 1) @ regions  # [I, C * L, d]
        cosines = F.cosine_similarity(_full(attended), _full(words.flatten(0, 1)), dim=-1).view(pictures, *captions)
        return (self.gamma2 * cosines).masked_fill(~mask, -torch.inf).logsumexp(dim=-1)

    def attention(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """The attention of each caption in its own picture: [B, R, d], [B, L, d] -> [B, L, R], zero at padding."""
        weights = self._weigh(_full(self.alignment(words, regions)), mask.unsqueeze(-1))
        return weights.masked_fill(~mask.unsqueeze(-1), 0.0)

    def _weigh(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Scores [C, L, ..., R] -> attention; the words of a caption compete for each region first."""
        claimed = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
        return (self.gamma1 * claimed).softmax(dim=-1)


def sentence_similarity(images: Tensor, sentences: Tensor) -> Tensor:
    """Cosine of every picture's vector [I, d] with every sentence's [C, d]: [I, C], in float32 at least."""
    return F.normalize(_full(images), dim=-1, eps=1e-8) @ F.normalize(_full(sentences), dim=-1, eps=1e-8).T


class MatchingLosses(NamedTuple):
    """Cross-entropies, scalars.

    Attributes:
        captions: Of the caption that belongs to each picture.
        pictures: Of the picture that belongs to each caption.
    """

    captions: Tensor
    pictures: Tensor


def matching_losses(logits: Tensor, class_ids: Tensor | None = None) -> MatchingLosses:
    """Cross-entropy of the right caption among the batch's, and of the right picture.

    Args:
        logits: [B, B], pictures by captions; the diagonal holds the pairs that belong together.
        class_ids: [B]; a caption of another picture of the same class is no wrong one, and is left out.

    Raises:
        DataError: If the matrix is not square or the classes are not as many.
    """
    if logits.dim() != 2 or logits.shape[0] != logits.shape[1]:
        raise DataError(f"the loss needs as many captions as pictures, not {tuple(logits.shape)}")
    if class_ids is not None:
        if class_ids.shape != logits.shape[:1]:
            raise DataError(f"class_ids is {tuple(class_ids.shape)}, there are {len(logits)} pictures")
        same = class_ids.unsqueeze(0) == class_ids.unsqueeze(1)
        same = same & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same, -torch.inf)
    targets = torch.arange(len(logits), device=logits.device)
    return MatchingLosses(F.cross_entropy(logits, targets), F.cross_entropy(logits.T, targets))


def _full(values: Tensor) -> Tensor:
    """Halves become float32: cosines and exponentials need the digits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values

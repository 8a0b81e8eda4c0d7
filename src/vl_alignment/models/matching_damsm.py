"""DAMSM's matching of pictures and captions: all pairs of a batch at once, and the losses of both (Xu et al. 2018).

No caption is looped over: the words of all captions, packed without padding and the captions of one length side by
side, meet a few pictures at a time, as many as keep the scores in a processor's cache, or on a device all that its
memory is to hold.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import build_alignment_function
from .configuration_damsm import DamsmConfig
from .errors import DataError

# Bytes that one block of scores may take: on a CPU, for each thread, what stays in its caches; on a device what keeps
# it busy.
BLOCK_BYTES = {"cpu": 2 * 2**20, "cuda": 256 * 2**20}
_EPSILON = 1e-8  # below which a vector's length is taken as this much

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
        rows, groups = _packing(mask)
        packed = words.flatten(0, 1)[rows]  # [W, d]
        queries, lengths = self.alignment.transform_query(packed), _lengths(packed)
        element_bytes = packed.element_size() * self.alignment.scratch_per_score
        on_cpu = packed.device.type == "cpu"
        block_bytes = BLOCK_BYTES["cpu"] * torch.get_num_threads() if on_cpu else BLOCK_BYTES["cuda"]
        pictures = max(1, block_bytes // (len(rows) * regions.shape[1] * element_bytes))
        cosines = []
        for block in regions.split(pictures):
            scores = _full(self.alignment.scores(queries, self.alignment.transform_key(block)))  # [n, W, R]
            weights = _compete(scores, groups).mul_(self.gamma1).softmax(dim=-1)
            attended = _full(weights.to(block.dtype) @ block)  # [n, W, d]
            cosines.append((attended * _full(packed)).sum(dim=-1) / (_lengths(attended) * lengths))
        return _spread(self.gamma2 * torch.cat(cosines), rows, mask).logsumexp(dim=-1)

    def attention(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """The attention of each caption in its own picture: [B, R, d], [B, L, d] -> [B, L, R], zero at padding."""
        padding = ~mask.unsqueeze(-1)
        scores = _full(self.alignment(words, regions)).masked_fill(padding, -torch.inf)
        return (self.gamma1 * scores.softmax(dim=1)).softmax(dim=-1).masked_fill(padding, 0.0)


def _packing(mask: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """Lay words out without padding, shorter captions first.

    Args:
        mask: [C, L], true where there is a word.

    Returns:
        The place of each word in the flattened mask [W], and for every length how many captions have it: (captions,
        length), in the order of the words.
    """
    lengths, order = mask.sum(dim=1).sort(stable=True)
    places = torch.arange(mask.numel(), device=mask.device).view_as(mask)
    present, captions = lengths.unique_consecutive(return_counts=True)
    groups = zip(captions.tolist(), present.tolist(), strict=True)
    return places[order][mask[order]], [(number, length) for number, length in groups if length]


def _compete(scores: Tensor, groups: list[tuple[int, int]]) -> Tensor:
    """Softmax over the words of each caption, for each region: [n, W, R] -> [n, W, R], a tensor of its own."""
    parts = scores.split([number * length for number, length in groups], dim=1)
    return torch.cat(
        [part.unflatten(1, group).softmax(dim=2).flatten(1, 2) for part, group in zip(parts, groups, strict=True)],
        dim=1,
    )


def _spread(values: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Put values of packed words [n, W, ...] at their places in the captions: [n, C, L, ...], -inf at padding."""
    places = values.new_full((len(values), mask.numel(), *values.shape[2:]), -torch.inf)
    return places.index_copy(1, rows, values).unflatten(1, mask.shape)


def _lengths(vectors: Tensor) -> Tensor:
    """[..., d] -> [...], in float32 at least."""
    return torch.linalg.vector_norm(_full(vectors), dim=-1).clamp_min(_EPSILON)


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

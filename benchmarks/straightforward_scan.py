"""SCAN's similarity as one would first write it: a loop over captions, attended vectors built.

This is the reference that `similarity.py` times and compares the package against. It takes only the score function
from the package. Everything else is written out, and no step is shared with `vl_alignment.models.similarity_scan`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vl_alignment.models.alignment import AlignmentFunction

EPSILON = 1e-8


def straightforward_similarity(
    region_embeddings: Tensor,
    word_embeddings: Tensor,
    word_mask: Tensor,
    alignment: AlignmentFunction,
    lambda_softmax: float = 9.0,
) -> Tensor:
    """Text-to-image similarities under the clipped L2 norm, mean over words; differentiable, any floating dtype.

    The loop is given what any careful author would give it: the learned matrix is applied to each side once, before the
    loop, and a caption's words are shown to all pictures as a view, not as copies.

    Args:
        region_embeddings: [I, R, d].
        word_embeddings: [C, L, d], padded on the right.
        word_mask: [C, L], true where there is a word.
        alignment: The score function.
        lambda_softmax: The factor before the softmax.

    Returns:
        [I, C].
    """
    keys = alignment.transform_key(region_embeddings)
    queries = alignment.transform_query(word_embeddings)
    columns = []
    for words, transformed, length in zip(word_embeddings, queries, word_mask.sum(dim=1).tolist(), strict=True):
        scores = alignment.scores(transformed[:length].expand(len(keys), -1, -1), keys)  # [I, L, R]
        weights = _attention(scores, lambda_softmax)
        attended = torch.bmm(weights, region_embeddings)  # [I, L, d]
        columns.append(_cosine(words[:length], attended).mean(dim=1))
    return torch.stack(columns, dim=1)


def _attention(scores: Tensor, lambda_softmax: float) -> Tensor:
    """Scores [I, L, R] -> clipped, L2 norm over the words of each region, softmax over the regions."""
    clipped = F.leaky_relu(scores, 0.1)
    normalized = clipped / (clipped.norm(dim=1, keepdim=True) + EPSILON)
    return (normalized * lambda_softmax).softmax(dim=-1)


def _cosine(words: Tensor, attended: Tensor) -> Tensor:
    """[L, d], [I, L, d] -> [I, L]."""
    numerator = (attended * words).sum(dim=-1)
    return numerator / (attended.norm(dim=-1) * words.norm(dim=-1)).clamp_min(EPSILON)

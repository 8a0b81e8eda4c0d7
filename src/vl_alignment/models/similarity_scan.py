"""Stacked cross attention between every picture and every caption, exact and in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .alignment import build_alignment_function
from .errors import DataError

__all__ = ["StackedCrossAttention"]

# Bytes that one block of scores may take: on a CPU what stays in its caches, on a device what keeps it busy.
BLOCK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
# Bytes that the keys held ready at a time, or the tensors kept for the backward pass, may take.
MEMORY_BUDGET = 512 * 2**20
TENSORS_KEPT_PER_SCORE = 8
RELEASED_DIVISOR = 32  # a literal of the release, right only for d = 1024


@dataclass
class _Side:
    """Items of one length n from one side: the vectors [items, n, d] and what is computed from them once."""

    embeddings: Tensor
    transformed: Tensor
    norm: Tensor  # [items, n]


@dataclass
class _Keys(_Side):
    """Keys, with the inner products among each item's own, [items, n, n]."""

    gram: Tensor

    def __getitem__(self, items: slice) -> "_Keys":
        return _Keys(self.embeddings[items], self.transformed[items], self.norm[items], self.gram[items])


class StackedCrossAttention(nn.Module):
    """SCAN's similarity (Lee et al. 2018) under any alignment function.

        queries [nQ, d], keys [nK, d] --> scores [nQ, nK] --> normalise over the queries of each key
            --> softmax over keys (x lambda_softmax) --> attended vector = sum of keys [nQ, d]
            --> cosine(query, attended vector) [nQ] --> pooled over queries --> one number a pair

    The attended vectors are never built. For a query q with attention a over the keys K, the cosine is

        q . (K^T a) / (|q| |K^T a|) = a . (K q) / (|q| sqrt(a^T (K K^T) a)),

    which needs the inner products K q, there already for the scores, and the small Gram matrix K K^T of each item.
    Items of equal length are scored together, so that no padding takes part: a pair's score does not depend on what
    else is in the batch.

    Args:
        config: A `ScanConfig`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.words_are_queries = config.direction == "t2i"
        self.lambda_softmax = config.lambda_softmax
        self.lambda_lse = config.lambda_lse
        self.normalize_scores = _SCORE_NORMALIZATIONS[config.score_normalization]
        self.score_normalization = config.score_normalization
        self.pooling = config.pooling
        self.alignment = build_alignment_function(
            config.alignment_function,
            config.hidden_size,
            config.alignment_activation,
            config.alignment_initialization,
            scale=1.0 / RELEASED_DIVISOR if config.released_layout else None,
        )
        # The release lays the scores of these functions out as [image, word, region] and reads them as
        # [image, region, word].
        specification = self.alignment.specification
        self.exchanges_axes = config.released_layout and (specification.transforms == "key" or specification.bias)

    def forward(
        self,
        region_embeddings: Tensor,
        word_embeddings: Tensor,
        region_mask: Tensor | None = None,
        word_mask: Tensor | None = None,
    ) -> Tensor:
        """Score every picture against every caption.

        Args:
            region_embeddings: [I, R, d].
            word_embeddings: [C, L, d].
            region_mask: [I, R], true where there is a region; all by default.
            word_mask: [C, L], true where there is a word; all by default.

        Returns:
            Similarities [I, C], float32 (float64 for float64 embeddings).

        Raises:
            DataError: If a caption has no words, a picture no regions, or the widths are not the model's.
        """
        regions = _buckets(region_embeddings, region_mask, "picture", "regions")
        words = _buckets(word_embeddings, word_mask, "caption", "words")
        for vectors, embeddings in (("regions", region_embeddings), ("words", word_embeddings)):
            if embeddings.shape[-1] != self.alignment.size:
                raise DataError(
                    f"{vectors} of width {embeddings.shape[-1]} cannot be scored by a model of width "
                    f"{self.alignment.size}; both sides must come from this model"
                )
        with torch.autocast(region_embeddings.device.type, enabled=False):
            if self.words_are_queries:
                return self._all_pairs(words, regions).T
            return self._all_pairs(regions, words)

    def _all_pairs(self, queries: "_Buckets", keys: "_Buckets") -> Tensor:
        """[query items, key items]; blocks of keys are prepared once, blocks of queries once for each of those."""
        columns = []
        score = self._block_scorer(queries, keys)
        for key_block in keys.blocks(MEMORY_BUDGET // 4):
            prepared = self._prepare_keys(key_block)
            rows = []
            for query_block in queries.blocks(self._query_block_bytes(queries)):
                query = self._prepare_queries(query_block)
                step = self._keys_per_block(query, prepared)
                pieces = [score(query, prepared[start : start + step]) for start in range(0, len(key_block), step)]
                rows.append(torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0])
            columns.append(torch.cat(rows))
        return torch.cat(columns, dim=1)[queries.inverse][:, keys.inverse]

    def _prepare_queries(self, embeddings: Tensor) -> _Side:
        return _Side(embeddings, self.alignment.transform_query(embeddings), embeddings.norm(dim=-1))

    def _prepare_keys(self, embeddings: Tensor) -> _Keys:
        gram = embeddings @ embeddings.transpose(1, 2)
        return _Keys(embeddings, self.alignment.transform_key(embeddings), embeddings.norm(dim=-1), gram)

    def _query_block_bytes(self, queries: "_Buckets") -> int:
        # As many queries as keys in a square block of scores.
        element = queries.embeddings.element_size()
        side = int((BLOCK_BYTES[_block_device(queries.embeddings)] / element) ** 0.5)
        return side * queries.embeddings.shape[-1] * element

    def _keys_per_block(self, query: _Side, keys: _Side) -> int:
        scores_per_item = query.norm.numel() * keys.norm.shape[1] * self.alignment.scratch_per_score
        block_bytes = BLOCK_BYTES[_block_device(query.embeddings)]
        return max(1, block_bytes // (scores_per_item * query.embeddings.element_size()))

    def _block_scorer(self, queries: "_Buckets", keys: "_Buckets") -> Callable[[_Side, _Keys], Tensor]:
        """`_score_block`, which gives up its intermediate tensors where the backward pass could not hold them all."""
        scores = queries.vectors * keys.vectors * self.alignment.scratch_per_score
        needed = scores * TENSORS_KEPT_PER_SCORE * queries.embeddings.element_size()
        if torch.is_grad_enabled() and needed > MEMORY_BUDGET:
            return lambda query, key: checkpoint(self._score_block, query, key, use_reentrant=False)
        return self._score_block

    def _score_block(self, query: _Side, key: _Keys) -> Tensor:
        """Similarities [n, m] of n query items of length L with m key items of length R."""
        n, length = query.norm.shape
        m, number = key.norm.shape
        scores = self.alignment.scores(query.transformed.flatten(0, 1), key.transformed.flatten(0, 1))  # [n*L, m*R]
        products = self.alignment.inner_products(scores, query.norm.reshape(-1, 1), key.norm.reshape(1, -1))
        if products is None:
            products = query.embeddings.flatten(0, 1) @ key.embeddings.flatten(0, 1).T
        weights = self._attend(scores.view(n, length, m, number))  # [n, L, m, R]
        numerator = (weights * products.view_as(weights)).sum(-1)  # [n, L, m]
        by_key = weights.view(n * length, m, number).transpose(0, 1)  # [m, n*L, R]
        squared_norm = (torch.bmm(by_key, key.gram) * by_key).sum(-1).T.reshape(n, length, m)
        # Rounding may leave the squared norm of a vanishing vector below zero, and sqrt has no gradient at zero.
        attended_norm = squared_norm.clamp_min(torch.finfo(squared_norm.dtype).tiny).sqrt()
        cosine = numerator / (query.norm.unsqueeze(-1) * attended_norm).clamp_min(1e-8)
        return self._pool(cosine)

    def _attend(self, scores: Tensor) -> Tensor:
        """Scores [n, L, m, R] -> attention over the R keys of each item, for each of the L queries."""
        if self.exchanges_axes:
            return self._attend_as_released(scores)
        return (self.normalize_scores(scores, 1) * self.lambda_softmax).softmax(dim=-1)

    def _attend_as_released(self, scores: Tensor) -> Tensor:
        """What the release makes of exchanged axes: a norm over regions, then a buffer read in a wrong shape."""
        n, length, m, number = scores.shape
        pairs = scores.transpose(1, 2).contiguous()  # [n, m, words, regions], taken for [n, m, regions, words]
        if self.score_normalization == "softmax":
            mixed = pairs.view(n, m, number, length).softmax(dim=-1).transpose(2, 3)
        else:
            mixed = self.normalize_scores(pairs, -1).transpose(2, 3).reshape(n, m, length, number)
        return (mixed * self.lambda_softmax).softmax(dim=-1).transpose(1, 2).contiguous()

    def _pool(self, cosine: Tensor) -> Tensor:
        """[n, L, m] -> [n, m]."""
        if self.pooling == "mean":
            return cosine.mean(dim=1)
        if self.pooling == "sum":
            return cosine.sum(dim=1)
        if self.pooling == "max":
            return cosine.amax(dim=1)
        return torch.logsumexp(cosine * self.lambda_lse, dim=1) / self.lambda_lse

    def attention(
        self,
        region_embeddings: Tensor,
        word_embeddings: Tensor,
        region_mask: Tensor | None = None,
        word_mask: Tensor | None = None,
    ) -> Tensor:
        """Attention maps of given pairs, picture b with caption b.

        Args:
            region_embeddings: [B, R, d].
            word_embeddings: [B, L, d].
            region_mask: [B, R].
            word_mask: [B, L].

        Returns:
            Query-major weights after the softmax, zero at padding: [B, L, R] for "t2i", [B, R, L] for "i2t".
        """
        sides = [(word_embeddings, word_mask), (region_embeddings, region_mask)]
        (queries, query_mask), (keys, key_mask) = sides if self.words_are_queries else sides[::-1]
        maps = queries.new_zeros(len(queries), queries.shape[1], keys.shape[1])
        for index in range(len(queries)):
            here = _true_positions(query_mask, queries, index)
            there = _true_positions(key_mask, keys, index)
            scores = self.alignment(queries[index, here], keys[index, there])
            weights = self._attend(scores[None, :, None, :])[0, :, 0, :]
            maps[index, here[:, None], there[None, :]] = weights.to(maps.dtype)
        return maps


@dataclass
class _Buckets:
    """Items of one side, grouped by length.

    `groups` holds, for each length, the indices of the items and the positions [items, length] of their vectors (None
    where every position counts); `inverse` puts concatenated groups back into the items' order.
    """

    embeddings: Tensor
    groups: list[tuple[Tensor, Tensor | None]]
    inverse: Tensor
    vectors: int

    def blocks(self, block_bytes: int) -> Iterator[Tensor]:
        """The items as dense blocks [items, length, d] of about `block_bytes`."""
        for items, positions in self.groups:
            length = self.embeddings.shape[1] if positions is None else positions.shape[1]
            item_bytes = length * self.embeddings.shape[-1] * self.embeddings.element_size()
            step = max(1, block_bytes // item_bytes)
            for start in range(0, len(items), step):
                if positions is None:
                    yield self.embeddings[start : start + step]
                else:
                    chosen = slice(start, start + step)
                    yield self.embeddings[items[chosen].unsqueeze(1), positions[chosen]]


def _buckets(embeddings: Tensor, mask: Tensor | None, item: str, vectors: str) -> _Buckets:
    """Group the items [N, n, d] by the number of true entries of the mask [N, n]."""
    if embeddings.dim() != 3 or min(embeddings.shape) == 0:
        raise DataError(f"{vectors} must be [{item}s, {vectors}, d] with none empty, not {tuple(embeddings.shape)}")
    if embeddings.dtype in (torch.float16, torch.bfloat16):
        embeddings = embeddings.float()  # sums of squares and a difference of nearly equal cosines need the digits
    every = torch.arange(len(embeddings), device=embeddings.device)
    if mask is None:
        return _Buckets(embeddings, [(every, None)], every, embeddings.shape[0] * embeddings.shape[1])
    if mask.shape != embeddings.shape[:2]:
        raise DataError(f"the mask of the {vectors} is {tuple(mask.shape)}, the {vectors} {tuple(embeddings.shape)}")
    mask = mask.bool()
    lengths = mask.sum(dim=1)
    sizes = lengths.tolist()
    if 0 in sizes:
        raise DataError(f"{item} has no {vectors}; leave it out", record=sizes.index(0))
    positions = torch.argsort(mask.int(), dim=1, descending=True, stable=True)
    groups: list[tuple[Tensor, Tensor | None]] = []
    for length in sorted(set(sizes)):
        items = (lengths == length).nonzero().squeeze(1)
        groups.append((items, positions[items, :length]))
    order = torch.cat([items for items, _ in groups])
    return _Buckets(embeddings, groups, torch.argsort(order), sum(sizes))


def _true_positions(mask: Tensor | None, vectors: Tensor, index: int) -> Tensor:
    if mask is None:
        return torch.arange(vectors.shape[1], device=vectors.device)
    return mask[index].nonzero().squeeze(1)


def _block_device(tensor: Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "cuda"


def _l2norm(scores: Tensor, dim: int) -> Tensor:
    return scores / (torch.linalg.vector_norm(scores, dim=dim, keepdim=True) + 1e-8)


def _clip(scores: Tensor, dim: int) -> Tensor:
    return F.leaky_relu(scores, 0.1)


# SCAN's `raw_feature_norm`: over the dimension `dim` that runs over the queries of each key.
_SCORE_NORMALIZATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "clipped_l2norm": lambda scores, dim: _l2norm(_clip(scores, dim), dim),
    "l2norm": _l2norm,
    "softmax": lambda scores, dim: scores.softmax(dim=dim),
    "clipped": _clip,
    "no_norm": lambda scores, dim: scores,
}

"""Stacked cross attention between every picture and every caption, exact and in bounded memory."""

import functools
from collections.abc import Callable, Iterator, Sequence
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
class _Queries:
    """A block of query items, their vectors packed one after the other.

    `runs` holds (items, length) for each run of items of one length, in the order of the packed vectors.
    """

    embeddings: Tensor  # [N, d]
    transformed: Tensor  # [N, d]
    norm: Tensor  # [N]
    runs: list[tuple[int, int]]


@dataclass
class _Keys:
    """A block of key items of one length n."""

    embeddings: Tensor  # [items, n, d]
    transformed: Tensor  # [items, n, d]
    norm: Tensor  # [items, n]
    gram: Tensor  # [items, n, n], the inner products among each item's own keys

    def chunks(self, items: int) -> list["_Keys"]:
        """The block in pieces of so many items, itself where one piece holds them all."""
        if items >= len(self.embeddings):
            return [self]
        parts = (self.embeddings, self.transformed, self.norm, self.gram)
        return [_Keys(*pieces) for pieces in zip(*(part.split(items) for part in parts), strict=True)]


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
        regions = _by_length(region_embeddings, region_mask, "picture", "regions")
        words = _by_length(word_embeddings, word_mask, "caption", "words")
        for vectors, embeddings in (("regions", region_embeddings), ("words", word_embeddings)):
            if embeddings.shape[-1] != self.alignment.size:
                raise DataError(
                    f"{vectors} of width {embeddings.shape[-1]} cannot be scored by a model of width "
                    f"{self.alignment.size}; both sides must come from this model"
                )
        if self.words_are_queries:
            return self._all_pairs(words, regions).T
        return self._all_pairs(regions, words)

    def _all_pairs(self, queries: "_Items", keys: "_Items") -> Tensor:
        """[query items, key items]; keys are prepared once, queries once for each large block of keys."""
        block_bytes = BLOCK_BYTES["cpu" if queries.vectors.device.type == "cpu" else "cuda"]
        element_bytes = queries.vectors.element_size() * self.alignment.scratch_per_score
        block_scores = block_bytes // element_bytes
        score = self._score_block
        all_bytes = sum(queries.sizes) * sum(keys.sizes) * element_bytes
        if torch.is_grad_enabled():
            block_scores = max(block_scores, MEMORY_BUDGET // (4 * element_bytes))  # every cut costs a full-size sum
            if all_bytes * TENSORS_KEPT_PER_SCORE > MEMORY_BUDGET:  # compute them again in the backward pass
                score = functools.partial(checkpoint, self._score_block, use_reentrant=False)
        width_bytes = keys.vectors.shape[1] * keys.vectors.element_size()
        columns = []
        for packed_keys, key_runs in keys.blocks(max(1, MEMORY_BUDGET // 4 // width_bytes)):
            prepared = self._prepare_keys(packed_keys, key_runs)
            rows = []
            for packed_queries, query_runs in queries.blocks(max(1, int(block_scores**0.5))):
                query = self._prepare_queries(packed_queries, query_runs)
                pieces = [
                    score(query, piece)
                    for key in prepared
                    for piece in key.chunks(max(1, block_scores // (len(query.norm) * key.norm.shape[1])))
                ]
                rows.append(torch.cat(pieces, dim=1))
            columns.append(torch.cat(rows))
        return torch.cat(columns, dim=1)[queries.inverse][:, keys.inverse]

    def _prepare_queries(self, packed: Tensor, runs: list[tuple[int, int]]) -> _Queries:
        return _Queries(packed, self.alignment.transform_query(packed), packed.norm(dim=-1), runs)

    def _prepare_keys(self, packed: Tensor, runs: list[tuple[int, int]]) -> list[_Keys]:
        sizes = [items * length for items, length in runs]
        transformed = self.alignment.transform_key(packed)
        groups = []
        for run, embeddings, changed in zip(runs, packed.split(sizes), transformed.split(sizes), strict=True):
            embeddings = embeddings.view(*run, -1)  # [items, n, d]
            with torch.autocast(embeddings.device.type, enabled=False):
                gram = embeddings @ embeddings.transpose(1, 2)
            groups.append(_Keys(embeddings, changed.view(*run, -1), embeddings.norm(dim=-1), gram))
        return groups

    def _score_block(self, query: _Queries, key: _Keys) -> Tensor:
        """Similarities [n, m] of n query items with m key items of R keys each.

        Autocast halves only the large matrix products; what follows them is computed in full.
        """
        scores = _full(self.alignment.scores(query.transformed, key.transformed.flatten(0, 1)))  # [N, m*R]
        sizes = [items * length for items, length in query.runs]
        products: Sequence[Tensor | None] = [None] * len(sizes)
        if not self.alignment.scores_give_inner_products:
            products = _full(query.embeddings @ key.embeddings.flatten(0, 1).T).split(sizes)
        similarities = []
        with torch.autocast(scores.device.type, enabled=False):
            for part in zip(query.runs, scores.split(sizes), products, query.norm.split(sizes), strict=True):
                similarities.append(self._pool(self._cosine(*part, key)))
        return torch.cat(similarities)

    def _cosine(
        self, run: tuple[int, int], scores: Tensor, products: Tensor | None, norm: Tensor, key: _Keys
    ) -> Tensor:
        """Cosine of every query with what it attends to: scores [n*L, m*R] of a run -> [n, L, m]."""
        if products is None:
            products = self.alignment.inner_products(scores, norm.unsqueeze(1), key.norm.reshape(1, -1))
        weights = self._attend(scores.view(*run, *key.norm.shape))  # [n, L, m, R]
        numerator = (weights * products.view_as(weights)).sum(-1)
        by_key = weights.flatten(0, 1).transpose(0, 1)  # [m, n*L, R]
        squared_norm = (torch.bmm(by_key, key.gram) * by_key).sum(-1).T.view_as(numerator)
        return numerator / (norm.view(run).unsqueeze(-1) * _root(squared_norm)).clamp_min(1e-8)

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
class _Items:
    """The items of one side, ordered by length.

    `sizes` holds each item's length in that order; `index` says where the vectors of the items, packed one after the
    other, are among all of `vectors` (None where they are all of them); `inverse` restores the items' own order.
    """

    vectors: Tensor  # [items * n, d]
    sizes: list[int]
    index: Tensor | None
    inverse: Tensor

    def blocks(self, size: int) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
        """Packed vectors [N, d] of about `size` at a time, and their runs (items, length) of equal length."""
        start = item = 0
        while item < len(self.sizes):
            runs: list[tuple[int, int]] = []
            room = size
            while item < len(self.sizes) and (self.sizes[item] <= room or not runs):
                length = self.sizes[item]
                items = runs.pop()[0] if runs and runs[-1][1] == length else 0
                runs.append((items + 1, length))
                room -= length
                item += 1
            stop = start + sum(items * length for items, length in runs)
            yield self._packed(start, stop), runs
            start = stop

    def _packed(self, start: int, stop: int) -> Tensor:
        if self.index is not None:
            return self.vectors.index_select(0, self.index[start:stop])
        return self.vectors if stop - start == len(self.vectors) else self.vectors[start:stop]


def _by_length(vectors: Tensor, mask: Tensor | None, item: str, names: str) -> _Items:
    """Order the items [N, n, d] by the number of true entries of the mask [N, n]."""
    if vectors.dim() != 3 or 0 in vectors.shape:
        raise DataError(f"{names} must be [{item}s, {names}, d] with none empty, not {tuple(vectors.shape)}")
    items, number, _ = vectors.shape
    flat = _full(vectors).flatten(0, 1)
    if mask is None:
        return _Items(flat, [number] * items, None, torch.arange(items, device=vectors.device))
    if mask.shape != vectors.shape[:2]:
        raise DataError(f"the mask of the {names} is {tuple(mask.shape)}, the {names} {tuple(vectors.shape)}")
    lengths = mask.bool().sum(dim=1)
    order = torch.argsort(lengths, stable=True)
    sizes = lengths[order].tolist()
    if sizes[0] == 0:
        raise DataError(f"{item} has no {names}; leave it out", record=int(order[0]))
    row, column = mask.bool()[order].nonzero(as_tuple=True)
    return _Items(flat, sizes, order[row] * number + column, torch.argsort(order))


def _full(embeddings: Tensor) -> Tensor:
    """Halves become float32: sums of squares and differences of nearly equal cosines need the digits."""
    return embeddings.float() if embeddings.dtype in (torch.float16, torch.bfloat16) else embeddings


def _true_positions(mask: Tensor | None, vectors: Tensor, index: int) -> Tensor:
    if mask is None:
        return torch.arange(vectors.shape[1], device=vectors.device)
    return mask[index].nonzero().squeeze(1)


def _l2norm(scores: Tensor, dim: int) -> Tensor:
    return scores / (_root(scores.square().sum(dim=dim, keepdim=True)) + 1e-8)


def _root(squares: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero; rounding may leave the square of a vanishing norm below it."""
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


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

"""What holds of SCAN's similarity on any embeddings and masks, whatever function, normaliser and pooling."""

from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from hypothesis import strategies as st

from vl_alignment.models import similarity_scan
from vl_alignment.models.alignment import alignment_function_names
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.errors import DataError
from vl_alignment.models.similarity_scan import StackedCrossAttention

from .random_tensors import FEW, MANY, fill, kinds_of_rows, laid_out, layouts, properties, seeds

NORMALIZATIONS = ("clipped_l2norm", "l2norm", "softmax", "clipped", "no_norm")
POOLINGS = ("mean", "sum", "max", "log_sum_exp")


@dataclass
class Batch:
    """A similarity, and the regions [I, R, d] and words [C, L, d] of a batch with masks [I, R] and [C, L]."""

    config: ScanConfig
    similarity: StackedCrossAttention
    regions: torch.Tensor
    words: torch.Tensor
    region_mask: torch.Tensor
    word_mask: torch.Tensor

    def __repr__(self):
        config = self.config
        chosen = f"{config.alignment_function} {config.direction} {config.score_normalization} {config.pooling}"
        sides = (self.regions, self.region_mask, self.words, self.word_mask)
        return f"{chosen}: {', '.join(str(side.tolist()) for side in sides)}"

    def __call__(self, **changes):
        given = {
            "region_embeddings": self.regions,
            "word_embeddings": self.words,
            "region_mask": self.region_mask,
            "word_mask": self.word_mask,
        }
        return self.similarity(**{**given, **changes})

    @property
    def tolerance(self):
        return 1e-9 * (1 + self.words.shape[1] * self.regions.shape[1])


@st.composite
def batches(draw, dtype=torch.float64, largest=(1.0, 30.0), **fields):
    size = draw(st.integers(1, 6))
    config = ScanConfig(
        **{
            "vocab_size": 5,
            "hidden_size": size,
            "alignment_function": draw(st.sampled_from(alignment_function_names())),
            "alignment_activation": draw(st.sampled_from(["relu", "leaky_relu", "tanh", "sigmoid"])),
            "direction": draw(st.sampled_from(["t2i", "i2t"])),
            "score_normalization": draw(st.sampled_from(NORMALIZATIONS)),
            "pooling": draw(st.sampled_from(POOLINGS)),
            "lambda_softmax": draw(st.sampled_from([9.0, 4.0, 1.0])),
            **fields,
        }
    )
    torch.manual_seed(draw(seeds))
    limit = draw(st.sampled_from(largest))
    sides = []
    for _ in range(2):
        items, number = draw(st.integers(1, 4)), draw(st.integers(1, 5))
        vectors = fill((items, number, size), draw(kinds_of_rows), limit, draw(seeds), dtype)
        mask = torch.rand(items, number, generator=torch.Generator().manual_seed(draw(seeds))) < 0.7
        mask[torch.arange(items), torch.randint(number, (items,))] = True
        sides.append((laid_out(vectors, draw(layouts)), mask))
    (regions, region_mask), (words, word_mask) = sides
    similarity = StackedCrossAttention(config).to(dtype)
    return Batch(config, similarity, regions, words, region_mask, word_mask)


def normalized(scores, kind):
    """Scores [nQ, nK] of a pair, over the queries of each key, as SCAN's paper and release define it."""
    clipped = torch.where(scores > 0, scores, 0.1 * scores)
    if kind == "softmax":
        return torch.softmax(scores, dim=0)
    if kind in ("clipped", "no_norm"):
        return clipped if kind == "clipped" else scores
    scores = clipped if kind == "clipped_l2norm" else scores
    return scores / (scores.square().sum(dim=0, keepdim=True).sqrt() + 1e-8)


def attention(batch, picture, caption):
    """The attention [nQ, nK] of one pair, and its two sides without padding."""
    regions = batch.regions[picture][batch.region_mask[picture]]
    words = batch.words[caption][batch.word_mask[caption]]
    query, key = (words, regions) if batch.config.direction == "t2i" else (regions, words)
    scores = normalized(batch.similarity.alignment(query, key), batch.config.score_normalization)
    return (scores * batch.config.lambda_softmax).softmax(dim=1), query, key


def score(batch, picture, caption):
    """The similarity of one pair by the definition: attended vectors are built, cosines taken and pooled."""
    weights, query, key = attention(batch, picture, caption)
    attended = weights @ key
    cosine = (query * attended).sum(1) / (query.norm(dim=1) * attended.norm(dim=1)).clamp_min(1e-8)
    factor = batch.config.lambda_lse
    pooled = {
        "mean": cosine.mean(),
        "sum": cosine.sum(),
        "max": cosine.max(),
        "log_sum_exp": torch.log(torch.exp(factor * cosine).sum()) / factor,
    }
    return pooled[batch.config.pooling], attended, key


def equals_its_definition(batch):
    found = batch()
    assert found.shape == (len(batch.regions), len(batch.words)) and found.dtype == torch.float64
    for picture, caption in torch.cartesian_prod(torch.arange(len(batch.regions)), torch.arange(len(batch.words))):
        expected, attended, key = score(batch, picture, caption)
        # Where keys cancel in the attended vector, its norm from their Gram matrix is rounded.
        left = attended.norm(dim=1).min() / key.norm(dim=1).max().clamp_min(1e-300)
        if left > 1e-4 or key.norm() == 0:
            assert abs(found[picture, caption] - expected) <= batch.tolerance


def finite_and_bounded(batch):
    """In float32, with huge, tiny and zero rows."""
    found = batch()
    assert found.isfinite().all()
    if batch.config.pooling in ("mean", "max"):
        assert (found.abs() <= 1 + 1e-3).all()


def gradients_are_finite_and_none_reach_padding(batch):
    regions, words = batch.regions.clone().requires_grad_(), batch.words.clone().requires_grad_()
    batch(region_embeddings=regions, word_embeddings=words).sum().backward()
    for vectors, mask in ((regions, batch.region_mask), (words, batch.word_mask)):
        assert vectors.grad.isfinite().all()
        assert (vectors.grad[~mask] == 0).all()
    for parameter in batch.similarity.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def padding_takes_no_part(batch):
    """More padding, of whatever numbers, changes no bit."""
    changes = {}
    for name, vectors, mask in (("region", batch.regions, batch.region_mask), ("word", batch.words, batch.word_mask)):
        wider = vectors.new_full((len(vectors), vectors.shape[1] + 3, vectors.shape[2]), float("nan"))
        wider[:, 1 : 1 + vectors.shape[1]] = torch.where(mask.unsqueeze(-1), vectors, float("inf"))
        longer = torch.zeros(wider.shape[:2], dtype=torch.bool)
        longer[:, 1 : 1 + vectors.shape[1]] = mask
        changes |= {f"{name}_embeddings": wider, f"{name}_mask": longer}
    assert torch.equal(batch(**changes), batch())


def the_batch_takes_no_part(batch):
    """A pair alone scores as among others, and the order of items only orders the scores."""
    found = batch()
    picture, caption = (int(torch.randint(len(side), ())) for side in (batch.regions, batch.words))
    alone = batch.similarity(
        batch.regions[[picture]], batch.words[[caption]], batch.region_mask[[picture]], batch.word_mask[[caption]]
    )
    torch.testing.assert_close(alone[0, 0], found[picture, caption], rtol=0, atol=batch.tolerance)
    rows, columns = torch.randperm(len(batch.regions)), torch.randperm(len(batch.words))
    ordered = batch.similarity(
        batch.regions[rows], batch.words[columns], batch.region_mask[rows], batch.word_mask[columns]
    )
    torch.testing.assert_close(ordered, found[rows][:, columns], rtol=0, atol=batch.tolerance)


def the_order_of_words_and_regions_takes_no_part(batch):
    region_order, word_order = torch.randperm(batch.regions.shape[1]), torch.randperm(batch.words.shape[1])
    other = batch.similarity(
        batch.regions[:, region_order],
        batch.words[:, word_order],
        batch.region_mask[:, region_order],
        batch.word_mask[:, word_order],
    )
    torch.testing.assert_close(other, batch(), rtol=0, atol=batch.tolerance)


def the_size_of_blocks_takes_no_part(batch):
    with patch.dict(similarity_scan.BLOCK_BYTES, {"cpu": 64}), patch.object(similarity_scan, "MEMORY_BUDGET", 256):
        in_blocks = batch()
    torch.testing.assert_close(in_blocks, batch(), rtol=0, atol=batch.tolerance)


def the_directions_are_transposed_statements(batch):
    """What words are to regions in one direction, regions are to words in the other."""
    other = {"t2i": "i2t", "i2t": "t2i"}[batch.config.direction]
    mirrored = StackedCrossAttention(ScanConfig(**{**batch.config.to_dict(), "direction": other})).double()
    mirrored.load_state_dict(batch.similarity.state_dict())
    found = mirrored(batch.words, batch.regions, batch.word_mask, batch.region_mask)
    torch.testing.assert_close(found.T, batch(), rtol=0, atol=batch.tolerance)


def halves_are_scored_as_what_they_stand_for(batch):
    for dtype in (torch.float16, torch.bfloat16):
        halves = {"region_embeddings": batch.regions.to(dtype), "word_embeddings": batch.words.to(dtype)}
        found = batch(**halves)
        assert found.dtype == torch.float32
        assert torch.equal(found, batch(**{name: vectors.float() for name, vectors in halves.items()}))


def attention_is_a_distribution_over_what_is_there(batch):
    """Of pairs: each query's weights sum to one, masked places weigh nothing, and they are those of the definition."""
    pairs = min(len(batch.regions), len(batch.words))
    sides = [side[:pairs] for side in (batch.regions, batch.words, batch.region_mask, batch.word_mask)]
    maps = batch.similarity.attention(*sides)
    query_mask, key_mask = sides[:1:-1] if batch.config.direction == "t2i" else sides[2:]
    assert maps.shape == (pairs, query_mask.shape[1], key_mask.shape[1])
    assert (maps[~(query_mask.unsqueeze(2) & key_mask.unsqueeze(1))] == 0).all()
    torch.testing.assert_close(maps.sum(-1), query_mask.to(maps.dtype), rtol=0, atol=1e-12)
    for pair in range(pairs):
        expected, _, _ = attention(batch, pair, pair)
        found = maps[pair][query_mask[pair]][:, key_mask[pair]]
        torch.testing.assert_close(found, expected, rtol=0, atol=batch.tolerance)


def an_item_of_nothing_is_refused(batch):
    """A mask without a true place says which item it is."""
    emptied = batch.word_mask.clone()
    emptied[-1] = False
    with pytest.raises(DataError, match=f"record {len(emptied) - 1}.*caption has no words"):
        batch(word_mask=emptied)


PROPERTIES = [
    properties(equals_its_definition, batches()),
    properties(finite_and_bounded, batches(torch.float32, (1.0, 1e3, 1e6))),
    properties(gradients_are_finite_and_none_reach_padding, batches(torch.float32, (1.0, 1e3))),
    properties(padding_takes_no_part, batches()),
    properties(the_batch_takes_no_part, batches()),
    properties(the_order_of_words_and_regions_takes_no_part, batches()),
    properties(the_size_of_blocks_takes_no_part, batches()),
    properties(the_directions_are_transposed_statements, batches()),
    properties(halves_are_scored_as_what_they_stand_for, batches(torch.float32)),
    properties(attention_is_a_distribution_over_what_is_there, batches()),
    properties(an_item_of_nothing_is_refused, batches()),
]


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_property(holds):
    holds(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_property_in_a_thousand_cases(holds):
    holds(MANY)

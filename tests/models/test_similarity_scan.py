import itertools

import pytest
import torch
import torch.nn.functional as F

from vl_alignment.models import similarity_scan
from vl_alignment.models.alignment import AlignmentFunction, alignment_function_names, register_alignment_function
from vl_alignment.models.errors import DataError
from vl_alignment.models.similarity_scan import StackedCrossAttention

from .scan_model import tiny_config

NAMES = alignment_function_names()
D = 8
NORMALIZATIONS = ["clipped_l2norm", "l2norm", "softmax", "clipped", "no_norm"]
POOLINGS = ["mean", "sum", "max", "log_sum_exp"]
# Lengths of two captions repeat, one has a single word.
WORDS_OF = [3, 1, 6, 3]
REGIONS_OF = [5, 2, 5]


def attention_of(**fields):
    torch.manual_seed(0)
    return StackedCrossAttention(tiny_config(hidden_size=D, **fields)).double()


def ragged(lengths, seed, width=D, dtype=torch.float64):
    """Embeddings [items, longest, width], not of unit length, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    embeddings = torch.randn(*mask.shape, width, generator=generator, dtype=torch.float64).to(dtype)
    return (embeddings * mask.unsqueeze(-1)).requires_grad_(), mask


@pytest.fixture
def batch():
    (regions, region_mask), (words, word_mask) = ragged(REGIONS_OF, 1), ragged(WORDS_OF, 2)
    return regions, words, region_mask, word_mask


def normalized_scores(scores, normalization):
    """[queries, keys], normalised over the queries of each key."""
    if normalization.startswith("clipped"):
        scores = torch.where(scores > 0, scores, 0.1 * scores)
    if normalization.endswith("l2norm"):
        scores = scores / (scores.square().sum(0, keepdim=True).sqrt() + 1e-8)
    if normalization == "softmax":
        scores = scores.exp() / scores.exp().sum(0, keepdim=True)
    return scores


def similarity_by_loop(module, config, regions, words, region_mask=None, word_mask=None):
    """SCAN as the paper writes it: pair by pair, with the attended vector of every query built."""
    rows = []
    for region_index, word_index in itertools.product(range(len(regions)), range(len(words))):
        region = regions[region_index] if region_mask is None else regions[region_index, region_mask[region_index]]
        word = words[word_index] if word_mask is None else words[word_index, word_mask[word_index]]
        query, key = (word, region) if config.direction == "t2i" else (region, word)
        scores = normalized_scores(module.alignment(query, key), config.score_normalization)
        cosines = []
        for position in range(len(query)):
            weights = (config.lambda_softmax * scores[position]).softmax(0)
            attended = sum(weight * vector for weight, vector in zip(weights, key, strict=True))
            cosines.append(F.cosine_similarity(query[position], attended, dim=0, eps=1e-8))
        cosine = torch.stack(cosines)
        rows.append(
            {
                "mean": lambda values: values.mean(),
                "sum": lambda values: values.sum(),
                "max": lambda values: values.max(),
                "log_sum_exp": lambda values: (config.lambda_lse * values).exp().sum().log() / config.lambda_lse,
            }[config.pooling](cosine)
        )
    return torch.stack(rows).view(len(regions), len(words))


def compare_with_loop(batch, **fields):
    module = attention_of(**fields)
    config = tiny_config(hidden_size=D, **fields)
    similarity, expected = module(*batch), similarity_by_loop(module, config, *batch)
    torch.testing.assert_close(similarity, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(similarity)
    inputs = [batch[0], batch[1], *module.parameters()]
    ours, theirs = (torch.autograd.grad((s * upstream).sum(), inputs) for s in (similarity, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("name", NAMES)
def test_every_function_equals_the_loop_with_its_gradients(name, direction, batch):
    compare_with_loop(batch, alignment_function=name, direction=direction)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_normaliser_and_pooling_equals_the_loop(normalization, pooling, direction, batch):
    compare_with_loop(
        batch,
        alignment_function="biased_general_key",
        score_normalization=normalization,
        pooling=pooling,
        direction=direction,
        lambda_softmax=4,
        lambda_lse=5,
    )


class NegativeDistance(AlignmentFunction):
    def scores(self, query, key):
        return -torch.cdist(query, key)


class RunningSums(AlignmentFunction):
    def transform_key(self, key):
        return key.cumsum(dim=-1)


@pytest.mark.parametrize("function", [NegativeDistance, RunningSums])
def test_a_function_of_the_users_own_equals_the_loop(function, open_table, batch):
    register_alignment_function("mine", function)
    compare_with_loop(batch, alignment_function="mine")


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_embeddings_of_any_length_equal_the_loop(factor, batch):
    regions, words, *masks = batch
    compare_with_loop((regions * factor, words * factor, *masks), alignment_function="dot")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pooling", ["mean", "log_sum_exp"])
def test_i2t_is_t2i_with_the_sides_exchanged(name, pooling, batch):
    regions, words, region_mask, word_mask = batch
    fields = {"alignment_function": name, "pooling": pooling}
    i2t, t2i = attention_of(direction="i2t", **fields), attention_of(direction="t2i", **fields)
    t2i.load_state_dict(i2t.state_dict())
    torch.testing.assert_close(
        i2t(regions, words, region_mask, word_mask), t2i(words, regions, word_mask, region_mask).T
    )


# Independence of everything but the pair


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("name", NAMES)
def test_a_pair_scores_the_same_alone(name, direction, batch):
    regions, words, region_mask, word_mask = batch
    module = attention_of(alignment_function=name, direction=direction)
    together = module(*batch)
    for i, c in itertools.product(range(len(regions)), range(len(words))):
        alone = module(regions[i : i + 1, region_mask[i]], words[c : c + 1, word_mask[c]])
        torch.testing.assert_close(alone.squeeze(), together[i, c], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_order_of_the_items_only_orders_the_scores(direction, batch):
    regions, words, region_mask, word_mask = batch
    module = attention_of(direction=direction, alignment_function="biased_general_query")
    pictures, captions = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    permuted = module(regions[pictures], words[captions], region_mask[pictures], word_mask[captions])
    torch.testing.assert_close(permuted, module(*batch)[pictures][:, captions])


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_padding_takes_no_part_whatever_it_holds(direction, batch):
    regions, words, region_mask, word_mask = batch
    module = attention_of(direction=direction, alignment_function="activated_general_key")
    expected = module(*batch)
    for filling in (1e3, float("nan")):
        padded = [
            F.pad(embeddings.masked_fill(~mask.unsqueeze(-1), filling), (0, 0, 0, 4), value=filling)
            for embeddings, mask in ((regions, region_mask), (words, word_mask))
        ]
        masks = [F.pad(mask, (0, 4)) for mask in (region_mask, word_mask)]
        torch.testing.assert_close(module(*padded, *masks), expected)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_masks_need_not_be_prefixes(direction):
    regions, words = ragged([5, 5, 5], 1)[0], ragged([6, 6], 2)[0]
    region_mask = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    word_mask = torch.tensor([[0, 0, 1, 0, 1, 1], [1, 0, 1, 0, 1, 0]])
    module = attention_of(direction=direction, alignment_function="general_key")
    similarity = module(regions, words, region_mask, word_mask)
    for i, c in itertools.product(range(3), range(2)):
        chosen = regions[i : i + 1, region_mask[i].bool()], words[c : c + 1, word_mask[c].bool()]
        torch.testing.assert_close(similarity[i, c], module(*chosen).squeeze())


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["dot", "cosine", "biased_general_key", "additive"])
def test_block_size_changes_neither_scores_nor_gradients(name, masked, direction, batch, monkeypatch):
    regions, words, *masks = batch if masked else (ragged([5, 5, 5], 1)[0], ragged([6, 6, 6, 6], 2)[0])
    module = attention_of(alignment_function=name, direction=direction)
    inputs = [regions, words, *module.parameters()]

    def scores_and_gradients():
        similarity = module(regions, words, *masks)
        weights = torch.linspace(-1, 1, similarity.numel()).double().view_as(similarity)
        return similarity, *torch.autograd.grad((similarity * weights).sum(), inputs)

    calls = count_checkpoints(monkeypatch)
    expected = scores_and_gradients()
    assert not calls
    for block_bytes, budget in [(1, 1), (400, 3000), (400, 2**30), (2**22, 1)]:
        monkeypatch.setattr(similarity_scan, "BLOCK_BYTES", {"cpu": block_bytes, "cuda": block_bytes})
        monkeypatch.setattr(similarity_scan, "MEMORY_BUDGET", budget)
        calls.clear()
        torch.testing.assert_close(scores_and_gradients(), expected)
        assert bool(calls) == (budget < 2**30)
        if block_bytes == 1:
            assert len(calls) == len(regions) * len(words)  # one block a pair
        calls.clear()
        with torch.no_grad():
            torch.testing.assert_close(module(regions, words, *masks), expected[0])
        assert not calls


def count_checkpoints(monkeypatch):
    calls = []
    original = similarity_scan.checkpoint

    def counted(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(similarity_scan, "checkpoint", counted)
    return calls


@pytest.mark.parametrize("name", ["dot", "cosine", "general_query"])
def test_released_layout_changes_nothing_of_what_the_release_had_right(name, batch):
    expected = attention_of(alignment_function=name)(*batch)
    assert torch.equal(attention_of(alignment_function=name, released_layout=True)(*batch), expected)


def test_released_scaled_dot_divides_by_32_at_any_width(batch):
    fields = {"alignment_function": "scaled_dot", "score_normalization": "no_norm"}
    released = attention_of(released_layout=True, **fields)
    torch.testing.assert_close(released(*batch), attention_of(lambda_softmax=9 * D**0.5 / 32, **fields)(*batch))


def test_released_layout_does_not_depend_on_batch_or_padding(batch):
    regions, words, region_mask, word_mask = batch
    for normalization in NORMALIZATIONS:
        module = attention_of(alignment_function="general_key", released_layout=True, score_normalization=normalization)
        together = module(*batch)
        alone = module(regions[2:], words[:1, :3])
        torch.testing.assert_close(alone.squeeze(), together[2, 0])


# Sizes at the edge


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("name", NAMES)
def test_one_picture_one_region_one_caption_one_word(name, direction):
    regions, words = ragged([1], 1)[0], ragged([1], 2)[0]
    module = attention_of(alignment_function=name, direction=direction)
    similarity = module(regions, words)
    assert similarity.shape == (1, 1)
    # With one key, the attended vector is that key.
    torch.testing.assert_close(similarity[0, 0], F.cosine_similarity(regions[0, 0], words[0, 0], dim=0))


@pytest.mark.parametrize("released_layout", [False, True])
def test_one_word_and_one_picture(released_layout):
    regions, words = ragged([4], 1)[0], ragged([1, 1], 2)[0]
    module = attention_of(alignment_function="general_key", released_layout=released_layout)
    similarity = module(regions, words)
    assert similarity.shape == (1, 2)
    similarity.sum().backward()
    assert torch.isfinite(similarity).all() and torch.isfinite(regions.grad).all()


def test_vectors_of_zeros_score_zero_with_finite_gradients():
    # Features that were padded with zeros and come without a mask are such regions.
    regions, words = ragged([3, 3], 1)[0].detach(), ragged([3, 3], 2)[0].detach()
    regions[0] = 0
    words[1] = 0
    for name in NAMES:
        module = attention_of(alignment_function=name)
        inputs = [regions.clone().requires_grad_(), words.clone().requires_grad_()]
        similarity = module(*inputs)
        similarity.sum().backward()
        assert similarity[0].abs().max() < 1e-6 and similarity[:, 1].abs().max() < 1e-6
        assert all(torch.isfinite(tensor.grad).all() for tensor in inputs), name


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_scores_that_a_relu_set_to_zero_leave_gradients_finite(normalization):
    # A key that no query of the caption matches has nothing but zeros, over which the norm is taken.
    module = attention_of(alignment_function="activated_general_key", score_normalization=normalization)
    with torch.no_grad():
        module.alignment.weight.copy_(-torch.eye(D))
        module.alignment.bias.zero_()
    inputs = [torch.rand(2, 3, D).double().requires_grad_(), torch.rand(2, 4, D).double().requires_grad_()]
    similarity = module(*inputs)
    similarity.sum().backward()
    assert module.alignment(inputs[1], inputs[0]).abs().max() == 0
    for tensor in [similarity, *(tensor.grad for tensor in [*inputs, *module.parameters()])]:
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("name", ["dot", "cosine", "biased_general_query", "additive"])
def test_gradients_are_those_of_finite_differences(name, direction):
    (regions, region_mask), (words, word_mask) = ragged([2, 3], 1, width=4), ragged([2, 1], 2, width=4)
    torch.manual_seed(0)
    config = tiny_config(hidden_size=4, alignment_function=name, direction=direction)
    module = StackedCrossAttention(config).double()
    parameters = dict(module.named_parameters())

    def similarity(regions, words, *values):
        return torch.func.functional_call(
            module, dict(zip(parameters, values, strict=True)), (regions, words, region_mask, word_mask)
        )

    assert torch.autograd.gradcheck(similarity, (regions, words, *parameters.values()))


# Precision


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_exact_to_1e5(name, direction, batch):
    regions, words, *masks = batch
    module = attention_of(alignment_function=name, direction=direction)
    expected = module(*batch)
    similarity = module.float()(regions.float(), words.float(), *masks)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_embeddings_are_scored_in_float32(name, dtype, batch):
    regions, words, *masks = batch
    module = attention_of(alignment_function=name).float()
    regions, words = regions.to(dtype), words.to(dtype)
    similarity = module(regions, words, *masks)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, module(regions.float(), words.float(), *masks))
    # A model that is stored in half precision, weights of the alignment function and all.
    of_half_model = module.to(dtype)(regions, words, *masks)
    assert of_half_model.dtype == torch.float32
    torch.testing.assert_close(of_half_model, similarity, rtol=0, atol=2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_scores_in_float32_and_trains(name, batch):
    regions, words, *masks = batch
    module = attention_of(alignment_function=name).float()
    expected = module(regions.float(), words.float(), *masks)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [embeddings.detach().bfloat16().requires_grad_() for embeddings in (regions, words)]
        similarity = module(*rounded, *masks)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, expected, rtol=0, atol=5e-2)
    similarity.sum().backward()
    for tensor in [*rounded, *module.parameters()]:
        assert torch.isfinite(tensor.grad).all()


# Attention maps


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_attention_of_pairs_is_what_the_similarity_uses(direction):
    (regions, region_mask), (words, word_mask) = ragged(REGIONS_OF, 1), ragged(WORDS_OF[:3], 2)
    module = attention_of(direction=direction, alignment_function="biased_general_key")
    maps = module.attention(regions, words, region_mask, word_mask)
    queries, keys = (words, regions) if direction == "t2i" else (regions, words)
    query_mask, key_mask = (word_mask, region_mask) if direction == "t2i" else (region_mask, word_mask)
    assert maps.shape == (3, queries.shape[1], keys.shape[1])
    torch.testing.assert_close(maps.sum(-1), query_mask.double())
    assert maps[~(query_mask.unsqueeze(2) & key_mask.unsqueeze(1))].abs().max() == 0
    cosine = F.cosine_similarity(queries, maps @ keys, dim=-1) * query_mask
    pooled = cosine.sum(-1) / query_mask.sum(-1)
    torch.testing.assert_close(pooled, module(regions, words, region_mask, word_mask).diagonal())


# Input that cannot be scored


def test_caption_without_words_is_named(batch):
    regions, words, region_mask, word_mask = batch
    word_mask[2] = False
    with pytest.raises(DataError, match="caption has no words") as error:
        attention_of()(regions, words, region_mask, word_mask)
    assert error.value.record == 2


def test_picture_without_regions_is_named(batch):
    regions, words, region_mask, word_mask = batch
    region_mask[1] = False
    with pytest.raises(DataError, match="picture has no regions") as error:
        attention_of()(regions, words, region_mask, word_mask)
    assert error.value.record == 1


@pytest.mark.parametrize("shape", [(0, 3, D), (2, 0, D), (3, D)])
def test_empty_or_flat_embeddings_are_refused(shape, batch):
    with pytest.raises(DataError, match="regions must be"):
        attention_of()(torch.randn(*shape).double(), batch[1])
    with pytest.raises(DataError, match="words must be"):
        attention_of()(batch[0], torch.randn(*shape).double())


def test_sides_of_other_models_are_refused(batch):
    narrow = torch.randn(2, 3, 5).double()
    for name in ("general_key", "dot"):
        module = attention_of(alignment_function=name)
        for sides, message in [
            ((batch[0], narrow), "words of width 5 .* model of width 8"),
            ((narrow, batch[1]), "regions of width 5 .* model of width 8"),
            ((narrow, narrow), "regions of width 5 .* model of width 8"),
        ]:
            with pytest.raises(DataError, match=message):
                module(*sides)


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (5,), (3, 5, 1)])
def test_mask_of_another_shape_is_refused(shape, batch):
    with pytest.raises(DataError, match="the mask of the regions"):
        attention_of()(batch[0], batch[1], torch.ones(shape, dtype=torch.bool))
    with pytest.raises(DataError, match="the mask of the words"):
        attention_of()(batch[0], batch[1], None, torch.ones(shape, dtype=torch.bool))

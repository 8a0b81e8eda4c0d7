"""The batched and fused computations give what a straightforward loop gives, numbers and gradients."""

import pytest
import torch
from benchmarks.straightforward_attngan import (
    straightforward_attention,
    straightforward_sentence_losses,
    straightforward_word_losses,
)

from vl_alignment.models.alignment import alignment_function_names
from vl_alignment.models.attention_attngan import WordAttention
from vl_alignment.models.matching_damsm import WordRegionMatching, matching_losses, sentence_similarity

from . import attngan_model, damsm_model

LENGTHS = torch.tensor([6, 2, 4, 1])


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def assert_equal_with_gradients(ours, theirs, leaves):
    """Scalars or tensors, and what a random weighting of them sends to the leaves."""
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
        weights = torch.randn_like(mine)
        mine_gradients, other_gradients = (
            torch.autograd.grad((result * weights).sum(), leaves, retain_graph=True, allow_unused=True)
            for result in (mine, other)
        )
        for gradient, expected in zip(mine_gradients, other_gradients, strict=True):
            assert (gradient is None) == (expected is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("class_ids", [None, torch.tensor([3, 5, 3, 9])])
@pytest.mark.parametrize("name", alignment_function_names())
def test_word_losses(name, class_ids):
    config = damsm_model.tiny_config(alignment_function=name, gamma1=3.0, gamma2=2.0, gamma3=4.0)
    matching = WordRegionMatching(config).double()
    mask = torch.arange(6) < LENGTHS.unsqueeze(1)
    regions, words = draw(4, 5, config.hidden_size), draw(4, 6, config.hidden_size)
    ours = matching_losses(config.gamma3 * matching(regions, words, mask), class_ids)
    theirs = straightforward_word_losses(regions, words, mask, matching.alignment, (3.0, 2.0, 4.0), class_ids)
    assert_equal_with_gradients(ours, theirs, [regions, words, *matching.parameters()])


@pytest.mark.parametrize("class_ids", [None, torch.tensor([3, 5, 3, 9])])
def test_sentence_losses(class_ids):
    codes, sentences = draw(4, 7), draw(4, 7)
    ours = matching_losses(2.0 * sentence_similarity(codes, sentences), class_ids)
    assert_equal_with_gradients(
        ours, straightforward_sentence_losses(codes, sentences, 2.0, class_ids), [codes, sentences]
    )


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("name", alignment_function_names())
def test_attention(name, maps):
    config = attngan_model.tiny_config(alignment_function=name)
    attention = WordAttention(config).double()
    mask = torch.arange(6) < LENGTHS.unsqueeze(1)
    features, words = draw(4, config.generator_size, 3, 5), draw(4, 6, config.hidden_size)
    ours = attention(features, words, mask, output_attentions=maps)
    theirs = straightforward_attention(attention, features, words, mask)
    compared = slice(None) if maps else slice(1)
    assert_equal_with_gradients(ours[compared], theirs[compared], [features, words, *attention.parameters()])


@pytest.mark.parametrize("name", ["dot", "general_key", "activated_general_key"])
def test_neither_masks_nor_loss_depend_on_padding(name):
    config = damsm_model.tiny_config(alignment_function=name)
    matching = WordRegionMatching(config).double()
    mask = torch.arange(6) < LENGTHS.unsqueeze(1)
    regions, words = draw(4, 5, config.hidden_size), draw(4, 6, config.hidden_size)
    padded = torch.cat([words, draw(4, 3, config.hidden_size)], dim=1)
    longer = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(matching(regions, padded, longer), matching(regions, words, mask))

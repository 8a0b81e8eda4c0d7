"""DAMSM's losses and AttnGAN's generator as one would first write them: loops over captions, every score kept.

These are the references that the package is compared with. They take the layers and the alignment function of a model
from the package. Everything else is written out, and no step is shared with `vl_alignment.models.matching_damsm`,
`vl_alignment.models.attention_attngan` and the doubling of `vl_alignment.models.generator_attngan`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vl_alignment.models.alignment import AlignmentFunction
from vl_alignment.models.attention_attngan import WordAttention
from vl_alignment.models.generator_attngan import AttnGanGenerator, GatedDoubling

EPSILON = 1e-8


def straightforward_word_losses(
    regions: Tensor,
    words: Tensor,
    mask: Tensor,
    alignment: AlignmentFunction,
    gammas: tuple[float, float, float] = (4.0, 5.0, 10.0),
    class_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the right caption of each picture and of the right picture of each caption; differentiable.

    Args:
        regions: [B, R, d].
        words: [B, L, d], padded on the right; caption b describes picture b.
        mask: [B, L], true where there is a word.
        alignment: The score function.
        gammas: Before the softmax over the regions, of the cosines, and before the softmax over the batch.
        class_ids: [B].
    """
    columns = []
    for caption, length in zip(words, mask.sum(dim=1).tolist(), strict=True):
        queries = caption[:length].repeat(len(regions), 1, 1)  # [B, l, d]
        scores = alignment(queries, regions)  # [B, l, R]
        claimed = scores.softmax(dim=1)
        weights = (gammas[0] * claimed).softmax(dim=2)
        attended = torch.bmm(weights, regions)  # [B, l, d]
        cosines = _cosine(queries, attended)
        columns.append((gammas[1] * cosines).exp().sum(dim=1).log())
    return _cross_entropies(gammas[2] * torch.stack(columns, dim=1), class_ids)


def straightforward_sentence_losses(
    codes: Tensor, sentences: Tensor, gamma: float = 10.0, class_ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same for the vectors of whole pictures [B, d] and sentences [B, d]."""
    columns = [_cosine(codes, sentence.expand_as(codes)) for sentence in sentences]
    return _cross_entropies(gamma * torch.stack(columns, dim=1), class_ids)


def straightforward_attention(
    attention: WordAttention, features: Tensor, words: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Context [B, d, H, W] and attention [B, H * W, L], one caption after the other; differentiable.

    Args:
        attention: Whose layers are used.
        features: [B, d, H, W].
        words: [B, L, text].
        mask: [B, L], true where there is a word.
    """
    contexts, maps = [], []
    for grid, caption, seen in zip(features, words, mask, strict=True):
        queries = grid.flatten(1).T  # [H * W, d]
        keys = caption @ attention.word_projection.weight.T
        scores = attention.alignment(queries, keys)
        scores = torch.where(seen, scores, torch.full_like(scores, -torch.inf))
        weights = scores.softmax(dim=1)
        contexts.append((weights @ keys).T.reshape(-1, *grid.shape[1:]))
        maps.append(weights)
    return torch.stack(contexts), torch.stack(maps)


def _doubled(doubling: GatedDoubling, grid: Tensor) -> Tensor:
    """[B, before, H, W] -> [B, after, 2 H, 2 W], the doubled grid in full."""
    grid = F.interpolate(grid, scale_factor=2, mode="nearest")
    return F.glu(doubling.norm(doubling.convolution(grid)), dim=1)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """[..., d], [..., d] -> [...]."""
    norms = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(dim=-1) / norms.clamp_min(EPSILON)


def _cross_entropies(logits: Tensor, class_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    if class_ids is not None:
        for row, own in enumerate(class_ids.tolist()):
            same = class_ids == own
            same[row] = False
            logits = torch.cat([logits[:row], logits[row : row + 1].masked_fill(same, -torch.inf), logits[row + 1 :]])
    targets = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, targets), F.cross_entropy(logits.T, targets)


def straightforward_drawing(
    generator: AttnGanGenerator, words: Tensor, sentences: Tensor, mask: Tensor, noise: Tensor, further: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Pictures of every stage, and mean and log-variance of the condition; with `straightforward_attention`.

    Args:
        generator: Whose layers are used.
        words: [B, L, text].
        sentences: [B, text].
        mask: [B, L].
        noise: [B, noise_size].
        further: Of the condition [B, conditioning_size].
    """
    condition, mean, log_variance = generator.conditioning(sentences, further)
    flat = F.glu(generator.first_stage.norm(generator.first_stage.linear(torch.cat([condition, noise], dim=1))), dim=1)
    features = flat.reshape(len(flat), -1, 4, 4)
    for doubling in generator.first_stage.doublings:
        features = _doubled(doubling, features)
    images = [generator.painters[0](features).tanh()]
    for stage, painter in zip(generator.stages, generator.painters[1:], strict=True):
        context, _ = straightforward_attention(stage.attention, features, words, mask)
        grid = torch.cat([features, context], dim=1)
        for block in stage.residual_blocks:
            grid = block(grid)
        features = _doubled(stage.doubling, grid)
        images.append(painter(features).tanh())
    return tuple(images), mean, log_variance

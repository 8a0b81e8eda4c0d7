"""AttnGAN's generator: stages that draw a picture, each of twice the size and looking at the words once more."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_attngan import WordAttention
from .configuration_attngan import AttnGanConfig

__all__ = ["AttnGanDrawing", "AttnGanGenerator", "ConditioningAugmentation"]

_FIRST_GRID = 4  # cells of a side before the first doubling


class AttnGanDrawing(NamedTuple):
    """What the generator returns.

    Attributes:
        images: One [B, 3, S, S] in [-1, 1] a stage.
        mean, log_variance: Of the distribution of the condition [B, conditioning_size].
        attentions: One [B, H * W, L] for each stage but the first; None where not asked for.
    """

    images: tuple[Tensor, ...]
    mean: Tensor
    log_variance: Tensor
    attentions: tuple[Tensor, ...] | None


class ConditioningAugmentation(nn.Module):
    """Sentences [B, text] -> a normal distribution each, and a sample of it (Zhang et al. 2017)."""

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, 4 * config.conditioning_size)

    def forward(self, sentences: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The condition, its mean and the logarithm of its variance, [B, conditioning_size] each.

        Args:
            sentences: [B, text].
            noise: Of a standard normal distribution [B, conditioning_size].
        """
        mean, log_variance = F.glu(self.linear(sentences), dim=1).chunk(2, dim=1)
        return mean + noise * (0.5 * log_variance).exp(), mean, log_variance


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=False)


def _doubling_kernel(weight: Tensor) -> Tensor:
    """The kernel of a transposed convolution that doubles a grid by nearest cells and then convolves it.

    Of the nine cells that a convolution sees there only four differ: they take the sums of the weights that meet them.
    The transposed convolution multiplies 16 times where the other two steps multiply 36 times.

    Args:
        weight: [after, before, 3, 3].

    Returns:
        [before, after, 4, 4], for a stride of 2 and a padding of 1.
    """
    padded = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    return (rows[..., :-1] + rows[..., 1:]).transpose(0, 1)


class GatedDoubling(nn.Module):
    """Doubles a grid: [B, before, H, W] -> [B, after, 2 H, 2 W], nearest cells, convolution, normalisation, gate."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = _convolution(before, 2 * after)
        self.norm = nn.BatchNorm2d(2 * after)

    def forward(self, grid: Tensor) -> Tensor:
        """Double the grid."""
        grid = F.conv_transpose2d(grid, _doubling_kernel(self.convolution.weight), stride=2, padding=1)
        return F.glu(self.norm(grid), dim=1)


class GatedResidualBlock(nn.Module):
    """Two convolutions, each normalised, a gate between them, beside the identity: [B, n, H, W] -> [B, n, H, W]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gated, self.gated_norm = _convolution(size, 2 * size), nn.BatchNorm2d(2 * size)
        self.plain, self.plain_norm = _convolution(size, size), nn.BatchNorm2d(size)

    def forward(self, grid: Tensor) -> Tensor:
        """Add what the convolutions say to the grid."""
        inner = F.glu(self.gated_norm(self.gated(grid)), dim=1)
        return grid + self.plain_norm(self.plain(inner))


class FirstStage(nn.Module):
    """Condition and noise -> features [B, d, S, S] of the first stage: a linear map to 4 x 4 cells, then doublings."""

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__()
        doublings = (config.stage_sizes[0] // _FIRST_GRID).bit_length() - 1
        width = config.generator_size << doublings
        outputs = 2 * width * _FIRST_GRID**2
        self.linear = nn.Linear(config.conditioning_size + config.noise_size, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)
        self.doublings = nn.ModuleList(GatedDoubling(width >> n, width >> (n + 1)) for n in range(doublings))

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Condition [B, c], noise [B, z] -> [B, d, S, S]."""
        flat = F.glu(self.norm(self.linear(torch.cat([condition, noise], dim=1))), dim=1)
        grid = flat.unflatten(1, (-1, _FIRST_GRID, _FIRST_GRID))
        for doubling in self.doublings:
            grid = doubling(grid)
        return grid


class RefiningStage(nn.Module):
    """Features [B, d, S, S] and words -> features [B, d, 2 S, 2 S].

    features --+-> attention to the words -> context --+
               +---------------------------------------+-> joined [B, 2 d, S, S] -> residual blocks -> doubling
    """

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__()
        size = config.generator_size
        self.attention = WordAttention(config)
        self.residual_blocks = nn.ModuleList(GatedResidualBlock(2 * size) for _ in range(config.num_residual_blocks))
        self.doubling = GatedDoubling(2 * size, size)

    def forward(
        self, features: Tensor, words: Tensor, mask: Tensor, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The new features, and the attention [B, S * S, L] on request; the rest as of `WordAttention`."""
        context, attention = self.attention(features, words, mask, output_attentions)
        grid = torch.cat([features, context], dim=1)
        for block in self.residual_blocks:
            grid = block(grid)
        return self.doubling(grid), attention


class AttnGanGenerator(nn.Module):
    """Draws pictures of sentences, words and noise.

        sentences [B, text] -> conditioning augmentation -> condition [B, c] --+
        noise [B, z] ----------------------------------------------------------+-> first stage -> features [B, d, S, S]
        words [B, L, text] -> attention, residual blocks, doubling <-----------------------------------+  |
                                +-> features [B, d, 2 S, 2 S] -> ... the same for each further stage      |
                                                   +-> convolution, tanh -> picture [B, 3, 2 S, 2 S]      |
                                                       convolution, tanh -> picture [B, 3, S, S] <--------+

    Args:
        config: An `AttnGanConfig`.
    """

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__()
        self.conditioning = ConditioningAugmentation(config)
        self.first_stage = FirstStage(config)
        self.stages = nn.ModuleList(RefiningStage(config) for _ in range(config.num_stages - 1))
        self.painters = nn.ModuleList(_convolution(config.generator_size, 3) for _ in range(config.num_stages))

    def forward(
        self,
        words: Tensor,
        sentences: Tensor,
        mask: Tensor,
        noise: Tensor,
        conditioning_noise: Tensor,
        output_attentions: bool = False,
    ) -> AttnGanDrawing:
        """Draw.

        Args:
            words: [B, L, text].
            sentences: [B, text].
            mask: [B, L], true where there is a word.
            noise: Of a standard normal distribution [B, noise_size].
            conditioning_noise: The same [B, conditioning_size].
            output_attentions: Whether to return the attention of the stages.
        """
        condition, mean, log_variance = self.conditioning(sentences, conditioning_noise)
        features = self.first_stage(condition, noise)
        images, attentions = [self._paint(0, features)], []
        for number, module in enumerate(self.stages, start=1):
            stage: Any = module
            features, attention = stage(features, words, mask, output_attentions)
            images.append(self._paint(number, features))
            if attention is not None:
                attentions.append(attention)
        return AttnGanDrawing(tuple(images), mean, log_variance, tuple(attentions) if output_attentions else None)

    def _paint(self, stage: int, features: Tensor) -> Tensor:
        return torch.tanh(self.painters[stage](features))

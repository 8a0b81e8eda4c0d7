"""AttnGAN's discriminators, one a stage, and the losses that they and the generator play for."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_attngan import AttnGanConfig
from .errors import DataError

__all__ = ["StageDiscriminator", "conditioning_divergence"]

_LAST_GRID = 4  # cells of a side that are judged
_WIDEST = 3  # doublings of the width that a judge sees at most: 8 times the first layer's
_SLOPE = 0.2


class NormalizedLeakyConvolution(nn.Module):
    """Convolution, batch normalisation, leaky ReLU: halves the grid, or keeps it."""

    def __init__(self, before: int, after: int, halve: bool) -> None:
        super().__init__()
        kernel, stride = (4, 2) if halve else (3, 1)
        self.convolution = nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, grid: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, H or H / 2, W or W / 2]."""
        return F.leaky_relu(self.norm(self.convolution(grid)), _SLOPE)


class StageDiscriminator(nn.Module):
    """Tells drawn pictures from real ones, and those that fit a caption from those that do not.

        images [B, 3, S, S] -> halved to 4 x 4, the width doubled each time -> the width halved again to 8 x the first
        -> features [B, n, 4, 4] -+-> judge -----------------------------> logits [B] of being real
        sentences [B, text] ------+-> joined, convolution -> judge ------> logits [B] of being real and of the caption

    Args:
        config: An `AttnGanConfig`.
        image_size: S, at least 8.
    """

    def __init__(self, config: AttnGanConfig, image_size: int) -> None:
        super().__init__()
        first, halvings = config.discriminator_size, (image_size // _LAST_GRID).bit_length() - 1
        self.image_size = image_size
        self.entrance = nn.Conv2d(3, first, 4, stride=2, padding=1, bias=False)
        self.halvings = nn.ModuleList(
            NormalizedLeakyConvolution(first << n, first << (n + 1), halve=True) for n in range(halvings - 1)
        )
        self.narrowings = nn.ModuleList(
            NormalizedLeakyConvolution(first << (n + 1), first << n, halve=False)
            for n in reversed(range(_WIDEST, halvings - 1))
        )
        width = first << min(_WIDEST, halvings - 1)
        self.joint = NormalizedLeakyConvolution(width + config.hidden_size, width, halve=False)
        self.conditional_judge = nn.Conv2d(width, 1, _LAST_GRID)
        self.unconditional_judge = nn.Conv2d(width, 1, _LAST_GRID)

    def features(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, S, S] in [-1, 1] -> features [B, n, 4, 4].

        Raises:
            DataError: If the pictures have another size.
        """
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise DataError(
                f"pictures are {tuple(images.shape)}; this discriminator judges [B, 3, {self.image_size}, "
                f"{self.image_size}]"
            )
        grid = F.leaky_relu(self.entrance(images), _SLOPE)
        for layer in (*self.halvings, *self.narrowings):
            grid = layer(grid)
        return grid

    def unconditional(self, features: Tensor) -> Tensor:
        """Features [B, n, 4, 4] -> logits [B] of being real, in float32 at least."""
        return _as_float(self.unconditional_judge(features).flatten())

    def conditional(self, features: Tensor, sentences: Tensor) -> Tensor:
        """Features [B, n, 4, 4], sentences [B, text] -> logits [B] of being real and of the caption."""
        repeated = sentences[:, :, None, None].expand(-1, -1, *features.shape[2:])
        joined = self.joint(torch.cat([features, repeated.to(features.dtype)], dim=1))
        return _as_float(self.conditional_judge(joined).flatten())

    def discriminator_loss(self, real: Tensor, drawn: Tensor, sentences: Tensor) -> Tensor:
        """How badly real and drawn pictures, and fitting and unfitting captions, are told apart; a scalar.

        Real and drawn pictures pass the batch normalisation apart. A real picture with the caption of the next one is
        the unfitting pair.

        Args:
            real: [B, 3, S, S], of the captions.
            drawn: [B, 3, S, S]; no gradient flows into them.
            sentences: [B, text]; none into them either.

        Raises:
            DataError: If there is one pair alone, which leaves no unfitting caption, or the pictures are not as many.
        """
        if not len(real) == len(drawn) == len(sentences) or len(real) < 2:
            raise DataError(
                f"{len(real)} real pictures, {len(drawn)} drawn ones, {len(sentences)} captions; the discriminators "
                "learn from at least two of each, and as many of each"
            )
        sentences = sentences.detach()
        real_features, drawn_features = self.features(real), self.features(drawn.detach())
        fitting = _error(self.conditional(real_features, sentences), real=True)
        of_drawn = _error(self.conditional(drawn_features, sentences), real=False)
        unfitting = _error(self.conditional(real_features[:-1], sentences[1:]), real=False)
        is_real = _error(self.unconditional(real_features), real=True)
        is_drawn = _error(self.unconditional(drawn_features), real=False)
        return (is_real + fitting) / 2 + (is_drawn + of_drawn + unfitting) / 3

    def generator_loss(self, drawn: Tensor, sentences: Tensor) -> Tensor:
        """How far the drawn pictures [B, 3, S, S] are from passing as real and as their captions'; a scalar."""
        features = self.features(drawn)
        return _error(self.conditional(features, sentences), real=True) + _error(
            self.unconditional(features), real=True
        )


def conditioning_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the condition's distribution from a standard normal one, meaned over numbers."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()


def _error(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def _as_float(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

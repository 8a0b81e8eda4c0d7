"""What the training of a generator against discriminators is told, beside what every training is."""

from dataclasses import dataclass

from vl_alignment.models.errors import ConfigurationError
from vl_alignment.training.arguments import TrainingSettings, as_tuple, check_integer, check_positive

__all__ = ["AdversarialSettings"]


@dataclass(kw_only=True)
class AdversarialSettings(TrainingSettings):
    """Settings of one adversarial training run; the defaults are AttnGAN's for CUB.

    Args:
        epochs, batch_size, learning_rate, decay_epochs, gradient_clipping, ema_decay: As in `TrainingSettings`; the
            learning rate is the generator's, the moving average is of the generator alone, and the decays and the
            warm-up are of all optimisers. Without an average the generator itself is evaluated and saved.
        discriminator_learning_rate: Of each stage's discriminator.
        betas: Adam's, of all optimisers.
        matching_weight: Of DAMSM's word and sentence losses of the last stage's pictures (lambda; COCO: 50); 0 leaves
            them out.
        divergence_weight: Of the divergence of the condition's distribution from a standard normal one.
        sample_every_steps: Optimiser steps between grids of sample pictures.
        samples_per_caption: Pictures of each caption in a grid.

    Raises:
        ConfigurationError: A value is out of range, or means nothing here.
    """

    epochs: int = 400
    batch_size: int = 20
    decay_epochs: tuple[int, ...] = ()
    gradient_clipping: float | None = None
    ema_decay: float | None = 0.999
    discriminator_learning_rate: float = 2e-4
    betas: tuple[float, ...] = (0.5, 0.999)
    matching_weight: float = 5.0
    divergence_weight: float = 1.0
    sample_every_steps: int = 1000
    samples_per_caption: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.betas = as_tuple("betas", self.betas)
        if len(self.betas) != 2:
            raise ConfigurationError(f"betas={self.betas} must be two numbers.")
        for beta in self.betas:
            if beta != 0:
                check_positive("betas", beta, below=1.0)
        check_positive("discriminator_learning_rate", self.discriminator_learning_rate)
        for name in ("matching_weight", "divergence_weight"):
            if getattr(self, name) != 0:
                check_positive(name, getattr(self, name))
        for name in ("sample_every_steps", "samples_per_caption"):
            check_integer(name, getattr(self, name), smallest=1)
        if self.batch_size < 2:
            raise ConfigurationError("batch_size=1 leaves the discriminators no unfitting caption; use at least 2.")
        if self.gradient_accumulation_steps != 1:
            raise ConfigurationError(
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}: batch normalisation and the matching "
                "losses are of a whole batch, which cannot be put together of smaller ones; use 1."
            )
        if self.plateau_factor is not None:
            raise ConfigurationError("plateau_factor: losses that two sides play for do not fall; use decay_epochs.")
        if self.text_encoder_factor != 1.0:
            raise ConfigurationError("text_encoder_factor: the text encoder comes trained from DAMSM and stays so.")

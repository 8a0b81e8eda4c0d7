"""Configuration of AttnGAN (Xu et al. 2018)."""

from typing import Any, Literal

from .configuration_base import AlignmentConfig, checked_config
from .errors import ConfigurationError
from .text_encoder_damsm import validate_text_encoder

__all__ = ["AttnGanConfig"]

_TEXT_FIELDS = ("vocab_size", "pad_token_id", "word_embedding_size", "hidden_size", "recurrence", "word_dropout")


@checked_config
class AttnGanConfig(AlignmentConfig):
    """Configuration of AttnGAN's generator, text encoder and discriminators; the defaults are the paper's for CUB.

    Args:
        vocab_size: Number of word types.
        pad_token_id: The id of padding.
        word_embedding_size: Width of the word embeddings.
        hidden_size: Width of words and sentences, both directions of the text encoder together.
        recurrence: "lstm" or "gru", of the text encoder.
        word_dropout: On the word embeddings; the text encoder comes trained from DAMSM and drops nothing out here.
        image_size: Pixels of the last stage.
        num_stages: Stages of the generator, each of twice the size of the one before, each with its discriminator. All
            but the first attend to the words.
        noise_size: Width of the noise.
        conditioning_size: Width of the augmented condition.
        generator_size: Width d of the features that the pictures are drawn from (the release's GF_DIM; COCO: 48). The
            alignment function sees queries and keys of this width.
        discriminator_size: Width of a discriminator's first layer (the release's DF_DIM; COCO: 96).
        num_residual_blocks: Of each later stage (COCO: 3).
        released_layout: Mask the words as the authors' release does (and the code of Xu et al.): the mask is tiled by
            sample over rows that are ordered by sample, so that in a batch each pixel is masked with the padding of
            another sample. Alone, or with equal lengths, a caption is drawn the same either way. The CUB release's
            activated function also uses a sigmoid: `alignment_activation="sigmoid"`.

    Example:
        >>> AttnGanConfig().stage_sizes
        [64, 128, 256]
    """

    model_type = "attngan"
    keys_to_ignore_at_inference = ["stage_images", "mean", "log_variance"]

    vocab_size: int = 5450
    pad_token_id: int | None = 0
    word_embedding_size: int = 300
    hidden_size: int = 256
    recurrence: Literal["lstm", "gru"] = "lstm"
    word_dropout: float | int = 0.5
    image_size: int = 256
    num_stages: int = 3
    noise_size: int = 100
    conditioning_size: int = 100
    generator_size: int = 32
    discriminator_size: int = 64
    num_residual_blocks: int = 2

    @classmethod
    def for_damsm(cls, damsm_config: Any, **fields: Any) -> "AttnGanConfig":
        """A configuration whose text encoder is a DAMSM's.

        Args:
            damsm_config: A `DamsmConfig`.
            fields: Those beside the text encoder's.
        """
        return cls(**{name: getattr(damsm_config, name) for name in _TEXT_FIELDS}, **fields)

    @property
    def stage_sizes(self) -> list[int]:
        """Pixels of each stage's pictures, the first stage first."""
        return [self.image_size >> step for step in reversed(range(self.num_stages))]

    def validate_sizes(self) -> None:
        """Check sizes."""
        validate_text_encoder(self)
        sizes = ("num_stages", "noise_size", "conditioning_size", "generator_size", "discriminator_size")
        for name in (*sizes, "num_residual_blocks"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1")
        smallest = 8 << (self.num_stages - 1)
        if self.image_size < smallest or self.image_size & (self.image_size - 1):
            raise ConfigurationError(
                f"image_size is {self.image_size}; {self.num_stages} stages need a power of two of at least {smallest}"
            )

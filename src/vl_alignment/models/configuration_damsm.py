"""Configuration of DAMSM (Deep Attentional Multimodal Similarity Model; Xu et al. 2018)."""

from typing import Any, Literal

from .configuration_base import VisionAlignmentConfig, checked_config
from .errors import ConfigurationError
from .inception_v3 import INCEPTION_IMAGE_SIZE, InceptionV3
from .text_encoder_damsm import validate_text_encoder

__all__ = ["DamsmConfig"]


@checked_config
class DamsmConfig(VisionAlignmentConfig):
    """Configuration of DAMSM; the defaults are AttnGAN's for CUB.

    Args:
        alignment_function: Between words and regions. The paper changes AttnGAN's two attention modules alone: one
            DAMSM, with `dot`, trains and judges the generators of all functions.
        vocab_size: Number of word types.
        pad_token_id: The id of padding.
        word_embedding_size: Width of the word embeddings.
        hidden_size: Width d of words, sentences, regions and pictures; half of it is one direction's.
        recurrence: "lstm" or "gru", of the text encoder.
        word_dropout: On the word embeddings.
        vision_config: Configuration of a transformers vision backbone; Inception-v3 where None.
        freeze_vision: Whether that network stays as it is, as published: only the layers after it are trained.
        feature_size: Width of the network's regions; follows from it.
        pooled_size: Width of its vector of the whole picture; follows from it. A backbone's is the mean of its regions.
        vision_image_size: Pixels to which the model resizes pictures; 299 for Inception-v3, as they are for a backbone.
        vision_mean, vision_std: Of each channel in [0, 1], as the backbone was trained on them. Pictures come in
            [-1, 1]; where None they stay there.
        gamma1: Factor before the softmax over the regions.
        gamma2: Factor of the cosines before they are summed over a caption's words.
        gamma3: Factor of the similarities before the softmax over the batch.
        released_layout: There is none: DAMSM was released as it was published.

    Example:
        >>> DamsmConfig().pooled_size
        2048
    """

    model_type = "damsm"
    keys_to_ignore_at_inference = ["words", "sentences", "regions", "image_codes"]

    vocab_size: int = 5450
    pad_token_id: int | None = 0
    word_embedding_size: int = 300
    hidden_size: int = 256
    recurrence: Literal["lstm", "gru"] = "lstm"
    word_dropout: float | int = 0.5
    feature_size: int = InceptionV3.region_size
    pooled_size: int | None = None
    vision_image_size: int | None = None
    vision_mean: list | None = None
    vision_std: list | None = None
    gamma1: float | int = 4.0
    gamma2: float | int = 5.0
    gamma3: float | int = 10.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from the vision network."""
        if self.vision_config is None:
            self.feature_size, self.pooled_size = InceptionV3.region_size, InceptionV3.pooled_size
            self.vision_image_size = self.vision_image_size or INCEPTION_IMAGE_SIZE
        super().__post_init__(**kwargs)
        if self.vision_config is not None:
            self.pooled_size = self.feature_size

    def validate_sizes(self) -> None:
        """Check sizes and factors."""
        validate_text_encoder(self)
        for name in ("gamma1", "gamma2", "gamma3"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.vision_image_size is not None and self.vision_image_size < 1:
            raise ConfigurationError(f"vision_image_size is {self.vision_image_size}; it must be at least 1")
        if (self.vision_mean is None) != (self.vision_std is None):
            raise ConfigurationError("vision_mean and vision_std belong together; give both or neither")
        for name in ("vision_mean", "vision_std"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != 3:
                raise ConfigurationError(f"{name} has {len(numbers)} numbers; it must have one for each of 3 channels")

    def validate_released_layout(self) -> None:
        """Refuse a layout that was never released."""
        if self.released_layout:
            raise ConfigurationError("DAMSM was released as published; released_layout belongs in AttnGanConfig")

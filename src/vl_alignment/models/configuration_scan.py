"""Configuration of SCAN (Stacked Cross Attention Network, Lee et al. 2018)."""

from typing import Literal

from .configuration_base import VisionAlignmentConfig, checked_config
from .errors import ConfigurationError

__all__ = ["ScanConfig"]


@checked_config
class ScanConfig(VisionAlignmentConfig):
    """Configuration of SCAN; the defaults are the paper's (SCAN t-i AVG).

    Args:
        vocab_size: Number of word types.
        pad_token_id: The id of padding.
        feature_size: Width of the given region features; taken from `vision_config` where there is one.
        hidden_size: Width d of the joint space.
        word_embedding_size: Width of the word embeddings.
        num_hidden_layers: Layers of the GRU.
        bidirectional: Whether the GRU runs both ways; its two directions are averaged.
        direction: "t2i" (words attend to regions) or "i2t" (regions attend to words).
        score_normalization: What is done to the scores over the queries of each key before the softmax over keys:
            "clipped_l2norm", "l2norm", "softmax", "clipped" or "no_norm" (SCAN's `raw_feature_norm`).
        pooling: How the cosines of a pair's queries become one score: "mean", "sum", "max" or "log_sum_exp".
        lambda_softmax: Inverse temperature of the softmax over keys.
        lambda_lse: Inverse temperature of "log_sum_exp".
        normalize_regions, normalize_words: Whether the embeddings are brought to unit L2 norm.
        margin: Margin of the triplet loss.
        negatives: "hardest" in the batch, or "all" of them.
        vision_config: Configuration of a transformers vision backbone, which then turns `pixel_values` into regions.
        freeze_vision: Whether that backbone stays as it is.
        region_extractor: Name of the plug-in that made the given features, where no backbone travels with the model.
        released_layout: For the functions that transform the key or add a bias, normalise the scores over regions
            instead of words and re-read the transposed buffer, as the authors' release does; `scaled_dot` then divides
            by 32 whatever the width. Only "t2i" was released.

    Example:
        >>> ScanConfig(alignment_function="general_key").alignment_function
        'general_key'
    """

    model_type = "scan"

    alignment_function: str = "cosine"
    vocab_size: int = 8000
    pad_token_id: int | None = 0
    hidden_size: int = 1024
    word_embedding_size: int = 300
    num_hidden_layers: int = 1
    bidirectional: bool = True
    direction: Literal["t2i", "i2t"] = "t2i"
    score_normalization: Literal["clipped_l2norm", "l2norm", "softmax", "clipped", "no_norm"] = "clipped_l2norm"
    pooling: Literal["mean", "sum", "max", "log_sum_exp"] = "mean"
    lambda_softmax: float | int = 9.0
    lambda_lse: float | int = 6.0
    normalize_regions: bool = True
    normalize_words: bool = True
    margin: float | int = 0.2
    negatives: Literal["hardest", "all"] = "hardest"

    def validate_sizes(self) -> None:
        """Check that sizes and inverse temperatures are positive."""
        for name in ("vocab_size", "feature_size", "hidden_size", "word_embedding_size", "num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lambda_softmax", "lambda_lse"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.margin < 0:
            raise ConfigurationError(f"margin is {self.margin}; it must not be negative")

    def validate_released_layout(self) -> None:
        """Refuse a layout that was never released."""
        if self.released_layout and self.direction != "t2i":
            raise ConfigurationError("released_layout reproduces direction 't2i' only; switch one of the two")

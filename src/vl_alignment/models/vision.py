"""Regions of a picture from any transformers vision backbone: the cells of its last feature map, or its patches."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig

from .errors import ConfigurationError

__all__ = ["build_vision_model", "grid_boxes", "grid_of", "grid_regions", "vision_feature_size"]


def build_vision_model(vision_config: Any) -> nn.Module:
    """A backbone with fresh weights from its configuration, without the pooling head where it can be left out."""
    try:
        return AutoModel.from_config(vision_config, add_pooling_layer=False)
    except TypeError:  # a class without that choice; its pooling, if any, has no parameters or a config field
        return AutoModel.from_config(vision_config)


def vision_feature_size(vision_config: PreTrainedConfig) -> int:
    """Width of the regions that a backbone of this configuration gives.

    Raises:
        ConfigurationError: If the configuration states neither `hidden_sizes` nor `hidden_size`.
    """
    if isinstance(getattr(vision_config, "hidden_sizes", None), list | tuple):
        return int(vision_config.hidden_sizes[-1])  # feature maps (ResNet, ConvNeXT)
    if isinstance(getattr(vision_config, "hidden_dim", None), int):
        return int(vision_config.hidden_dim)  # EfficientNet
    if isinstance(getattr(vision_config, "hidden_size", None), int):
        return int(vision_config.hidden_size)  # patches (ViT, SigLIP)
    raise ConfigurationError(
        f"vision_config of type {vision_config.model_type!r} states no width of its features; "
        "use a backbone with `hidden_sizes` or `hidden_size`"
    )


def grid_regions(features: Tensor) -> Tensor:
    """Regions in reading order: a feature map [B, d, h, w] or tokens [B, prefix + h * w, d] -> [B, h * w, d].

    Tokens before the patches (class and register tokens) are left out: the patches fill a square grid.
    """
    if features.dim() == 4:
        return features.flatten(2).transpose(1, 2)
    height, width = grid_of(features)
    return features[:, features.shape[1] - height * width :]


def grid_of(features: Tensor) -> tuple[int, int]:
    """(height, width) of the grid in a feature map [B, d, h, w] or in tokens [B, prefix + h * w, d]."""
    if features.dim() == 4:
        return features.shape[2], features.shape[3]
    side = int(features.shape[1] ** 0.5)
    return side, side


def grid_boxes(height: int, width: int) -> Tensor:
    """Boxes [h * w, 4] of the cells as [x0, y0, x1, y1] in [0, 1], in reading order."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corners = torch.stack([x / width, y / height, (x + 1) / width, (y + 1) / height], dim=-1)
    return corners.reshape(-1, 4)

"""A DAMSM of a few numbers with a backbone of its own, and inputs for it."""

import torch
from transformers import ResNetConfig

from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.modeling_damsm import DamsmModel

from .scan_model import VOCABULARY, caption_ids

FEATURES, HIDDEN, SIDE, CELLS = 6, 8, 24, 9
BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[4, FEATURES], depths=[1, 1], layer_type="basic")  # stride 8


def tiny_config(**fields):
    sizes = {
        "vocab_size": VOCABULARY,
        "word_embedding_size": 5,
        "hidden_size": HIDDEN,
        "word_dropout": 0.0,
        "vision_config": BACKBONE,
        "freeze_vision": False,
        "alignment_function": "general_key",
    }
    return DamsmConfig(**{**sizes, **fields})


def tiny_model(**fields):
    torch.manual_seed(0)
    return DamsmModel(tiny_config(**fields)).eval()


def tiny_inputs(pairs=3, seed=0):
    """As many pictures of nine cells as captions of three, four, ... words."""
    ids, mask = caption_ids(*(3 + index for index in range(pairs)), seed=seed)
    pixels = torch.rand(pairs, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def tiny_features(pictures=3, seed=0):
    """What a frozen network made of pictures earlier."""
    generator = torch.Generator().manual_seed(seed)
    regions = torch.randn(pictures, CELLS, FEATURES, generator=generator)
    return {"region_features": regions, "pooled_features": torch.randn(pictures, FEATURES, generator=generator)}

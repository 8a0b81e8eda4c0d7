"""An AttnGAN of a few numbers, of three stages of 8, 16 and 32 pixels, and inputs for it."""

import torch

from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration

from .scan_model import VOCABULARY, caption_ids

TEXT, NOISE, CONDITION, SIZE = 8, 5, 4, 32
STAGES = (8, 16, 32)


def tiny_config(**fields):
    sizes = {
        "vocab_size": VOCABULARY,
        "word_embedding_size": 5,
        "hidden_size": TEXT,
        "image_size": SIZE,
        "noise_size": NOISE,
        "conditioning_size": CONDITION,
        "generator_size": 4,
        "discriminator_size": 3,
        "num_residual_blocks": 1,
        "alignment_function": "general_key",
    }
    return AttnGanConfig(**{**sizes, **fields})


def tiny_model(**fields):
    torch.manual_seed(0)
    return AttnGanForTextToImageGeneration(tiny_config(**fields)).eval()


def tiny_inputs(captions=3, seed=0):
    """Captions of three, four, ... words, and the noise of a picture each."""
    ids, mask = caption_ids(*(3 + index for index in range(captions)), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    noise, condition = (torch.randn(captions, size, generator=generator) for size in (NOISE, CONDITION))
    return {"input_ids": ids, "attention_mask": mask, "noise": noise, "conditioning_noise": condition}

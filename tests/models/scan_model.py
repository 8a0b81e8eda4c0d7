"""A SCAN of a few numbers, and inputs for it."""

import torch

from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval

VOCABULARY, FEATURES, HIDDEN = 20, 6, 8


def tiny_config(**fields):
    sizes = {
        "vocab_size": VOCABULARY,
        "feature_size": FEATURES,
        "hidden_size": HIDDEN,
        "word_embedding_size": 5,
        "alignment_function": "general_key",
    }
    return ScanConfig(**{**sizes, **fields})


def tiny_model(**fields):
    torch.manual_seed(0)
    return ScanForImageTextRetrieval(tiny_config(**fields)).eval()


def caption_ids(*lengths, seed=0):
    """Random captions of these lengths, padded on the right: input_ids and attention_mask [C, L]."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(1, VOCABULARY, mask.shape, generator=generator)
    return ids * mask, mask.long()


def tiny_inputs(pairs=3, seed=0):
    """As many pictures of four regions as captions of three, four, ... words."""
    ids, mask = caption_ids(*(3 + index for index in range(pairs)), seed=seed)
    features = torch.randn(pairs, 4, FEATURES, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": mask, "region_features": features}

"""What tells one trained model from another."""

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["model_fingerprint"]

# Where a configuration was saved, and by what: the same model elsewhere is the same model.
NO_PART_OF_THE_MODEL = ("_name_or_path", "transformers_version", "architectures", "dtype")


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return 16 hexadecimal digits of a SHA-256 over the configuration and all weights, their names and types."""
    digest = hashlib.sha256(json.dumps(_own_fields(model.config.to_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return digest.hexdigest()[:16]


def _own_fields(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {name: _own_fields(value) for name, value in content.items() if name not in NO_PART_OF_THE_MODEL}

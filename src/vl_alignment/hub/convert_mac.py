"""The published PyTorch MAC's checkpoints, `checkpoint_*.model`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.configuration_mac import MacConfig
from ..models.modeling_mac import MacForQuestionAnswering
from ..models.processing_mac import MacProcessor
from .published_vocabulary import mac_vocabulary
from .published_weights import (
    Conversion,
    ConversionRequest,
    PublishedCheckpoint,
    fit_tensors,
    load_fitted,
    tensor_size,
)

__all__ = ["convert_mac", "mac_name", "mac_tensor", "mac_unused"]

_LAYERS = {
    "embed": "model.question_encoder.embedding",
    "lstm": "model.question_encoder.lstm",
    "lstm_proj": "model.question_encoder.projection",
    "conv.0": "model.stem.convolutions.0",
    "conv.2": "model.stem.convolutions.1",
    "classifier.0": "classifier.hidden",
    "classifier.2": "classifier.output",
    "mac.control.position_aware": "model.cell.control_unit.position_aware",
    "mac.control.control_question": "model.cell.control_unit.feedback",
    "mac.control.attn": "model.cell.control_unit.score.weight",
    "mac.read.mem": "model.cell.read_unit.memory_projection",
    "mac.read.concat": "model.cell.read_unit.interaction",
    "mac.read.attn": "model.cell.read_unit.score.weight",
    "mac.write.concat": "model.cell.write_unit.combine",
    "mac.write.attn": "model.cell.write_unit.self_score",
    "mac.write.mem": "model.cell.write_unit.previous_memories",
    "mac.write.control": "model.cell.write_unit.gate",
}
_STATES = {"mac.mem_0": "model.cell.initial_memory", "mac.control_0": "model.cell.initial_control"}


def mac_name(published: str) -> str | None:
    """`mac.read.mem.weight` -> the name of our parameter; None where there is none."""
    if published in _STATES:
        return _STATES[published]
    for layer in sorted(_LAYERS, key=len, reverse=True):
        if published.startswith(f"{layer}."):
            return _LAYERS[layer] + published.removeprefix(layer)
    return None


def mac_tensor(published: str, tensor: Tensor) -> Tensor:
    """A published tensor as ours is laid out: the write unit concatenates [read, memory], ours [memory, read]."""
    if published == "mac.write.concat.weight" and tensor.dim() == 2:
        return torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1)
    return tensor[0] if published in _STATES and tensor.dim() == 2 else tensor


def mac_unused(published: str) -> str | None:
    """Why we have no use for a published tensor; None where we have."""
    if published.startswith("mac.") and published.endswith(".attn.bias"):
        return "one number for all scores, which the softmax cancels"
    return None


def convert_mac(checkpoints: Sequence[PublishedCheckpoint], request: ConversionRequest) -> Conversion:
    """Convert MAC; the size of the grid, which convolutions do not show, is a field (14).

    Raises:
        CheckpointError: As of `fit_tensors`.
        ConfigurationError: If the alignment function is missing or a field is wrong.
        DataError: If the vocabulary is damaged or of another size.
    """
    (checkpoint,) = checkpoints
    names = checkpoint.tensors
    fields: dict[str, Any] = {
        "cell": "pytorch",
        "vocab_size": tensor_size(checkpoint, "embed.weight", 0),
        "word_embedding_size": tensor_size(checkpoint, "embed.weight", 1),
        "feature_size": tensor_size(checkpoint, "conv.0.weight", 1),
        "stem_kernel_size": tensor_size(checkpoint, "conv.0.weight", 2),
        "hidden_size": tensor_size(checkpoint, "conv.0.weight", 0),
        "num_steps": sum(name.startswith("mac.control.position_aware.") and name.endswith(".weight") for name in names),
        "self_attention": "mac.write.attn.weight" in names,
        "memory_gate": "mac.write.control.weight" in names,
    }
    num_labels = tensor_size(checkpoint, "classifier.2.weight", 0)
    processor, answers = None, [f"LABEL_{number}" for number in range(num_labels)]
    if request.vocabulary is not None:
        tokenizer, answers = mac_vocabulary(request.vocabulary, fields["vocab_size"], num_labels)
        processor = MacProcessor(tokenizer=tokenizer)
    fields |= {"id2label": dict(enumerate(answers)), "label2id": {word: n for n, word in enumerate(answers)}}
    model = MacForQuestionAnswering(MacConfig(**{**fields, **request.fields, **request.alignment_fields()}))
    fitted = fit_tensors(checkpoint, model, mac_name, mac_unused, lambda name, tensor, _: mac_tensor(name, tensor))
    load_fitted(model, fitted)
    return Conversion(model, {checkpoint.path: fitted}, processor)

"""What all conversions share: reading published checkpoints safely, and fitting their tensors to our models by name."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.restricted_pickle import load_tensors
from ..models.errors import CheckpointError, ConfigurationError, DataError

__all__ = [
    "Conversion",
    "ConversionRequest",
    "FittedTensors",
    "PublishedCheckpoint",
    "alignment_family",
    "fit_tensors",
    "load_fitted",
    "read_published_checkpoint",
    "tensor_size",
]

_CONTAINERS = ("model_state_dict", "state_dict", "model")  # keys under which training scripts keep the weights
_WRAPPERS = ("module.", "model.")  # what DataParallel and MMF put before every name
_SCAN_PARTS = ("img_enc", "txt_enc", "sim_enc")  # SCAN keeps a list of its parts' weights, in this order


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A file of weights as others publish it.

    Attributes:
        path: The file.
        tensors: By their published names, without what wraps all of them.
        options: Stored beside them; empty where there are none.
    """

    path: Path
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConversionRequest:
    """What the user says about checkpoints, which mostly do not say it themselves.

    Attributes:
        alignment_function: One of ours; None takes what the checkpoint states.
        alignment_activation: Of an activated function.
        released_layout: Compute as the authors' code does.
        vocabulary: The published file of words.
        tokenizer: A folder or Hub id of the text encoder's tokenizer (M4C).
        fields: Further fields of the configuration, which weights do not show.
    """

    alignment_function: str | None = None
    alignment_activation: str | None = None
    released_layout: bool = False
    vocabulary: Path | None = None
    tokenizer: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def alignment_fields(self) -> dict[str, Any]:
        """The fields of the configuration that say which function it is.

        Raises:
            ConfigurationError: If no function is named.
        """
        if self.alignment_function is None:
            raise ConfigurationError(
                "these weights do not say which alignment function they were trained with; give --alignment-function"
            )
        fields = {"alignment_function": self.alignment_function, "released_layout": self.released_layout}
        if self.alignment_activation is not None:
            fields["alignment_activation"] = self.alignment_activation
        return fields


@dataclass
class FittedTensors:
    """Published tensors under the names of ours.

    Attributes:
        state: For `load_state_dict`.
        taken: Published names -> ours.
        left: Published names -> why they have no place.
    """

    state: dict[str, Tensor]
    taken: dict[str, str]
    left: dict[str, str]


@dataclass
class Conversion:
    """A converted model.

    Attributes:
        model: With the published weights.
        fitted: Of every file, what was taken and what was left.
        processor: Where a vocabulary was given.
        options: What the files themselves stated and the configuration follows.
        beside: Further models, each for a folder of this name within the model's.
    """

    model: Any
    fitted: dict[Path, FittedTensors]
    processor: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)


def read_published_checkpoint(path: str | Path) -> PublishedCheckpoint:
    """Read a checkpoint without running what is in it.

    Raises:
        CheckpointError: If the file is missing, damaged, names anything beyond tensors, plain containers and
            `argparse.Namespace`, or holds no weights by name.
    """
    path = Path(path)
    try:
        content = load_tensors(path)
    except DataError as error:
        raise CheckpointError(str(error).removeprefix(f"{path}: "), path=path) from error
    stored = content.get("opt") if isinstance(content, dict) else None
    options = dict(vars(stored)) if isinstance(stored, argparse.Namespace) else {}
    tensors = _tensors(content)
    if odd := [name for name, tensor in tensors.items() if tensor.layout is not torch.strided or tensor.is_meta]:
        raise CheckpointError(f"tensor {odd[0]} does not hold its numbers one by one", path=path)
    if not tensors:
        raise CheckpointError("holds no tensors by name; give a file of a model's state_dict", path=path)
    return PublishedCheckpoint(path, _unwrapped(tensors), options)


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors by name, in whichever of the usual containers they lie."""
    if not isinstance(content, dict):
        return {}
    inner = next((content[name] for name in _CONTAINERS if isinstance(content.get(name), dict | list)), content)
    if isinstance(inner, list):
        parts = dict(zip(_SCAN_PARTS, inner, strict=False)) if len(inner) <= len(_SCAN_PARTS) else {}
        inner = {
            f"{part}.{name}": value
            for part, tensors in parts.items()
            if isinstance(tensors, dict)
            for name, value in _unwrapped(tensors).items()
        }
    return {name: value.detach() for name, value in inner.items() if isinstance(name, str) and torch.is_tensor(value)}


def _unwrapped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    tensors = dict(tensors)
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def tensor_size(checkpoint: PublishedCheckpoint, name: str, dimension: int) -> int:
    """The size of a tensor that says something about the configuration.

    Raises:
        CheckpointError: If there is no such tensor, it has fewer dimensions, or is said to be larger than what the
            file holds of it.
    """
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"lacks the tensor {name}; it is damaged or of another model", path=checkpoint.path)
    if tensor.dim() <= dimension:
        raise CheckpointError(
            f"tensor {name} is {tuple(tensor.shape)}; it needs {dimension + 1} dimensions", path=checkpoint.path
        )
    if tensor.nbytes > tensor.untyped_storage().nbytes():  # a model of this size might fill the memory
        raise CheckpointError(
            f"tensor {name} is said to be {tuple(tensor.shape)}, and holds fewer numbers", path=checkpoint.path
        )
    return tensor.shape[dimension]


def alignment_family(function: str) -> str | None:
    """What a published layer is called by: general, biased_general, activated_general; None of a function without W."""
    family, _, side = function.rpartition("_")
    return family if side in ("key", "query") else None


def fit_tensors(
    checkpoint: PublishedCheckpoint,
    module: nn.Module,
    our_name: Callable[[str], str | None],
    unused: Callable[[str], str | None],
    prepare: Callable[[str, Tensor, torch.Size], Tensor] | None = None,
) -> FittedTensors:
    """Find the place of every published tensor in a module of ours.

    Args:
        checkpoint: The file.
        module: Which needs a tensor for each of its parameters and buffers.
        our_name: The name in the module of a published one; None where nothing of ours is called so.
        unused: Why a published tensor without a place is left out; None where it ought to have one.
        prepare: Brings a tensor to our shape, where it is laid out differently.

    Raises:
        CheckpointError: If a tensor has another shape, is not finite, has no place, or is missing; by its name.
    """
    expected = module.state_dict()
    fitted = FittedTensors({}, {}, {})
    for name, published in checkpoint.tensors.items():
        ours, reason = our_name(name), unused(name)
        if reason is not None or ours not in expected or ours is None:
            if reason is None:
                raise CheckpointError(
                    f"tensor {name} {tuple(published.shape)} has no place in a {type(module).__name__} of this "
                    "configuration; the file is of another model, or the configuration is not its own",
                    path=checkpoint.path,
                )
            fitted.left[name] = reason
            continue
        target = expected[ours]
        tensor = published if prepare is None else prepare(name, published, target.shape)
        if tensor.shape != target.shape:
            raise CheckpointError(
                f"tensor {name} is {tuple(published.shape)}, {ours} needs {tuple(target.shape)}", path=checkpoint.path
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name} holds numbers that are not finite", path=checkpoint.path)
        fitted.state[ours] = tensor.to(target.dtype)
        fitted.taken[name] = ours
    # How many batches a normalisation has seen: old files lack it, and nothing here reads it.
    missing = [name for name in expected if name not in fitted.state and not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"lacks {len(missing)} tensor(s) of a {type(module).__name__} of this configuration, first the one for "
            f"{missing[0]} {tuple(expected[missing[0]].shape)}",
            path=checkpoint.path,
        )
    return fitted


def load_fitted(module: nn.Module, fitted: FittedTensors) -> None:
    """Put fitted tensors into the module that they were fitted to."""
    module.load_state_dict({**module.state_dict(), **fitted.state})

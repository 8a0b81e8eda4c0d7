"""What the models of this package share: strict loading, and starting values."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .alignment import AlignmentFunction
from .errors import CheckpointError, VlAlignmentError

__all__ = ["AlignmentPreTrainedModel"]


class AlignmentPreTrainedModel(PreTrainedModel):
    """Base of the models: a `PreTrainedModel` that refuses weights which do not fit."""

    base_model_prefix = "model"

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, allow_partial: bool = False, **kwargs: Any
    ) -> Any:
        """Load weights and configuration, as transformers does, but strictly.

        Args:
            pretrained_model_name_or_path: A folder or a Hub repository id.
            model_args: Passed on.
            allow_partial: Accept missing, unexpected or mis-shaped tensors, as transformers does behind a table:
                `dot` weights in a `general_key` model would leave W at random.
            kwargs: Passed on; see `PreTrainedModel.from_pretrained`.

        Raises:
            CheckpointError: If files are missing or damaged, tensors are missing, unexpected, of another shape or not
                finite. The original error is the cause.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["ignore_mismatched_sizes"] = True  # they are reported below, by name
        try:
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except VlAlignmentError:
            raise
        except Exception as error:  # what safetensors, torch and the Hub client raise has no common base
            reason = " ".join(str(error).split())[:500]
            raise CheckpointError(
                f"cannot be loaded as {cls.__name__}: {reason}", path=pretrained_model_name_or_path
            ) from error
        model, info = loaded
        if not allow_partial:
            _refuse_misfits(model, info, pretrained_model_name_or_path)
        return (model, info) if wants_info else model

    def _init_weights(self, module: nn.Module) -> None:
        """Draw starting values; an alignment function draws its own without moving the shared random numbers."""
        if isinstance(module, AlignmentFunction):
            module.reset_parameters()
        elif isinstance(module, nn.GRU):
            bound = module.hidden_size**-0.5  # as torch's own
            for parameter in module.parameters(recurse=False):
                init.uniform_(parameter, -bound, bound)
        else:
            super()._init_weights(module)


def _refuse_misfits(model: nn.Module, info: dict[str, Any], path: Any) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(key) for key in info.get(kind) or ())
        if names:
            raise CheckpointError(
                f"{len(names)} {kind.replace('_keys', '')} tensor(s) for {type(model).__name__}, first {names[0]}; the "
                "weights are of another model or alignment function (allow_partial=True loads what fits)",
                path=path,
            )
    for name, tensor in model.state_dict().items():  # buffers as well: the statistics of a backbone
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name} holds numbers that are not finite; the training diverged", path=path)

"""What the models of this package share: strict loading, starting values, and a vision backbone of their own."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .alignment import AlignmentFunction
from .errors import CheckpointError, ConfigurationError, VlAlignmentError
from .vision import build_vision_model, grid_regions

__all__ = ["AlignmentPreTrainedModel", "VisionAlignmentModel"]


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
        except VlAlignmentError as error:  # of a configuration, which does not know where it is from
            if str(pretrained_model_name_or_path) in str(error):
                raise
            raise type(error)(f"{pretrained_model_name_or_path}: {error}") from error
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


class VisionAlignmentModel(AlignmentPreTrainedModel):
    """Base of the models that turn pictures into regions by a backbone that travels with them, where there is one."""

    vision_model: nn.Module | None

    def build_backbone(self) -> None:
        """Set `vision_model` as the configuration says; a model's `__init__` calls this first."""
        self.vision_model = None
        if self.config.vision_config is not None:
            self.vision_model = build_vision_model(self.config.vision_config)
            self.vision_model.requires_grad_(not self.config.freeze_vision)

    def train(self, mode: bool = True) -> Any:
        """Keep a frozen backbone in evaluation mode, since its batch statistics belong to its weights.

        `from_pretrained` makes new parameters and then calls this: they are frozen here once more.
        """
        super().train(mode)
        if self.vision_model is not None and self.config.freeze_vision:
            self.vision_model.eval().requires_grad_(False)
        return self

    def extract_regions(self, pixel_values: Tensor) -> Tensor:
        """Pictures [I, 3, H, W] -> region features [I, R, feature_size] of the model's own backbone.

        Raises:
            ConfigurationError: If the model has no backbone.
        """
        if self.vision_model is None:
            extractor = self.config.region_extractor or "an extractor of your own"
            raise ConfigurationError(
                f"this model has no vision backbone; give region_features (made with {extractor}) or set vision_config"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_vision):
            return grid_regions(self.vision_model(pixel_values).last_hidden_state)


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

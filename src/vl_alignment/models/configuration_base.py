"""What the configurations of the models share: the alignment fields, the vision backbone, and the checks."""

import difflib
import functools
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .alignment import ACTIVATIONS, alignment_specification
from .errors import ConfigurationError
from .vision import vision_feature_size

__all__ = ["AlignmentConfig", "VisionAlignmentConfig", "checked_config"]

# What transformers itself writes into a config.json or passes along, beside the declared fields.
_KEYS_OF_TRANSFORMERS = {
    *("attn_implementation", "auto_map", "custom_pipelines", "experts_implementation", "model_type", "name_or_path"),
    *("num_labels", "output_attentions", "per_layer_config", "torch_dtype", "use_cache"),
}


def checked_config(cls: type) -> Any:
    """`@strict` for a configuration whose errors are `ConfigurationError` (transformers needs it on each subclass)."""
    cls = strict(cls)
    unchecked_init = cls.__init__  # type: ignore[misc]

    @functools.wraps(unchecked_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            unchecked_init(self, *args, **kwargs)
        except StrictDataclassError as error:
            cause = error.__cause__
            reason = str(cause) if isinstance(cause, ConfigurationError) else " ".join(str(error).split())
            raise ConfigurationError(f"{cls.__name__}: {reason}") from error

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@checked_config
class AlignmentConfig(PreTrainedConfig):
    """Base of the configurations.

    Args:
        alignment_function: The name of a row of `ALIGNMENT_FUNCTIONS`, or of a function you registered.
        alignment_activation: What an activated function applies: "relu" (the paper), "leaky_relu", "tanh", "sigmoid"
            (the authors' release for CUB).
        alignment_initialization: Where a learned function's own W and b start: "linear" (as `nn.Linear`, the authors'
            release) or "identity" (as the dot product).
        released_layout: Compute what the authors' released code computes, faults included; see each model's config.
        config_version: The version of the fields' meaning, written by the library.

    Raises:
        ConfigurationError: If a value has the wrong type or is no choice, or a keyword is unknown.
    """

    released_beyond_the_paper: ClassVar[tuple[str, ...]] = ()  # functions that only a model's released code has

    alignment_function: str = "dot"
    alignment_activation: str = "relu"
    alignment_initialization: str = "linear"
    released_layout: bool = False
    config_version: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse unknown keywords, which transformers would keep silently."""
        fields = set(type(self).__dataclass_fields__)
        unknown = [key for key in kwargs if key not in _KEYS_OF_TRANSFORMERS and not key.startswith("_")]
        if unknown and self.config_version <= 1:
            close = difflib.get_close_matches(unknown[0], fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"{type(self).__name__} has no field {unknown[0]!r}{hint}")
        super().__post_init__(**kwargs)

    def validate_alignment(self) -> None:
        """Check the alignment fields against the table."""
        if self.config_version > 1:
            raise ConfigurationError(
                f"this config has version {self.config_version}, newer than this vl-alignment reads (1); update it"
            )
        specification = alignment_specification(self.alignment_function)
        if self.alignment_activation not in ACTIVATIONS:
            raise ConfigurationError(
                f"alignment_activation {self.alignment_activation!r} is unknown; choose one of {', '.join(ACTIVATIONS)}"
            )
        if self.alignment_initialization not in ("linear", "identity"):
            raise ConfigurationError(
                f"alignment_initialization {self.alignment_initialization!r} is neither 'linear' nor 'identity'"
            )
        released = specification.published or self.alignment_function in self.released_beyond_the_paper
        if self.released_layout and not released:
            raise ConfigurationError(
                f"released_layout reproduces the authors' code, which has no {self.alignment_function!r}; switch it off"
            )


@checked_config
class VisionAlignmentConfig(AlignmentConfig):
    """Base of the configurations whose models read regions, given as features or made by a backbone of their own.

    Args:
        feature_size: Width of the given region features; taken from `vision_config` where there is one.
        vision_config: Configuration of a transformers vision backbone, which then turns `pixel_values` into regions.
        freeze_vision: Whether that backbone stays as it is.
        region_extractor: Name of the plug-in that made the given features, where no backbone travels with the model.
    """

    feature_size: int = 2048
    vision_config: dict | PreTrainedConfig | None = None
    freeze_vision: bool = True
    region_extractor: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the nested vision configuration and take the feature size from it."""
        if isinstance(self.vision_config, dict):
            settings = dict(self.vision_config)
            model_type = settings.pop("model_type", None)
            if model_type not in CONFIG_MAPPING:
                raise ConfigurationError(
                    f"vision_config has model_type {model_type!r}; give that of a vision model of transformers"
                )
            self.vision_config = AutoConfig.for_model(model_type, **settings)
        if self.vision_config is not None:
            self.feature_size = vision_feature_size(self.vision_config)
        super().__post_init__(**kwargs)

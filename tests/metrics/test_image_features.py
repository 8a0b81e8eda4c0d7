import hashlib
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tests.metrics.tiny_network import TinyNetwork
from transformers import ResNetConfig, ResNetModel

from vl_alignment.data.grid_extractor import TransformersGridExtractor
from vl_alignment.metrics.image_features import load_feature_network, tensors_sha256
from vl_alignment.models.errors import CheckpointError, ConfigurationError, DataError, HubError
from vl_alignment.models.inception_v3 import InceptionV3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with the tensors of the FID network, random."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(InceptionV3("fid", 1008).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_fid_network_states_its_weights_and_looks_at_8_bit_pictures_of_299_pixels(weights, images):
    network = load_feature_network(weights)
    assert (network.name, network.distance_name, network.score_name) == ("inception-v3 (fid)", "fid", "inception_score")
    assert network.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert network.num_features == 2048 and "299 x 299, bilinear" in network.resize

    pixels = ((images + 1) * 127.5).round() / 127.5 - 1
    resized = F.interpolate(pixels, size=(299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = network.network(resized).pooled
    features = network(images)
    torch.testing.assert_close(features, expected)
    # As published, the logits of its inception score have no bias.
    torch.testing.assert_close(network.classify(features), features @ network.network.fc.weight.T)


def test_other_weights_go_by_another_name(tmp_path):
    network = InceptionV3("torchvision", 200)
    torch.save(network.state_dict(), tmp_path / "cub.pth")
    loaded = load_feature_network(tmp_path, variant="torchvision")  # the only file of the folder
    assert loaded.name == "inception-v3 (torchvision, 200 classes)"
    assert (loaded.distance_name, loaded.score_name) == ("feature_distance", "inception_score")
    features = torch.randn(3, 2048)
    torch.testing.assert_close(loaded.classify(features), loaded.network.fc(features))
    with pytest.raises(CheckpointError, match="200 classes and FID's network 1008"):
        load_feature_network(tmp_path / "cub.pth")


def test_hub_repository_from_the_cache(weights):
    repository = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--owner--fid"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / weights.name).symlink_to(weights)
    assert load_feature_network("owner/fid").weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_any_transformers_backbone(tmp_path, images):
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path)
    network = load_feature_network(tmp_path)
    assert network.name == f"resnet ({tmp_path})" and network.num_features == 6
    assert (network.distance_name, network.score_name) == ("feature_distance", None)
    pictures = [Image.fromarray(np.uint8(((image + 1) * 127.5).round().permute(1, 2, 0).numpy())) for image in images]
    regions, _ = TransformersGridExtractor(tmp_path)(pictures)
    np.testing.assert_allclose(network(images).numpy(), regions.mean(axis=1), rtol=1e-5)


def test_hash_is_that_of_names_and_values():
    network = torch.nn.Linear(2, 2)
    same = torch.nn.Linear(2, 2)
    assert tensors_sha256(network) != tensors_sha256(same)
    same.load_state_dict(network.state_dict())
    assert tensors_sha256(network) == tensors_sha256(same)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc.weight": torch.ones(())}, "fc.weight is said to be"),
        ({"fc.weight": torch.ones(1).expand(10**9, 2048)}, "fc.weight is said to be"),
        ({"fc.weight": torch.ones(0, 2048)}, "fc.weight is said to be"),
        ({("fc", "weight"): torch.ones(2)}, "more than tensors by name"),
        ({"fc.weight": torch.eye(3).to_sparse()}, "more than tensors by name"),
        ({"a": torch.empty(3, device="meta")}, "more than tensors by name"),
    ],
)
def test_hostile_weights_are_named(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match=rf"hostile\.pth: .*{message}"):
        load_feature_network(tmp_path / "hostile.pth", variant="torchvision")


def test_unusable_weights_are_named(tmp_path, weights):
    with pytest.raises(ConfigurationError, match="'keras'"):
        load_feature_network(weights, variant="keras")
    with pytest.raises(HubError, match="no such file or folder, and no repository"):
        load_feature_network("owner/nothing-of-the-kind")
    with pytest.raises(CheckpointError, match="found none"):
        load_feature_network(tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut.safetensors: the weights cannot be read"):
        load_feature_network(tmp_path)
    torch.save({"state": {"fc.weight": torch.ones(1)}}, tmp_path / "nested.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors by name"):
        load_feature_network(tmp_path / "nested.pt")
    with pytest.raises(CheckpointError, match=r"found cut.safetensors, nested.pt"):
        load_feature_network(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "must be floats"),
        (torch.zeros(2, 1, 8, 8), "must be floats"),
        (torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 2.0)]), "record 1: the picture has values beyond"),
        (torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), torch.nan)]), "record 1: the picture has values"),
    ],
)
def test_unusable_pictures_are_named(pictures, message):
    with pytest.raises(DataError, match=message):
        TinyNetwork()(pictures)

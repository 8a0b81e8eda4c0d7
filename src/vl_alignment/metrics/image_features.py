"""Networks whose features pictures are compared by: Inception-v3 with published weights, or one under another name.

A Frechet distance is only called `fid` with the network that FID was defined with. Any other network, however good, has
another scale: its distance is a `feature_distance`, and the result says of which network.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from ..data.grid_extractor import TransformersGridExtractor
from ..data.restricted_pickle import load_tensors
from ..models.errors import CheckpointError, ConfigurationError, DataError, HubError
from ..models.inception_v3 import INCEPTION_IMAGE_SIZE, InceptionV3

__all__ = [
    "BackboneFeatures",
    "FeatureNetwork",
    "InceptionPictureFeatures",
    "load_feature_network",
    "tensors_sha256",
]

FID_CLASSES = 1008
_WEIGHTS = ("*.safetensors", "*.pth", "*.pt")


class FeatureNetwork(nn.Module):
    """What turns pictures into the features that they are compared by; never trained here.

    Subclasses define `features` and, where classes are known, `classify`. Pictures become 8-bit pixels first, as
    if they had been saved: real pictures are no others.

    Args:
        name: Of the network with its weights, in the results.
        weights_sha256: Of the weights' file, or of the tensors where there is none.
        num_features: Width of the features.
        resize: How pictures are brought to the network's size, in words.

    Attributes:
        distance_name: What the Frechet distance of its features is called.
        score_name: What the inception score of its classes is called; None where it has no classes.
    """

    distance_name = "feature_distance"
    score_name: str | None = None

    def __init__(self, name: str, weights_sha256: str, num_features: int, resize: str) -> None:
        super().__init__()
        self.name, self.weights_sha256 = name, weights_sha256
        self.num_features, self.resize = num_features, resize

    def features(self, images: Tensor) -> Tensor:
        """8-bit pictures in [-1, 1] [B, 3, H, W] -> [B, num_features]."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Features [B, num_features] -> class logits [B, classes]; where `score_name` is not None."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """RGB pictures in [-1, 1] [B, 3, H, W] -> float32 [B, num_features].

        Raises:
            DataError: They are no such pictures, or a picture or its features are not finite.
        """
        if not images.is_floating_point() or images.dim() != 4 or images.shape[1] != 3:
            raise DataError(f"pictures must be floats [B, 3, H, W], not {images.dtype} {tuple(images.shape)}")
        outside = ~(images.abs() <= 1.001).flatten(1).all(dim=1)  # NaN as well
        if outside.any():
            raise DataError("the picture has values beyond [-1, 1]; scale it", record=int(outside.nonzero()[0]))
        images = images.to(next(self.parameters(), images).device, torch.float32)
        features = self.eval().features(((images + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1).float()
        finite = torch.isfinite(features).all(dim=1)
        if not finite.all():
            raise DataError(f"the picture has no finite features by {self.name}", record=int((~finite).nonzero()[0]))
        return features


class InceptionPictureFeatures(FeatureNetwork):
    """Inception-v3's pooled features [B, 2048] and its classes.

    Args:
        network: With its weights. The "fid" variant gives `fid` and the published inception score, whose logits have no
            bias; the "torchvision" variant (weights trained on ImageNet or fine-tuned on CUB) gives a
            `feature_distance`, and an `inception_score` by its own classes.
        weights_sha256: Of the file.
    """

    def __init__(self, network: InceptionV3, weights_sha256: str) -> None:
        classes = None if network.fc is None else network.fc.out_features
        fid = network.variant == "fid"
        name = "inception-v3 (fid)" if fid else f"inception-v3 (torchvision, {classes or 'no'} classes)"
        size = INCEPTION_IMAGE_SIZE
        resize = f"to {size} x {size}, bilinear, no antialiasing, 8 bits a channel (RGB) before"
        super().__init__(name, weights_sha256, network.pooled_size, resize)
        self.network = network.eval().requires_grad_(False)
        self.distance_name = "fid" if fid else "feature_distance"
        self.score_name = None if classes is None else "inception_score"

    def features(self, images: Tensor) -> Tensor:
        """Mean over the last grid."""
        size = (INCEPTION_IMAGE_SIZE, INCEPTION_IMAGE_SIZE)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.network(images).pooled

    def classify(self, features: Tensor) -> Tensor:
        """Logits; those of the FID network without bias, as the published score has them."""
        classifier = self.network.fc
        if classifier is None:
            raise ConfigurationError(f"{self.name} was loaded without a classifier, so it has no inception score")
        return F.linear(features, classifier.weight, None if self.network.variant == "fid" else classifier.bias)


class BackboneFeatures(FeatureNetwork):
    """The mean over the regions of any transformers vision backbone, looked at as `TransformersGridExtractor` does.

    Args:
        extractor: The backbone.
        source: Where it is from, for its name.
    """

    def __init__(self, extractor: TransformersGridExtractor, source: str) -> None:
        size = extractor.image_size
        resize = f"to {size} x {size}, bicubic with antialiasing, 8 bits a channel (RGB) before"
        digest = tensors_sha256(extractor.network)
        super().__init__(f"{extractor.network.config.model_type} ({source})", digest, extractor.feature_size, resize)
        self.extractor, self.network = extractor, extractor.network

    def features(self, images: Tensor) -> Tensor:
        """Mean over the regions."""
        self.extractor.device = images.device  # where the network was moved
        pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        regions, _ = self.extractor([Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels])
        return torch.from_numpy(regions).mean(dim=1).to(images.device)


def load_feature_network(source: str | Path, *, variant: str = "fid", revision: str | None = None) -> FeatureNetwork:
    """Load the network that pictures are compared by.

    Args:
        source: A file of Inception-v3's weights (`.safetensors`, `.pth`, `.pt`, under torchvision's names; of the
            published FID weights, `pt_inception-2015-12-05`, the SHA-256 begins with 6726825d), a folder with one such
            file, a folder of a transformers backbone (`config.json`), or a Hub repository of either kind.
        variant: Of Inception-v3, "fid" or "torchvision".
        revision: Of the Hub repository.

    Raises:
        CheckpointError: The weights are missing, damaged or of another network.
        ConfigurationError: The variant or the backbone is unknown.
        HubError: The repository cannot be read.
    """
    path = Path(source)
    if not path.exists():
        path = _download(str(source), revision)
    if path.is_dir() and (path / "config.json").exists():
        return BackboneFeatures(TransformersGridExtractor(path), str(source))
    return InceptionPictureFeatures(*_load_inception(_weights_file(path), variant))


def tensors_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers by name, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def _load_inception(file: Path, variant: str) -> tuple[InceptionV3, str]:
    """Return the network and the SHA-256 of its file."""
    try:
        tensors = load_file(file) if file.suffix == ".safetensors" else load_tensors(file)
    except Exception as error:  # safetensors raises errors of its own
        reason = str(error).strip()
        raise CheckpointError(f"the weights cannot be read ({reason}); fetch them again", path=file) from error
    named = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not named or not all(_is_plain(tensor) for tensor in tensors.values()):
        raise CheckpointError("the file holds more than tensors by name; save the state dict alone", path=file)
    classes = _classes(tensors["fc.weight"], file) if "fc.weight" in tensors else None
    if variant == "fid" and classes not in (None, FID_CLASSES):
        raise CheckpointError(
            f"these weights know {classes} classes and FID's network {FID_CLASSES}; use variant='torchvision', whose "
            "distance goes by another name",
            path=file,
        )
    network = InceptionV3(variant, classes)  # type: ignore[arg-type]
    network.load_published(tensors, path=file)
    return network, hashlib.sha256(file.read_bytes()).hexdigest()


def _is_plain(tensor: object) -> bool:
    """Whether it is a tensor that holds its numbers one by one."""
    return isinstance(tensor, Tensor) and tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)


def _classes(weight: Tensor, file: Path) -> int:
    """Return how many classes a classifier has: as many as the file holds numbers for, whatever it says."""
    if weight.dim() != 2 or weight.nbytes > weight.untyped_storage().nbytes() or not len(weight):
        shape = tuple(weight.shape)
        raise CheckpointError(f"tensor fc.weight is said to be {shape}, and holds no such matrix", path=file)
    return len(weight)


def _weights_file(path: Path) -> Path:
    """Return a file of weights: the path itself, or the only such file in a folder."""
    if path.is_file():
        return path
    files = sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise CheckpointError(f"there must be one file of weights ({', '.join(_WEIGHTS)}), found {names}", path=path)
    return files[0]


def _download(repo_id: str, revision: str | None) -> Path:
    """Return the folder of a Hub repository's weights in the local cache."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=["*.json", *_WEIGHTS]))
    except Exception as error:  # the hub client raises errors of several libraries
        reason = str(error).strip().split("\n")[0]
        raise HubError(
            f"there is no such file or folder, and no repository that can be read ({reason})", repo_id=repo_id
        ) from error

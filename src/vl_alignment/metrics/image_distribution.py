"""How far generated pictures are from real ones: Frechet distance and inception score over torchmetrics' classes.

Both need a network, which is stated with every result: scores of different networks, numbers of pictures, splits or
ways to resize are not comparable.
"""

import warnings
from typing import Any

import datasets
import evaluate
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from ..models.errors import ConfigurationError, DataError
from .image_features import FeatureNetwork
from .packed_rows import pack_rows, unpack_rows

__all__ = ["SPLITS", "ImageDistribution", "frechet_distance", "inception_score"]

SPLITS = 10
"""Parts over which the inception score is averaged, as published (Salimans et al. 2016)."""

_CHUNK = 4096

DESCRIPTION = "Frechet distance between real and generated pictures, and the inception score of the generated ones."

INPUTS = """
Args:
    predictions (float tensor [B, 3, H, W]): RGB pictures in [-1, 1].
    references (list of bool): whether each picture is a real one.
    splits (int): parts over which the inception score is averaged; 10 by default.
    seed (int): of the order in which pictures are divided among the parts; 0 by default.
Returns:
    fid: the Frechet inception distance, with the network that it is defined with; of another network
    feature_distance: the same formula.
    inception_score, inception_score_std: mean and deviation over the parts; with a network that knows classes.
    network, weights_sha256, num_features, resize: what the pictures were looked at with.
    generated_images, real_images, splits, seed: on how many.
"""


class ImageDistribution(evaluate.Metric):
    """Measure generated pictures against real ones.

    The network looks at each batch when it is added; its features are kept, not the pictures. With `num_process=2` (and
    `process_id`, `experiment_id`) each process adds its own pictures and process 0 computes over all of them; the
    others get None.

    Args:
        network: Of `load_feature_network`, or another `FeatureNetwork`.
        settings: Of `evaluate.Metric`.

    Example:
        >>> metric = ImageDistribution(load_feature_network("pt_inception-2015-12-05-6726825d.pth"))  # doctest: +SKIP
        >>> metric.add_batch(predictions=photographs, references=[True] * 64)  # doctest: +SKIP
        >>> metric.add_batch(predictions=generated, references=[False] * 64)  # doctest: +SKIP
        >>> metric.compute()["network"]  # doctest: +SKIP
        'inception-v3 (fid)'
    """

    def __init__(self, network: FeatureNetwork, **settings: Any) -> None:
        super().__init__(**settings)
        self.network = network

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": datasets.Value("binary"), "references": datasets.Value("bool")}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **columns: Any) -> None:
        """Look at the pictures of a batch."""
        real = [bool(value) for value in references]
        if len(predictions) != len(real):
            raise DataError(f"there are {len(real)} references for {len(predictions)} pictures")
        features = self.network(torch.as_tensor(predictions)) if real else []
        super().add_batch(predictions=pack_rows(features), references=real, **columns)

    def add(self, *, prediction: Any = None, reference: Any = None, **columns: Any) -> None:
        """Look at one picture."""
        self.add_batch(predictions=torch.as_tensor(prediction)[None], references=[reference], **columns)

    def _compute(
        self, *, predictions: Any = None, references: Any = None, splits: int = SPLITS, seed: int = 0
    ) -> dict[str, Any]:
        if predictions is None or len(predictions) == 0:
            raise DataError("there are no pictures to measure; add a batch with at least one row before compute()")
        features = torch.from_numpy(unpack_rows(predictions, "features of pictures").copy())
        real = torch.tensor(references, dtype=torch.bool)
        generated = features[~real]
        network = self.network
        result: dict[str, Any] = {network.distance_name: frechet_distance(features[real], generated)}
        if network.score_name is not None:
            device = next((parameter.device for parameter in network.parameters()), generated.device)
            with torch.no_grad():
                logits = torch.cat([network.classify(part.to(device)).cpu() for part in generated.split(_CHUNK)])
            mean, deviation = inception_score(logits, splits=splits, seed=seed)
            result |= {network.score_name: mean, f"{network.score_name}_std": deviation, "splits": splits, "seed": seed}
        stated = ("name", "weights_sha256", "num_features", "resize")
        result |= {"network" if name == "name" else name: getattr(network, name) for name in stated}
        return {**result, "generated_images": len(generated), "real_images": int(real.sum())}


class _Given(nn.Module):
    """Stands for a network that has looked at the pictures already: torchmetrics gets its features, each made once."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """[N, d] -> [N, d]."""
        return features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Frechet distance between two sets of features, each taken as normal: [N, d], [M, d].

    |mean - mean'|^2 + trace(S + S' - 2 (S S')^(1/2)), in float64, with covariances S over N - 1.

    Raises:
        DataError: A set has fewer than two features, or they are of different widths.

    Source: Heusel et al. 2017, by torchmetrics.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.dim() != 2 or len(features) < 2 or features.shape[1] != real.shape[1]:
            raise DataError(
                f"features of {name} pictures are {tuple(features.shape)}: a distance needs two or more pictures "
                "of each kind, and one width"
            )
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    for features, is_real in ((real, True), (generated, False)):
        for part in features.double().split(_CHUNK):
            metric.update(part, real=is_real)
    return float(metric.compute())


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int = 0) -> tuple[float, float]:
    """Inception score of pictures with class logits [N, classes]: exp of the mean KL(p(y | x) || p(y)).

    Args:
        logits: Of N pictures.
        splits: Parts of one size, each with its own p(y); the last N % splits pictures are left out.
        seed: Of the order in which pictures are divided among them.

    Returns:
        Mean and standard deviation over the parts; the deviation of one part is 0.

    Raises:
        ConfigurationError: `splits` is below 1.
        DataError: There are fewer pictures than parts.

    Source: Salimans et al. 2016, by torchmetrics.
    """
    if splits < 1:
        raise ConfigurationError(f"splits={splits} must be 1 or more")
    if len(logits) < splits:
        raise DataError(f"{len(logits)} pictures cannot be divided into {splits} parts; give splits={len(logits)}")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of the memory that logits need, and of the deviation of one part
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=splits)
        # torchmetrics cuts what it cannot divide evenly into fewer parts than it is told.
        metric.update(logits[: len(logits) // splits * splits].double())
        torch.manual_seed(seed)  # torchmetrics draws its order from the global numbers
        mean, deviation = metric.compute()
    return float(mean), float(deviation) if splits > 1 else 0.0

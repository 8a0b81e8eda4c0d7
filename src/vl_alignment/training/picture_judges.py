"""What generated pictures are judged by: a feature network, DAMSM, and where the world is known an attribute reader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..metrics.image_features import FeatureNetwork, tensors_sha256
from ..metrics.text_to_image import CANDIDATES, attribute_accuracy, found_captions, mismatched_captions
from ..models.modeling_damsm import DamsmModel

if TYPE_CHECKING:
    from ..metrics.attribute_accuracy import AttributeReader

__all__ = ["CaptionCodes", "DamsmFeatures", "PictureJudges", "PictureViews"]

CHANCE_OF_TWO = 50.0
SPLITS = 10  # of the inception score, as published


class PictureViews(NamedTuple):
    """What the judges see of N pictures; all on the CPU.

    Attributes:
        features: Of the feature network, float32 [N, F].
        codes: Of DAMSM, float32 [N, d].
        phrase_fits: How well each picture fits every phrase that can be said [N, P]; None without an attribute reader.
    """

    features: Tensor
    codes: Tensor
    phrase_fits: Tensor | None


@dataclass(frozen=True)
class CaptionCodes:
    """The captions of N pictures.

    Attributes:
        image_ids: Of the pictures that they describe.
        texts: The captions.
        sentences: DAMSM's codes, float32 [N, d] on the CPU.
    """

    image_ids: Sequence[str]
    texts: Sequence[str]
    sentences: Tensor


class DamsmFeatures(FeatureNetwork):
    """The vector of the whole picture from DAMSM's image encoder, where no other feature network is given.

    A generator is trained against this network, so that its distances flatter; they go by no other network's name.

    Args:
        damsm: The model.
    """

    def __init__(self, damsm: DamsmModel) -> None:
        resize = f"to {damsm.config.vision_image_size} pixels" if damsm.config.vision_image_size else "none"
        super().__init__("image encoder of the study's DAMSM", tensors_sha256(damsm), damsm.config.hidden_size, resize)
        self.damsm = damsm

    def features(self, images: Tensor) -> Tensor:
        """DAMSM's codes."""
        return self.damsm.encode_images(images).codes


@dataclass
class PictureJudges:
    """Judges of pictures.

    Attributes:
        damsm: Whose codes give R-precision.
        network: Whose features give the distance between generated and real pictures.
        attributes: Tells which attributes a picture of blocks shows.
        candidates: Captions that a picture's own is among.
        splits: Parts of the inception score.
    """

    damsm: DamsmModel
    network: FeatureNetwork
    attributes: "AttributeReader | None" = None
    candidates: int = CANDIDATES
    splits: int = SPLITS

    def to(self, device: torch.device) -> "PictureJudges":
        """Move all judges, in place."""
        for judge in (self.damsm, self.network, self.attributes):
            if isinstance(judge, torch.nn.Module):
                torch.nn.Module.to(judge, device)
        return self

    @torch.no_grad()
    def look(self, images: Tensor) -> PictureViews:
        """Look at pictures [B, 3, S, S] in [-1, 1], wherever they are."""
        images = images.float().clamp(-1, 1).to(self.damsm.device)
        fits = None if self.attributes is None else torch.as_tensor(self.attributes.phrase_fits(images)).cpu()
        self.damsm.eval()
        return PictureViews(self.network(images).cpu(), self.damsm.encode_images(images).codes.float().cpu(), fits)

    def measure(self, views: PictureViews, captions: CaptionCodes, real: Tensor) -> dict[str, float]:
        """Measure N pictures that should show N captions.

        Args:
            views: Of the pictures.
            captions: In the same order.
            real: Features of real pictures [M, F].

        Returns:
            `fid` or `feature_distance`, by the network; `inception_score` where it knows classes; `r_precision`, and
            `attribute_accuracy` where there is an attribute reader.

        Raises:
            DataError: As of the metrics.
        """
        # `evaluate` and torchmetrics take seconds to import, and most of this package does without.
        from ..metrics.image_distribution import frechet_distance, inception_score

        metrics = {self.network.distance_name: frechet_distance(real, views.features)}
        if self.network.score_name is not None:
            splits = min(self.splits, len(views.features))
            with torch.no_grad():
                logits = self.network.classify(views.features.to(self.damsm.device)).cpu()
            metrics[self.network.score_name] = inception_score(logits, splits=splits)[0]
        found = self.found(views, captions)
        metrics["r_precision"] = 100.0 * int(found.sum()) / len(found)
        if self.attributes is not None:
            metrics["attribute_accuracy"] = attribute_accuracy(*self.fits(views, captions.texts))
        return metrics

    def found(self, views: PictureViews, captions: CaptionCodes) -> np.ndarray:
        """Whether each picture's own caption was found among others, bool [N]; R-precision is their mean."""
        return found_captions(
            views.codes,
            captions.sentences,
            image_ids=captions.image_ids,
            captions=captions.texts,
            candidates=self._candidates(captions),
        )

    def fits(self, views: PictureViews, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """How well each picture fits its own caption and a mismatched one [N]; needs an attribute reader."""
        assert self.attributes is not None and views.phrase_fits is not None
        others = [texts[row] for row in mismatched_captions(texts)]
        rows = views.phrase_fits.numpy()
        own, other = (
            np.array([self.attributes.fit(fits, text) for fits, text in zip(rows, chosen, strict=True)])
            for chosen in (texts, others)
        )
        return own, other

    def chance(self, captions: CaptionCodes) -> dict[str, float]:
        """What pictures that have nothing to do with their captions reach."""
        chance = {"r_precision": 100.0 / self._candidates(captions)}
        return chance if self.attributes is None else {**chance, "attribute_accuracy": CHANCE_OF_TWO}

    def describe(self, captions: CaptionCodes, real: Tensor) -> dict[str, Any]:
        """Return what scores of other studies must share with these to be compared with them."""
        described: dict[str, Any] = {
            "network": self.network.name,
            "weights_sha256": self.network.weights_sha256,
            "num_features": self.network.num_features,
            "resize": self.network.resize,
            "generated_images": len(captions.texts),
            "real_images": len(real),
            "candidates": self._candidates(captions),
            "damsm_sha256": tensors_sha256(self.damsm),
        }
        if self.network.score_name is not None:
            described["splits"] = min(self.splits, len(captions.texts))
        return described if self.attributes is None else {**described, "classifier": self.attributes.name}

    def _candidates(self, captions: CaptionCodes) -> int:
        """Fewer where there are not so many captions that differ."""
        return min(self.candidates, len(set(captions.texts)), len(set(captions.image_ids)))

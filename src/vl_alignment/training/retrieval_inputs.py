"""What a retrieval batch is made of: captions tokenised once, images as stored regions or as pixels."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from torch import Tensor

from vl_alignment.data.features import RegionStore
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.token_rows import TokenRows

__all__ = ["CaptionTable", "ImageInputs", "PixelInputs", "RegionInputs", "image_inputs"]

CHECKED_IMAGES = 512  # looked at together when features are checked
# Of larger stores (CLEVR: 40 GB) a sample is looked at; training still stops where a loss is not finite.
CHECKED_BYTES = 4 << 30


class CaptionTable:
    """All captions of one split as token ids, in the order of the images.

    Args:
        split: Has columns `image_id` and `captions`.
        tokenizer: As of transformers; called once for all captions.
        name: Of the split, for messages.

    Attributes:
        owner: int64 [C], the row of each caption's image.
        first: int64 [I + 1], where each image's captions begin.
        number: int64 [C], the place of each caption among those of its image.
        lengths: int64 [C], how many tokens each caption has.
        words: int64 [C], how many words.

    Raises:
        DataError: An image has no caption, or a caption has no words.
    """

    def __init__(self, split: datasets.Dataset, tokenizer: Any, name: str) -> None:
        self.image_ids: list[str] = list(split["image_id"])
        captions: list[list[str]] = list(split["captions"])
        for image_id, texts in zip(self.image_ids, captions, strict=True):
            if not texts:
                raise DataError(f"The image has no captions ({name}); leave it out.", record=image_id)
        counts = np.array([len(texts) for texts in captions], dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(counts)])
        self.owner = np.repeat(np.arange(len(counts)), counts)
        self.number = np.arange(len(self.owner)) - self.first[self.owner]
        flat = [text for texts in captions for text in texts]
        self.tokens = TokenRows(flat, tokenizer)
        self.words, self.lengths = self.tokens.words, self.tokens.lengths
        for row in np.flatnonzero(self.words == 0):
            raise DataError(
                f"Caption {self.number[row]} of this image has no words ({flat[row]!r}, {name}); remove or correct it.",
                record=self.image_ids[self.owner[row]],
            )

    def __len__(self) -> int:
        return len(self.owner)

    def caption_id(self, row: int) -> str:
        """Return `{image_id}#{number}`."""
        return f"{self.image_ids[self.owner[row]]}#{self.number[row]}"

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of a SHA-256 over the image ids and the tokens of their captions."""
        content = json.dumps([self.image_ids, self.first.tolist(), self.tokens.fingerprint()])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, both [len(rows), longest]."""
        return self.tokens.batch(rows)

    def sampled(self, seed: int, epoch: int) -> np.ndarray:
        """Return one caption row for every image, [I]; depends on (seed, epoch, image) alone."""
        # A stream of its own, apart from the one that orders the images.
        draws = np.random.default_rng([seed, epoch, 1]).random(len(self.image_ids))
        counts = np.diff(self.first)
        return self.first[:-1] + np.minimum((draws * counts).astype(np.int64), counts - 1)


class ImageInputs(Protocol):
    """Turns rows of a split into what the model calls its images."""

    def check(self, model: Any) -> None:
        """Raise an error where images and model do not fit, or images are unusable."""

    def batch(self, split: str, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return the model's image arguments for these rows."""


class RegionInputs:
    """Images as regions of a store.

    Raises:
        DataError: An image is not in the store.
    """

    def __init__(self, dataset_dict: datasets.DatasetDict, store: RegionStore) -> None:
        self.store = store
        self.image_ids = {name: list(split["image_id"]) for name, split in dataset_dict.items()}
        for name, image_ids in self.image_ids.items():
            for image_id in image_ids:
                if image_id not in store:
                    raise DataError(
                        f"The image has no regions ({name} split); run extract-features on this data set, "
                        "or leave the image out.",
                        path=store.path,
                        record=image_id,
                    )

    def check(self, model: Any) -> None:
        """Compare sizes, then look through the features once, through a sample where there are very many.

        Raises:
            ConfigurationError: The model takes features of another size.
            DataError: An image has no regions, or features that are not finite.
        """
        size = getattr(model.config, "feature_size", None)
        if size != self.store.feature_size:
            raise ConfigurationError(
                f"The model takes region features of size {size}, but those of {self.store.extractor!r} have "
                f"size {self.store.feature_size}; set feature_size={self.store.feature_size}."
            )
        if self.store.regions == 0:
            raise DataError("The store holds images without regions; extract the features again.", path=self.store.path)
        if getattr(self.store, "_checked_for_training", False):
            return
        size = self.store.regions * self.store.feature_size * self.store.dtype.itemsize
        step = -(-size * sum(map(len, self.image_ids.values())) // CHECKED_BYTES)
        for every in self.image_ids.values():
            image_ids = every[:: max(1, step)]
            for start in range(0, len(image_ids), CHECKED_IMAGES):
                self._check_features(image_ids[start : start + CHECKED_IMAGES])
        self.store._checked_for_training = True  # type: ignore[attr-defined]

    def _check_features(self, image_ids: list[str]) -> None:
        features = torch.from_numpy(self.store.features(image_ids)).flatten(1)
        # A sum over float32 is finite where every entry is, and much faster than looking at each.
        sums = features.abs().sum(dim=1, dtype=torch.float32)
        for row in torch.nonzero(~torch.isfinite(sums)).flatten().tolist():
            if not torch.isfinite(features[row]).all():
                raise DataError(
                    "The image's features are NaN or infinite; extract them again.",
                    path=self.store.path,
                    record=image_ids[row],
                )
        for row in torch.nonzero(sums == 0).flatten().tolist():
            raise DataError(
                "The image has no regions: all its features are zero; extract them again or leave it out.",
                path=self.store.path,
                record=image_ids[row],
            )

    def batch(self, split: str, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return `region_features` [len(rows), R, d] in float32."""
        ids = self.image_ids[split]
        features = self.store.features([ids[row] for row in rows])
        return {"region_features": torch.from_numpy(features.astype(np.float32, copy=False))}


class PixelInputs:
    """Images as pixels, prepared by the model's image processor.

    Args:
        dataset_dict: Splits with a column `image`.
        image_processor: `image_processor(images=[...], return_tensors="pt")` gives `pixel_values`.
        cache_bytes: Prepared images are kept in memory up to this many bytes.
    """

    def __init__(
        self, dataset_dict: datasets.DatasetDict, image_processor: Callable[..., Any], *, cache_bytes: int = 2 << 30
    ) -> None:
        for name, split in dataset_dict.items():
            if "image" not in split.column_names:
                raise ConfigurationError(f"The {name} split has no images, only features; give a region store.")
        self._splits = {name: split.select_columns(["image"]) for name, split in dataset_dict.items()}
        self._image_ids = {name: list(split["image_id"]) for name, split in dataset_dict.items()}
        self._processor = image_processor
        self._cache: dict[tuple[str, int], Tensor] = {}
        self._room = cache_bytes

    def check(self, model: Any) -> None:
        """Raise a ConfigurationError where the model has no vision backbone."""
        if getattr(model.config, "vision_config", None) is None:
            raise ConfigurationError("The model has no vision_config and cannot see pixels; give a region store.")

    def batch(self, split: str, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return `pixel_values` [len(rows), 3, H, W]."""
        return {"pixel_values": torch.stack([self._pixels(split, int(row)) for row in rows])}

    def _pixels(self, split: str, row: int) -> Tensor:
        pixels = self._cache.get((split, row))
        if pixels is None:
            try:
                image = self._splits[split][row]["image"].convert("RGB")
            except (OSError, SyntaxError, AttributeError) as error:
                record = self._image_ids[split][row]
                raise DataError(
                    f"The image cannot be read ({error}); mend it or leave it out.", record=record
                ) from error
            pixels = self._processor(images=[image], return_tensors="pt")["pixel_values"][0]
            self._room -= pixels.nbytes
            if self._room >= 0:
                self._cache[split, row] = pixels
        return pixels


def image_inputs(
    dataset_dict: datasets.DatasetDict, region_store: RegionStore | None, image_processor: Callable[..., Any] | None
) -> ImageInputs:
    """Return the images as regions where there is a store, else as pixels.

    Raises:
        ConfigurationError: Neither a store nor an image processor is given.
        DataError: As of `RegionInputs`.
    """
    if region_store is not None:
        return RegionInputs(dataset_dict, region_store)
    if image_processor is not None:
        return PixelInputs(dataset_dict, image_processor)
    raise ConfigurationError("Images are needed: give a region store, or an image processor for pixels.")

"""What a batch for making pictures from words consists of: a caption a picture, and the picture at every stage's size.

Pictures are read, cropped and resized when they are asked for, in the workers of a `DataLoader`; nothing is stored.
"""

import copy
import logging
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..models.errors import ConfigurationError, DataError
from .token_rows import TokenRows

__all__ = ["CaptionedPictures"]

logger = logging.getLogger(__name__)

BOX_MARGIN = 1.5
"""The side of what is kept around a box, as a multiple of the box's longer side."""

_READING_ERRORS = (OSError, SyntaxError, ValueError, AttributeError, Image.DecompressionBombError)


class CaptionedPictures(torch.utils.data.Dataset):
    """The pictures of a split, each with one of its captions.

    Which caption, which crop and whether the picture is mirrored depend on (seed, epoch, index) alone, so that an
    interrupted epoch goes on as it would have. The smaller stages' pictures are the last one's, resized.

    Args:
        split: Has columns `image_id`, `image`, `captions`; `class_id` where classes are known; and `box`, corners
            [x0, y0, x1, y1] in [0, 1], where a picture is cropped to a square around what it shows, 1.5 times the
            box's longer side, as far as the picture goes.
        tokenizer: As of transformers; called once for all captions.
        stage_sizes: Pixels of each stage's pictures, rising.
        seed: Of the draws.
        epoch: Of the draws, counted from 0; see `at_epoch`.
        load_size: Pixels of the shorter side before the crop (CUB: 304 for 256); default: of the last stage, so that
            square pictures stay whole.
        crop: Where the last stage's square is cut out: "random" or "center".
        horizontal_flip: Whether half of the pictures are mirrored; not where captions say left and right.
        max_words: Tokens of a caption at most, its marks included (CUB: 18, COCO: 12); what is longer is cut, and said.
        minimum_size: Pixels that a picture's shorter side must have; default: as many as the last stage's. Where there
            are boxes 1: the published recipe enlarges what it cuts out.

    Attributes:
        cut_captions: How many captions were longer.
        unknown_captions: How many have no word that the tokenizer knows, and are not used.

    Raises:
        ConfigurationError: A column is missing, or sizes contradict each other.
        DataError: A picture has no caption with a known word. Later, on reading: a picture cannot be read or is too
            small; it is named.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        tokenizer: Any,
        *,
        stage_sizes: Sequence[int],
        seed: int,
        epoch: int,
        load_size: int | None = None,
        crop: Literal["random", "center"] = "random",
        horizontal_flip: bool = False,
        max_words: int | None = None,
        minimum_size: int | None = None,
    ) -> None:
        for column in ("image_id", "image", "captions"):
            if column not in split.column_names:
                raise ConfigurationError(f"The split has no column {column!r}; it has {', '.join(split.column_names)}.")
        self.stage_sizes = tuple(stage_sizes)
        if not self.stage_sizes or sorted(set(self.stage_sizes)) != list(self.stage_sizes) or self.stage_sizes[0] < 1:
            raise ConfigurationError(f"stage_sizes={self.stage_sizes}: they must rise from at least 1 pixel.")
        self.load_size = self.stage_sizes[-1] if load_size is None else load_size
        if self.load_size < self.stage_sizes[-1]:
            raise ConfigurationError(
                f"load_size={load_size} is below the last stage's {self.stage_sizes[-1]} pixels; raise it."
            )
        if crop not in ("random", "center"):
            raise ConfigurationError(f"crop={crop!r}: the choices are 'random' and 'center'.")
        self.seed, self.epoch, self.crop, self.horizontal_flip = seed, epoch, crop, horizontal_flip
        self.image_ids: list[str] = list(split["image_id"])
        self.class_ids = list(split["class_id"]) if "class_id" in split.column_names else None
        self._boxes = list(split["box"]) if "box" in split.column_names else None
        default_size = self.stage_sizes[-1] if self._boxes is None else 1
        self.minimum_size = default_size if minimum_size is None else minimum_size
        self._images = split.select_columns(["image"])
        self._read_captions(list(split["captions"]), tokenizer, max_words)

    def _read_captions(self, captions: list[list[str]], tokenizer: Any, max_words: int | None) -> None:
        """Tokenise all captions and keep those that say something to the tokenizer."""
        if max_words is not None and max_words < 3:
            raise ConfigurationError(f"max_words={max_words}: at least 3, which leaves one word between the marks.")
        texts = [text for of_image in captions for text in of_image]
        if not texts:
            raise DataError("The split has no captions.")
        owner = np.repeat(np.arange(len(captions)), [len(of_image) for of_image in captions])
        tokens = TokenRows(texts, tokenizer)
        self.cut_captions = 0 if max_words is None else int((tokens.lengths > max_words).sum())
        if self.cut_captions:
            first = texts[int(np.argmax(tokens.lengths > (max_words or 0)))]
            logger.warning(
                "%d of %d captions have more than %s tokens and are cut (max_words), the first is %r",
                self.cut_captions, len(texts), max_words, first[:200],
            )  # fmt: skip
            tokens = TokenRows(texts, tokenizer, max_words)
        known = tokens.words > tokens.unknown
        self.unknown_captions = int((~known).sum())
        if self.unknown_captions:
            first = texts[int(np.argmin(known))]
            logger.warning("%d captions have no word of the vocabulary, the first is %r", self.unknown_captions, first)
        self._rows = np.flatnonzero(known)  # those in use, in the order of the images
        counts = np.bincount(owner[self._rows], minlength=len(captions))
        for index in np.flatnonzero(counts == 0):
            raise DataError(
                f"No caption of this image has a word of the vocabulary of {len(tokenizer)} ({captions[index][:1]}); "
                "leave the image out, or correct its captions.",
                record=self.image_ids[index],
            )
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._texts, self._tokens = texts, tokens

    def at_epoch(self, epoch: int) -> "CaptionedPictures":
        """Return the same pictures with another epoch's draws; nothing is tokenised again."""
        other = copy.copy(self)
        other.epoch = epoch
        return other

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # The last number keeps these draws apart from those that order the images: [seed, epoch].
        draws = np.random.default_rng([self.seed, self.epoch, index, 1]).random(4)
        count = self._first[index + 1] - self._first[index]
        row = int(self._rows[self._first[index] + int(draws[0] * count)])
        picture = self._square(self._read(index), draws[1:3])
        if self.horizontal_flip and draws[3] < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        item: dict[str, Any] = {"id": self.image_ids[index], "caption_row": row}
        item["stage_images"] = tuple(self._pixels(picture, size) for size in self.stage_sizes)
        if self.class_ids is not None:
            item["class_id"] = self.class_ids[index]
        return item

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of items of this data set.

        Returns:
            `ids` and `captions`, lists of B texts; `input_ids` and `attention_mask` int64 [B, L]; `stage_images`, one
            float32 [B, 3, s, s] in [-1, 1] a stage, smallest first; `class_ids` int64 [B] only where classes are known.
        """
        rows = [item["caption_row"] for item in items]
        stages = zip(*(item["stage_images"] for item in items), strict=True)
        batch: dict[str, Any] = {
            "ids": [item["id"] for item in items],
            "captions": [self._texts[row] for row in rows],
            **self._tokens.batch(rows),
            "stage_images": tuple(torch.stack(images) for images in stages),
        }
        if self.class_ids is not None:
            batch["class_ids"] = torch.tensor([item["class_id"] for item in items], dtype=torch.int64)
        return batch

    def check(self) -> None:
        """Look at every picture's size without decoding it, before hours of training meet one that is too small.

        Raises:
            DataError: A picture cannot be opened or is too small; it is named.
        """
        stored = self._images.cast_column("image", datasets.Image(decode=False))
        for index in range(len(stored)):
            source = stored[index]["image"]
            try:
                with Image.open(source["path"] if source["bytes"] is None else BytesIO(source["bytes"])) as image:
                    self._check_size(image.size, index)
            except DataError:
                raise
            except (*_READING_ERRORS, TypeError) as error:
                raise self._unreadable(index, error) from error

    def _read(self, index: int) -> Image.Image:
        """Return a picture in RGB, cut to the surroundings of its box."""
        try:
            picture = _in_rgb(self._images[index]["image"])
        except _READING_ERRORS as error:
            raise self._unreadable(index, error) from error
        self._check_size(picture.size, index)
        return picture if self._boxes is None else picture.crop(_around(self._boxes[index], picture.size))

    def _unreadable(self, index: int, error: Exception) -> DataError:
        return DataError(f"The image cannot be read ({error}); mend it or leave it out.", record=self.image_ids[index])

    def _check_size(self, size: tuple[int, int], index: int) -> None:
        if min(size) < self.minimum_size:
            raise DataError(
                f"The image has {size[0]} x {size[1]} pixels, its shorter side must have {self.minimum_size}; leave it "
                "out, make smaller pictures (image_size), or lower minimum_size to have it enlarged.",
                record=self.image_ids[index],
            )

    def _square(self, picture: Image.Image, places: np.ndarray) -> Image.Image:
        """Resize a picture to `load_size` at its shorter side, and cut out the last stage's square."""
        scale = self.load_size / min(picture.size)
        width, height = (max(self.load_size, round(side * scale)) for side in picture.size)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        size = self.stage_sizes[-1]
        if self.crop == "center":
            left, top = (width - size) // 2, (height - size) // 2
        else:
            left, top = (
                math.floor(place * (side - size + 1)) for place, side in zip(places, picture.size, strict=True)
            )
        return picture.crop((left, top, left + size, top + size))

    @staticmethod
    def _pixels(picture: Image.Image, size: int) -> Tensor:
        """Return the picture at a size, float32 [3, size, size] in [-1, 1]."""
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1.0


def _in_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB: greyscale (also of 16 bits), palettes and CMYK converted, what is transparent white."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        levels = np.asarray(picture).astype(np.int64) >> 8
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _around(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the square around a box that is `BOX_MARGIN` times its longer side, in pixels, cut at the borders."""
    width, height = size
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    reach = max(1, math.floor(max(x1 - x0, y1 - y0) * BOX_MARGIN / 2))
    x, y = math.floor((x0 + x1) / 2), math.floor((y0 + y1) / 2)
    return max(0, x - reach), max(0, y - reach), min(width, x + reach), min(height, y + reach)

"""DAMSM as the training loop sees it: pictures with one caption each, matching losses, R-precision."""

from typing import Any, NamedTuple

import datasets
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from ..data.processes import joined_blocks, own_blocks
from ..metrics.text_to_image import CANDIDATES, r_precision
from ..models.errors import ConfigurationError, DataError
from .arguments import TrainingSettings
from .objectives import Evaluation
from .picture_inputs import CaptionedPictures

__all__ = ["DamsmObjective", "PictureCodes", "encode_pictures"]


class PictureCodes(NamedTuple):
    """Pictures and one caption of each, as DAMSM sees them.

    Attributes:
        images: Float32 [N, d], on the CPU.
        sentences: Float32 [N, d], on the CPU.
        captions: N texts.
    """

    images: Tensor
    sentences: Tensor
    captions: list[str]

    def r_precision(self, candidates: int = CANDIDATES) -> tuple[float, int]:
        """Return R-precision in percent, and among how many captions: fewer where there are not so many."""
        candidates = min(candidates, len(set(self.captions)))
        return r_precision(self.images, self.sentences, captions=self.captions, candidates=candidates), candidates

    @property
    def similarity(self) -> Tensor:
        """The cosine of every picture with its own caption [N]."""
        return functional.cosine_similarity(self.images, self.sentences, dim=-1)


class DamsmObjective:
    """Matching of pictures and captions with DAMSM's losses over words and sentences.

    An epoch shows every picture once with one of its captions. With several processes each holds the pictures of its
    own share of a batch against each other.

    Args:
        dataset_dict: Splits "train", "validation", "test" with `image_id`, `image`, `captions`, and `class_id` where
            known.
        tokenizer: As of transformers.
        settings: Seed and how to evaluate.
        image_size: Pixels of the pictures.
        processor: Saved with the weights.
        reading: Further arguments of `CaptionedPictures`, for training; evaluation takes the middle of the pictures.
        candidates: Captions that a picture's own is among when R-precision is measured.

    Raises:
        DataError: As of `CaptionedPictures`.
    """

    task = "image-text-matching"
    selection_metric = "r_precision"

    def __init__(
        self,
        dataset_dict: datasets.DatasetDict,
        tokenizer: Any,
        settings: TrainingSettings,
        *,
        image_size: int,
        processor: Any = None,
        reading: dict[str, Any] | None = None,
        candidates: int = CANDIDATES,
    ) -> None:
        self.settings = settings
        self.processor = processor
        self.candidates = candidates
        self.vocabulary_size = len(tokenizer)
        given = {"stage_sizes": (image_size,), "seed": settings.seed, "epoch": 0, **(reading or {})}
        still = {**given, "crop": "center", "horizontal_flip": False}
        self.pictures = {
            name: CaptionedPictures(split, tokenizer, **(given if name == "train" else still))
            for name, split in dataset_dict.items()
        }

    def check_model(self, model: nn.Module) -> None:
        """Compare the vocabularies.

        Raises:
            ConfigurationError: The model knows fewer words than the tokenizer.
            DataError: A split is missing.
        """
        missing = [name for name in ("train", "validation") if name not in self.pictures]
        if missing:
            raise DataError(f"Training needs the splits {missing}; the data set has {sorted(self.pictures)}.")
        vocabulary = getattr(model.config, "vocab_size", None)
        if vocabulary is None or vocabulary < self.vocabulary_size:
            raise ConfigurationError(
                f"The model's vocab_size={vocabulary} is smaller than the tokenizer's {self.vocabulary_size} words."
            )

    def train_dataset(self, epoch: int) -> CaptionedPictures:
        """Return the pictures of an epoch, each with one of its captions."""
        return self.pictures["train"].at_epoch(epoch)

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """Return the model's arguments, and the pictures' ids as "ids"."""
        batch = self.pictures["train"].collate(examples)
        del batch["captions"]
        batch["pixel_values"] = batch.pop("stage_images")[-1]
        return batch

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the sum of the losses by words and by sentences."""
        return model(**batch, return_loss=True).loss

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Hold every picture of a split against its own caption and those of others, over all processes.

        Raises:
            DataError: There is no such split, or it is too small for so many candidates.
        """
        if split not in self.pictures:
            raise DataError(f"There is no split {split!r}; there are {sorted(self.pictures)}.")
        pictures = self.pictures[split]
        codes = encode_pictures(model, pictures, accelerator, self.settings.evaluation_batch_size)
        value, candidates = codes.r_precision(self.candidates)
        metrics = {"r_precision": value}
        if not final or not accelerator.is_main_process:
            return Evaluation(metrics)
        rows = [
            {"item_id": image_id, "reference": caption, "score": score}
            for image_id, caption, score in zip(
                pictures.image_ids, codes.captions, codes.similarity.tolist(), strict=True
            )
        ]
        return Evaluation(metrics, rows, {"chance_r_precision": 100.0 / candidates}, {"candidates": candidates})


@torch.no_grad()
def encode_pictures(model: Any, pictures: CaptionedPictures, accelerator: Accelerator, batch_size: int) -> PictureCodes:
    """Encode pictures and their captions with a DAMSM, each process a share; every process gets all codes."""
    training = model.training
    model.eval()
    parts = []
    for rows in own_blocks(len(pictures), batch_size, accelerator):
        batch = pictures.collate([pictures[int(row)] for row in rows])
        pixels, ids, mask = (
            tensor.to(accelerator.device)
            for tensor in (batch["stage_images"][-1], batch["input_ids"], batch["attention_mask"])
        )
        images, sentences = model.encode_images(pixels).codes, model.encode_texts(ids, mask).sentences
        parts.append((images.float().cpu(), sentences.float().cpu(), batch["captions"]))
    model.train(training)
    seen, read, captions = zip(*joined_blocks(parts, accelerator), strict=True)
    return PictureCodes(torch.cat(seen), torch.cat(read), [caption for block in captions for caption in block])

"""The tasks as the training loop sees them: examples, batches, a loss, an evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from vl_alignment.data.features import RegionStore
from vl_alignment.data.processes import own_blocks, summed_over_processes
from vl_alignment.metrics.retrieval import retrieval_metrics, retrieval_ranks
from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.training.all_pairs import CAPTIONS_PER_SHARD, images_per_shard, score_all_pairs
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.batches import Examples
from vl_alignment.training.model_fingerprint import model_fingerprint
from vl_alignment.training.retrieval_inputs import CaptionTable, image_inputs
from vl_alignment.training.score_shards import ScoreShards

__all__ = ["Evaluation", "Objective", "RetrievalObjective", "Task"]


@dataclass(frozen=True)
class Evaluation:
    """What a model reached on a split.

    Attributes:
        metrics: The same on every process.
        predictions: One row a test item, where they were asked for.
        bounds: What no model can exceed on this split, or must exceed, where that is known; made with the predictions.
        details: What somebody must know to compare the metrics with those of another study.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]] = field(default_factory=list)
    bounds: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Examples, and how a model is measured on them.

    Attributes:
        task: Its name in the results.
        selection_metric: The metric of `evaluate` by which the best weights are chosen; higher is better.
        processor: Saved with the weights; None where there is none.
    """

    task: str
    selection_metric: str
    processor: Any

    def check_model(self, model: nn.Module) -> None:
        """Raise one of the package's errors if this model cannot be trained on this data."""

    def train_dataset(self, epoch: int) -> Examples:
        """Return the examples of an epoch; an example depends on (seed, epoch, index) alone."""
        ...

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """Return a batch of tensors, and under "ids" a list of names for messages."""
        ...

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Measure the model on a split, over all processes; predictions are only made when `final`."""
        ...


class Objective(Task, Protocol):
    """A task with one loss."""

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the loss of a batch, a scalar, calling the model once."""
        ...


@dataclass(frozen=True)
class CaptionedImages:
    """The pairs (image row, caption row) of one epoch."""

    captions: np.ndarray  # [N] rows of the caption table
    owner: np.ndarray  # [C]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[int, int]:
        caption = int(self.captions[index])
        return int(self.owner[caption]), caption


class RetrievalObjective:
    """Image-text retrieval with the model's triplet loss.

    An epoch shows every image once with one sampled caption (`epoch_captions="one"`) or every caption once ("all").
    Nothing here depends on the alignment function, so that all functions see the same batches.

    Args:
        dataset_dict: Splits "train", "validation", "test" with `image_id`, `captions`, and `image` where no store.
        tokenizer: As of transformers.
        settings: Seed, sampling, and how to evaluate.
        region_store: Features of the images; None trains from pixels.
        image_processor: Makes `pixel_values`; needed without a store.
        processor: Saved with the weights.
        folds: Into how many folds the final evaluation cuts the split (5 for COCO's 1K numbers on 5K images).
        scores: Folder in which the final evaluation keeps finished shards of scores, and finds those of an earlier one
            that was killed; None keeps none.

    Raises:
        DataError: A caption has no words, an image no captions or no regions.
        ConfigurationError: Neither a store nor an image processor is given.
    """

    task = "retrieval"
    selection_metric = "rsum"

    def __init__(
        self,
        dataset_dict: datasets.DatasetDict,
        tokenizer: Any,
        settings: TrainingSettings,
        *,
        region_store: RegionStore | None = None,
        image_processor: Callable[..., Any] | None = None,
        processor: Any = None,
        folds: int = 1,
        scores: str | Path | None = None,
    ) -> None:
        self.settings = settings
        self.processor = processor
        self.folds = folds
        self.scores = scores
        self.vocabulary_size = len(tokenizer)
        self.captions = {name: CaptionTable(split, tokenizer, name) for name, split in dataset_dict.items()}
        self.images = image_inputs(dataset_dict, region_store, image_processor)
        self.regions = None if region_store is None else [region_store.extractor, region_store.extractor_version]

    def check_model(self, model: nn.Module) -> None:
        """Compare vocabulary and feature sizes, and look through the features once.

        Raises:
            ConfigurationError: The sizes do not fit.
            DataError: A split is missing, or features are missing or not finite.
        """
        missing = [name for name in ("train", "validation") if name not in self.captions]
        if missing:
            raise DataError(f"Training needs the splits {missing}; the data set has {sorted(self.captions)}.")
        vocabulary = getattr(model.config, "vocab_size", None)
        if vocabulary is None or vocabulary < self.vocabulary_size:
            raise ConfigurationError(
                f"The model's vocab_size={vocabulary} is smaller than the tokenizer's {self.vocabulary_size} words."
            )
        self.images.check(model)

    def train_dataset(self, epoch: int) -> CaptionedImages:
        """Return the pairs of an epoch."""
        table = self.captions["train"]
        if self.settings.epoch_captions == "all":
            return CaptionedImages(np.arange(len(table)), table.owner)
        return CaptionedImages(table.sampled(self.settings.seed, epoch), table.owner)

    def collate(self, examples: list[tuple[int, int]]) -> dict[str, Any]:
        """Return the model's arguments for pairs (image row, caption row), and their caption ids as "ids"."""
        table = self.captions["train"]
        images, captions = np.array(examples).T
        batch: dict[str, Any] = {**table.batch(captions), **self.images.batch("train", images)}
        batch["ids"] = [table.caption_id(caption) for caption in captions]
        return batch

    def loss(self, model: nn.Module, batch: dict[str, Any], epoch: int) -> Tensor:
        """Return the triplet loss, over all negatives in the first `all_negatives_epochs`.

        It is a sum over the whole batch, whether or not its negatives are gathered over the processes.
        """
        negatives = "all" if epoch < self.settings.all_negatives_epochs else None
        gather = self.settings.gather_negatives
        loss = model(**batch, return_loss=True, negatives=negatives, gather_negatives=gather).loss
        return loss if gather else loss * PartialState().num_processes  # of which training takes the mean

    def evaluate(self, model: nn.Module, split: str, accelerator: Accelerator, *, final: bool = True) -> Evaluation:
        """Score all pairs of a split and rank them, each process scoring a share of the images.

        Args:
            model: Not wrapped for several processes.
            split: Name of the split.
            accelerator: Whose processes share the work.
            final: Takes all captions and makes predictions; otherwise `settings.validation_captions` an image.

        Raises:
            DataError: There is no such split.
            ResultsError: The folder of scores is of another evaluation.
        """
        if split not in self.captions:
            raise DataError(f"There is no split {split!r}; there are {sorted(self.captions)}.")
        table = self.captions[split]
        limit = None if final else self.settings.validation_captions
        rows = np.arange(len(table)) if limit is None else np.flatnonzero(table.number < limit)
        shards = self._shards(model, split, accelerator) if final and self.scores is not None else None
        similarity = self.similarity(model, split, rows, accelerator, shards=shards, progress=final).numpy()
        owner = table.owner[rows]
        metrics = retrieval_metrics(similarity, owner, folds=self.folds if final else 1)
        if not final or not accelerator.is_main_process:
            return Evaluation(metrics)
        return Evaluation(metrics, retrieval_predictions(similarity, table))

    def _shards(self, model: Any, split: str, accelerator: Accelerator) -> ScoreShards:
        assert self.scores is not None
        identity = {
            "model": model_fingerprint(model),
            "captions": self.captions[split].fingerprint(),
            "regions": self.regions,
            "precision": accelerator.mixed_precision,
            "shard": [images_per_shard(len(self.captions[split].image_ids)), CAPTIONS_PER_SHARD],
        }
        with accelerator.main_process_first():
            return ScoreShards(self.scores, identity)

    @torch.no_grad()
    def similarity(
        self,
        model: Any,
        split: str,
        caption_rows: np.ndarray,
        accelerator: Accelerator,
        *,
        shards: ScoreShards | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Return the similarity of all images with these captions, float32 [I, C] on the CPU of every process.

        Each process scores some blocks of images. The blocks are the same for any number of processes, and so is every
        number.
        """
        training = model.training
        model.eval()
        device, size = accelerator.device, self.settings.evaluation_batch_size
        total = len(self.captions[split].image_ids)
        blocks = own_blocks(total, images_per_shard(total), accelerator)
        table = self.captions[split]

        def encode_images(rows: np.ndarray) -> Tensor:
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
            return torch.cat(
                [model.encode_images(**_moved(self.images.batch(split, part), device)) for part in parts]
            )  # [rows, R, d]

        def encode_words(columns: np.ndarray) -> tuple[Tensor, Tensor]:
            batches = []
            for start in range(0, len(columns), size):
                texts = _moved(table.batch(caption_rows[columns[start : start + size]]), device)
                batches.append((model.encode_texts(**texts), texts["attention_mask"]))
            words, masks = zip(*batches, strict=True)
            return _padded(words), _padded(masks)

        scores = score_all_pairs(
            model,
            [encode_images(rows) for rows in blocks],
            encode_words,
            table.lengths[caption_rows],
            shards=shards,
            first_images=[int(rows[0]) for rows in blocks],
            progress=progress and accelerator.is_main_process,
        )
        model.train(training)
        if accelerator.num_processes == 1:
            return scores
        found = torch.zeros(total, len(caption_rows))
        if blocks:
            found[torch.from_numpy(np.concatenate(blocks))] = scores
        return summed_over_processes(found, accelerator)


def retrieval_predictions(similarity: np.ndarray, table: CaptionTable) -> list[dict[str, Any]]:
    """Return one row for every query of both directions of `similarity` [I, C]; ranks count from 0.

    For sentence retrieval the reference is the image's caption with the highest score, and `caption_length` its words.
    """
    ranks = retrieval_ranks(similarity, table.owner)
    rows: list[dict[str, Any]] = []

    def add(item: str, direction: str, prediction: str, reference: str, rank: int, score: float, caption: int) -> None:
        rows.append(
            {
                "item_id": item,
                "direction": direction,
                "prediction": prediction,
                "reference": reference,
                "rank": int(rank),
                "score": float(score),
                "caption_length": int(table.words[caption]),
            }
        )

    for image, image_id in enumerate(table.image_ids):
        first, last = table.first[image], table.first[image + 1]
        own = int(first + similarity[image, first:last].argmax())
        top = int(ranks.sentence_retrieval_top1[image])
        rank, score = ranks.sentence_retrieval[image], similarity[image, top]
        add(image_id, "sentence_retrieval", table.caption_id(top), table.caption_id(own), rank, score, own)
    for caption, owner in enumerate(table.owner):
        top = int(ranks.image_retrieval_top1[caption])
        rank, score = ranks.image_retrieval[caption], similarity[top, caption]
        names = table.image_ids
        add(table.caption_id(caption), "image_retrieval", names[top], names[owner], rank, score, caption)
    return rows


def _padded(batches: Sequence[Tensor]) -> Tensor:
    """Concatenate [n, L, ...] of several lengths L, with zeros up to the longest."""
    longest = max(batch.shape[1] for batch in batches)
    rest = batches[0].dim() - 2
    return torch.cat([F.pad(batch, [0, 0] * rest + [0, longest - batch.shape[1]]) for batch in batches])


def _moved(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}

"""Recall at K, ranks and Rsum of image-text retrieval, from one matrix of similarities.

A rank is the number of wrong candidates that score at least as high as the right one, so that a tie counts against the
model: one that gives every pair the same score ranks last everywhere, not first. Without ties the numbers are those of
SCAN's own evaluation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from ..models.errors import ConfigurationError, DataError

__all__ = ["RECALL_LEVELS", "RetrievalRanks", "chance_metrics", "rank_metrics", "retrieval_metrics", "retrieval_ranks"]

RECALL_LEVELS = (1, 5, 10)
DIRECTIONS = ("sentence_retrieval", "image_retrieval")

# Rows are compared in blocks of about this size, so that no temporary array is as large as the similarities.
BLOCK_BYTES = 64 * 2**20

Similarity: TypeAlias = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class RetrievalRanks:
    """Where the right candidate stands for every query, 0 being first.

    Attributes:
        sentence_retrieval: int64 [I], for every image the rank of the best of its captions.
        image_retrieval: int64 [C], for every caption the rank of its image.
        sentence_retrieval_top1: int64 [I], for every image the index of the caption with the highest score.
        image_retrieval_top1: int64 [C], for every caption the index of the image with the highest score.
    """

    sentence_retrieval: np.ndarray
    image_retrieval: np.ndarray
    sentence_retrieval_top1: np.ndarray
    image_retrieval_top1: np.ndarray


def retrieval_ranks(similarity: Similarity, caption_image: np.ndarray) -> RetrievalRanks:
    """Rank the candidates of every query in both directions, for `similarity` [I, C] and `caption_image` [C].

    Args:
        similarity: Higher is more alike; a NumPy array (a memory map too) or a tensor of any float type.
        caption_image: The row of the image that each caption belongs to; any number of captions an image.

    Raises:
        DataError: The shapes disagree, an image has no caption, or a similarity is NaN.
    """
    similarity = _as_array(similarity)
    caption_image = _checked_owners(similarity, caption_image)
    images, captions = similarity.shape
    right = similarity[caption_image, np.arange(captions)]  # [C], each caption with its own image
    best = np.full(images, -np.inf, dtype=similarity.dtype)
    np.maximum.at(best, caption_image, right)
    # The right captions that reach the best one's score are not among the wrong ones.
    right_at_best = np.bincount(caption_image[right >= best[caption_image]], minlength=images)

    sentence_ranks = np.empty(images, dtype=np.int64)
    sentence_top = np.empty(images, dtype=np.int64)
    image_ranks = np.full(captions, -1, dtype=np.int64)  # -1: the right image reaches its own score
    image_top = np.zeros(captions, dtype=np.int64)
    image_top_score = np.full(captions, -np.inf, dtype=similarity.dtype)
    for start, block in _row_blocks(similarity):
        rows = slice(start, start + len(block))
        if np.isnan(block).any():
            row, column = np.argwhere(np.isnan(block))[0]
            raise DataError(
                f"the similarity of image {start + row} and caption {column} is NaN; "
                "look for NaN features or a diverged model"
            )
        sentence_ranks[rows] = (block >= best[rows, None]).sum(axis=1) - right_at_best[rows]
        sentence_top[rows] = block.argmax(axis=1)
        image_ranks += (block >= right).sum(axis=0)
        block_top = block.argmax(axis=0)
        block_score = np.take_along_axis(block, block_top[None], axis=0)[0]
        higher = block_score > image_top_score
        image_top[higher] = block_top[higher] + start
        image_top_score[higher] = block_score[higher]
    return RetrievalRanks(sentence_ranks, image_ranks, sentence_top, image_top)


def retrieval_metrics(similarity: Similarity, caption_image: np.ndarray, folds: int = 1) -> dict[str, float]:
    """Measure both directions of `similarity` [I, C]: recall in percent, ranks counted from 1.

    Args:
        similarity: As in `retrieval_ranks`.
        caption_image: As in `retrieval_ranks`.
        folds: 5 gives the average of five 1K folds on a 5K set: contiguous blocks of images, each with its captions.

    Returns:
        `sentence_retrieval_r1`, `_r5`, `_r10`, `_rsum`, `_median_rank`, `_mean_rank`, the same for
        `image_retrieval`, and `rsum`, the sum of the two `_rsum`.

    Raises:
        ConfigurationError: The number of folds does not divide the number of images.
        DataError: As in `retrieval_ranks`.
    """
    similarity = _as_array(similarity)
    caption_image = _checked_owners(similarity, caption_image)
    size = _fold_size(len(similarity), folds)
    if folds == 1:
        return _two_directions(retrieval_ranks(similarity, caption_image))
    every = []
    for start in range(0, len(similarity), size):
        columns = np.flatnonzero((caption_image >= start) & (caption_image < start + size))
        fold = similarity[start : start + size][:, columns]
        every.append(_two_directions(retrieval_ranks(fold, caption_image[columns] - start)))
    return {name: float(np.mean([metrics[name] for metrics in every])) for name in every[0]}


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Summarise 0-based `ranks` [N] as `r1`, `r5`, `r10`, `rsum` in percent, `median_rank` and `mean_rank` from 1."""
    metrics = {f"r{level}": 100.0 * float(np.mean(ranks < level)) for level in RECALL_LEVELS}
    metrics["rsum"] = sum(metrics.values())
    metrics["median_rank"] = float(np.floor(np.median(ranks)) + 1)
    metrics["mean_rank"] = float(np.mean(ranks) + 1)
    return metrics


def chance_metrics(caption_image: np.ndarray, folds: int = 1) -> dict[str, float]:
    """Compute what random scores give on average for the captions of `caption_image` [C], with recall in percent.

    The names are those of `retrieval_metrics` without the median ranks.
    """
    counts = np.bincount(np.asarray(caption_image, dtype=np.int64))
    size = _fold_size(len(counts), folds)
    every = []
    for start in range(0, len(counts), size):
        right = counts[start : start + size].astype(float)  # captions of each image of the fold
        captions = right.sum()
        metrics = {}
        for level in RECALL_LEVELS:
            drawn = np.arange(level)
            # The chance that none of the `level` highest captions is right: hypergeometric, without replacement.
            missed = np.prod(
                np.clip((captions - right[:, None] - drawn) / np.maximum(captions - drawn, 1), 0, 1), axis=1
            )
            metrics[f"sentence_retrieval_r{level}"] = 100.0 * float(np.mean(1 - missed))
        metrics["sentence_retrieval_rsum"] = sum(metrics.values())
        metrics["sentence_retrieval_mean_rank"] = float(np.mean((captions - right) / (right + 1)) + 1)
        recalls = {f"image_retrieval_r{level}": 100.0 * min(level / len(right), 1.0) for level in RECALL_LEVELS}
        metrics |= recalls | {"image_retrieval_rsum": sum(recalls.values())}
        metrics["image_retrieval_mean_rank"] = (len(right) + 1) / 2
        metrics["rsum"] = metrics["sentence_retrieval_rsum"] + metrics["image_retrieval_rsum"]
        every.append(metrics)
    return {name: float(np.mean([metrics[name] for metrics in every])) for name in every[0]}


def _two_directions(ranks: RetrievalRanks) -> dict[str, float]:
    metrics = {
        f"{direction}_{name}": value
        for direction in DIRECTIONS
        for name, value in rank_metrics(getattr(ranks, direction)).items()
    }
    return metrics | {"rsum": sum(metrics[f"{direction}_rsum"] for direction in DIRECTIONS)}


def _as_array(similarity: Similarity) -> np.ndarray:
    if isinstance(similarity, torch.Tensor):
        similarity = similarity.detach().cpu()
        # NumPy has no bfloat16; float32 holds each of its values exactly.
        similarity = (similarity.float() if similarity.dtype == torch.bfloat16 else similarity).numpy()
    similarity = np.asanyarray(similarity)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise DataError(f"similarities must be a matrix [images, captions] with entries, got shape {similarity.shape}")
    return similarity if np.issubdtype(similarity.dtype, np.floating) else similarity.astype(np.float64)


def _checked_owners(similarity: np.ndarray, caption_image: np.ndarray) -> np.ndarray:
    """Return `caption_image` [C] as int64 after checking it against `similarity` [I, C]."""
    images, captions = similarity.shape
    owners = np.asarray(caption_image)
    if owners.shape != (captions,) or not np.issubdtype(owners.dtype, np.integer):
        raise DataError(
            f"caption_image must hold one whole number for each of the {captions} captions, "
            f"got shape {owners.shape} of {owners.dtype}"
        )
    if owners.min() < 0 or owners.max() >= images:
        raise DataError(f"caption_image must lie in 0..{images - 1}, got {owners.min()}..{owners.max()}")
    without = np.flatnonzero(np.bincount(owners, minlength=images) == 0)
    if len(without):
        raise DataError("the image has no caption to retrieve; leave it out of the test set", record=int(without[0]))
    return owners.astype(np.int64)


def _fold_size(images: int, folds: int) -> int:
    if folds < 1 or images % folds:
        raise ConfigurationError(f"{images} images cannot be cut into {folds} folds of equal size; use folds=1")
    return images // folds


def _row_blocks(similarity: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, rows of `similarity`) of about `BLOCK_BYTES` each."""
    size = max(1, BLOCK_BYTES // (similarity.itemsize * similarity.shape[1]))
    for start in range(0, len(similarity), size):
        yield start, similarity[start : start + size]

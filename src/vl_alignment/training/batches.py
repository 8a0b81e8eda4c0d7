"""The order of the training data: a function of seed and epoch alone."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vl_alignment.models.errors import ConfigurationError

__all__ = ["EpochBatches", "batch_loader"]


class Examples(Protocol):
    """A map-style data set."""

    def __len__(self) -> int: ...  # noqa: D105

    def __getitem__(self, index: int) -> Any: ...  # noqa: D105


class EpochBatches(Sampler[list[int]]):
    """This process's share of every global batch of one epoch, from batch `start` on.

    The order depends on (seed, epoch) alone, so that an interrupted epoch goes on where it stopped, and processes
    take contiguous slices of the same global batches. An incomplete last batch is left out: the loss of a retrieval
    batch depends on its size, and filling it up would bring in an image twice. Every epoch leaves out others.

    Args:
        size: Number of examples.
        batch_size: Of the global batch; a data set smaller than one batch is one batch.
        seed: With `epoch`, decides the order.
        epoch: Counted from 0.
        group: The number of batches is cut down to a multiple of this (gradient accumulation).
        start: Batches of the epoch that are already done.
        process_index: Which slice of each batch.
        num_processes: How many slices.

    Raises:
        ConfigurationError: The batch cannot be shared out evenly, or there is too little data.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        group: int = 1,
        start: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        batch_size = min(batch_size, size)
        if batch_size % num_processes or batch_size == 0:
            raise ConfigurationError(
                f"batch_size={batch_size} is the global batch and cannot be shared out among {num_processes} processes."
            )
        self.total = size // batch_size // group * group
        if self.total == 0:
            raise ConfigurationError(
                f"{size} examples make no {group} batches of {batch_size} for one step; "
                "lower batch_size or gradient_accumulation_steps."
            )
        self.size, self.batch_size, self.seed, self.epoch, self.start = size, batch_size, seed, epoch, start
        share = batch_size // num_processes
        self.share = slice(process_index * share, (process_index + 1) * share)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        for batch in range(self.start, self.total):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size][self.share].tolist()

    def __len__(self) -> int:
        return self.total - self.start


def batch_loader(dataset: Examples, batches: EpochBatches, collate: Any, num_workers: int) -> DataLoader:
    """Return a loader of the batches that `collate` makes from lists of examples."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        # Of its own: an epoch that is taken up again draws no other numbers from torch's than one that was not.
        generator=torch.Generator(),
    )

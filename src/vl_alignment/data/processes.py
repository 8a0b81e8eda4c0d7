"""What processes that train and evaluate together share out, and how they fail together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from vl_alignment.models.errors import VlAlignmentError

__all__ = [
    "OneProcess",
    "Processes",
    "joined_blocks",
    "on_main_process",
    "own_blocks",
    "own_share",
    "shared_problem",
    "summed_over_processes",
]


Item = TypeVar("Item")


class Processes(Protocol):
    """Processes that work together, as an `Accelerator` or a `PartialState` tells them apart."""

    @property
    def process_index(self) -> int:
        """Number of this one."""

    @property
    def num_processes(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class OneProcess:
    """This process alone."""

    process_index: int = 0
    num_processes: int = 1


def own_share(items: Sequence[Item], processes: Processes) -> Sequence[Item]:
    """Return the items that are this process's: they are dealt out in turn."""
    return items[processes.process_index :: processes.num_processes]


def own_blocks(total: int, size: int, processes: Processes) -> Sequence[np.ndarray]:
    """Return the rows of each block of `size` out of `total` that is this process's.

    The blocks are the same whatever the number of processes, and so are the numbers that are computed of each.
    """
    blocks = [np.arange(start, min(start + size, total)) for start in range(0, total, size)]
    return own_share(blocks, processes)


def joined_blocks(parts: list[Any], processes: Processes) -> list[Any]:
    """Return what all processes made of their `own_blocks`, one entry a block, in the order of the blocks."""
    if processes.num_processes == 1:
        return parts
    numbered = [
        (processes.process_index + position * processes.num_processes, part) for position, part in enumerate(parts)
    ]
    return [part for _, part in sorted(gather_object(numbered), key=lambda entry: entry[0])]


def summed_over_processes(found: Tensor, accelerator: Accelerator) -> Tensor:
    """Put together what every process found, each in its own places of a tensor that is zero elsewhere."""
    if accelerator.num_processes == 1:
        return found
    return accelerator.reduce(found.to(accelerator.device), "sum").cpu()


def shared_problem(problem: VlAlignmentError | None, processes: Processes) -> VlAlignmentError | None:
    """Return the first error that any process has, so that all of them raise it and none waits for another."""
    problems = gather_object([problem]) if processes.num_processes > 1 else [problem]
    return next((found for found in problems if found is not None), None)


def on_main_process(accelerator: Accelerator, action: Callable[[], Any]) -> None:
    """Do something on the main process alone; an error of this package that it raises is raised by all."""
    problem: list[VlAlignmentError | None] = [None]
    if accelerator.is_main_process:
        try:
            action()
        except VlAlignmentError as error:
            problem = [error]
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise problem[0]

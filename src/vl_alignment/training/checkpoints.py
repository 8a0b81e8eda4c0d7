"""Checkpoints that are whole or absent: written aside, renamed, checked before they are read."""

import json
import pickle
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from vl_alignment.data.atomic_files import WRITE_ERRORS, cannot_write, synchronize, synchronize_folder
from vl_alignment.data.json_text import parse_json
from vl_alignment.data.processes import on_main_process, shared_problem
from vl_alignment.models.errors import CheckpointError, VlAlignmentError

__all__ = ["Checkpoints"]

MANIFEST = "checkpoint.json"
SCHEMA_VERSION = 1
AVERAGE = "average.safetensors"
"""The moving average. Accelerate would read what is registered with it as a pickle that may do anything."""


class Checkpoints:
    """The checkpoints of one run, `epoch-0003-step-00000123` each.

    Each holds Accelerate's states, the moving average of the weights, further files, and a manifest of all of these.

    Args:
        folder: Holds nothing but the checkpoints.
        keep: How many of the newest are kept.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(
        self,
        accelerator: Accelerator,
        epoch: int,
        step: int,
        state: dict[str, Any],
        files: tuple[Path, ...] = (),
        average: nn.Module | None = None,
    ) -> None:
        """Write a checkpoint from all processes together.

        Args:
            accelerator: Whose prepared model, optimiser and random states are saved.
            epoch: The epoch that goes on from here, counted from 0.
            step: Number of optimiser steps done.
            state: Anything JSON can hold; `load_newest` returns it.
            files: Small files copied along, such as the learning curve.
            average: Of the weights, where one is kept; the same on all processes.

        Raises:
            CheckpointError: A process cannot write; all of them raise it, and the earlier checkpoints are still there.
        """
        final = self.folder / f"epoch-{epoch:04d}-step-{step:08d}"
        writing = self.folder / f".writing-{final.name}"
        if accelerator.is_main_process:
            shutil.rmtree(writing, ignore_errors=True)
        accelerator.wait_for_everyone()
        problem = None
        try:
            accelerator.save_state(str(writing))  # makes the folder
        except WRITE_ERRORS as error:
            problem = cannot_write(final, error, CheckpointError)
        problem = shared_problem(problem, accelerator)
        if problem is not None:
            if accelerator.is_main_process:
                shutil.rmtree(writing, ignore_errors=True)
            raise problem
        on_main_process(accelerator, lambda: self._complete(writing, final, state, files, average))

    def _complete(
        self, writing: Path, final: Path, state: dict[str, Any], files: tuple[Path, ...], average: nn.Module | None
    ) -> None:
        """Add what only one process writes, and let the checkpoint take its place."""
        try:
            for file in files:
                shutil.copyfile(file, writing / file.name)
            if average is not None:
                save_model(average, str(writing / AVERAGE))
            manifest = {"schema_version": SCHEMA_VERSION, "state": state, "files": _fingerprints(writing)}
            (writing / MANIFEST).write_text(json.dumps(manifest, indent=1))
            synchronize(writing)
            if final.exists():  # a damaged one that was skipped
                shutil.rmtree(final)
            writing.rename(final)
            synchronize_folder(self.folder)
        except WRITE_ERRORS as error:
            problem = cannot_write(final, error, CheckpointError)
            shutil.rmtree(writing, ignore_errors=True)
            raise problem from error
        self.prune(self.keep)

    def load_newest(
        self, accelerator: Accelerator, average: nn.Module | None = None
    ) -> tuple[dict[str, Any], Path] | None:
        """Load the newest whole checkpoint into what the accelerator has prepared.

        Nothing in a checkpoint runs: what is neither a tensor nor plain data is refused.

        Args:
            accelerator: Whose prepared model, optimiser and random states are loaded.
            average: Of the weights, where one is kept; loaded too.

        Returns:
            Its state and folder; None where there is no whole checkpoint, with everything left as it was.

        Raises:
            CheckpointError: It is of another model, or is damaged or forged in spite of its manifest; all processes
                raise it.
        """
        found: list[Any] = [None]

        def find() -> None:
            for leftover in self.folder.glob(".writing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            found[0] = next(self._whole(), None)

        on_main_process(accelerator, find)
        broadcast_object_list(found)
        if found[0] is None:
            return None
        folder, state = found[0]
        problem: VlAlignmentError | None = None
        try:
            _load(folder, accelerator, average)
        except CheckpointError as error:
            problem = error
        problem = shared_problem(problem, accelerator)
        if problem is not None:
            raise problem
        return state, folder

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints."""
        for folder in self._newest_first()[keep:]:
            shutil.rmtree(folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*"), reverse=True)

    def _whole(self) -> Any:
        for folder in self._newest_first():
            try:
                manifest = parse_json((folder / MANIFEST).read_text())
                if manifest["schema_version"] > SCHEMA_VERSION:
                    raise CheckpointError("Written by a newer version of vl-alignment; update it.", path=folder)
                if manifest["files"] != _fingerprints(folder):
                    raise OSError("a file is missing, truncated or changed")
                yield folder, manifest["state"]
            except CheckpointError:
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:
                warnings.warn(f"Checkpoint {folder.name} is damaged and skipped ({error}).", stacklevel=2)


def _load(folder: Path, accelerator: Accelerator, average: nn.Module | None) -> None:
    """Load all states of a checkpoint, as restricted as Accelerate's own `load` is unless something is registered."""
    try:
        accelerator.load_state(str(folder))
        if average is not None:
            load_model(average, folder / AVERAGE)
    except (pickle.UnpicklingError, EOFError) as error:  # torch's text tells how to load it nevertheless
        raise CheckpointError(
            "A file in it is damaged or holds more than tensors and plain data: refused, nothing of it ran. "
            "Remove this folder to go on from an earlier checkpoint, or the run's folder to start anew.",
            path=folder,
        ) from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"This checkpoint is of another model or optimiser ({reason}); "
            "use another output folder, or remove the run's folder to start anew.",
            path=folder,
        ) from error


def _fingerprints(folder: Path) -> dict[str, list[int]]:
    """Return size and checksum of every file but the manifest."""
    fingerprints = {}
    for file in sorted(folder.iterdir()):
        if file.name == MANIFEST:
            continue
        checksum = 0
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                checksum = zlib.crc32(block, checksum)
        fingerprints[file.name] = [file.stat().st_size, checksum]
    return fingerprints

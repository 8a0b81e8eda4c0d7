"""Checkpoints that are whole or absent: written aside, renamed, checked before they are read."""

import json
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from vl_alignment.models.errors import CheckpointError

__all__ = ["Checkpoints"]

MANIFEST = "checkpoint.json"
SCHEMA_VERSION = 1


class Checkpoints:
    """The checkpoints of one run, `epoch-0003-step-00000123` each: Accelerate's states, further files, a manifest.

    Args:
        folder: Holds nothing but the checkpoints.
        keep: How many of the newest are kept.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(
        self, accelerator: Accelerator, epoch: int, step: int, state: dict[str, Any], files: tuple[Path, ...] = ()
    ) -> None:
        """Write a checkpoint from all processes together.

        Args:
            accelerator: Whose prepared model, optimiser and random states are saved.
            epoch: The epoch that goes on from here, counted from 0.
            step: Number of optimiser steps done.
            state: Anything JSON can hold; `load_newest` returns it.
            files: Small files copied along, such as the learning curve.
        """
        final = self.folder / f"epoch-{epoch:04d}-step-{step:08d}"
        writing = self.folder / f".writing-{final.name}"
        if accelerator.is_main_process:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(writing))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for file in files:
                shutil.copyfile(file, writing / file.name)
            manifest = {"schema_version": SCHEMA_VERSION, "state": state, "files": _fingerprints(writing)}
            (writing / MANIFEST).write_text(json.dumps(manifest, indent=1))
            if final.exists():  # a damaged one that was skipped
                shutil.rmtree(final)
            writing.rename(final)
            self.prune(self.keep)
        accelerator.wait_for_everyone()

    def load_newest(self, accelerator: Accelerator) -> tuple[dict[str, Any], Path] | None:
        """Load the newest whole checkpoint into what the accelerator has prepared.

        Returns:
            Its state and folder; None where there is no whole checkpoint, with everything left as it was.
        """
        found: list[Any] = [None]
        if accelerator.is_main_process:
            for leftover in self.folder.glob(".writing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            found = [next(self._whole(), None)]
        broadcast_object_list(found)
        if found[0] is None:
            return None
        folder, state = found[0]
        try:
            accelerator.load_state(str(folder))
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"This checkpoint is of another model or optimiser ({str(error).splitlines()[0]}); "
                "use another output folder, or remove the run's folder to start anew.",
                path=folder,
            ) from error
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
                manifest = json.loads((folder / MANIFEST).read_text())
                if manifest["schema_version"] > SCHEMA_VERSION:
                    raise CheckpointError("Written by a newer version of vl-alignment; update it.", path=folder)
                if manifest["files"] != _fingerprints(folder):
                    raise OSError("a file is missing, truncated or changed")
                yield folder, manifest["state"]
            except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
                warnings.warn(f"Checkpoint {folder.name} is damaged and skipped ({error}).", stacklevel=2)


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

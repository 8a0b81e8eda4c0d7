"""Files and folders that are there as a whole or not at all, and one clear error where the disk is full."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from vl_alignment.models.errors import CheckpointError, DataError, ResultsError, VlAlignmentError

__all__ = [
    "WRITE_ERRORS",
    "cannot_write",
    "remove_leftovers",
    "synchronize",
    "synchronize_folder",
    "whole_file",
    "whole_folder",
]

WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What writing raises: torch's archives give a RuntimeError that does not say why."""

PathErrorKind = type[DataError] | type[CheckpointError] | type[ResultsError]

_SUFFIX = ".writing"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LITTLE_SPACE = 1 << 16
"""Bytes: a file system with less left could not hold what was to be written."""


@contextlib.contextmanager
def whole_file(path: Path, kind: PathErrorKind) -> Iterator[BinaryIO]:
    """Give a file to write to that replaces `path` once it is flushed to the disk; on any error nothing is replaced.

    Raises:
        VlAlignmentError: Of this kind, where it cannot be written.
    """
    temporary = None
    try:
        # The temporary name is this process's own, so that two runs on one folder cannot mix their bytes.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=_SUFFIX)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        synchronize_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error, kind) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, writing: Path, previous: Path, kind: PathErrorKind) -> Iterator[Path]:
    """Give an empty folder to fill that then takes the place of `path`; on any error nothing is replaced.

    Two renames take an old folder's place: killed between them, `previous` is what `path` was.

    Args:
        path: Of the folder.
        writing: Where it is filled, on the same file system.
        previous: Where the old one stands while the new one takes its place.
        kind: Of the error where it cannot be written.
    """
    try:
        for leftover in (writing, previous):
            shutil.rmtree(leftover, ignore_errors=True)
        yield writing
        synchronize(writing)
        if path.exists():
            path.rename(previous)
        writing.rename(path)
        synchronize_folder(path.parent)
        shutil.rmtree(previous, ignore_errors=True)
    except WRITE_ERRORS as error:
        problem = cannot_write(path, error, kind)
        shutil.rmtree(writing, ignore_errors=True)
        raise problem from error


def cannot_write(path: Path, error: Exception, kind: PathErrorKind) -> VlAlignmentError:
    """Return the error that says that a file or folder could not be written, and why; to be asked at once."""
    if _is_full(path, error):
        message = "The disk is full; make room and run the same command again. What was complete before is still there."
    else:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"It cannot be written ({reason}); mend that, or choose another folder."
    return kind(message, path=path)


def synchronize(path: Path) -> None:
    """Make sure that a file, or a folder with all that is in it, is on the disk."""
    if not path.is_dir():
        _fsync(path)
        return
    for entry in path.iterdir():
        synchronize(entry)
    synchronize_folder(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written; not while another process may be writing there."""
    for leftover in folder.glob(f".*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _is_full(path: Path, error: Exception) -> bool:
    if getattr(error, "errno", None) in _FULL or any(os.strerror(number) in str(error) for number in _FULL):
        return True
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free < _LITTLE_SPACE


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def synchronize_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk."""
    # Some file systems refuse this for folders; the rename itself is still in order there.
    with contextlib.suppress(OSError):
        _fsync(folder)

"""One program at a time in a folder of runs, and in a run: two would write the same checkpoints."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from vl_alignment.models.errors import ConfigurationError

__all__ = ["only_program"]


@contextlib.contextmanager
def only_program(output: Path | str) -> Iterator[None]:
    """Hold a folder for this program alone; another program that wants it is refused at once.

    Raises:
        ConfigurationError: Another program has it, or it cannot be written.
    """
    if int(os.environ.get("RANK", "0")):  # of torchrun or Accelerate: the first process holds it for all
        yield
        return
    output = Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(output / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise ConfigurationError(f"{output}: another process works on it; wait for it, or stop it") from error
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
    try:
        yield
    finally:
        lock.release()

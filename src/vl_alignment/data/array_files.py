"""Opening `.npy` files of unknown origin memory-mapped."""

import tokenize
from pathlib import Path

import numpy as np

__all__ = ["open_array"]


def open_array(path: str | Path) -> np.ndarray:
    """Map the array in a `.npy` file into memory, for reading.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is truncated, holds no array or Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (tokenize.TokenError, SyntaxError, TypeError, KeyError, OverflowError, EOFError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    except (MemoryError, RecursionError):  # of Python's parser, which reads the header
        raise ValueError("its header cannot be read: it is nested too deeply") from None

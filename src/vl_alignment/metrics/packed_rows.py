"""Rows of numbers as bytes: what the metrics that keep long rows hand to `evaluate`, which makes lists of all else."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..models.errors import DataError

__all__ = ["pack_rows", "unpack_rows"]


def pack_rows(rows: Any) -> list[bytes]:
    """N rows of numbers (a tensor, an array, lists) -> float32 as bytes."""
    if isinstance(rows, torch.Tensor):
        rows = rows.detach().float().cpu().numpy()
    return [np.asarray(row, dtype=np.float32).tobytes() for row in rows]


def unpack_rows(rows: Sequence[bytes], what: str) -> np.ndarray:
    """Bytes of N rows -> float32 [N, d].

    Args:
        rows: Of `pack_rows`.
        what: They are, for messages.

    Raises:
        DataError: Rows differ in length.
    """
    sizes = sorted({len(row) // 4 for row in rows})
    if len(sizes) > 1:
        raise DataError(f"the {what} have different sizes, {sizes}")
    return np.frombuffer(b"".join(rows), dtype=np.float32).reshape(len(rows), -1)

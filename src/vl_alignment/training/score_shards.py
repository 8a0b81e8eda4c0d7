"""Scores of an evaluation that are kept on disk shard by shard, so that a killed evaluation goes on.

    {folder}/
      shards.json                       what the scores are of
      scores-00000000-00000000.npy      float32 [images, captions], named by its first image and its first caption

Every file is written to a temporary name, flushed and renamed: what is there is whole.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed

from vl_alignment.data.array_files import open_array
from vl_alignment.data.atomic_files import remove_leftovers
from vl_alignment.data.features import check_writable
from vl_alignment.data.json_text import parse_json
from vl_alignment.data.region_store import write_array, write_json
from vl_alignment.models.errors import ResultsError

__all__ = ["ScoreShards"]

SCHEMA_VERSION = 1
IDENTITY_NAME = "shards.json"


class ScoreShards:
    """The folder of one evaluation's scores.

    The main process opens it before the others write there, and removes what a killed evaluation left half written.

    Args:
        folder: Made if it is missing.
        identity: What the scores depend on, as JSON holds it: weights, data, sizes of the shards.

    Raises:
        ResultsError: The folder holds scores of something else, or a file of it cannot be read.
        DataError: The folder cannot be written.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        check_writable(self.folder)
        if _is_main_process():
            remove_leftovers(self.folder)
        path = self.folder / IDENTITY_NAME
        wanted = {"schema_version": SCHEMA_VERSION, **identity}
        if not path.exists():
            write_json(path, wanted)
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResultsError(f"not readable ({error}); remove the folder", path=path) from error
        if not isinstance(found, dict):
            raise ResultsError("not that of an evaluation's scores; give another folder", path=path)
        differing = sorted(name for name in {*wanted, *found} if found.get(name) != wanted.get(name))
        if differing:
            raise ResultsError(
                f"the folder holds scores of another evaluation ({', '.join(differing)} differ); give another folder, "
                "or remove this one",
                path=self.folder,
            )

    def get(self, image: int, caption: int, shape: tuple[int, int], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the scores of a shard [images, captions], float32, computed and kept where they are not there yet.

        Args:
            image: Its first image.
            caption: Its first caption, in the order of the evaluation.
            shape: Its images and captions.
            compute: Gives the scores.

        Raises:
            DataError: The shard cannot be written; a full disk leaves those before it whole.
        """
        path = self.folder / f"scores-{image:08d}-{caption:08d}.npy"
        found = _read(path, shape) if path.exists() else None
        if found is not None:
            return found
        scores = np.ascontiguousarray(compute(), dtype=np.float32)
        write_array(path, scores)
        return scores


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return a shard; None, with a warning, where somebody damaged it."""
    try:
        scores = open_array(path)
        if scores.shape != shape or scores.dtype != np.float32:
            raise ValueError(f"{scores.shape} {scores.dtype} in place of {shape} float32")
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} is damaged ({error}); these scores are computed again.", stacklevel=3)
        return None
    return np.array(scores)


def _is_main_process() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0

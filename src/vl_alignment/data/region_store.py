"""The region store: extracted features on disk, opened memory-mapped.

    {folder}/
      features-00000.npy   [n, R, d] in the store's dtype
      boxes-00000.npy      [n, R, 4] float32
      ...                  one pair a shard
      index.json           names, sizes and the image ids in the order of the rows; written last, atomically

While an extraction is under way each finished shard has a `part-00000.json` beside it; the index replaces them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vl_alignment.data.array_files import open_array
from vl_alignment.data.atomic_files import whole_file
from vl_alignment.data.inner_paths import inner_path
from vl_alignment.data.json_text import parse_json
from vl_alignment.models.errors import DataError

__all__ = ["RegionStore"]

SCHEMA_VERSION = 1
INDEX_NAME = "index.json"


class Rows(Protocol):
    """What a store reads from: rows of one shape and dtype, wherever they lie."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""

    def __len__(self) -> int: ...

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows [n] as a new array [n, ...], in the given order."""
        ...


class ShardedRows:
    """Rows of several arrays of one shape, addressed as if they were one array."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        # A plain ndarray over the map: np.memmap's own indexing costs more than the read for single rows.
        self.shards = [np.asarray(shard) for shard in shards]
        self.starts = np.cumsum([0] + [len(shard) for shard in self.shards])  # [shards + 1]
        self.row_shape: tuple[int, ...] = self.shards[0].shape[1:]
        self.dtype = self.shards[0].dtype

    def __len__(self) -> int:
        return int(self.starts[-1])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows [n] as a new array [n, ...], in the given order."""
        if len(self.shards) == 1:
            return self.shards[0][rows]
        result = np.empty((len(rows), *self.row_shape), dtype=self.dtype)
        shard_of_row = np.searchsorted(self.starts, rows, side="right") - 1  # [n]
        for position, (shard, row) in enumerate(zip(shard_of_row, rows, strict=True)):
            result[position] = self.shards[shard][row - self.starts[shard]]
        return result


class RegionStore:
    """Features and boxes of many images, read from disk as they are asked for.

    Args:
        image_ids: The ids in the order of the rows.
        features: Arrays [n, R, d] whose lengths add up to the number of rows, or `Rows` that give [R, d] each.
        boxes: Arrays [n, R, 4] or `Rows` likewise, or None where the boxes were never published.
        extractor: Name of what made the features.
        extractor_version: Its version.
        image_sizes: (height, width) of each image, where known.
        failures: Ids of the images that the extraction could not read and left out.
        path: Where it lies, for messages.
    """

    def __init__(
        self,
        image_ids: Sequence[str],
        features: Sequence[np.ndarray] | Rows,
        boxes: Sequence[np.ndarray] | Rows | None,
        *,
        extractor: str,
        extractor_version: str,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        failures: Sequence[str] = (),
        path: Path | None = None,
    ) -> None:
        self.path = path
        self.failures = list(failures)
        self.image_ids = list(image_ids)
        self.extractor = extractor
        self.extractor_version = extractor_version
        self._features = ShardedRows(features) if isinstance(features, Sequence) else features
        self._boxes = ShardedRows(boxes) if isinstance(boxes, Sequence) else boxes
        self._image_sizes = image_sizes
        self._rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        if len(self._rows) != len(self.image_ids):
            raise DataError("an image id occurs twice in the region store", path=path)
        if len(self._features) != len(self.image_ids):
            raise DataError(
                f"{len(self._features)} rows of features do not fit {len(self.image_ids)} images", path=path
            )
        self.regions: int = self._features.row_shape[0]
        self.feature_size: int = self._features.row_shape[1]
        self.dtype = self._features.dtype

    @classmethod
    def open(cls, path: str | Path) -> "RegionStore":
        """Open the store in the folder `path`; the features stay on disk.

        Raises:
            DataError: There is no store, it is incomplete, a file is truncated, or a newer version wrote it.
        """
        path = Path(path)
        index = read_index(path)
        features, boxes = [], []
        for shard in index["shards"]:
            rows, regions, size = shard["images"], index["regions"], index["feature_size"]
            features.append(_open_shard(path / shard["features"], (rows, regions, size), index["dtype"]))
            boxes.append(_open_shard(path / shard["boxes"], (rows, regions, 4), "float32"))
        return cls(
            index["image_ids"],
            features,
            boxes,
            extractor=index["extractor"],
            extractor_version=index["extractor_version"],
            image_sizes=[(height, width) for height, width in index["image_sizes"]],
            failures=index.get("failures", ()),
            path=path,
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def __repr__(self) -> str:
        return (
            f"RegionStore({len(self)} images, {self.regions} regions of {self.feature_size}, "
            f"extractor={self.extractor!r}, path={str(self.path)!r})"
        )

    def features(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the features [n, R, d] of n images, in the store's dtype."""
        return self._features.gather(self._rows_of(image_ids))

    def boxes(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the boxes [n, R, 4] of n images, in [0, 1] of width and height."""
        if self._boxes is None:
            raise DataError("these features were published without boxes", path=self.path)
        return self._boxes.gather(self._rows_of(image_ids))

    def image_sizes(self, image_ids: Sequence[str]) -> list[tuple[int, int]]:
        """Return the (height, width) of n images in pixels."""
        if self._image_sizes is None:
            raise DataError("these features were published without image sizes", path=self.path)
        rows = self._rows_of(image_ids)
        return [self._image_sizes[row] for row in rows]

    def __getitem__(self, image_id: str) -> dict[str, Any]:
        """Return one record: features [R, d], boxes [R, 4], image_size (height, width)."""
        return {
            "features": self.features([image_id])[0],
            "boxes": self.boxes([image_id])[0],
            "image_size": self.image_sizes([image_id])[0],
        }

    def _rows_of(self, image_ids: Sequence[str]) -> np.ndarray:
        try:
            rows = [self._rows[image_id] for image_id in image_ids]
        except KeyError as error:
            raise DataError(
                f"the region store has no image {error.args[0]!r}; run extract-features on this data set again",
                path=self.path,
                record=error.args[0],
            ) from None
        return np.asarray(rows, dtype=np.int64)


def read_index(path: Path) -> dict[str, Any]:
    """Read and check the index of a finished store."""
    try:
        index = parse_json((path / INDEX_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if next(path.glob("part-*.json"), None) is not None:
            raise DataError(
                "the region store is incomplete; run the same extract-features command again, which goes on from here",
                path=path,
            ) from None
        raise DataError("there is no region store here; make one with extract-features", path=path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"the index is not readable JSON ({error}); extract the features again", path=path) from error
    if not isinstance(index, dict) or not isinstance(index.get("schema_version"), int):
        raise DataError("index.json is not that of a region store", path=path)
    if index["schema_version"] > SCHEMA_VERSION:
        raise DataError(
            f"the region store has schema version {index['schema_version']}, this vl-alignment reads up to "
            f"{SCHEMA_VERSION}; upgrade vl-alignment",
            path=path,
        )
    if index.get("complete") is not True:
        raise DataError("the region store is incomplete; run the same extract-features command again", path=path)
    needed = {
        "extractor",
        "extractor_version",
        "feature_size",
        "regions",
        "dtype",
        "image_ids",
        "image_sizes",
        "shards",
    }
    if missing := sorted(needed - set(index)):
        raise DataError(f"index.json lacks {', '.join(missing)}; extract the features again", path=path)
    try:
        _check_index(index, path)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"index.json is damaged ({error!r:.300}); extract the features again", path=path) from error
    return index


def _check_index(index: dict[str, Any], path: Path) -> None:
    """Refuse values of another type, and names of files that lead out of the store."""
    np.dtype(index["dtype"])
    numbers = [index["regions"], index["feature_size"], *(shard["images"] for shard in index["shards"])]
    numbers += [side for height, width in index["image_sizes"] for side in (height, width)]
    if not index["shards"] or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a size in it is no number")
    names = [*index["image_ids"], *index.get("failures", ()), index["extractor"], index["extractor_version"]]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("an id in it is no text")
    if len(index["image_sizes"]) != len(index["image_ids"]):
        raise ValueError(f"{len(index['image_ids'])} images have {len(index['image_sizes'])} sizes")
    for shard in index["shards"]:
        inner_path(path, shard["features"])
        inner_path(path, shard["boxes"])


def _open_shard(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    try:
        shard = open_array(path)
    except FileNotFoundError:
        raise DataError("this file of the region store is missing; extract the features again", path=path) from None
    except (ValueError, OSError) as error:
        raise DataError(
            f"this file of the region store is truncated or damaged ({error}); delete the folder and extract again",
            path=path,
        ) from error
    if shard.shape != shape or shard.dtype != np.dtype(dtype):
        raise DataError(
            f"this file holds {shard.shape} {shard.dtype}, the index says {shape} {dtype}; extract the features again",
            path=path,
        )
    return shard


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is either there as a whole or not at all."""
    with whole_file(path, DataError) as file:
        file.write(json.dumps(content, ensure_ascii=False).encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file that is either there as a whole or not at all."""
    with whole_file(path, DataError) as file:
        np.save(file, array, allow_pickle=False)

"""Features that others extracted into HDF5, one file a split, read like a region store.

    train_features.h5   dataset "features" [N, d, rows, columns], row i is the image with index i

This is the layout in which CLEVR's features are usually passed on (1024 x 14 x 14 of a ResNet-101).
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from vl_alignment.data.features import HDF5_SUFFIXES
from vl_alignment.data.grid_extractor import grid_boxes
from vl_alignment.data.region_store import RegionStore
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["Hdf5Regions"]

MAXIMUM_ROW_BYTES = 2**28


class Hdf5Regions(RegionStore):
    """A region store over HDF5 files: the cells of the grid are the regions, row by row.

    Only the rows asked for are read; a dataset that lies in one piece is mapped into memory, one in chunks goes
    through h5py.

    Args:
        files: The feature file of each split.
        images: The images of the same splits; their column `image_index` gives the rows, else their order does.
        dataset: Name of the dataset in the files.
        extractor: Name of what made the features.
        extractor_version: Its version; default: the shape and a hash over some of the rows.

    Raises:
        ConfigurationError: h5py is not installed.
        DataError: A file is missing, cut short, has no such dataset, or one of another shape, or fewer rows than there
            are images.
    """

    def __init__(
        self,
        files: Mapping[str, str | Path],
        images: Mapping[str, datasets.Dataset],
        *,
        dataset: str = "features",
        extractor: str = "hdf5",
        extractor_version: str | None = None,
    ) -> None:
        opened = {split: FeatureFile(path, dataset) for split, path in files.items()}
        first = next(iter(opened.values()))
        image_ids: list[str] = []
        rows: list[np.ndarray] = []
        for split, file in opened.items():
            if (file.grid_shape, file.dtype) != (first.grid_shape, first.dtype):
                raise DataError(
                    f"it holds {file.grid_shape} of {file.dtype} an image, but {first.path} {first.grid_shape} of "
                    f"{first.dtype}; the splits need one kind of features",
                    path=file.path,
                )
            image_ids += images[split]["image_id"][:]
            rows.append(_rows_of_images(images[split], file, split))
        size, height, width = first.grid_shape
        features = GridRows(list(opened.values()), rows)
        super().__init__(
            image_ids,
            features,
            GridBoxes(height, width, len(image_ids)),
            extractor=extractor,
            extractor_version=extractor_version or f"{size}x{height}x{width}-{_digest(opened)}",
            path=first.path if len(opened) == 1 else first.path.parent,
        )

    @classmethod
    def find(cls, path: str | Path, images: Mapping[str, datasets.Dataset], **options: Any) -> "Hdf5Regions":
        """Open the file of a single split, or the files of a folder by their usual names.

        These are {split}_features, features_{split}, {split} and, for a single split, features, with .h5 or .hdf5;
        "val" stands for "validation" as well.

        Args:
            path: The file or the folder.
            images: The images of the splits that are needed.
            options: As for the class.

        Raises:
            DataError: There is no file for a split, or as for the class.
        """
        path = Path(path)
        if path.is_dir():
            return cls({split: _find_file(path, split, single=len(images) == 1) for split in images}, images, **options)
        if len(images) > 1:
            raise DataError(
                f"one file cannot hold the splits {', '.join(images)}; give the folder with a file for each split",
                path=path,
            )
        return cls({split: path for split in images}, images, **options)


class FeatureFile:
    """The dataset of one HDF5 file; reopened in every process that reads it."""

    def __init__(self, path: str | Path, dataset: str) -> None:
        self.path, self.dataset = Path(path), dataset
        self._process: int | None = os.getpid()
        self._source: Any = self._open()  # a map of the file, or the dataset of h5py
        self.rows, *grid = self._source.shape
        self.grid_shape: tuple[int, int, int] = (grid[0], grid[1], grid[2])
        # Twice the digits of float32 help nobody, and HDF5's numbers may have the other order of bytes.
        self.dtype = np.dtype(np.float16 if self._source.dtype.itemsize == 2 else np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None, "_source": None}

    def read(self, row: int) -> np.ndarray:
        """Return the features [d, rows, columns] of one image."""
        # HDF5's own handles must not be shared with forked workers.
        if self._process != os.getpid():
            self._source, self._process = self._open(), os.getpid()
        try:
            return self._source[row]
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(
                f"cannot be read ({error}); fetch or make the file again", path=self.path, record=row
            ) from error

    def _open(self) -> Any:
        h5py = _import_h5py()
        try:
            file = h5py.File(self.path, "r")
        except FileNotFoundError:
            raise DataError("this feature file is missing", path=self.path) from None
        except OSError as error:
            raise DataError(
                f"cut short or no HDF5 file ({error}); fetch or make the file again", path=self.path
            ) from error
        try:
            found = self._found(file, h5py)
            self._check(found)
            offset = found.id.get_offset()
            if offset is None:  # chunked, compressed or never written
                return found
            mapped = np.memmap(self.path, found.dtype, "r", offset, found.shape)
        except DataError:
            raise
        # What h5py raises for damage within: it speaks of everything by one of these.
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(f"damaged ({error}); fetch or make the file again", path=self.path) from error
        file.close()
        # A plain ndarray over the map: np.memmap's own indexing costs more than the read for single rows.
        return np.asarray(mapped)

    def _found(self, file: Any, h5py: Any) -> Any:
        """Return the dataset, which must lie in this file: HDF5 can also point to any other."""
        found: Any = file
        linked = False
        for part in self.dataset.strip("/").split("/"):  # step by step: asking for a path follows all links in it
            here = isinstance(found, h5py.Group) and found.id.links.exists(part.encode())
            linked = here and found.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD
            found = found[part] if here and not linked else None
        if linked or (isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)):
            raise DataError(f"the dataset {self.dataset!r} is only a link; give the file that holds it", path=self.path)
        if not isinstance(found, h5py.Dataset):
            names = ", ".join(file) or "nothing"
            raise DataError(f"there is no dataset {self.dataset!r} in it; it holds {names}", path=self.path)
        return found

    def _check(self, found: Any) -> None:
        if found.dtype.kind != "f" or found.ndim != 4 or 0 in found.shape:
            raise DataError(
                f"expected floats [images, channels, rows, columns], found {found.dtype} {found.shape}", path=self.path
            )
        _, second, third, fourth = found.shape
        if second * third * fourth * found.dtype.itemsize > MAXIMUM_ROW_BYTES:  # claimed, and perhaps never written
            raise DataError(f"the features {found.shape} are too large to be those of images", path=self.path)
        if second == third != fourth:
            raise DataError(
                f"the shape {found.shape} looks like [images, rows, columns, channels], but channels come before the "
                "rows in this layout; transpose the dataset",
                path=self.path,
            )


class GridRows:
    """The images of several files as rows [R, d]."""

    def __init__(self, files: Sequence[FeatureFile], rows: Sequence[np.ndarray]) -> None:
        self.files = files
        self.file_of_row = np.repeat(np.arange(len(files)), [len(chosen) for chosen in rows])  # [images]
        self.row_in_file = np.concatenate(rows)  # [images]
        size, height, width = files[0].grid_shape
        self.row_shape = (height * width, size)
        self.dtype = files[0].dtype

    def __len__(self) -> int:
        return len(self.row_in_file)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows [n] as a new array [n, R, d], in the given order."""
        regions, size = self.row_shape
        result = np.empty((len(rows), regions, size), dtype=self.dtype)
        for position, row in enumerate(rows):
            grid = self.files[self.file_of_row[row]].read(self.row_in_file[row])  # [d, rows, columns]
            result[position] = grid.reshape(size, regions).T
        return result


class GridBoxes:
    """The cells of one grid as the boxes of every image."""

    def __init__(self, height: int, width: int, images: int) -> None:
        self.boxes = grid_boxes(height, width)  # [R, 4]
        self.images = images
        self.row_shape, self.dtype = self.boxes.shape, self.boxes.dtype

    def __len__(self) -> int:
        return self.images

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the same boxes for n rows, as a new array [n, R, 4]."""
        return np.tile(self.boxes, (len(rows), 1, 1))


def _rows_of_images(images: datasets.Dataset, file: FeatureFile, split: str) -> np.ndarray:
    """Return the row of each image of a split."""
    column = images["image_index"][:] if "image_index" in images.column_names else range(len(images))
    rows = np.asarray(column, dtype=np.int64)
    if len(rows) and rows.max() >= file.rows:
        raise DataError(
            f"it has {file.rows} rows, but the {split} split {len(rows)} images with indices up to {rows.max()}; "
            "these features were made from other images, or not from all",
            path=file.path,
            record=images[int(rows.argmax())]["image_id"],
        )
    return rows


def _find_file(folder: Path, split: str, *, single: bool) -> Path:
    names = [split, "val"] if split == "validation" else [split]
    stems = [stem for name in names for stem in (f"{name}_features", f"features_{name}", name)]
    stems += ["features"] if single else []
    for stem in stems:
        for suffix in HDF5_SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise DataError(
        f"there is no feature file for the {split} split: none of {', '.join(f'{stem}.h5' for stem in stems)}",
        path=folder,
    )


def _digest(files: Mapping[str, FeatureFile]) -> str:
    """Return a short hash over the shapes and the first, middle and last row of each file."""
    digest = hashlib.sha256()
    for split, file in files.items():
        digest.update(repr((split, file.rows, file.grid_shape, file.dtype.name)).encode())
        for row in (0, file.rows // 2, file.rows - 1):
            digest.update(np.ascontiguousarray(file.read(row), dtype=file.dtype).tobytes())
    return digest.hexdigest()[:8]


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ConfigurationError(
            "features in HDF5 need h5py; install it with: pip install 'vl-alignment[hdf5]'"
        ) from error
    return h5py

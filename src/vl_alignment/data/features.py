"""Region features: from any vision backbone or a plug-in extractor to a region store on disk.

An extractor turns pictures into regions; `extract_regions` runs it over a whole data set in shards, so that a stopped
run goes on where it was and ends with the same bytes.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.feature_shards import Extraction, RegionExtractor, pictures_of
from vl_alignment.data.processes import OneProcess, Processes
from vl_alignment.data.region_store import INDEX_NAME, RegionStore
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = [
    "RegionExtractor",
    "RegionStore",
    "build_extractor",
    "extract_regions",
    "extractor_names",
    "open_regions",
    "register_extractor",
    "without_failed_images",
]

logger = logging.getLogger(__name__)

IMAGES_PER_SHARD = 512
HDF5_SUFFIXES = (".h5", ".hdf5")


def _efficientnet_lite0(**options: Any) -> RegionExtractor:
    from vl_alignment.data.efficientnet_lite import EfficientNetLite0Extractor

    return EfficientNetLite0Extractor(**options)


def _transformers(**options: Any) -> RegionExtractor:
    from vl_alignment.data.grid_extractor import TransformersGridExtractor

    return TransformersGridExtractor(**options)


_FACTORIES: dict[str, Callable[..., RegionExtractor]] = {
    "efficientnet_lite0": _efficientnet_lite0,
    "transformers": _transformers,
}


def register_extractor(name: str, factory: Callable[..., RegionExtractor]) -> None:
    """Make an extractor known by name; `factory(**options)` builds it. A name that is taken is refused."""
    if name in _FACTORIES:
        raise ConfigurationError(f"an extractor {name!r} is already registered; choose another name")
    _FACTORIES[name] = factory


def extractor_names() -> list[str]:
    """Return the names that `build_extractor` knows, sorted."""
    return sorted(_FACTORIES)


def build_extractor(name: str, **options: Any) -> RegionExtractor:
    """Build a registered extractor.

    Raises:
        ConfigurationError: The name is unknown (the message lists the known ones), or an option does not fit or is
            missing.
    """
    if name not in _FACTORIES:
        raise ConfigurationError(f"unknown extractor {name!r}; the known ones are {', '.join(extractor_names())}")
    try:
        return _FACTORIES[name](**options)
    except TypeError as error:
        if "argument" in str(error) and (options or "required" in str(error)):
            raise ConfigurationError(f"extractor {name!r}: {error}") from error
        raise


def extract_regions(
    data: datasets.DatasetDict,
    extractor: RegionExtractor,
    output: str | Path,
    *,
    batch_size: int = 32,
    dtype: str = "float16",
    maximum_failures: int | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
    progress: bool = True,
    processes: Processes | None = None,
) -> RegionStore:
    """Extract the regions of every image of every split into a region store.

    A stopped run goes on when called again in the same way; the files come out byte-identical to an uninterrupted
    run. A finished store of the same extractor is extended by the images that it lacks, and left alone if it has all.
    Several processes make the shards in turn, and write the same bytes as one.

    Args:
        data: Splits with the columns `image_id` and `image`.
        extractor: What turns pictures into regions.
        output: Folder of the store.
        batch_size: Pictures an extractor call.
        dtype: How the features are stored, "float16" or "float32".
        maximum_failures: Unreadable images that are left out, with a warning each, before the run stops. Default: 1 %
            of the images, at least 10.
        images_per_shard: Images a file; also what an interrupted run loses at most.
        progress: Whether a progress bar is shown.
        processes: That call this together, such as an `Accelerator`; by default this one alone.

    Raises:
        DataError: The folder cannot be written or belongs to another extraction, too many images are unreadable, or
            the extractor gave numbers that are not finite; every process raises what one of them does.
    """
    output = Path(output)
    check_writable(output)
    if dtype not in ("float16", "float32"):
        raise ConfigurationError(f"features are stored as float16 or float32, not {dtype!r}")
    if batch_size < 1 or images_per_shard < 1:
        raise ConfigurationError("batch_size and images_per_shard must be at least 1")
    pictures = pictures_of(data)
    limit = max(10, len(pictures) // 100) if maximum_failures is None else maximum_failures
    extraction = Extraction(
        output,
        extractor,
        batch_size=batch_size,
        dtype=dtype,
        limit=limit,
        processes=OneProcess() if processes is None else processes,
    )
    failed = extraction.run(pictures, images_per_shard, progress)
    if failed:
        logger.warning("%d of %d images were left out: they could not be read", len(failed), len(pictures))
    return RegionStore.open(output)


def open_regions(path: str | Path, images: datasets.DatasetDict) -> RegionStore:
    """Open features on disk, whichever form they have.

    Args:
        path: Folder of a region store, or HDF5 features: the folder of their files, or the file of a single split.
        images: The images that they belong to; only HDF5 needs them, for the order of its rows.

    Raises:
        ConfigurationError: HDF5 without h5py.
        DataError: See `RegionStore.open` and `Hdf5Regions`.
    """
    path = Path(path)
    hdf5 = path.suffix in HDF5_SUFFIXES
    if path.is_dir() and not (path / INDEX_NAME).exists():
        hdf5 = any(entry.suffix in HDF5_SUFFIXES for entry in path.iterdir())
    if not hdf5:
        return RegionStore.open(path)
    from vl_alignment.data.hdf5_features import Hdf5Regions

    return Hdf5Regions.find(path, images)


def without_failed_images(data: datasets.DatasetDict, store: RegionStore) -> datasets.DatasetDict:
    """Return the data set without the images that the extraction reported as unreadable and left out.

    Images that the store lacks for any other reason stay, so that a store of other data is still noticed.
    """
    failed = set(store.failures)
    result = datasets.DatasetDict()
    for name, split in data.items():
        rows = [row for row, image_id in enumerate(split["image_id"]) if image_id not in failed]
        result[name] = split if len(rows) == len(split) else split.select(rows)
        if len(rows) < len(split):
            logger.warning("%s: %d images without regions are left out", name, len(split) - len(rows))
    return result


def check_writable(folder: Path) -> None:
    """Create the folder and prove that a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"cannot write to the output folder ({error.strerror or error})", path=folder) from error

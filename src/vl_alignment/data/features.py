"""Region features: from any vision backbone or a plug-in extractor to a region store on disk.

An extractor turns pictures into regions; `extract_regions` runs it over a whole data set in shards, so that a stopped
run goes on where it was and ends with the same bytes.
"""

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vl_alignment.data.region_store import (
    INDEX_NAME,
    SCHEMA_VERSION,
    RegionStore,
    read_index,
    write_array,
    write_json,
)
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


class RegionExtractor(Protocol):
    """What turns pictures into regions.

    Attributes:
        name: Its name in the store and in a model's config.
        version: Everything that changes its numbers: weights, layer, picture size.
        feature_size: Numbers a region, d.
        regions: Regions a picture, R.
    """

    name: str
    version: str
    feature_size: int
    regions: int

    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, R, d] float32, boxes [B, R, 4] in [0, 1]) of B RGB pictures."""
        ...


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


@dataclass
class _Failures:
    """Images that could not be read, and how many of them are too many."""

    limit: int
    names: list[str] = field(default_factory=list)

    def add(self, image_id: str, reason: str) -> None:
        logger.warning("left out image %s: %s", image_id, reason)
        self.names.append(image_id)
        self.check()

    def check(self) -> None:
        if len(self.names) > self.limit:
            raise DataError(
                f"{len(self.names)} images could not be read (the limit is {self.limit}), the first are "
                f"{', '.join(self.names[:5])}; repair the files, or raise maximum_failures"
            )


@dataclass(frozen=True)
class _Picture:
    """Where one picture of the data set is: an encoded value of a `datasets.Image` column."""

    image_id: str
    split: datasets.Dataset
    row: int


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
) -> RegionStore:
    """Extract the regions of every image of every split into a region store.

    A stopped run goes on when called again in the same way; the files come out byte-identical to an uninterrupted
    run. A finished store of the same extractor is extended by the images that it lacks, and left alone if it has all.

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

    Raises:
        DataError: The folder cannot be written or belongs to another extraction, too many images are unreadable, or
            the extractor gave numbers that are not finite.
    """
    output = Path(output)
    check_writable(output)
    if dtype not in ("float16", "float32"):
        raise ConfigurationError(f"features are stored as float16 or float32, not {dtype!r}")
    if batch_size < 1 or images_per_shard < 1:
        raise ConfigurationError("batch_size and images_per_shard must be at least 1")
    pictures = _pictures(data)
    limit = max(10, len(pictures) // 100) if maximum_failures is None else maximum_failures
    identity = {
        "extractor": extractor.name,
        "extractor_version": extractor.version,
        "feature_size": extractor.feature_size,
        "regions": extractor.regions,
        "dtype": dtype,
    }
    finished = _finished_index(output, identity)
    stored = set(finished["image_ids"])
    wanted = [picture for picture in pictures if picture.image_id not in stored]
    if stored and not wanted:
        return RegionStore.open(output)
    shards = [wanted[start : start + images_per_shard] for start in range(0, len(wanted), images_per_shard)]
    failures = _Failures(limit)
    parts = []
    with tqdm(total=len(wanted), desc="regions", unit="image", disable=not progress) as bar:
        for number, shard in enumerate(shards, start=_next_number(finished)):
            settings = {**identity, "batch_size": batch_size, "image_ids": [picture.image_id for picture in shard]}
            fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
            part = _finished_part(output, number, fingerprint, shard)
            if part is None:
                part = _extract_shard(shard, number, extractor, output, batch_size, dtype, failures, bar)
                write_json(output / _part_name(number), {"fingerprint": fingerprint, **part})
            else:
                failures.names += part["failures"]
                failures.check()
                bar.update(len(shard))
            parts.append(part)
    _write_index(output, identity, finished, parts)
    if failures.names:
        logger.warning("%d of %d images were left out: they could not be read", len(failures.names), len(pictures))
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


def _pictures(data: datasets.DatasetDict) -> list[_Picture]:
    pictures: list[_Picture] = []
    seen: set[str] = set()
    for name, split in data.items():
        if missing := [column for column in ("image_id", "image") if column not in split.column_names]:
            raise DataError(f"split {name!r} has no column {missing[0]!r}; regions are extracted from images")
        encoded = split.select_columns(["image_id", "image"]).cast_column("image", datasets.Image(decode=False))
        for row, image_id in enumerate(encoded["image_id"]):
            if image_id in seen:
                raise DataError("this image id occurs twice in the data set", record=image_id)
            seen.add(image_id)
            pictures.append(_Picture(image_id, encoded, row))
    if not pictures:
        raise DataError("the data set has no images")
    return pictures


def _finished_index(output: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the index of the store that is to be extended, or an empty one."""
    if not (output / INDEX_NAME).exists():
        return {"image_ids": [], "image_sizes": [], "shards": []}
    index = read_index(output)
    for name, value in identity.items():
        if index[name] != value:
            raise DataError(
                f"the folder holds regions with {name} {index[name]!r}, these would have {value!r}; "
                "give another output folder",
                path=output,
            )
    return index


def _next_number(index: dict[str, Any]) -> int:
    """Return the first shard number that no file of the store has; shards without a readable image leave gaps."""
    return 1 + max((int(re.findall(r"\d+", shard["features"])[-1]) for shard in index["shards"]), default=-1)


def _part_name(number: int) -> str:
    return f"part-{number:05d}.json"


def _finished_part(output: Path, number: int, fingerprint: str, shard: Sequence[_Picture]) -> dict[str, Any] | None:
    """Return what an earlier, interrupted run recorded of this shard, or None if it is to be made."""
    path = output / _part_name(number)
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"not readable ({error}); delete it, the shard is then made again", path=path) from error
    if part.pop("fingerprint") != fingerprint:
        raise DataError(
            "the folder holds an unfinished extraction with other images, another extractor or another batch size; "
            "finish that one, delete the folder, or give another output folder",
            path=output,
        )
    failed = set(part["failures"])
    repaired = any(_read_picture(picture)[1] is not None for picture in shard if picture.image_id in failed)
    return None if repaired else part


def _read_picture(picture: _Picture) -> tuple[_Picture, Image.Image | None, str]:
    """Decode one picture to RGB; gives (picture, None, reason) where the file is broken."""
    value = picture.split[picture.row]["image"]
    try:
        if value is None:
            raise ValueError("the record has no image")
        return picture, datasets.Image(mode="RGB").decode_example(value), ""
    # PIL's decoders raise any of these for damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        name = (value or {}).get("path") or "the picture stored in the record"
        return picture, None, f"{name}: {error}"


def _batches(
    shard: Sequence[_Picture], batch_size: int, failures: _Failures
) -> Iterator[tuple[int, list[tuple[str, Image.Image]]]]:
    """Give (pictures tried, the readable ones with their ids), decoding one batch ahead in threads."""
    chunks = [shard[start : start + batch_size] for start in range(0, len(shard), batch_size)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        ahead = [pool.submit(_read_picture, picture) for picture in chunks[0]]
        for position in range(len(chunks)):
            current = ahead
            following = chunks[position + 1] if position + 1 < len(chunks) else []
            ahead = [pool.submit(_read_picture, picture) for picture in following]
            batch = []
            for future in current:
                picture, image, reason = future.result()
                if image is None:
                    failures.add(picture.image_id, reason)
                else:
                    batch.append((picture.image_id, image))
            yield len(current), batch


def _extract_shard(
    shard: Sequence[_Picture],
    number: int,
    extractor: RegionExtractor,
    output: Path,
    batch_size: int,
    dtype: str,
    failures: _Failures,
    bar: tqdm,
) -> dict[str, Any]:
    """Extract and write one shard; returns its line of the index."""
    failed_before = len(failures.names)
    image_ids: list[str] = []
    image_sizes: list[list[int]] = []
    features: list[np.ndarray] = []
    boxes: list[np.ndarray] = []
    for tried, batch in _batches(shard, batch_size, failures):
        if batch:
            names = [image_id for image_id, _ in batch]
            batch_features, batch_boxes = extractor([image for _, image in batch])
            features.append(_checked_features(batch_features, names, extractor, dtype))
            boxes.append(_checked_boxes(batch_boxes, names, extractor))
            image_ids += names
            image_sizes += [[image.height, image.width] for _, image in batch]
        bar.update(tried)
    files = {"features": f"features-{number:05d}.npy", "boxes": f"boxes-{number:05d}.npy"}
    if image_ids:
        write_array(output / files["features"], np.concatenate(features))
        write_array(output / files["boxes"], np.concatenate(boxes))
    failed = failures.names[failed_before:]
    return {**files, "images": len(image_ids), "image_ids": image_ids, "image_sizes": image_sizes, "failures": failed}


def _checked_features(features: np.ndarray, names: list[str], extractor: RegionExtractor, dtype: str) -> np.ndarray:
    """Return [B, R, d] in the store's dtype, finite and of the promised shape."""
    expected = (len(names), extractor.regions, extractor.feature_size)
    if features.shape != expected:
        raise DataError(f"extractor {extractor.name!r} gave features {features.shape} where it promised {expected}")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(features, dtype=dtype)
    finite = np.isfinite(stored).all(axis=(1, 2))  # [B]
    if not finite.all():
        name = names[int(np.argmin(finite))]
        overflow = np.isfinite(features).all()
        remedy = (
            f"too large for {dtype}: extract with dtype float32" if overflow else "check the picture and the weights"
        )
        raise DataError(f"extractor {extractor.name!r} gave features that are not finite; {remedy}", record=name)
    return stored


def _checked_boxes(boxes: np.ndarray, names: list[str], extractor: RegionExtractor) -> np.ndarray:
    """Return [B, R, 4] float32, in [0, 1] of width and height."""
    boxes = np.asarray(boxes, dtype=np.float32)
    expected = (len(names), extractor.regions, 4)
    # A detector's rounding may leave the picture by a hair; pixel coordinates are what this is after.
    if boxes.shape != expected or not ((boxes >= -1e-3) & (boxes <= 1 + 1e-3)).all():
        raise DataError(
            f"extractor {extractor.name!r} gave boxes {boxes.shape} where it promised {expected} in [0, 1] of width "
            "and height",
            record=names[0],
        )
    return boxes.clip(0, 1)


def _write_index(
    output: Path, identity: dict[str, Any], finished: dict[str, Any], parts: Sequence[dict[str, Any]]
) -> None:
    """Write the index over the finished and the new shards, then remove the parts."""
    shards = [{key: part[key] for key in ("features", "boxes", "images")} for part in parts if part["images"]]
    index = {
        "schema_version": SCHEMA_VERSION,
        **identity,
        "shards": finished["shards"] + shards,
        "failures": [name for part in parts for name in part["failures"]],
        "image_ids": finished["image_ids"] + [name for part in parts for name in part["image_ids"]],
        "image_sizes": finished["image_sizes"] + [size for part in parts for size in part["image_sizes"]],
        "complete": True,
    }
    if not index["image_ids"]:
        raise DataError("not one image could be read", path=output)
    write_json(output / INDEX_NAME, index)
    # The parts, and what a killed run left half written.
    for leftover in [*output.glob("part-*.json"), *output.glob(".*.npy-*"), *output.glob(".*.json-*")]:
        leftover.unlink(missing_ok=True)

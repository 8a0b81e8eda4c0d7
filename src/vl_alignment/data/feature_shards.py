"""The shards of an extraction: made in turn by any number of processes, recorded, and put together by an index."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vl_alignment.data.json_text import parse_json
from vl_alignment.data.picture_files import decode_picture
from vl_alignment.data.processes import Processes, own_share, shared_problem
from vl_alignment.data.region_store import INDEX_NAME, SCHEMA_VERSION, read_index, write_array, write_json
from vl_alignment.models.errors import DataError, VlAlignmentError

__all__ = ["Extraction", "Failures", "Picture", "RegionExtractor", "pictures_of"]

logger = logging.getLogger(__name__)


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


@dataclass
class Failures:
    """Images that could not be read, and how many of them are too many."""

    limit: int
    names: list[str] = field(default_factory=list)

    def add(self, image_id: str, reason: str) -> None:
        """Note one, with a warning."""
        logger.warning("left out image %s: %s", image_id, reason)
        self.names.append(image_id)
        self.check()

    def check(self) -> None:
        """Raise a `DataError` where they are too many."""
        if len(self.names) > self.limit:
            raise DataError(
                f"{len(self.names)} images could not be read (the limit is {self.limit}), the first are "
                f"{', '.join(self.names[:5])}; repair the files, or raise maximum_failures"
            )


@dataclass(frozen=True)
class Picture:
    """Where one picture of the data set is: an encoded value of a `datasets.Image` column."""

    image_id: str
    split: datasets.Dataset
    row: int


class Extraction:
    """One extraction into a folder, by one process or several.

    Args:
        output: Folder of the store, one that all processes see.
        extractor: What turns pictures into regions.
        batch_size: Pictures an extractor call.
        dtype: How the features are stored.
        limit: Unreadable images that are left out before the run stops.
        processes: That work together.
    """

    def __init__(
        self,
        output: Path,
        extractor: RegionExtractor,
        *,
        batch_size: int,
        dtype: str,
        limit: int,
        processes: Processes,
    ) -> None:
        self.output, self.extractor, self.batch_size, self.dtype = output, extractor, batch_size, dtype
        self.failures, self.processes = Failures(limit), processes
        self.identity = {
            "extractor": extractor.name,
            "extractor_version": extractor.version,
            "feature_size": extractor.feature_size,
            "regions": extractor.regions,
            "dtype": dtype,
        }

    def run(self, pictures: Sequence[Picture], images_per_shard: int, progress: bool) -> list[str]:
        """Make what the store lacks.

        Returns:
            The ids of the images that could not be read.

        Raises:
            DataError: See `extract_regions`.
        """
        finished: dict[str, Any] = {}
        shards: dict[int, Sequence[Picture]] = {}
        missing: list[int] = []

        def look() -> None:
            finished.update(_finished_index(self.output, self.identity))
            stored = set(finished["image_ids"])
            wanted = [picture for picture in pictures if picture.image_id not in stored]
            starts = range(0, len(wanted), images_per_shard)
            for number, start in enumerate(starts, start=_next_number(finished)):
                shards[number] = wanted[start : start + images_per_shard]
                part = self._part(number, shards[number])
                if part is None:
                    missing.append(number)
                else:
                    self.failures.names += part["failures"]
            self.failures.check()

        def make() -> None:
            own = own_share(missing, self.processes)
            done = sum(len(shard) for number, shard in shards.items() if number not in missing)
            total = done + sum(len(shards[number]) for number in own)
            hidden = not progress or self.processes.process_index > 0
            with tqdm(total=total, initial=done, desc="regions", unit="image", disable=hidden) as bar:
                for number in own:
                    self._make_part(number, shards[number], bar)

        # Every process looks before any makes something, so that all see the same shards missing.
        self._together(look)
        self._together(make)
        self._together(lambda: self._finish(finished, shards) if self.processes.process_index == 0 else None)
        return self.failures.names

    def _together(self, action: Callable[[], None]) -> None:
        """Do something on all processes; what one of them raises, all raise."""
        problem = None
        try:
            action()
        except VlAlignmentError as error:
            problem = error
        found = shared_problem(problem, self.processes)
        if found is not None:
            raise found

    def _finish(self, finished: dict[str, Any], shards: dict[int, Sequence[Picture]]) -> None:
        """Write the index over the finished and the new shards, then remove what is no longer needed."""
        if shards or not finished["image_ids"]:
            read = [_read_part(self.output / _part_name(number)) for number in shards]
            parts = [part for part in read if part is not None]
            if len(parts) < len(read):
                raise DataError(
                    f"{len(read) - len(parts)} shards that other processes made are not here; all of them must write "
                    "to the same folder, on a file system that the hosts share",
                    path=self.output,
                )
            self.failures.names = [name for part in parts for name in part["failures"]]
            self.failures.check()
            _write_index(self.output, self.identity, finished, parts)
        _remove_parts(self.output)

    def _fingerprint(self, shard: Sequence[Picture]) -> str:
        settings = {
            **self.identity,
            "batch_size": self.batch_size,
            "image_ids": [picture.image_id for picture in shard],
        }
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def _part(self, number: int, shard: Sequence[Picture]) -> dict[str, Any] | None:
        """Return what an earlier, interrupted run recorded of this shard, or None if it is to be made."""
        part = _read_part(self.output / _part_name(number))
        if part is None:
            return None
        if part.get("fingerprint") != self._fingerprint(shard):
            raise DataError(
                "the folder holds an unfinished extraction with other images, another extractor or another batch size; "
                "finish that one, delete the folder, or give another output folder",
                path=self.output,
            )
        failed = {str(image_id) for image_id in part["failures"]}
        repaired = any(_read_picture(picture)[1] is not None for picture in shard if picture.image_id in failed)
        return None if repaired else part

    def _make_part(self, number: int, shard: Sequence[Picture], bar: tqdm) -> None:
        """Extract and write one shard, and then its line of the index."""
        failed_before = len(self.failures.names)
        image_ids: list[str] = []
        image_sizes: list[list[int]] = []
        features: list[np.ndarray] = []
        boxes: list[np.ndarray] = []
        for tried, batch in _batches(shard, self.batch_size, self.failures):
            if batch:
                names = [image_id for image_id, _ in batch]
                batch_features, batch_boxes = self.extractor([image for _, image in batch])
                features.append(_checked_features(batch_features, names, self.extractor, self.dtype))
                boxes.append(_checked_boxes(batch_boxes, names, self.extractor))
                image_ids += names
                image_sizes += [[image.height, image.width] for _, image in batch]
            bar.update(tried)
        part: dict[str, Any] = {"features": f"features-{number:05d}.npy", "boxes": f"boxes-{number:05d}.npy"}
        if image_ids:
            write_array(self.output / part["features"], np.concatenate(features))
            write_array(self.output / part["boxes"], np.concatenate(boxes))
        part |= {"images": len(image_ids), "image_ids": image_ids, "image_sizes": image_sizes}
        part["failures"] = self.failures.names[failed_before:]
        write_json(self.output / _part_name(number), {"fingerprint": self._fingerprint(shard), **part})


def pictures_of(data: datasets.DatasetDict) -> list[Picture]:
    """Return the pictures of all splits.

    Raises:
        DataError: There is none, an id occurs twice, or a column is missing.
    """
    pictures: list[Picture] = []
    seen: set[str] = set()
    for name, split in data.items():
        if missing := [column for column in ("image_id", "image") if column not in split.column_names]:
            raise DataError(f"split {name!r} has no column {missing[0]!r}; regions are extracted from images")
        encoded = split.select_columns(["image_id", "image"]).cast_column("image", datasets.Image(decode=False))
        for row, image_id in enumerate(encoded["image_id"]):
            if image_id in seen:
                raise DataError("this image id occurs twice in the data set", record=image_id)
            seen.add(image_id)
            pictures.append(Picture(image_id, encoded, row))
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


def _read_part(path: Path) -> dict[str, Any] | None:
    """Return what was recorded of a shard, or None where nothing was."""
    try:
        part = parse_json(path.read_text(encoding="utf-8"))
        kinds = {"features": str, "boxes": str, "images": int, "image_ids": list, "image_sizes": list, "failures": list}
        if not isinstance(part, dict) or not all(isinstance(part.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("it is no record of a shard")
        return part
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"not readable ({error}); delete it, the shard is then made again", path=path) from error


def _read_picture(picture: Picture) -> tuple[Picture, Image.Image | None, str]:
    """Decode one picture to RGB; gives (picture, None, reason) where the file is broken."""
    value = picture.split[picture.row]["image"]
    try:
        return picture, decode_picture(value), ""
    except ValueError as error:
        name = (value or {}).get("path") or "the picture stored in the record"
        return picture, None, f"{name}: {error}"


def _batches(
    shard: Sequence[Picture], batch_size: int, failures: Failures
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
    """Write the index over the finished and the new shards."""
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


def _remove_parts(output: Path) -> None:
    """Remove the parts that an index replaces, and what a killed run left half written."""
    for leftover in [*output.glob("part-*.json"), *output.glob(".*.npy-*"), *output.glob(".*.json-*")]:
        leftover.unlink(missing_ok=True)

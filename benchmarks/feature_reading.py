"""How fast CLEVR's features are read in random order, from a region store and from HDF5.

    python benchmarks/feature_reading.py --output benchmarks/results/feature-reading.json

A synthetic store of some hundred pictures (14 x 14 x 1024) is made in a temporary folder and deleted afterwards. An
example is the features of one picture, [196, 1024], read by its id in batches. "warm": the files lie in the system's
memory, as all do where there is enough of it (34 GB for the 85,000 of CLEVR's train and validation in float16);
"cold": they were thrown out of it before, so that the disk decides.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import h5py
import numpy as np
from measuring import Figure, report, say
from PIL import Image

from vl_alignment.data.features import RegionStore, extract_regions, open_regions
from vl_alignment.data.grid_extractor import grid_boxes

SIZE, SIDE = 1024, 14
REGIONS = SIDE * SIDE
PICTURES_PER_SHARD = 64  # several shards, as a large store has


class RandomGrids:
    """Stands for an extractor: random numbers of the right shape, the same for every batch."""

    name, version = "random", "1"
    feature_size, regions = SIZE, REGIONS

    def __init__(self) -> None:
        self.grids = np.random.default_rng(0).random((PICTURES_PER_SHARD, REGIONS, SIZE), dtype=np.float32)

    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        number = len(images)
        return self.grids[:number], np.broadcast_to(grid_boxes(SIDE, SIDE), (number, REGIONS, 4))


HDF5_FORMS = {
    "hdf5_float32": ("float32", None),
    "hdf5_float16": ("float16", None),
    "hdf5_float32_in_chunks": ("float32", (1, SIZE, SIDE, SIDE)),
}


def write_stores(folder: Path, pictures: int) -> datasets.DatasetDict:
    """Write the same features in every form; returns the pictures that they belong to."""
    extractor = RandomGrids()
    picture = folder / "picture.png"
    Image.new("RGB", (2, 2)).save(picture)
    columns = {"image_id": [f"picture-{number}" for number in range(pictures)], "image": [str(picture)] * pictures}
    images = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()))
    extract_regions(
        images,
        extractor,
        folder / "store",
        batch_size=PICTURES_PER_SHARD,
        images_per_shard=PICTURES_PER_SHARD,
        progress=False,
    )
    grids = np.ascontiguousarray(extractor.grids.transpose(0, 2, 1)).reshape(-1, SIZE, SIDE, SIDE)
    for name, (dtype, chunks) in HDF5_FORMS.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            features = file.create_dataset("features", (pictures, SIZE, SIDE, SIDE), dtype, chunks=chunks)
            for start in range(0, pictures, PICTURES_PER_SHARD):
                number = min(PICTURES_PER_SHARD, pictures - start)
                features[start : start + number] = grids[:number]
    return images


def open_stores(folder: Path, images: datasets.DatasetDict) -> Iterator[tuple[str, RegionStore]]:
    yield "region_store_float16", open_regions(folder / "store", images)
    for name in HDF5_FORMS:
        yield name, open_regions(folder / f"{name}.h5", images)


def forget(folder: Path) -> None:
    """Throw the files out of the system's memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())  # what is not yet on the disk cannot be thrown out
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(store: RegionStore, order: np.ndarray, batch_size: int) -> float:
    """Read every picture once in this order; returns examples a second."""
    image_ids = [store.image_ids[row] for row in order]
    start = time.perf_counter()
    for first in range(0, len(image_ids), batch_size):
        store.features(image_ids[first : first + batch_size])
    return len(image_ids) / (time.perf_counter() - start)


def copy_all(pictures: int, batch_size: int) -> float:
    """The bound: copy as many bytes as float16 features have from memory to memory; examples a second."""
    source = np.ones((batch_size, REGIONS, SIZE), dtype=np.float16)
    start = time.perf_counter()
    for _ in range(0, pictures, batch_size):
        source.copy()
    return pictures / (time.perf_counter() - start)


def measure(folder: Path, pictures: int, batch_size: int, repeats: int) -> dict[str, Figure]:
    """Medians over repeats that take turns, after one round that does not count."""
    images = write_stores(folder, pictures)
    generator = np.random.default_rng(1)
    rates: dict[str, list[float]] = {}
    if hasattr(os, "posix_fadvise"):
        forget(folder)  # before any file is mapped: what is mapped stays
        for name, store in open_stores(folder, images):
            rates[f"{name}_cold"] = [read_all(store, generator.permutation(pictures), batch_size)]
            say(f"cold: {name}")
    calls: dict[str, Callable[[], float]] = {"copy_in_memory_float16": lambda: copy_all(pictures, batch_size)}
    for name, store in open_stores(folder, images):
        calls[f"{name}_warm"] = lambda store=store: read_all(store, generator.permutation(pictures), batch_size)
    rates |= {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            rate = call()
            if repeat:
                rates[name].append(rate)
        say(f"warm: {repeat} of {repeats}")
    reference = f"{pictures} pictures of {REGIONS} x {SIZE} in random order, batches of {batch_size}, one process"
    return {
        f"{name}_examples_per_second": Figure(statistics.median(measured), "examples/s", reference)
        for name, measured in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds, of which the median counts")
    parser.add_argument("--folder", type=Path, help="make the temporary folder in this one")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(Path(folder), arguments.pictures, arguments.batch_size, arguments.repeats)
    report(figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

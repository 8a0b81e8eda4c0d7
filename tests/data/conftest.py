import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vl_alignment.data.grid_extractor import grid_boxes

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]


class QuadrantColours:
    """The mean colour of each quarter of a picture, as a region extractor with four regions of three numbers."""

    name = "quadrant_colours"
    version = "1"
    feature_size = 3
    regions = 4

    def __init__(self) -> None:
        self.seen = 0
        self.stop_after: int | None = None

    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        if self.stop_after is not None and self.seen + len(images) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        pixels = np.stack([np.asarray(image.resize((2, 2), Image.Resampling.BOX)) for image in images]) / 255
        features = pixels.reshape(len(images), 4, 3).astype(np.float32)
        return features, np.broadcast_to(grid_boxes(2, 2), (len(images), 4, 4))


@pytest.fixture
def extractor() -> QuadrantColours:
    return QuadrantColours()


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Twelve JPEG files 00.jpg .. 11.jpg, 20 wide and 10 high, each of one colour."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (20, 10), COLOURS[number % 6]).save(folder / f"{number:02d}.jpg", quality=95)
    return folder


@pytest.fixture
def photographs(image_folder: Path) -> datasets.DatasetDict:
    """The twelve pictures as train (8), validation (2) and test (2), undecoded."""
    splits = datasets.DatasetDict()
    for name, numbers in (("train", range(8)), ("validation", range(8, 10)), ("test", range(10, 12))):
        columns = {
            "image_id": [f"{number:02d}" for number in numbers],
            "image": [str(image_folder / f"{number:02d}.jpg") for number in numbers],
            "captions": [[f"picture {number}", f"colour {number % 6}"] for number in numbers],
        }
        splits[name] = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return splits


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[str, Any], Path]:
    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write

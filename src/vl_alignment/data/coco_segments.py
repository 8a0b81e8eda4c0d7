"""Where COCO's categories are in a picture, and which words of a caption name them.

Nouns are found by the categories' own names, their plurals, and a list of plain synonyms. A noun stands for all objects
of its category in the picture: captions do not say which of two dogs they mean.
"""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vl_alignment.data.caption_records import read_json
from vl_alignment.models.errors import DataError

__all__ = ["CATEGORY_NOUNS", "CocoSegments", "category_nouns"]

_PEOPLE = "people man men woman women boy boys girl girls child children kid kids lady ladies guy guys player players"
CATEGORY_NOUNS: dict[str, tuple[str, ...]] = {
    "person": tuple(_PEOPLE.split()),
    "bicycle": ("bike", "bikes"),
    "motorcycle": ("motorbike", "motorbikes"),
    "airplane": ("plane", "planes", "jet", "jets", "aircraft"),
    "traffic light": ("stoplight", "stoplights"),
    "fire hydrant": ("hydrant", "hydrants"),
    "cat": ("kitten", "kittens"),
    "dog": ("puppy", "puppies"),
    "sheep": ("lamb", "lambs"),
    "cow": ("cattle", "bull", "bulls"),
    "sports ball": ("ball", "balls"),
    "baseball glove": ("mitt",),
    "surfboard": ("surf board",),
    "tennis racket": ("racket", "rackets", "racquet", "racquets"),
    "donut": ("doughnut", "doughnuts"),
    "couch": ("sofa", "sofas"),
    "potted plant": ("plant", "plants"),
    "dining table": ("table", "tables"),
    "tv": ("television", "televisions"),
    "cell phone": ("phone", "phones", "cellphone", "cellphones"),
    "refrigerator": ("fridge",),
    "hair drier": ("hair dryer", "hairdryer"),
    "teddy bear": ("stuffed bear",),
}
"""Words that name a category besides its own name."""

_IRREGULAR = {"knife": "knives", "mouse": "mice", "person": "persons", "sheep": "sheep", "couch": "couches"}
_UNCHANGED = ("scissors", "skis", "broccoli")


def category_nouns(caption: str) -> list[tuple[int, int, str]]:
    """Find the nouns of a caption that name a category of COCO.

    Returns:
        (start, end, category) of each, in the order of the caption; the longest name counts ("hot dog" is no dog).
    """
    pattern, categories = _nouns()
    return [(match.start(), match.end(), categories[match.group()]) for match in pattern.finditer(caption.lower())]


class CocoSegments:
    """The outlines of the objects in the pictures of one `instances_*.json`.

    Args:
        instances_json: The file.

    Raises:
        DataError: It is truncated or of another layout.
    """

    def __init__(self, instances_json: str | Path) -> None:
        self.path = instances_json
        content = read_json(instances_json)
        try:
            names = {category["id"]: category["name"] for category in content["categories"]}
            sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in content["images"]}
            found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
            for annotation in content["annotations"]:
                found[str(annotation["image_id"])][names[annotation["category_id"]]].append(annotation["segmentation"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"not COCO's outlines of objects: {error!r}; give an instances_*.json", path=self.path
            ) from error
        self.sizes = {str(image): size for image, size in sizes.items()}
        self._segments = {image: dict(segments) for image, segments in found.items()}

    def categories(self, image_id: str) -> list[str]:
        """The categories in a picture."""
        return sorted(self._segments.get(image_id, ()))

    def mask(self, image_id: str, category: str, side: int) -> np.ndarray:
        """Say where a category is: bool [side, side], whatever the picture's own shape; all false where it is not."""
        drawn = np.zeros((side, side), dtype=bool)
        try:
            for segmentation in self._segments.get(image_id, {}).get(category, ()):
                crowd = isinstance(segmentation, dict)
                drawn |= self._crowd(segmentation, side) if crowd else self._outline(segmentation, image_id, side)
        except DataError:
            raise
        # Lists of anything else than pairs of numbers, and numbers that no picture has.
        except (ValueError, TypeError, KeyError, OverflowError, ZeroDivisionError, IndexError) as error:
            raise DataError(f"an outline cannot be drawn: {error!r}", path=self.path, record=image_id) from error
        return drawn

    def _outline(self, polygons: list[Any], image_id: str, side: int) -> np.ndarray:
        height, width = self.sizes[image_id]
        picture = Image.new("1", (side, side))
        for polygon in polygons:
            points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2) * (side / width, side / height)
            if not (np.abs(points) < 2**20).all():  # beyond what is drawn in any time, or not finite
                raise ValueError("a point lies far out of the picture")
            ImageDraw.Draw(picture).polygon([tuple(point) for point in points - 0.5], fill=1)
        return np.asarray(picture)

    def _crowd(self, segmentation: dict[str, Any], side: int) -> np.ndarray:
        """Runs of pixels out of and in the crowd, column by column."""
        counts, (height, width) = segmentation["counts"], segmentation["size"]
        if not isinstance(counts, list):
            raise DataError("runs of pixels are compressed; give COCO's own instances_*.json", path=self.path)
        if min(height, width, *counts) < 0 or sum(counts) != width * height:
            raise ValueError("the runs of pixels are not those of the picture")
        middles = (np.arange(side) + 0.5) / side
        pixels = (middles * width).astype(int) * height + (middles * height).astype(int)[:, None]  # [rows, columns]
        return np.searchsorted(np.cumsum(counts), pixels, side="right") % 2 == 1


@cache
def _nouns() -> tuple[re.Pattern[str], dict[str, str]]:
    """What finds a noun, and the category of each."""
    categories = {}
    for category in _CATEGORIES:
        for noun in (category, _plural(category), *CATEGORY_NOUNS.get(category, ())):
            categories[noun] = category
    longest_first = sorted(categories, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b"), categories


def _plural(noun: str) -> str:
    if noun in _UNCHANGED:
        return noun
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


_CATEGORIES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)

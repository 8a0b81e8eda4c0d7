"""Write the blocks world as a folder that is ready to push: Parquet shards with the pictures in them and a card.

python -m vl_alignment.data.blocks FOLDER --train 2000 --image-size 96
"""

from pathlib import Path
from string import Template
from typing import Any

import datasets
import numpy as np
from huggingface_hub import DatasetCardData
from PIL import Image

from vl_alignment.data.blocks.builder import CONTENT_VERSION
from vl_alignment.data.blocks.scene import COLORS, MATERIALS, SHAPES, SIZES, VISIBLE_FRACTION, Scene
from vl_alignment.models.errors import DataError

__all__ = ["export_blocks"]

_COLUMNS = ("image_id", "image", "captions", "scene", "masks")
_EXAMPLES = 8

# The text's $names are filled in by `_card`.
_CARD = Template(
    """---
$metadata
---

# Blocks

A procedural world for the alignment of words and image regions. Every picture shows $minimum to $maximum solids on a
floor, drawn with shading, shadows, reflections and occlusion, and comes with five captions, boxes, an index mask and
the relations between its objects. All of it is made by `vl-alignment` from a seed; nothing was collected from people.

![$examples pictures of the data set](examples.png)

    datasets.load_dataset("path/to/this/folder")

| split | scenes |
|:--|--:|
$splits

Content hash `$content_hash` (splits, image ids and captions), content version $version, seed $seed, pictures of
$size x $size pixels.

## Columns

- `image_id`: for instance `$image_id`; unique within the data set
- `image`: RGB
- `captions`: five English sentences, each true of the scene; each names one to three of its objects, never all
- `scene`: JSON with CLEVR's names. `objects` have `shape`, `color`, `material`, `size`, `3d_coords` (x right, y away
  from the viewer, z up), `rotation` (degrees), `pixel_coords` (x and y as fractions of the picture, then the depth) and
  `box` ([x0, y0, x1, y1] of the visible part, as fractions of the picture). `relationships[name][i]` lists the objects
  that are left, right, front or behind of object i
- `masks`: an index picture: 0 is background, i the visible pixels of object i, counted from 1

The first caption of `$image_id`: "$caption"

## How it was made

- shapes: $shapes
- colors: $colors
- materials: $materials
- sizes: $sizes

The number of objects and their attributes are drawn uniformly; a scene that does not fit is drawn again with the same
number. Objects do not touch, stand wholly inside the picture, and at least $visible % of each is visible. A scene
depends only on (seed, split, index), and splits draw from streams of their own. Two objects are related only if their
centres differ by a margin, so that no relation is a close call. Captions are chosen as structured statements, true of
the scene, and then worded from templates with synonyms ("ball" for sphere, "shiny" for metal).

## Limits

The world is small and its language is regular. What a model learns here says how it aligns words with regions under
control; it says nothing about photographs. "Left" and "behind" are meant from the viewer's side.
"""
)


def export_blocks(dataset: datasets.DatasetDict, folder: str | Path) -> str:
    """Write a blocks `DatasetDict` as Parquet with a dataset card.

    Args:
        dataset: What `load_blocks` returned.
        folder: Where to; made if missing. `data/*.parquet`, `examples.png` and `README.md` in it are replaced.

    Returns:
        The content hash, which the card states as well. `datasets.load_dataset(folder)` gives the same one.

    Raises:
        DataError: The data set is not of blocks, or the folder cannot be written.
    """
    # Imported late: the loaders of published data sets offer this one too.
    from vl_alignment.data.content import content_hash

    for split, records in dataset.items():
        missing = [name for name in _COLUMNS if name not in records.column_names]
        if missing:
            raise DataError(
                f"Not a blocks data set: split {split!r} lacks {', '.join(missing)}; use load_blocks.", path=folder
            )
        if not len(records):
            raise DataError(f"Split {split!r} is empty; leave it out.", path=folder)
    folder = Path(folder)
    fingerprint = content_hash(dataset)
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for split, records in dataset.items():
            records.to_parquet(str(folder / _shard(str(split))))
        first = next(iter(dataset.values()))
        _example_sheet(first).save(folder / "examples.png")
        # The card comes last: a folder with a card is complete.
        (folder / "README.md").write_text(_card(dataset, fingerprint), encoding="utf-8")
    except OSError as error:
        message = f"Cannot write the data set ({error}); choose a folder that you may write to."
        raise DataError(message, path=folder) from error
    return fingerprint


def _shard(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def _card(dataset: datasets.DatasetDict, fingerprint: str) -> str:
    first = next(iter(dataset.values()))[0]
    scene = Scene.from_json(first["scene"])
    counts = [
        len(Scene.from_json(text).objects)
        for records in dataset.values()
        for text in records.select_columns("scene")["scene"]
    ]
    return _CARD.substitute(
        metadata=_metadata(dataset),
        minimum=min(counts),
        maximum=max(counts),
        splits="\n".join(f"| {split} | {len(records)} |" for split, records in dataset.items()),
        content_hash=fingerprint,
        version=CONTENT_VERSION,
        seed=scene.seed,
        size=first["image"].width,
        image_id=scene.image_id,
        caption=first["captions"][0],
        examples=_EXAMPLES,
        visible=round(100 * VISIBLE_FRACTION),
        shapes=_enumerate(SHAPES),
        colors=_enumerate(COLORS),
        materials=_enumerate(MATERIALS),
        sizes=_enumerate(SIZES),
    )


def _enumerate(words: Any) -> str:
    words = list(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _metadata(dataset: datasets.DatasetDict) -> str:
    """The card's YAML, with the names and types that the Hub's viewer and `load_dataset` read."""
    scenes = sum(len(records) for records in dataset.values())
    return DatasetCardData(
        language="en",
        license="apache-2.0",
        pretty_name="Blocks",
        annotations_creators="machine-generated",
        task_categories=["image-to-text", "text-to-image"],
        tags=["image-text-retrieval", "visual-grounding", "synthetic", "vl-alignment"],
        size_categories=_size_category(scenes),
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": str(split), "path": _shard(str(split))} for split in dataset],
            }
        ],
        dataset_info={
            "features": [
                {"name": "image_id", "dtype": "string"},
                {"name": "image", "dtype": "image"},
                {"name": "captions", "list": "string"},
                {"name": "scene", "dtype": "string"},
                {"name": "masks", "dtype": "image"},
            ],
            "splits": [{"name": str(split), "num_examples": len(records)} for split, records in dataset.items()],
        },
    ).to_yaml()


def _size_category(records: int) -> str:
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
    return names[sum(records >= limit for limit in (1_000, 10_000, 100_000, 1_000_000))]


def _example_sheet(records: datasets.Dataset) -> Image.Image:
    """The first pictures, four in a row."""
    pictures = [np.asarray(picture) for picture in records.select(range(min(_EXAMPLES, len(records))))["image"]]
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % 4)
    rows = [np.concatenate(pictures[start : start + 4], axis=1) for start in range(0, len(pictures), 4)]
    return Image.fromarray(np.concatenate(rows, axis=0))

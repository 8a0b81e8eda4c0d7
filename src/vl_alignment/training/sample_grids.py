"""Grids of drawn pictures, as a training goes on and for comparing functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration

__all__ = ["picture_grid", "write_sample_grid"]

_GAP = 2  # pixels between pictures


def picture_grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Lay pictures of one size out in rows of so many."""
    width, height = pictures[0].width + _GAP, pictures[0].height + _GAP
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        grid.paste(picture, (column * width + _GAP, row * height + _GAP))
    return grid


def write_sample_grid(
    model: AttnGanForTextToImageGeneration,
    processor: Any,
    captions: Sequence[str],
    path: Path,
    *,
    columns: int,
    seed: int,
) -> None:
    """Draw a row of pictures of each caption into a PNG; a column is of the same noise. `captions.txt` says the rows.

    Args:
        model: Whose mode is left as it was.
        processor: Reads the captions.
        captions: One a row.
        path: Of the PNG; its folder is made.
        columns: Pictures of each caption.
        seed: Of the noise.
    """
    inputs = processor(text=[*captions])
    drawn = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        num_images=columns,
        seed=seed,
        output_type="pil",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "captions.txt").write_text("".join(f"{caption}\n" for caption in captions))
    picture_grid(drawn.images, columns).save(path)

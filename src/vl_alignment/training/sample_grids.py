"""Grids of drawn pictures, as a training goes on and for comparing functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vl_alignment.data.atomic_files import cannot_write, remove_leftovers, whole_file
from vl_alignment.models.errors import ResultsError
from vl_alignment.models.modeling_attngan import AttnGanForTextToImageGeneration

__all__ = ["picture_grid", "sample_grid", "write_sample_grid"]

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


def sample_grid(
    model: AttnGanForTextToImageGeneration, processor: Any, captions: Sequence[str], *, columns: int, seed: int
) -> Image.Image:
    """Draw a row of pictures of each caption; a column is of the same noise.

    Args:
        model: Whose mode is left as it was.
        processor: Reads the captions.
        captions: One a row.
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
    return picture_grid(drawn.images, columns)


def write_sample_grid(
    model: AttnGanForTextToImageGeneration,
    processor: Any,
    captions: Sequence[str],
    path: Path,
    *,
    columns: int,
    seed: int,
) -> None:
    """Write a `sample_grid` as a PNG, whose folder is made, and beside it `captions.txt`, which says the rows.

    Raises:
        ResultsError: They cannot be written; none is left half written.
    """
    grid = sample_grid(model, processor, captions, columns=columns, seed=seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
    except OSError as error:
        raise cannot_write(path, error, ResultsError) from error
    with whole_file(path.parent / "captions.txt", ResultsError) as file:
        file.write("".join(f"{caption}\n" for caption in captions).encode())
    with whole_file(path, ResultsError) as file:
        grid.save(file, format="PNG")

"""Draw pictures of one's own captions with a trained AttnGAN, and what their places attended to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..models.errors import ConfigurationError
from ..training.evaluation import load_model
from ..training.sample_grids import sample_grid
from .attention_pictures import model_stages_png
from .prediction import unknown_words

__all__ = ["draw_captions"]

PICTURES = 4


def draw_captions(
    folder: str | Path,
    captions: Sequence[str],
    output: str | Path,
    *,
    num_images: int = PICTURES,
    seed: int = 0,
    attention: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Draw pictures of captions into a PNG, a row a caption, a column a noise.

    Args:
        folder: Of a model with its processor.
        captions: In words that the model was trained on; what is longer than it reads is cut, and said.
        output: Of the PNG.
        num_images: Pictures of each caption.
        seed: Of their noise.
        attention: A PNG file to draw into what the first picture attended to at each stage.

    Returns:
        {"caption", "unknown_words", "file", "row", "images"} for each caption; rows count from 1.

    Raises:
        DataError: If a caption has no word that the model knows, or there are none.
        ConfigurationError: If the model is for another task, a number is wrong, or a file is no PNG.
        CheckpointError: If the model cannot be loaded.
    """
    for path in (output, attention):
        if path is not None and Path(path).suffix.lower() != ".png":
            raise ConfigurationError(f"{path} must end in .png")
    model, processor = load_model(folder, task="text-to-image")
    sample_grid(model, processor, captions, columns=num_images, seed=seed).save(output)
    if attention is not None:
        Path(attention).write_bytes(model_stages_png(model, processor, captions[0], seed=seed))
    return [
        {
            "caption": caption,
            "unknown_words": unknown_words(processor.tokenizer, caption),
            "file": str(output),
            "row": row,
            "images": num_images,
        }
        for row, caption in enumerate(captions, start=1)
    ]

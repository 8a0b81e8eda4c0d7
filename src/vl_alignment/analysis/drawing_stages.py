"""Drawing what AttnGAN attended to: one row a stage, the picture and the words that claimed most of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..models.errors import ConfigurationError
from .attention import AlignmentMap
from .drawing import (
    BAR_COLOUR,
    BAR_INCHES,
    FAINT_TEXT_COLOUR,
    GAP_INCHES,
    TEXT_COLOUR,
    TILE_INCHES,
    Tile,
    draw_scale,
    draw_tile,
    figure_in_inches,
    figure_png,
    lit_picture,
    shortened,
)
from .drawing_text import HEADING_SIZE, LINE_INCHES, MARGIN_INCHES, SMALL_SIZE, broken, words_of, write
from .layout import display_name

__all__ = ["draw_stages", "leading_words", "stages_png"]

WORDS_SHOWN = 5
"""As in the paper's Figures 16 to 19, and those of Xu et al. 2018."""


def leading_words(alignment: AlignmentMap, count: int = WORDS_SHOWN) -> list[int]:
    """Return the words that get the largest weights anywhere in the picture, in the order of the caption.

    Args:
        alignment: Of one stage: the picture's places are the queries, the words the keys.
        count: How many at most.
    """
    peaks = alignment.weights.max(axis=0)  # [L]
    return sorted(np.argsort(-peaks, kind="stable")[:count].tolist())


def draw_stages(
    maps: Sequence[AlignmentMap],
    *,
    caption: str,
    alignment_function: str | None = None,
    words: int = WORDS_SHOWN,
    smooth: bool = True,
) -> Figure:
    """Draw a row a stage that attends to words, as in the paper's Figures 16 to 19.

    A row begins with the picture; then for each of the words with the largest weights the picture lit where places
    attend to it, relative to the word's largest weight, which stands beside the word.

    Args:
        maps: See `attngan_alignment_maps`; of one picture.
        caption: Written above.
        alignment_function: Its name in the config.
        words: Drawn in a row, at most.
        smooth: Blur the cells into each other; False shows their edges.

    Raises:
        ConfigurationError: There are no stages, or `words` is below one.
    """
    if not maps or words < 1:
        raise ConfigurationError(f"there must be a stage and a word to draw, got {len(maps)} stages and {words} words")
    rows = [_tiles(alignment, words, smooth) for alignment in maps]
    width = max(len(row) for row in rows) * (TILE_INCHES + GAP_INCHES) - GAP_INCHES
    heading = broken(words_of(caption, HEADING_SIZE), width - 2 * MARGIN_INCHES)
    heading_height = (len(heading) + bool(alignment_function)) * LINE_INCHES + 2 * MARGIN_INCHES
    tile_height = TILE_INCHES + BAR_INCHES
    height = heading_height + len(rows) * (tile_height + GAP_INCHES) + GAP_INCHES + BAR_INCHES
    figure, axes = figure_in_inches(width, height)
    axes.add_patch(Rectangle((0, height - heading_height), width, heading_height, facecolor=BAR_COLOUR, linewidth=0))
    y = height - MARGIN_INCHES - LINE_INCHES / 2
    for line in heading:
        write(axes, MARGIN_INCHES, y, " ".join(word.text for _, word in line), HEADING_SIZE, TEXT_COLOUR)
        y -= LINE_INCHES
    if alignment_function:
        write(axes, MARGIN_INCHES, y, display_name(alignment_function), SMALL_SIZE, FAINT_TEXT_COLOUR)
    bottom = height - heading_height - GAP_INCHES - tile_height
    for row in rows:
        for number, tile in enumerate(row):
            draw_tile(axes, tile, number * (TILE_INCHES + GAP_INCHES), bottom, tile_height)
        bottom -= tile_height + GAP_INCHES
    axes.add_patch(Rectangle((0, 0), width, BAR_INCHES, facecolor=BAR_COLOUR, linewidth=0))
    draw_scale(axes, min(0.6, width / 4), "the word's largest share of a place's attention")
    return figure


def stages_png(maps: Sequence[AlignmentMap], *, dpi: int = 100, colours: int = 255, **options: Any) -> bytes:
    """Draw as `draw_stages`, which takes the `options`, and encode as a PNG of at most 255 `colours`."""
    return figure_png(draw_stages(maps, **options), dpi, colours)


def _tiles(alignment: AlignmentMap, words: int, smooth: bool) -> list[Tile]:
    """The picture and the words of one stage."""
    labels, rows_and_columns = alignment.keys.labels or (), alignment.queries.grid or (0, 0)
    tiles = []
    if alignment.picture is not None:
        name = f"{rows_and_columns[0]} x {rows_and_columns[1]} places"
        tiles.append(Tile(name, "", np.asarray(alignment.picture.convert("RGB"))))
    for word in leading_words(alignment, words):
        weights = alignment.weights[:, word]
        pixels = lit_picture(weights, alignment.queries, alignment.picture, smooth=smooth)
        tiles.append(Tile(shortened(labels[word]), f"{weights.max():.2f}", pixels))
    return tiles

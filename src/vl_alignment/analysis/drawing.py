"""Drawing an `AlignmentMap`: one tile a word with the picture lit where the word looks, or a matrix of weights."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..models.errors import ConfigurationError
from .attention import AlignmentMap, MapSide

__all__ = ["alignment_png", "draw_alignment", "heat_map"]

COLOURS = "inferno"
TILE_INCHES = 1.25
BAR_INCHES = 0.24
GAP_INCHES = 0.05
# Text stands on bars of the tile's own, so that a transparent figure reads on a light page and on a dark one.
BAR_COLOUR, TEXT_COLOUR, FAINT_TEXT_COLOUR = "#16181d", "#f2f2f0", "#a9abb0"
HEAT_PIXELS = 96
# The brightest colour stands for at least this many times the weight of a uniform alignment.
FAINT = 3.0


@dataclass(frozen=True)
class Tile:
    """A word, its largest weight, and the picture lit by it: uint8 [H, W, 3]."""

    word: str
    peak: str
    pixels: np.ndarray


def draw_alignment(
    alignment: AlignmentMap, *, columns: int = 6, queries: Sequence[int] | None = None, smooth: bool = True
) -> Figure:
    """Draw what every query looks at.

    A side of words and a side of the picture give one tile a word, after the picture itself: lit in proportion to the
    word's weights, its largest weight written beside it. Two sides of the same kind give a matrix.

    Args:
        alignment: The map.
        columns: Tiles in a line.
        queries: The words to draw; all by default.
        smooth: Blur the cells or boxes into each other; False shows their edges.

    Raises:
        ConfigurationError: `queries` is empty or names a word that is not there, or `columns` is below one.
    """
    if alignment.queries.is_spatial == alignment.keys.is_spatial:
        return _draw_matrix(alignment)
    words_are_queries = alignment.keys.is_spatial
    words, regions = (alignment.queries, alignment.keys) if words_are_queries else (alignment.keys, alignment.queries)
    weights = alignment.weights if words_are_queries else alignment.weights.T  # [words, regions]
    shown = range(words.size) if queries is None else queries
    if columns < 1 or not shown or not all(0 <= word < words.size for word in shown):
        raise ConfigurationError(
            f"queries must be among 0..{words.size - 1} and columns at least 1, got {queries}, {columns}"
        )
    size = alignment.picture.size if alignment.picture else (1, 1)
    labels = words.labels or ()
    tiles = []
    for word in shown:
        pixels = lit_picture(weights[word], regions, alignment.picture, smooth=smooth)
        tiles.append(Tile(shortened(labels[word]), f"{weights[word].max():.2f}", pixels))
    if alignment.picture is not None:
        tiles.insert(0, Tile("picture", "", np.asarray(alignment.picture.convert("RGB"))))
    whose = "of the word's attention" if words_are_queries else "of a region's attention"
    return _draw_tiles(tiles, min(columns, len(tiles)), size[1] / size[0], whose)


def alignment_png(alignment: AlignmentMap, *, dpi: int = 100, colours: int = 255, **options: Any) -> bytes:
    """Draw as `draw_alignment`, which takes the `options`, and encode as a PNG of at most 255 `colours`.

    The palette makes a file a third as large, and a report holds dozens.
    """
    return figure_png(draw_alignment(alignment, **options), dpi, colours)


def figure_png(figure: Figure, dpi: int, colours: int) -> bytes:
    """Encode `figure` as a PNG of at most 255 `colours`, transparent where nothing is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    buffer.seek(0)
    with Image.open(buffer) as image:
        pixels = image.convert("RGBA")
    small = pixels.convert("RGB").quantize(min(colours, 255), method=Image.Quantize.MEDIANCUT, kmeans=1)
    # The gaps between tiles take the last index, which no colour has.
    small.putpalette(((small.getpalette() or []) + [0] * 768)[:768])
    small.paste(255, mask=pixels.getchannel("A").point(lambda alpha: 255 * (alpha < 128)))
    out = io.BytesIO()
    small.save(out, format="png", optimize=True, transparency=255)
    return out.getvalue()


def heat_map(weights: np.ndarray, regions: MapSide, size: tuple[int, int], *, smooth: bool = True) -> np.ndarray:
    """Spread `weights` [R] over the pixels of a picture of `size` (width, height): [h, w], 96 on the longer side.

    A pixel gets the sum of the weights of the boxes it lies in.
    """
    width, height = size
    scale = HEAT_PIXELS / max(width, height)
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    y = (np.arange(shape[0]) + 0.5) / shape[0]
    x = (np.arange(shape[1]) + 0.5) / shape[1]
    boxes = regions.rectangles()
    in_rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])  # [R, h]
    in_columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])  # [R, w]
    heat = np.einsum("r,rh,rw->hw", weights, in_rows.astype(float), in_columns.astype(float), optimize=True)
    if smooth:
        sides = np.sqrt(np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 0))
        # A third of a region's side hides the edges of cells and keeps peaks apart.
        heat = gaussian_filter(heat, min(0.35 * float(np.median(sides)), 0.06) * HEAT_PIXELS, mode="nearest")
    return heat


def lit_picture(
    weights: np.ndarray, regions: MapSide, picture: Image.Image | None, *, smooth: bool = True
) -> np.ndarray:
    """Light `picture` where `regions` have large `weights` [R]: uint8 [H, W, 3]; the heat alone without a picture."""
    heat = heat_map(weights, regions, picture.size if picture else (1, 1), smooth=smooth)
    # The brightest place is the weights' own peak, but equal weights stay faint: they point nowhere.
    return _light(picture, heat / max(float(heat.max()), FAINT * weights.mean()))


def _light(picture: Image.Image | None, heat: np.ndarray) -> np.ndarray:
    """Light a dimmed grey `picture` where `heat` [h, w] in [0, 1] is high: uint8 [H, W, 3]."""
    heat = np.clip(heat, 0, 1)
    if picture is None:
        return (matplotlib.colormaps[COLOURS](heat)[..., :3] * 255).round().astype(np.uint8)
    # Tiles are small: more pixels than this only make the file large.
    copy = picture.convert("RGB")
    copy.thumbnail((240, 240))
    heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(copy.size, Image.Resampling.BICUBIC))
    heat = np.clip(heat, 0, 1)[..., None]
    pixels = np.asarray(copy, dtype=np.float64) / 255
    grey = pixels.mean(axis=2, keepdims=True)
    dimmed = 0.42 * (0.8 * grey + 0.2 * pixels)
    lit = 0.55 * pixels + 0.45 * matplotlib.colormaps[COLOURS](0.35 + 0.6 * heat[..., 0])[..., :3]
    opacity = heat**0.8
    return ((dimmed * (1 - opacity) + lit * opacity) * 255).round().astype(np.uint8)


def _draw_tiles(tiles: Sequence[Tile], columns: int, aspect: float, whose: str) -> Figure:
    """Lay `tiles` out in lines, with the scale below."""
    rows = math.ceil(len(tiles) / columns)
    tile_height = TILE_INCHES * aspect + BAR_INCHES
    width = columns * (TILE_INCHES + GAP_INCHES) - GAP_INCHES
    height = rows * (tile_height + GAP_INCHES) + BAR_INCHES
    figure, axes = figure_in_inches(width, height)
    for position, tile in enumerate(tiles):
        left = (position % columns) * (TILE_INCHES + GAP_INCHES)
        bottom = height - (position // columns) * (tile_height + GAP_INCHES) - tile_height
        draw_tile(axes, tile, left, bottom, tile_height)
    axes.add_patch(Rectangle((0, 0), width, BAR_INCHES, facecolor=BAR_COLOUR, linewidth=0))
    draw_scale(
        axes, min(0.6, width / 4), f"number beside the word: largest share {whose}" if columns > 2 else "largest share"
    )
    return figure


def draw_tile(axes: Axes, tile: Tile, left: float, bottom: float, height: float) -> None:
    """Draw a tile of `TILE_INCHES` in width: the picture above its word and largest weight."""
    picture = (left, left + TILE_INCHES, bottom + BAR_INCHES, bottom + height)
    axes.imshow(tile.pixels, extent=picture, aspect="auto", interpolation="lanczos")
    axes.add_patch(Rectangle((left, bottom), TILE_INCHES, BAR_INCHES, facecolor=BAR_COLOUR, linewidth=0))
    for text, x, size, align in ((tile.word, 0.06, 8.5, "left"), (tile.peak, TILE_INCHES - 0.05, 6.5, "right")):
        colour = TEXT_COLOUR if size > 7 and tile.peak else FAINT_TEXT_COLOUR
        _write_on_bar(axes, left + x, bottom, text, size, colour, ha=align)


def figure_in_inches(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a transparent figure with a single axes, whose units are inches.

    One axes for all tiles: one a tile takes three times as long.
    """
    figure = agg_figure(width, height, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def draw_scale(axes: Axes, inches: float, note: str) -> None:
    """Draw the colours from nothing to the largest share on the lowest bar, and what the largest share is."""
    extent = (0.2, 0.2 + inches, 0.35 * BAR_INCHES, 0.65 * BAR_INCHES)
    axes.imshow(np.linspace(0.35, 1, 64)[None], extent=extent, aspect="auto", cmap=COLOURS, vmin=0, vmax=1, zorder=2)
    _write_on_bar(axes, 0.08, 0, "0", 7, TEXT_COLOUR)
    _write_on_bar(axes, 0.28 + inches, 0, note, 7, TEXT_COLOUR)


def _draw_matrix(alignment: AlignmentMap) -> Figure:
    """Draw `weights` as cells, queries down and keys across."""
    rows, columns = alignment.weights.shape
    figure = agg_figure(min(12.0, 1.6 + 0.32 * columns), min(12.0, 1.4 + 0.28 * rows), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(alignment.weights, cmap=COLOURS, vmin=0, aspect="auto")
    for side, axis, rotation in ((alignment.keys, axes.xaxis, 60), (alignment.queries, axes.yaxis, 0)):
        if side.labels is not None:
            axis.set_ticks(range(side.size), [shortened(label) for label in side.labels], rotation=rotation, fontsize=8)
    axes.set_xlabel("key")
    axes.set_ylabel("query")
    figure.colorbar(image, ax=axes, label="attention weight")
    return figure


def agg_figure(width: float, height: float, **options: Any) -> Figure:
    """Make a figure with a canvas of its own: pyplot would keep it, and is not safe in threads."""
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def _write_on_bar(axes: Axes, x: float, bottom: float, text: str, size: float, colour: str, **options: Any) -> None:
    """Write on the bar whose lower edge is `bottom`; a dollar sign is one."""
    y = bottom + 0.46 * BAR_INCHES
    axes.text(x, y, text, fontsize=size, color=colour, va="center", parse_math=False, **options)


def shortened(label: str, longest: int = 16) -> str:
    """Cut a label that no tile could hold."""
    return label if len(label) <= longest else f"{label[: longest - 1]}…"

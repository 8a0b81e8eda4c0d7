"""Text in drawings whose unit is the inch: words measured, shaded and broken into lines, on panels beside pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from .drawing import BAR_COLOUR, COLOURS, GAP_INCHES, TEXT_COLOUR

__all__ = [
    "Lines",
    "Word",
    "broken",
    "draw_line",
    "draw_panel",
    "draw_picture",
    "picture_size",
    "shaded_colours",
    "text_width",
    "word_of",
    "words_of",
    "write",
]

TEXT_INCHES = 4.6
MARGIN_INCHES = 0.12
NUMBER_INCHES = 0.34
LINE_INCHES, SPACE_INCHES = 0.235, 0.085
NOTE_INCHES = 0.2
WORD_SIZE, HEADING_SIZE, SMALL_SIZE, NOTE_SIZE = 9.5, 10.5, 8.0, 6.5
LONGEST_WORD = 30
RIGHT_COLOUR, WRONG_COLOUR = "#86d9a4", "#f3a56b"
DARK_TEXT_COLOUR = "#16181d"


@dataclass(frozen=True)
class Word:
    """A word of running text: its width in inches, its background, 0 to 1 (None for none), and its colour on none."""

    text: str
    width: float
    shade: float | None = None
    colour: str = TEXT_COLOUR


Lines: TypeAlias = list[list[tuple[float, Word]]]
"""Lines of words, each with its left edge."""


def words_of(text: str, size: float, colour: str = TEXT_COLOUR) -> list[Word]:
    """Measure the words of a text, unshaded."""
    return [word_of(word, size, colour=colour) for word in text.split()]


def word_of(text: str, size: float, shade: float | None = None, colour: str = TEXT_COLOUR) -> Word:
    """Measure a word after cutting one that no line could hold."""
    text = text if len(text) <= LONGEST_WORD else f"{text[: LONGEST_WORD - 1]}…"
    return Word(text, text_width(text, size), shade, colour)


@cache
def text_width(text: str, size: float) -> float:
    """Measure `text` in inches: independent of the resolution, so that lines always break alike."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]) / 72


def broken(words: Sequence[Word], room: float) -> Lines:
    """Break `words` into lines of `room` inches."""
    lines: Lines = [[]]
    left = 0.0
    for word in words:
        if lines[-1] and left + word.width > room:
            lines.append([])
            left = 0.0
        lines[-1].append((left, word))
        left += word.width + SPACE_INCHES
    return lines


def picture_size(picture: Image.Image | None, height: float, widest: float) -> tuple[float, float]:
    """Choose (width, height) in inches that keep the picture's shape."""
    shape = picture.width / picture.height if picture is not None else 1.0
    width = min(height * shape, widest)
    return width, width / shape


def draw_line(axes: Axes, left: float, y: float, line: Sequence[tuple[float, Word]], size: float = WORD_SIZE) -> None:
    """Write a line of words, those with a shade on a background as bright."""
    for offset, word in line:
        x, colour = left + offset, word.colour
        if word.shade is not None:
            background, colour = shaded_colours(word.shade)
            box = (x - 0.3 * SPACE_INCHES, y - 0.43 * LINE_INCHES)
            sides = word.width + 0.6 * SPACE_INCHES, 0.86 * LINE_INCHES
            axes.add_patch(
                FancyBboxPatch(box, *sides, boxstyle="round,pad=0,rounding_size=0.03", fc=background, linewidth=0)
            )
        write(axes, x, y, word.text, size, colour)


def shaded_colours(shade: float) -> tuple[tuple[float, ...], str]:
    """Choose background and text colour of a word; the background is that of a lit picture."""
    bar = np.array(matplotlib.colors.to_rgb(BAR_COLOUR))
    opacity = shade**0.8
    colour = (1 - opacity) * bar + opacity * np.array(matplotlib.colormaps[COLOURS](0.35 + 0.6 * shade)[:3])
    # Of the two text colours, that of the larger contrast: their middle lies at a luminance of 0.18.
    linear = np.where(colour <= 0.04, colour / 12.9, ((colour + 0.055) / 1.055) ** 2.4)
    bright = float(linear @ (0.2126, 0.7152, 0.0722)) > 0.18
    return tuple(colour), DARK_TEXT_COLOUR if bright else TEXT_COLOUR


def draw_panel(axes: Axes, top: float, height: float) -> None:
    """Draw what the text of a row stands on."""
    axes.add_patch(Rectangle((0, top - height), TEXT_INCHES, height, facecolor=BAR_COLOUR, linewidth=0))


def draw_picture(
    axes: Axes, top: float, height: float, size: tuple[float, float], pixels: np.ndarray | None
) -> tuple[float, float]:
    """Draw `pixels` in the middle of the row's right end, on a panel where they do not fill it; give their corner."""
    left, bottom = TEXT_INCHES + GAP_INCHES, top - (height + size[1]) / 2
    axes.add_patch(Rectangle((left, top - height), size[0], height, facecolor=BAR_COLOUR, linewidth=0))
    if pixels is not None:
        extent = (left, left + size[0], bottom, bottom + size[1])
        axes.imshow(pixels, extent=extent, aspect="auto", interpolation="lanczos", zorder=2)
    return left, bottom


def write(axes: Axes, x: float, y: float, text: str, size: float, colour: str) -> None:
    """Write with the middle of the letters at `y`, alike for words with and without descenders."""
    baseline = y - 0.36 * size / 72
    axes.text(x, baseline, text, fontsize=size, color=colour, va="baseline", parse_math=False, zorder=3)

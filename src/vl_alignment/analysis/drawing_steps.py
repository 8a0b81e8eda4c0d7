"""Drawing what MAC looked at: one row a reasoning step, the question's words shaded and the picture lit beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from .attention import ReasoningMaps
from .drawing import (
    BAR_COLOUR,
    BAR_INCHES,
    COLOURS,
    FAINT,
    FAINT_TEXT_COLOUR,
    GAP_INCHES,
    TEXT_COLOUR,
    draw_scale,
    figure_in_inches,
    figure_png,
    lit_picture,
)
from .layout import display_name

__all__ = ["draw_reasoning", "reasoning_png"]

TEXT_INCHES = 4.6
MARGIN_INCHES = 0.12
NUMBER_INCHES = 0.34
PICTURE_HEIGHT, WIDEST_PICTURE = 1.3, 1.95
LINE_INCHES, SPACE_INCHES = 0.235, 0.085
NOTE_INCHES = 0.2
WORD_SIZE, HEADING_SIZE, SMALL_SIZE, NOTE_SIZE = 9.5, 10.5, 8.0, 6.5
LONGEST_WORD = 30
RIGHT_COLOUR, WRONG_COLOUR = "#86d9a4", "#f3a56b"
DARK_TEXT_COLOUR = "#16181d"
# Less than this share beside the words is not worth a note.
WORTH_TELLING = 0.005


@dataclass(frozen=True)
class Word:
    """A word of running text: its width in inches, and its background, 0 to 1; None for none."""

    text: str
    width: float
    shade: float | None = None


def draw_reasoning(
    maps: ReasoningMaps,
    *,
    question: str | None = None,
    answer: str | None = None,
    right_answer: str | None = None,
    alignment_function: str | None = None,
    smooth: bool = True,
) -> Figure:
    """Draw a row a reasoning step, as in the paper's Figures 3 to 7.

    On the left the question's words, each with a background as bright as its share of the step's attention, on the
    right the picture lit where the step looks. Both are relative to the step's largest share, which is written below
    the words; equal shares stay faint. Attention that lay on markers and padding is shown as if it were a last word.

    Args:
        maps: See `mac_alignment_maps`.
        question: Written above; the words themselves by default.
        answer: What the model answered.
        right_answer: What it should have answered, where that is known.
        alignment_function: Its name in the config.
        smooth: Blur the cells into each other; False shows their edges.
    """
    labels = maps.words.keys.labels or ()
    picture = maps.image.picture
    frame = _picture_size(picture)
    room = TEXT_INCHES - NUMBER_INCHES - MARGIN_INCHES
    steps = [
        _broken(_step_words(labels, weights, elsewhere), room)
        for weights, elsewhere in zip(maps.word_weights, maps.elsewhere, strict=True)
    ]
    heights = [max(frame[1], len(lines) * LINE_INCHES + NOTE_INCHES + 2 * MARGIN_INCHES) for lines in steps]
    heading = _broken(_words(question or " ".join(labels), HEADING_SIZE), TEXT_INCHES - 2 * MARGIN_INCHES)
    below = _answer_parts(answer, right_answer)
    heading_height = (len(heading) + 1 + bool(below)) * LINE_INCHES + 2 * MARGIN_INCHES
    heading_height = max(heading_height, frame[1] if picture is not None else 0)

    width = TEXT_INCHES + GAP_INCHES + frame[0]
    height = heading_height + sum(heights) + GAP_INCHES * (len(heights) + 1) + BAR_INCHES
    figure, axes = figure_in_inches(width, height)
    _draw_heading(axes, height, heading_height, heading, below, _function_line(alignment_function, len(steps)))
    _draw_picture(axes, height, heading_height, frame, None if picture is None else np.asarray(picture.convert("RGB")))
    top = height - heading_height - GAP_INCHES
    for step, row in enumerate(heights):
        peaks = f"of the words {maps.word_weights[step].max():.2f}, of the picture {maps.image.weights[step].max():.2f}"
        _draw_words(axes, top, row, str(step + 1), steps[step], f"largest share: {peaks}")
        lit = lit_picture(maps.image.weights[step], maps.image.keys, picture, smooth=smooth)
        _draw_picture(axes, top, row, frame, lit)
        top -= row + GAP_INCHES
    axes.add_patch(Rectangle((0, 0), width, BAR_INCHES, facecolor=BAR_COLOUR, linewidth=0))
    draw_scale(axes, 0.6, "the step's largest share, in the words and in the picture")
    return figure


def reasoning_png(maps: ReasoningMaps, *, dpi: int = 100, colours: int = 255, **options: Any) -> bytes:
    """Draw as `draw_reasoning`, which takes the `options`, and encode as a PNG of at most 255 `colours`."""
    return figure_png(draw_reasoning(maps, **options), dpi, colours)


def _step_words(labels: Sequence[str], weights: np.ndarray, elsewhere: float) -> list[Word]:
    """Shade the words of one step by their `weights` [W], and add what lay elsewhere."""
    shares = [*zip(labels, weights, strict=True)]
    if elsewhere >= WORTH_TELLING:
        shares.append(("[markers, padding]", elsewhere))
    # The same rule as for the picture: the largest share is brightest, but equal shares point nowhere.
    peak = max(*(share for _, share in shares), min(FAINT / len(shares), 1.0))
    return [_word(text, WORD_SIZE, share / peak) for text, share in shares]


def _words(text: str, size: float) -> list[Word]:
    return [_word(word, size) for word in text.split()]


def _word(text: str, size: float, shade: float | None = None) -> Word:
    """Measure a word after cutting one that no line could hold."""
    text = text if len(text) <= LONGEST_WORD else f"{text[: LONGEST_WORD - 1]}…"
    return Word(text, _width(text, size), shade)


@cache
def _width(text: str, size: float) -> float:
    """Measure `text` in inches: independent of the resolution, so that lines always break alike."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]) / 72


def _broken(words: Sequence[Word], room: float) -> list[list[tuple[float, Word]]]:
    """Break `words` into lines of `room` inches: (left edge, word) each."""
    lines: list[list[tuple[float, Word]]] = [[]]
    left = 0.0
    for word in words:
        if lines[-1] and left + word.width > room:
            lines.append([])
            left = 0.0
        lines[-1].append((left, word))
        left += word.width + SPACE_INCHES
    return lines


def _picture_size(picture: Image.Image | None) -> tuple[float, float]:
    """Choose (width, height) in inches that keep the picture's shape."""
    shape = picture.width / picture.height if picture is not None else 1.0
    width = min(PICTURE_HEIGHT * shape, WIDEST_PICTURE)
    return width, width / shape


def _function_line(alignment_function: str | None, steps: int) -> str:
    named = f"{display_name(alignment_function)}, " if alignment_function else ""
    return f"{named}{steps} reasoning step{'s' * (steps != 1)}"


def _answer_parts(answer: str | None, right_answer: str | None) -> list[tuple[str, str]]:
    """Give (text, colour) of the line that judges the answer."""
    if answer is None:
        return [] if right_answer is None else [(f"right answer: {right_answer}", TEXT_COLOUR)]
    if right_answer is None:
        return [(f"answer: {answer}", TEXT_COLOUR)]
    verdict = "right" if answer == right_answer else f"wrong, it is {right_answer}"
    return [(f"answer: {answer}", TEXT_COLOUR), (verdict, RIGHT_COLOUR if answer == right_answer else WRONG_COLOUR)]


def _draw_heading(
    axes: Axes,
    top: float,
    height: float,
    heading: Sequence[Sequence[tuple[float, Word]]],
    below: Sequence[tuple[str, str]],
    function: str,
) -> None:
    _draw_panel(axes, top, height)
    y = top - MARGIN_INCHES - LINE_INCHES / 2
    for line in heading:
        _write(axes, MARGIN_INCHES, y, " ".join(word.text for _, word in line), HEADING_SIZE, TEXT_COLOUR)
        y -= LINE_INCHES
    left = MARGIN_INCHES
    for text, colour in below:
        _write(axes, left, y, text, WORD_SIZE, colour)
        left += _width(text, WORD_SIZE) + 2 * SPACE_INCHES
    _write(axes, MARGIN_INCHES, y - LINE_INCHES * bool(below), function, SMALL_SIZE, FAINT_TEXT_COLOUR)


def _draw_words(
    axes: Axes, top: float, height: float, number: str, lines: Sequence[Sequence[tuple[float, Word]]], note: str
) -> None:
    _draw_panel(axes, top, height)
    _write(axes, NUMBER_INCHES, top - height + MARGIN_INCHES, note, NOTE_SIZE, FAINT_TEXT_COLOUR)
    y = top - MARGIN_INCHES - LINE_INCHES / 2
    _write(axes, MARGIN_INCHES, y, number, WORD_SIZE, FAINT_TEXT_COLOUR)
    for line in lines:
        for left, word in line:
            x = NUMBER_INCHES + left
            background, colour = _shade(word.shade or 0.0)
            box = (x - 0.3 * SPACE_INCHES, y - 0.43 * LINE_INCHES)
            size = word.width + 0.6 * SPACE_INCHES, 0.86 * LINE_INCHES
            axes.add_patch(
                FancyBboxPatch(box, *size, boxstyle="round,pad=0,rounding_size=0.03", fc=background, linewidth=0)
            )
            _write(axes, x, y, word.text, WORD_SIZE, colour)
        y -= LINE_INCHES


def _shade(shade: float) -> tuple[tuple[float, ...], str]:
    """Choose background and text colour of a word; the background is that of a lit picture."""
    bar = np.array(matplotlib.colors.to_rgb(BAR_COLOUR))
    opacity = shade**0.8
    colour = (1 - opacity) * bar + opacity * np.array(matplotlib.colormaps[COLOURS](0.35 + 0.6 * shade)[:3])
    # Of the two text colours, that of the larger contrast: their middle lies at a luminance of 0.18.
    linear = np.where(colour <= 0.04, colour / 12.9, ((colour + 0.055) / 1.055) ** 2.4)
    bright = float(linear @ (0.2126, 0.7152, 0.0722)) > 0.18
    return tuple(colour), DARK_TEXT_COLOUR if bright else TEXT_COLOUR


def _draw_panel(axes: Axes, top: float, height: float) -> None:
    axes.add_patch(Rectangle((0, top - height), TEXT_INCHES, height, facecolor=BAR_COLOUR, linewidth=0))


def _draw_picture(axes: Axes, top: float, height: float, size: tuple[float, float], pixels: np.ndarray | None) -> None:
    """Draw `pixels` in the middle of the row's right end, on a panel where they do not fill it."""
    left = TEXT_INCHES + GAP_INCHES
    axes.add_patch(Rectangle((left, top - height), size[0], height, facecolor=BAR_COLOUR, linewidth=0))
    if pixels is not None:
        bottom = top - (height + size[1]) / 2
        extent = (left, left + size[0], bottom, bottom + size[1])
        axes.imshow(pixels, extent=extent, aspect="auto", interpolation="lanczos", zorder=2)


def _write(axes: Axes, x: float, y: float, text: str, size: float, colour: str) -> None:
    """Write with the middle of the letters at `y`, alike for words with and without descenders."""
    baseline = y - 0.36 * size / 72
    axes.text(x, baseline, text, fontsize=size, color=colour, va="baseline", parse_math=False, zorder=3)

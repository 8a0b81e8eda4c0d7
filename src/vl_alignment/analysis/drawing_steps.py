"""Drawing what MAC looked at: one row a reasoning step, the question's words shaded and the picture lit beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .attention import ReasoningMaps
from .drawing import (
    BAR_COLOUR,
    BAR_INCHES,
    FAINT,
    FAINT_TEXT_COLOUR,
    GAP_INCHES,
    TEXT_COLOUR,
    draw_scale,
    figure_in_inches,
    figure_png,
    lit_picture,
)
from .drawing_text import (
    HEADING_SIZE,
    LINE_INCHES,
    MARGIN_INCHES,
    NOTE_INCHES,
    NOTE_SIZE,
    NUMBER_INCHES,
    RIGHT_COLOUR,
    SMALL_SIZE,
    SPACE_INCHES,
    TEXT_INCHES,
    WORD_SIZE,
    WRONG_COLOUR,
    Lines,
    Word,
    broken,
    draw_line,
    draw_panel,
    draw_picture,
    picture_size,
    text_width,
    word_of,
    words_of,
    write,
)
from .layout import display_name

__all__ = ["draw_reasoning", "reasoning_png"]

PICTURE_HEIGHT, WIDEST_PICTURE = 1.3, 1.95
# Less than this share beside the words is not worth a note.
WORTH_TELLING = 0.005


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
    frame = picture_size(picture, PICTURE_HEIGHT, WIDEST_PICTURE)
    room = TEXT_INCHES - NUMBER_INCHES - MARGIN_INCHES
    steps = [
        broken(_step_words(labels, weights, elsewhere), room)
        for weights, elsewhere in zip(maps.word_weights, maps.elsewhere, strict=True)
    ]
    heights = [max(frame[1], len(lines) * LINE_INCHES + NOTE_INCHES + 2 * MARGIN_INCHES) for lines in steps]
    heading = broken(words_of(question or " ".join(labels), HEADING_SIZE), TEXT_INCHES - 2 * MARGIN_INCHES)
    below = _answer_parts(answer, right_answer)
    heading_height = (len(heading) + 1 + bool(below)) * LINE_INCHES + 2 * MARGIN_INCHES
    heading_height = max(heading_height, frame[1] if picture is not None else 0)

    width = TEXT_INCHES + GAP_INCHES + frame[0]
    height = heading_height + sum(heights) + GAP_INCHES * (len(heights) + 1) + BAR_INCHES
    figure, axes = figure_in_inches(width, height)
    _draw_heading(axes, height, heading_height, heading, below, _function_line(alignment_function, len(steps)))
    draw_picture(axes, height, heading_height, frame, None if picture is None else np.asarray(picture.convert("RGB")))
    top = height - heading_height - GAP_INCHES
    for step, row in enumerate(heights):
        peaks = f"of the words {maps.word_weights[step].max():.2f}, of the picture {maps.image.weights[step].max():.2f}"
        _draw_words(axes, top, row, str(step + 1), steps[step], f"largest share: {peaks}")
        lit = lit_picture(maps.image.weights[step], maps.image.keys, picture, smooth=smooth)
        draw_picture(axes, top, row, frame, lit)
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
    return [word_of(text, WORD_SIZE, share / peak) for text, share in shares]


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
    heading: Lines,
    below: Sequence[tuple[str, str]],
    function: str,
) -> None:
    draw_panel(axes, top, height)
    y = top - MARGIN_INCHES - LINE_INCHES / 2
    for line in heading:
        write(axes, MARGIN_INCHES, y, " ".join(word.text for _, word in line), HEADING_SIZE, TEXT_COLOUR)
        y -= LINE_INCHES
    left = MARGIN_INCHES
    for text, colour in below:
        write(axes, left, y, text, WORD_SIZE, colour)
        left += text_width(text, WORD_SIZE) + 2 * SPACE_INCHES
    write(axes, MARGIN_INCHES, y - LINE_INCHES * bool(below), function, SMALL_SIZE, FAINT_TEXT_COLOUR)


def _draw_words(axes: Axes, top: float, height: float, number: str, lines: Lines, note: str) -> None:
    draw_panel(axes, top, height)
    write(axes, NUMBER_INCHES, top - height + MARGIN_INCHES, note, NOTE_SIZE, FAINT_TEXT_COLOUR)
    y = top - MARGIN_INCHES - LINE_INCHES / 2
    write(axes, MARGIN_INCHES, y, number, WORD_SIZE, FAINT_TEXT_COLOUR)
    for line in lines:
        draw_line(axes, NUMBER_INCHES, y, line)
        y -= LINE_INCHES

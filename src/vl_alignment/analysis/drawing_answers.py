"""Drawing what M4C looked at: one row a word of the answer, with the words of the question and of the picture."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..models.decoding_m4c import AnswerWord, M4CAnswer
from ..models.errors import DataError
from .attention import ReadingMaps
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
from .drawing_text import (
    HEADING_SIZE,
    LINE_INCHES,
    MARGIN_INCHES,
    NOTE_INCHES,
    NOTE_SIZE,
    NUMBER_INCHES,
    RIGHT_COLOUR,
    SMALL_SIZE,
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

__all__ = ["draw_reading", "reading_png"]

PICTURE_HEIGHT, WIDEST_PICTURE = 1.9, 2.7
SOURCE_COLOUR = "#5fd0f5"
MOST_TOKENS = 8
SOURCES = {"ocr": "copied from the picture", "vocabulary": "from the vocabulary"}
NO_WORD = AnswerWord("[end]", "vocabulary")


def draw_reading(
    maps: ReadingMaps,
    answer: M4CAnswer,
    ocr_tokens: Sequence[str],
    *,
    question: str | None = None,
    right_answer: str | None = None,
    score: float | None = None,
    alignment_function: str | None = None,
    smooth: bool = True,
) -> Figure:
    """Draw a row a word of the answer, as in the paper's Figures 8 to 11.

    On the left the word and where it came from, the question's words, and those of the picture that it looks at most;
    on the right the picture, lit where it looks at objects, with a frame around each of its words. Shaded, and framed
    as brightly, is what got more than an equal share of the attention on the question, or on the picture's words,
    relative to the largest share; how much of all attention that was stands below. The frame of a copied word is blue.

    Args:
        maps: See `m4c_alignment_maps`; a row a word of the answer, or one of its end where it has no words.
        answer: What the model answered.
        ocr_tokens: The words of the picture, as many as `maps.tokens` has columns.
        question: Written above; the words themselves by default.
        right_answer: What people answered, where that is known.
        score: How right the answer is, 0 to 1, where that is known.
        alignment_function: Its name in the config.
        smooth: Blur the objects into each other; False shows their edges.

    Raises:
        DataError: The answer or the words of the picture do not fit the maps.
    """
    words = answer.words or (NO_WORD,)
    found = maps.tokens.keys.size if maps.tokens is not None else 0
    if len(words) != len(maps.shares) or len(ocr_tokens) != found:
        raise DataError(
            f"attention of {len(maps.shares)} words on {found} words of the picture does not fit an answer of "
            f"{len(words)} and a picture of {len(ocr_tokens)}"
        )
    picture = maps.words.picture
    frame = picture_size(picture, PICTURE_HEIGHT, WIDEST_PICTURE)
    rows = [_row_lines(maps, row, ocr_tokens) for row in range(len(words))]
    heights = [max(frame[1], (len(lines) + 1) * LINE_INCHES + NOTE_INCHES + 2 * MARGIN_INCHES) for lines in rows]
    heading = broken(words_of(question or " ".join(maps.words.keys.labels or ()), HEADING_SIZE), _ROOM)
    verdict = broken(_verdict(answer, right_answer, score), _ROOM)
    heading_height = (len(heading) + len(verdict) + bool(alignment_function)) * LINE_INCHES + 2 * MARGIN_INCHES
    heading_height = max(heading_height, frame[1])

    width = TEXT_INCHES + GAP_INCHES + frame[0]
    height = heading_height + sum(heights) + GAP_INCHES * (len(heights) + 1) + BAR_INCHES
    figure, axes = figure_in_inches(width, height)
    _draw_heading(axes, height, heading_height, heading, verdict, alignment_function)
    pixels = None if picture is None else np.asarray(picture.convert("RGB"))
    corner = draw_picture(axes, height, heading_height, frame, pixels)
    _draw_frames(axes, corner, frame, maps, None, [word.token for word in words])
    top = height - heading_height - GAP_INCHES
    for row, (word, lines, row_height) in enumerate(zip(words, rows, heights, strict=True)):
        _draw_row(axes, top, row_height, str(row + 1), word, lines, maps.shares[row])
        lit = lit_picture(maps.objects.weights[row], maps.objects.keys, picture, smooth=smooth)
        corner = draw_picture(axes, top, row_height, frame, lit)
        _draw_frames(axes, corner, frame, maps, row, [word.token])
        top -= row_height + GAP_INCHES
    axes.add_patch(Rectangle((0, 0), width, BAR_INCHES, facecolor=BAR_COLOUR, linewidth=0))
    _draw_legend(axes)
    return figure


_ROOM = TEXT_INCHES - 2 * MARGIN_INCHES


def reading_png(
    maps: ReadingMaps,
    answer: M4CAnswer,
    ocr_tokens: Sequence[str],
    *,
    dpi: int = 100,
    colours: int = 255,
    **options: Any,
) -> bytes:
    """Draw as `draw_reading`, which takes the `options`, and encode as a PNG of at most 255 `colours`."""
    return figure_png(draw_reading(maps, answer, ocr_tokens, **options), dpi, colours)


def _shades(weights: np.ndarray) -> list[float | None]:
    """Choose the shade of each of the `weights` [n], which sum to one; None for what has no more than an equal share.

    The same rule as for a lit picture: the largest share is brightest, but shares that are nearly equal stay faint.
    """
    equal = 1 / len(weights)
    peak = max(float(weights.max()), min(FAINT * equal, 1.0))
    return [float(weight) / peak if weight > equal * (1 + 1e-6) else None for weight in weights]


def _row_lines(maps: ReadingMaps, row: int, ocr_tokens: Sequence[str]) -> Lines:
    """Lay out the question's words, and the words of the picture that stand out, those with the largest share first."""
    room = TEXT_INCHES - NUMBER_INCHES - MARGIN_INCHES
    labels = maps.words.keys.labels or ()
    lines = broken([word_of(*pair) for pair in _shaded(labels, _shades(maps.words.weights[row]))], room)
    if maps.tokens is None:
        return lines
    weights = maps.tokens.weights[row]
    shades = _shades(weights)
    order = [number for number in np.argsort(-weights, kind="stable") if shades[number] is not None][:MOST_TOKENS]
    chosen = [word_of(ocr_tokens[number], WORD_SIZE, shades[number]) for number in order]
    title = words_of("in the picture:" if chosen else "none of the picture's words stands out", SMALL_SIZE)
    return lines + broken([*(_faint(word) for word in title), *chosen], room)


def _shaded(labels: Sequence[str], shades: Sequence[float | None]) -> list[tuple[str, float, float | None]]:
    return [(label, WORD_SIZE, shade) for label, shade in zip(labels, shades, strict=True)]


def _faint(word: Word) -> Word:
    return Word(word.text, text_width(word.text, WORD_SIZE), None, FAINT_TEXT_COLOUR)


def _verdict(answer: M4CAnswer, right_answer: str | None, score: float | None) -> list[Word]:
    """Write the answer, its copied words in blue, and how right it is."""
    words = words_of("answer:", WORD_SIZE, FAINT_TEXT_COLOUR)
    for word in answer.words:
        words += words_of(word.word, WORD_SIZE, SOURCE_COLOUR if word.source == "ocr" else TEXT_COLOUR)
    if not answer.words:
        words += words_of("no words", WORD_SIZE, FAINT_TEXT_COLOUR)
    people = "" if right_answer is None else f"people say: {right_answer}"
    if score is None:
        return words + words_of(people, WORD_SIZE, FAINT_TEXT_COLOUR)
    if score >= 1:
        return words + words_of("(right)", WORD_SIZE, RIGHT_COLOUR)
    judged = "wrong" if score <= 0 else f"scores {score:.1f} of 1"
    return words + words_of(f"({judged}{'; ' * bool(people)}{people})", WORD_SIZE, WRONG_COLOUR)


def _draw_heading(
    axes: Axes, top: float, height: float, heading: Lines, verdict: Lines, alignment_function: str | None
) -> None:
    draw_panel(axes, top, height)
    y = top - MARGIN_INCHES - LINE_INCHES / 2
    for lines, size in ((heading, HEADING_SIZE), (verdict, WORD_SIZE)):
        for line in lines:
            draw_line(axes, MARGIN_INCHES, y, line, size)
            y -= LINE_INCHES
    if alignment_function:
        write(axes, MARGIN_INCHES, y, display_name(alignment_function), SMALL_SIZE, FAINT_TEXT_COLOUR)


def _draw_row(
    axes: Axes, top: float, height: float, number: str, word: AnswerWord, lines: Lines, shares: np.ndarray
) -> None:
    draw_panel(axes, top, height)
    y = top - MARGIN_INCHES - LINE_INCHES / 2
    write(axes, MARGIN_INCHES, y, number, WORD_SIZE, FAINT_TEXT_COLOUR)
    colour = SOURCE_COLOUR if word.source == "ocr" else TEXT_COLOUR
    title = [word_of(word.word, WORD_SIZE, colour=colour), *map(_faint, words_of(SOURCES[word.source], WORD_SIZE))]
    draw_line(axes, NUMBER_INCHES, y, broken(title, 2 * TEXT_INCHES)[0])
    for line in lines:
        y -= LINE_INCHES
        draw_line(axes, NUMBER_INCHES, y, line)
    parts = zip(("the question", "objects", "words of the picture", "the rest"), shares, strict=True)
    note = "attention on " + ", ".join(f"{name} {share:.2f}" for name, share in parts)
    write(axes, NUMBER_INCHES, top - height + MARGIN_INCHES, note, NOTE_SIZE, FAINT_TEXT_COLOUR)


def _draw_frames(
    axes: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    maps: ReadingMaps,
    row: int | None,
    sources: Sequence[int | None],
) -> None:
    """Frame the words of the picture by their share in a row, where there is one, and those that were copied."""
    if maps.tokens is None:
        return
    boxes = maps.tokens.keys.rectangles()
    x0, x1 = corner[0] + size[0] * boxes[:, 0], corner[0] + size[0] * boxes[:, 2]
    y0, y1 = corner[1] + size[1] * (1 - boxes[:, 3]), corner[1] + size[1] * (1 - boxes[:, 1])

    def draw(token: int, colour: Any, linewidth: float, margin: float) -> None:
        # Around the word, not over its letters.
        sides = x1[token] - x0[token] + 2 * margin, y1[token] - y0[token] + 2 * margin
        place = x0[token] - margin, y0[token] - margin
        axes.add_patch(Rectangle(place, *sides, facecolor="none", edgecolor=colour, linewidth=linewidth, zorder=3))

    if row is not None:
        shades = _shades(maps.tokens.weights[row])
        # The brightest frame lies on top.
        for token in np.argsort(maps.tokens.weights[row], kind="stable"):
            shade = shades[token]
            if shade is None:
                draw(token, FAINT_TEXT_COLOUR, 0.5, 0.01)
            else:
                draw(token, matplotlib.colormaps[COLOURS](0.35 + 0.6 * shade), 1 + shade, 0.015)
    for source in sources:
        if source is not None:
            draw(source, BAR_COLOUR, 2.6, 0.04)
            draw(source, SOURCE_COLOUR, 1.5, 0.04)


def _draw_legend(axes: Axes) -> None:
    note = "the word's largest share of each"  # short enough for the narrowest picture
    draw_scale(axes, 0.6, note)
    left = 0.28 + 0.6 + text_width(note, 7) + 0.2
    middle = 0.5 * BAR_INCHES
    axes.add_patch(Rectangle((left, middle - 0.05), 0.2, 0.1, facecolor="none", edgecolor=SOURCE_COLOUR, linewidth=1.5))
    write(axes, left + 0.27, middle, "copied from here", 7, TEXT_COLOUR)

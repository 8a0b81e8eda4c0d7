"""Drawing words with real fonts: how large they are, how they stand on a label, and labels and signs into a picture.

The fonts come with packages that are installed anyway: DejaVu with matplotlib, Aileron with Pillow. FreeType draws
them, so a picture with words is the same bytes wherever Pillow has the same version, not beyond that.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from vl_alignment.data.blocks.text_scene import Label, PrintedWord

__all__ = ["FONTS", "STYLES", "Arrangement", "arrange_words", "draw_labels"]

Box = tuple[float, float, float, float]

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "Aileron",
)
"""Names of the fonts; all but the last are files of matplotlib."""

STYLES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "white": ((250, 250, 246), (18, 18, 22)),
    "cream": ((250, 243, 222), (54, 26, 20)),
    "navy on white": ((246, 248, 252), (18, 30, 96)),
    "black": ((24, 24, 28), (248, 248, 244)),
}
"""Plate and ink by the style's name: all of them differ from the blocks' colours and have strong contrast."""

# All in units of the font's size.
_SPACE = 0.5
_LINE_HEIGHT = 1.12
_PADDING = 0.24
_MEASURED_SIZE = 128
_POST_WIDTH = 0.16

_OVERSAMPLING = 4


class Arrangement(NamedTuple):
    """Words on a plate, in the units of the font size that was given.

    Args:
        width: Of the plate.
        height: Of the plate.
        boxes: Of each word's ink (x0, y0, x1, y1), from the plate's upper left corner.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]


def arrange_words(words: Sequence[str], font: str, size: float, *, stacked: bool) -> Arrangement:
    """Place words on a plate that just holds them.

    Args:
        words: At least one.
        font: One of `FONTS`.
        size: Of the font, in any unit, for instance fractions of the picture.
        stacked: One word a line, each centred; otherwise all on one line.
    """
    inks = [_ink(font, word) for word in words]
    widths = [right - left for left, _, right, _ in inks]
    widest = max(widths) if stacked else sum(widths) + _SPACE * (len(words) - 1)
    boxes, start = [], 0.0
    for line, ((_, top, _, bottom), width) in enumerate(zip(inks, widths, strict=True)):
        x = (widest - width) / 2.0 if stacked else start
        baseline = _LINE_HEIGHT * line if stacked else 0.0
        boxes.append((x, baseline + top, x + width, baseline + bottom))
        start += width + _SPACE
    above = min(box[1] for box in boxes) - _PADDING
    placed = tuple(
        (size * (x0 + _PADDING), size * (y0 - above), size * (x1 + _PADDING), size * (y1 - above))
        for x0, y0, x1, y1 in boxes
    )
    height = max(box[3] for box in boxes) - above + _PADDING
    return Arrangement(size * (widest + 2.0 * _PADDING), size * height, placed)


def draw_labels(picture: np.ndarray, labels: Sequence["Label"]) -> np.ndarray:
    """Draw labels and signs over a picture.

    Args:
        picture: RGB uint8 [S, S, 3].
        labels: With boxes as fractions of the picture; the last one lies on top.

    Returns:
        A new picture of the same shape.
    """
    image = Image.fromarray(picture)
    canvas = ImageDraw.Draw(image, "RGBA")  # blends what is drawn with an opacity
    for label in labels:
        if label.foot is not None:
            _draw_posts(canvas, label, picture.shape[0])
        _draw_plate(canvas, label, picture.shape[0])
    return np.asarray(image)


def _draw_plate(canvas: ImageDraw.ImageDraw, label: "Label", side: int) -> None:
    plate, ink = STYLES[label.style]
    x0, y0, x1, y1 = (value * side for value in label.box)
    corner, edge = 0.2 * label.size * side, max(1, round(side / 320))
    canvas.rounded_rectangle((x0 + 2 * edge, y0 + 2 * edge, x1 + 2 * edge, y1 + 2 * edge), corner, fill=(0, 0, 0, 70))
    border = tuple((3 * one + 2 * other) // 5 for one, other in zip(plate, ink, strict=True))
    canvas.rounded_rectangle((x0, y0, x1, y1), corner, fill=plate, outline=border, width=edge)
    for word in label.words:
        _draw_word(canvas, word, label, side)


def _draw_word(canvas: ImageDraw.ImageDraw, word: "PrintedWord", label: "Label", side: int) -> None:
    """Draw the ink of a word into its box.

    At several times the size, as FreeType moves letters to whole pixels, which over a small word adds up.
    """
    _, ink = STYLES[label.style]
    size = label.size * side
    left, top, right, bottom = (value * size for value in _ink(label.font, word.text))
    column, row = math.floor(word.box[0] * side), math.floor(word.box[1] * side)
    width, height = math.ceil(right - left) + 2, math.ceil(bottom - top) + 2
    mask = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    # The anchor "ls" is the left end of the baseline, from which the ink was measured.
    start = word.box[0] * side - column - left, word.box[1] * side - row - top
    ImageDraw.Draw(mask).text(
        (start[0] * _OVERSAMPLING, start[1] * _OVERSAMPLING),
        word.text,
        255,
        _font(label.font, size * _OVERSAMPLING),
        anchor="ls",
    )
    canvas.bitmap((column, row), mask.reduce(_OVERSAMPLING), ink)


def _draw_posts(canvas: ImageDraw.ImageDraw, label: "Label", side: int) -> None:
    """The two posts of a sign, from its plate to the ground, and their shadow."""
    assert label.foot is not None
    x0, _, x1, y1 = (value * side for value in label.box)
    ground, half = label.foot.row * side, _POST_WIDTH * label.size * side / 2.0
    shadow = 0.45 * (ground - y1)
    for share in (0.2, 0.8):
        middle = x0 + share * (x1 - x0)
        corners = [(middle - half, ground), (middle + half, ground)]
        lean = [(x + 1.4 * shadow, ground - shadow) for x, _ in reversed(corners)]
        canvas.polygon([*corners, *lean], fill=(0, 0, 0, 60))
        canvas.rectangle((middle - half, y1, middle + half, ground), fill=(92, 84, 76))
        canvas.line((middle - half, y1, middle - half, ground), fill=(150, 140, 128))


@lru_cache(maxsize=64)
def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """A font of so many pixels; the plain layout engine, as Raqm is not in every build of Pillow."""
    if name == "Aileron":
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # with a size, Pillow's own font is an outline font
        return font
    from matplotlib import get_data_path  # slow to import, and only a picture with words needs it

    path = Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=65536)
def _ink(font: str, word: str) -> Box:
    """Extent of a word's ink from the left end of its baseline, y downwards, in units of the font's size."""
    # Not Pillow's own box of a text, which reaches as far as the space that the next letter leaves.
    mask, (x, y) = _font(font, _MEASURED_SIZE).getmask2(word, mode="L", anchor="ls")
    left, top, right, bottom = mask.getbbox()
    return (
        (x + left) / _MEASURED_SIZE,
        (y + top) / _MEASURED_SIZE,
        (x + right) / _MEASURED_SIZE,
        (y + bottom) / _MEASURED_SIZE,
    )

"""From what a model found to HTML: pictures, words that light them while they are chosen, bars, messages.

Words are radio buttons, so that keys work and no script is needed; what lights a picture is a small translucent one
that lies over it.
"""

import base64
import html
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["Chip", "Line", "Shown", "framed", "heat_uri", "look", "message", "note", "picture_uri", "score_bar"]

SHOWN_PIXELS, HEAT_PIXELS = 640, 48
DARK, BRIGHT = np.array([12, 14, 22, 176.0]), np.array([255, 186, 60, 64.0])
COPIED, PRINTED = (255, 186, 60), (70, 76, 88)
_GROUPS = itertools.count()


@dataclass(frozen=True)
class Chip:
    """A word on the page.

    Attributes:
        text: The word.
        heats: What lights each picture while the word is chosen; a word without is no button.
        note: Small, behind the word.
        shade: In [0, 1], how strongly its background is coloured.
        kind: A class of the style sheet.
    """

    text: str
    heats: Sequence[str] = ()
    note: str = ""
    shade: float = 0.0
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """Words in a line.

    Attributes:
        chips: The words.
        head: HTML above them.
        key: The same for lines of several models that say the same: their words are chosen together.
    """

    chips: Sequence[Chip]
    head: str = ""
    key: str = ""


@dataclass(frozen=True)
class Shown:
    """What a model found: pictures, lines of words that light them, and HTML above the lines."""

    pictures: Sequence[Image.Image]
    lines: Sequence[Line]
    hint: str = ""
    findings: str = ""
    warnings: Sequence[str] = ()


def picture_uri(picture: Image.Image) -> str:
    """Encode a picture, as large as it is shown, for an `img`."""
    small = picture.copy()
    small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    out = io.BytesIO()
    small.save(out, "webp", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def heat_uri(weights: np.ndarray, boxes: np.ndarray | None = None) -> str:
    """Encode a veil over a picture that is bright where regions have large weights.

    Args:
        weights: Of a grid's cells, [rows, columns]; or
        boxes: [R, 4], [x0, y0, x1, y1] in [0, 1], with weights [R].
    """
    if boxes is None:
        cells = Image.fromarray(weights.astype(np.float32))
        lit = np.asarray(cells.resize((HEAT_PIXELS, HEAT_PIXELS), Image.Resampling.BICUBIC))
    else:
        lit = np.zeros((HEAT_PIXELS, HEAT_PIXELS))
        for weight, (left, top, right, bottom) in zip(weights, np.clip(boxes, 0, 1) * HEAT_PIXELS, strict=True):
            lit[int(top) : math.ceil(bottom), int(left) : math.ceil(right)] += weight
    # Equal weights stay faint: they point nowhere.
    levels = np.clip(lit / max(float(lit.max()), 3 * float(weights.mean()), 1e-12), 0, 1)
    colours = (DARK + (BRIGHT - DARK) * np.linspace(0, 1, 64)[:, None] ** 0.8).round().astype(np.uint8)
    veil = Image.fromarray((levels * 63).round().astype(np.uint8))
    veil.putpalette(colours[:, :3].tobytes())
    out = io.BytesIO()
    veil.save(out, "png", transparency=colours[:, 3].tobytes(), optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def framed(picture: Image.Image, boxes: Sequence[Sequence[float]], copied: set[int]) -> Image.Image:
    """Frame the printed words, those that were copied in the colour of light."""
    result = picture.copy()
    result.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    draw = ImageDraw.Draw(result)
    width, height = result.size
    for number in sorted(range(len(boxes)), key=lambda number: number in copied):
        left, top, right, bottom = boxes[number]
        edges = (left * width - 2, top * height - 2, max(left, right) * width + 2, max(top, bottom) * height + 2)
        colour, line = (COPIED, 3) if number in copied else (PRINTED, 1)
        draw.rectangle(edges, outline=colour, width=line)
    return result


def score_bar(label: str, share: float, value: str) -> str:
    """Return a line with a bar that is filled to a share in [0, 1]; negative shares are marked as such."""
    kind = "bar negative" if share < 0 else "bar"
    bar = f'<span class="{kind}"><span style="width:{100 * min(1.0, abs(share)):.1f}%"></span></span>'
    return f'<div class="score"><span class="label">{html.escape(label)}</span>{bar}<b>{html.escape(value)}</b></div>'


def note(text: str) -> str:
    """Return a line in small print."""
    return f'<p class="hint">{html.escape(text)}</p>'


def message(text: str) -> str:
    """Return what went wrong, for the page."""
    return f'<div class="message" role="alert">{html.escape(text)}</div>'


def look(shown: Shown) -> str:
    """Return the pictures and the words that light them: radio buttons, so that keys work and no script is needed."""
    group, columns = f"look-{next(_GROUPS)}", min(4, len(shown.pictures))
    ratio = shown.pictures[0].width / shown.pictures[0].height
    width = 27 * min(1.0, ratio) if len(shown.pictures) == 1 else 11 * columns
    sources = [picture_uri(picture) for picture in shown.pictures]
    pictures = "".join(f'<img src="{source}" alt="">' for source in sources)
    written, whole = "", "the picture" if len(sources) == 1 else "the pictures"
    for line in (Line([Chip(whole, ("",))], key="none"), *shown.lines):
        buttons = (f'name="{group}" value="{html.escape(line.key)} {place}"' for place in range(len(line.chips)))
        words = (_chip(chip, button, columns) for chip, button in zip(line.chips, buttons, strict=True))
        written += f'<div class="line">{line.head}<div class="words">{"".join(words)}</div></div>'
    written = written.replace('type="radio"', 'type="radio" checked', 1)
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in shown.warnings)
    beside = f"{shown.findings}{warnings}{note(shown.hint)}{written}"
    return (
        f'<div class="look" style="--width:{width:.2f}rem;--ratio:{ratio:.4f}">'
        f'<div class="pictures of-{columns}">{pictures}</div>'
        f'<div class="lines">{beside}</div></div>'
    )


def _chip(chip: Chip, button: str, columns: int) -> str:
    small = f"<small>{html.escape(chip.note)}</small>" if chip.note else ""
    style = f'style="--shade:{100 * chip.shade:.0f}%"'
    word = f'<span class="word {chip.kind}" {style}>{html.escape(chip.text)}{small}</span>'
    if not chip.heats:
        return word
    veils = "".join(f'<img src="{source}" alt="">' for source in chip.heats if source)
    veiled = f'<span class="veils of-{columns}" aria-hidden="true">{veils}</span>'
    return f'<label><input type="radio" {button}>{word}{veiled}</label>'

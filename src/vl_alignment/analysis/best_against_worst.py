"""The same test items under the best and the worst alignment function, one above the other, as in Figures 3 to 19."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from .layout import display_name
from .report import Picture
from .statistics import Result, estimate, values_of
from .tasks import task_of

__all__ = ["best_and_worst", "one_above_the_other", "write_best_against_worst"]

FOLDER = "best-against-worst"
MARGIN, LINE, TEXT_SIZE = 12, 26, 16  # pixels


def best_and_worst(results: Sequence[Result]) -> tuple[str, str] | None:
    """The row keys with the highest and the lowest mean of what decides the task; None of fewer than two rows."""
    means = _means(results)
    return None if len(means) < 2 else (max(means, key=means.__getitem__), min(means, key=means.__getitem__))


def _means(results: Sequence[Result]) -> dict[str, float]:
    values = values_of(results, task_of(results).metric)
    return {key: estimate(by_seed.values()).mean for key, by_seed in values.items()}


def write_best_against_worst(output: Path, results: Sequence[Result], pictures: Sequence[Picture]) -> list[Path]:
    """Write `best-against-worst/{number}.png` for every picture that both functions have.

    Args:
        output: Folder of the comparison.
        results: Of its runs; the mean over seeds of the task's metric decides.
        pictures: Of `attention_pictures`.

    Returns:
        The files.
    """
    pair = best_and_worst(results)
    if pair is None:
        return []
    means, title = _means(results), task_of(results).metric_title
    titles = [
        f"{word}: {display_name(key)}, {title} {means[key]:.1f}"
        for key, word in zip(pair, ("Best", "Worst"), strict=True)
    ]
    written = []
    for number, (_, drawn) in enumerate(pictures, start=1):
        if all(key in drawn for key in pair):
            path = output / FOLDER / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(one_above_the_other(titles, [drawn[key] for key in pair]))
            written.append(path)
    return written


def one_above_the_other(titles: Sequence[str], drawings: Sequence[bytes]) -> bytes:
    """Put pictures, PNG each, below their titles into one PNG."""
    opened = [Image.open(io.BytesIO(drawing)).convert("RGBA") for drawing in drawings]
    font = ImageFont.truetype(findfont("DejaVu Sans"), TEXT_SIZE)  # it has the daggers of names
    width = max([image.width for image in opened] + [round(font.getlength(title)) for title in titles]) + 2 * MARGIN
    height = sum(image.height + LINE for image in opened) + 3 * MARGIN
    page = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(page), MARGIN
    for title, image in zip(titles, opened, strict=True):
        draw.text((MARGIN, top), title, fill="black", font=font)
        page.paste(image, (MARGIN, top + LINE), image)
        top += LINE + image.height + MARGIN
    content = io.BytesIO()
    small = page.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    small.save(content, format="png", optimize=True)
    return content.getvalue()

"""RapidOCR as a reader of text: PaddleOCR's detector and recogniser as ONNX models that come inside the wheel."""

import importlib.metadata
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vl_alignment.data.text_recognition import RecognizedText
from vl_alignment.models.errors import ConfigurationError

__all__ = ["RapidTextReader", "reading_order", "split_line"]

PACKAGE = "rapidocr-onnxruntime"
# A line this much higher than wide was turned by the recogniser before it was read.
TURNED = 1.5
# Times the shorter side.
LONGEST = 4
NARROW = frozenset("iljtfrI1.,:;'`!|()[]{}/\\-\"")
WIDE = frozenset("mwMW@%&")


class RapidTextReader:
    """Reads the words in a picture with RapidOCR, which runs on the CPU.

    The recogniser gives lines; they are split at white space, and each word gets its part of the line's box by the
    widths of its characters, and the line's confidence. Full-width characters become ordinary ones (NFKC). Which end of
    a turned line is its beginning RapidOCR does not tell: the boxes of several words in a line that is upside down or
    runs up the picture are exchanged.

    Args:
        minimum_confidence: Lines that are read with less are left out.
        threads: Of the CPU; all by default.

    Raises:
        ConfigurationError: The package is not installed.
    """

    name = "rapidocr"

    def __init__(self, minimum_confidence: float = 0.5, threads: int | None = None) -> None:
        if not 0 <= minimum_confidence <= 1:
            raise ConfigurationError(f"minimum_confidence is {minimum_confidence}; it must be in [0, 1]")
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise ConfigurationError(
                f'reading the text in pictures needs RapidOCR ({error}): pip install "vl-alignment[ocr]"; where '
                "libGL.so.1 is what is missing, install the system's libGL (Debian: libgl1)"
            ) from error
        number = -1 if threads is None else threads
        self._engine = RapidOCR(text_score=minimum_confidence, intra_op_num_threads=number, inter_op_num_threads=number)
        self.version = f"{importlib.metadata.version(PACKAGE)}, minimum confidence {minimum_confidence:g}"

    def read(self, image: Image.Image) -> RecognizedText:
        """Read an RGB picture."""
        # The detector enlarges the shorter side to hundreds of pixels: of a strip it would make a gigantic picture.
        sides = max(image.width, image.height // LONGEST), max(image.height, image.width // LONGEST)
        padded = Image.new("RGB", sides)
        padded.paste(image.convert("RGB"))
        pixels = np.ascontiguousarray(np.asarray(padded)[:, :, ::-1])  # BGR, as OpenCV has it
        lines, _ = self._engine(pixels)
        polygons = [np.asarray(line[0], dtype=np.float64) for line in lines or []]  # [4, 2] each
        tokens: list[str] = []
        boxes: list[np.ndarray] = []
        confidences: list[float] = []
        for number in reading_order([_box(polygon) for polygon in polygons]):
            text, confidence = (lines or [])[number][1:3]
            words, places = split_line(text, polygons[number])
            tokens += words
            boxes += places
            confidences += [float(confidence)] * len(words)
        size = np.array([image.width, image.height] * 2, dtype=np.float64)
        relative = (np.array(boxes).reshape(-1, 4) / size).clip(0, 1)
        return RecognizedText(tokens, relative.astype(np.float32), np.array(confidences, dtype=np.float32).clip(0, 1))


def split_line(text: str, polygon: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Split a line of text at white space.

    Args:
        text: What is written.
        polygon: Where: [4, 2] corners x, y, clockwise from where an upright line's upper left corner is.

    Returns:
        The words, and the upright box [x0, y0, x1, y1] around each one's part of the polygon.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    widths = np.cumsum([0.0, *(_width(character) for character in text)])
    # Along the line run the upper and the lower edge, or the sides where the line goes down the picture.
    first, second, third, fourth = polygon
    down = np.linalg.norm(fourth - first) >= TURNED * np.linalg.norm(second - first)
    edges = ((second, third), (first, fourth)) if down else ((first, second), (fourth, third))
    words, boxes, position = [], [], 0
    for word in text.split():
        position = text.index(word, position)
        parts = widths[[position, position + len(word)]] / widths[-1]
        position += len(word)
        corners = np.array([start + part * (end - start) for start, end in edges for part in parts])
        words.append(word)
        boxes.append(_box(corners))
    return words, boxes


def reading_order(boxes: Sequence[np.ndarray]) -> list[int]:
    """Order boxes [x0, y0, x1, y1] in rows from top to bottom, and within a row from left to right.

    A box belongs to a row if its middle is less than half its height, or half that of the row's first box, away from
    the middle of that box: whichever is less.
    """
    middles = [(box[1] + box[3]) / 2 for box in boxes]
    heights = [box[3] - box[1] for box in boxes]
    rows: list[list[int]] = []
    for number in sorted(range(len(boxes)), key=lambda number: (middles[number], boxes[number][0])):
        if rows:
            first = rows[-1][0]
            if middles[number] - middles[first] < min(heights[number], heights[first]) / 2:
                rows[-1].append(number)
                continue
        rows.append([number])
    return [number for row in rows for number in sorted(row, key=lambda number: (boxes[number][0], number))]


def _box(points: np.ndarray) -> np.ndarray:
    """[n, 2] points -> [x0, y0, x1, y1] around them."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _width(character: str) -> float:
    """About how wide a character is printed, in widths of an "n"."""
    if unicodedata.east_asian_width(character) in "WF":
        return 2.0
    if character.isspace() or character in NARROW:
        return 0.5
    return 1.5 if character in WIDE else 1.0

"""The columns of questions that are answered by reading, and of the text in their pictures.

The two tables are those of `QuestionData`: `questions` has the columns of `TEXT_QUESTION_FEATURES`, `images` has
`image_id`, `image` where there are pictures, and the columns of `TEXT_FEATURES` once the text has been read.
"""

from collections.abc import Sequence

import datasets
import numpy as np

from vl_alignment.models.errors import DataError

__all__ = [
    "TEXT_FEATURES",
    "TEXT_QUESTION_FEATURES",
    "WHOLE_PICTURE",
    "TextColumns",
    "clip_boxes",
    "most_confident",
    "with_text",
]

TEXT_QUESTION_FEATURES = datasets.Features(
    {
        "question_id": datasets.Value("string"),
        "image_id": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answers": datasets.List(datasets.Value("string")),
        "question_type": datasets.Value("string"),
        "hops": datasets.Value("int32"),
    }
)
"""Columns of a question: `answers` by people, [] where they are not public; `question_type` is the family, "" where
there is none; `hops` the relations to follow to the text, -1 where that is not known."""

TEXT_FEATURES = datasets.Features(
    {
        "ocr_tokens": datasets.List(datasets.Value("string")),
        "ocr_boxes": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        "ocr_confidences": datasets.List(datasets.Value("float32")),
    }
)
"""Columns of the text in a picture, one entry a token: what it reads, [x0, y0, x1, y1] in [0, 1] of the picture's width
and height, and how sure the reader was, in [0, 1]."""

WHOLE_PICTURE = [0.0, 0.0, 1.0, 1.0]
"""The box of a token whose place is not known."""

UNKNOWN_CONFIDENCE = 1.0


def clip_boxes(boxes: Sequence[Sequence[float]] | np.ndarray) -> tuple[np.ndarray, int]:
    """Clip boxes to the picture.

    Args:
        boxes: [N, 4] as [x0, y0, x1, y1] in parts of the picture's width and height.

    Returns:
        The boxes as float32 [N, 4] in [0, 1], and how many of them reached out of the picture.

    Raises:
        DataError: Another shape, a number that is not finite, or a box whose end is before its beginning.
    """
    numbers = np.asarray(boxes, dtype=np.float64)
    if numbers.size == 0:
        return np.zeros((0, 4), dtype=np.float32), 0
    if numbers.ndim != 2 or numbers.shape[1] != 4:
        raise DataError(f"boxes are lists of [x0, y0, x1, y1], not an array of shape {list(numbers.shape)}")
    if not np.isfinite(numbers).all():
        raise DataError(f"the box {numbers[~np.isfinite(numbers).all(axis=1)][0].tolist()} is not finite")
    turned = (numbers[:, 2:] < numbers[:, :2]).any(axis=1)
    if turned.any():
        raise DataError(f"the box {numbers[turned][0].tolist()} ends before it begins; boxes are [x0, y0, x1, y1]")
    clipped = np.clip(numbers, 0.0, 1.0)
    return clipped.astype(np.float32), int((clipped != numbers).any(axis=1).sum())


def most_confident(confidences: Sequence[float] | np.ndarray, slots: int) -> np.ndarray:
    """Return the numbers of the tokens that fill a model's slots: those read with most confidence, in their own order.

    Of equally confident ones the first are kept, so that without confidences it is the reader's order that counts (M4C
    keeps the first 50 that way). Where there are more tokens than slots, `len(confidences) - slots` are left out.
    """
    order = np.argsort(-np.asarray(confidences, dtype=np.float64), kind="stable")
    return np.sort(order[:slots])


class TextColumns:
    """Collects the text of pictures for the columns of `TEXT_FEATURES`, and counts what had to be mended.

    Attributes:
        empty: Tokens without a character, which were left out.
        clipped: Tokens whose box reached out of the picture, and was clipped.
        without_boxes: Pictures with tokens and no boxes; each token got `WHOLE_PICTURE`.
    """

    def __init__(self) -> None:
        self.columns: dict[str, list[list]] = {name: [] for name in TEXT_FEATURES}
        self.empty = self.clipped = self.without_boxes = 0

    def __len__(self) -> int:
        return len(self.columns["ocr_tokens"])

    def add(
        self,
        tokens: Sequence[str],
        boxes: Sequence[Sequence[float]] | np.ndarray | None = None,
        confidences: Sequence[float] | np.ndarray | None = None,
        *,
        path: object = None,
        record: object = None,
    ) -> None:
        """Add the text of the next picture.

        Args:
            tokens: N texts; none for a picture without text.
            boxes: [N, 4] in parts of width and height; None where they are not known.
            confidences: N numbers in [0, 1]; None where they are not known, which counts as 1 each.
            path: The file, for messages.
            record: The picture, for messages.

        Raises:
            DataError: The lengths differ, a token is no text, a box is none (see `clip_boxes`), or a confidence is not
                in [0, 1].
        """
        if not isinstance(tokens, Sequence) or isinstance(tokens, str):
            raise DataError("the OCR tokens are no list of texts", path=path, record=record)
        if boxes is None:
            self.without_boxes += bool(len(tokens))
            boxes = [WHOLE_PICTURE] * len(tokens)
        try:
            sure = np.asarray([UNKNOWN_CONFIDENCE] * len(tokens) if confidences is None else confidences, dtype=float)
            lengths = {len(tokens), len(boxes), len(sure)}
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"no tokens with boxes and confidences: {error}", path=path, record=record) from error
        if len(lengths) > 1 or sure.ndim != 1:
            raise DataError(
                f"{len(tokens)} OCR tokens have {len(boxes)} boxes and {sure.size} confidences",
                path=path,
                record=record,
            )
        if not all(isinstance(token, str) for token in tokens):
            raise DataError("the OCR tokens are not all texts", path=path, record=record)
        if not ((sure >= 0) & (sure <= 1)).all():
            raise DataError("the confidences of OCR tokens are numbers from 0 to 1", path=path, record=record)
        kept = [number for number, token in enumerate(tokens) if token.strip()]
        try:
            places, clipped = clip_boxes([boxes[number] for number in kept])
        except (DataError, TypeError, ValueError, KeyError, OverflowError) as error:
            raise DataError(f"the boxes of OCR tokens cannot be used: {error}", path=path, record=record) from error
        self.empty += len(tokens) - len(kept)
        self.clipped += clipped
        self.columns["ocr_tokens"].append([tokens[number].strip() for number in kept])
        self.columns["ocr_boxes"].append(places.tolist())
        self.columns["ocr_confidences"].append(sure[kept].tolist())


def with_text(images: datasets.Dataset, text: TextColumns) -> datasets.Dataset:
    """Return the images with the columns of `TEXT_FEATURES`, in place of those that they had.

    Args:
        images: With the column `image_id`.
        text: Of every image, in their order.

    Raises:
        DataError: There is text of another number of images.
    """
    if len(text) != len(images):
        raise DataError(f"there is the text of {len(text)} pictures for {len(images)} images")
    images = images.remove_columns([name for name in TEXT_FEATURES if name in images.column_names])
    for name, column in text.columns.items():
        images = images.add_column(name, column, feature=TEXT_FEATURES[name])
    return images

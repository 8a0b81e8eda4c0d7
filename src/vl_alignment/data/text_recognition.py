"""Reading the text in pictures: OCR plug-ins, and the text of a whole data set, read once and kept on disk.

A store of text is a file of JSON lines: first what read it, then a line a picture; pictures that could not be opened
have their reason in place of their text. While the reading is under way it is `{name}.part`, which a stopped
run goes on with; the finished file takes its place in one step.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vl_alignment.data.atomic_files import cannot_write, synchronize_folder, whole_file
from vl_alignment.data.json_text import parse_json
from vl_alignment.data.picture_files import decode_picture
from vl_alignment.data.text_question_records import TextColumns, with_text
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = [
    "RecognizedText",
    "TextReader",
    "TextStore",
    "build_text_reader",
    "read_texts",
    "register_text_reader",
    "text_reader_names",
]

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class RecognizedText:
    """The words in one picture, in reading order.

    Attributes:
        tokens: n words, none of them empty.
        boxes: [n, 4] float32, [x0, y0, x1, y1] in [0, 1] of the picture's width and height.
        confidences: [n] float32 in [0, 1].
    """

    tokens: list[str]
    boxes: np.ndarray
    confidences: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """As plain lists; boxes to a millionth, which is less than a pixel of any picture."""
        return {
            "tokens": self.tokens,
            "boxes": self.boxes.astype(np.float64).round(6).tolist(),
            "confidences": self.confidences.astype(np.float64).round(6).tolist(),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RecognizedText":
        """Make it again from what `to_dict` gave."""
        boxes = np.asarray(content["boxes"], dtype=np.float32).reshape(-1, 4)
        return cls(list(content["tokens"]), boxes, np.asarray(content["confidences"], dtype=np.float32))


class TextReader(Protocol):
    """What reads the text in pictures.

    Attributes:
        name: Its name in stores and results.
        version: Everything that changes what it reads: its version, its weights, its settings.
    """

    name: str
    version: str

    def read(self, image: Image.Image) -> RecognizedText:
        """Read an RGB picture; no tokens where there is no text."""
        ...


def _rapidocr(**options: Any) -> TextReader:
    from vl_alignment.data.rapid_text_reader import RapidTextReader

    return RapidTextReader(**options)


_FACTORIES: dict[str, Callable[..., TextReader]] = {"rapidocr": _rapidocr}


def register_text_reader(name: str, factory: Callable[..., TextReader]) -> None:
    """Make a reader known by name; `factory(**options)` builds it. A name that is taken is refused."""
    if name in _FACTORIES:
        raise ConfigurationError(f"a text reader {name!r} is already registered; choose another name")
    _FACTORIES[name] = factory


def text_reader_names() -> list[str]:
    """Return the names that `build_text_reader` knows, sorted."""
    return sorted(_FACTORIES)


def build_text_reader(name: str = "rapidocr", **options: Any) -> TextReader:
    """Build a registered reader.

    Raises:
        ConfigurationError: The name is unknown (the message lists the known ones), its package is not installed, or an
            option does not fit.
    """
    if name not in _FACTORIES:
        raise ConfigurationError(f"unknown text reader {name!r}; the known ones are {', '.join(text_reader_names())}")
    try:
        return _FACTORIES[name](**options)
    except TypeError as error:
        if "argument" in str(error) and (options or "required" in str(error)):
            raise ConfigurationError(f"text reader {name!r}: {error}") from error
        raise


class TextStore:
    """The text of many pictures.

    Attributes:
        path: The file.
        reader, reader_version: What read it.
        failures: Ids of the pictures that could not be opened, with the reason.
    """

    def __init__(self, path: Path, header: dict[str, Any], lines: Sequence[dict[str, Any]]) -> None:
        self.path = path
        self.reader, self.reader_version = header["reader"], header["reader_version"]
        self.failures = {line["image_id"]: line["failure"] for line in lines if "failure" in line}
        self._texts = {line["image_id"]: line for line in lines if "failure" not in line}

    @classmethod
    def open(cls, path: str | Path) -> "TextStore":
        """Open a finished store.

        Raises:
            DataError: There is none, it is unfinished, damaged, or a newer version wrote it.
        """
        path = Path(path)
        if not path.exists() and _part_of(path).exists():
            raise DataError("the text is not all read yet; start the same reading again, which goes on", path=path)
        return cls(path, *_read_lines(path, torn=False)[:2])

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._texts

    def __getitem__(self, image_id: str) -> RecognizedText:
        if image_id not in self._texts:
            reason = self.failures.get(image_id, "it was not read; read the data set again, which adds it")
            raise DataError(f"there is no text of this picture: {reason}", path=self.path, record=image_id)
        try:
            return RecognizedText.from_dict(self._texts[image_id])
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"no text of a picture: {error}", path=self.path, record=image_id) from error

    def add_to(self, images: datasets.Dataset) -> datasets.Dataset:
        """Return images with their text in the columns `ocr_tokens`, `ocr_boxes` and `ocr_confidences`.

        Args:
            images: With the column `image_id`; text columns that they have are replaced.

        Raises:
            DataError: The text of an image is not in the store.
        """
        columns = TextColumns()
        for image_id in images["image_id"][:]:
            text = self[image_id]
            columns.add(text.tokens, text.boxes, text.confidences, path=self.path, record=image_id)
        return with_text(images, columns)


def read_texts(
    data: datasets.DatasetDict,
    reader: TextReader,
    path: str | Path,
    *,
    maximum_failures: int | None = None,
    progress: bool = True,
) -> TextStore:
    """Read the text in every image of every split, once.

    A stopped run goes on when called again in the same way. A finished store of the same reader is extended by the
    images that it lacks (those that could not be opened are tried again), and left alone if it has all.

    Args:
        data: Splits with the columns `image_id` and `image`.
        reader: What reads.
        path: The store, a `.jsonl` file.
        maximum_failures: Unreadable images that are left out, with a warning each, before the run stops. Default: 1 %
            of the images, at least 10.
        progress: Whether a progress bar is shown.

    Raises:
        DataError: The file cannot be written or was made by another reader, or too many images are unreadable.
    """
    path = Path(path)
    part = _part_of(path)
    header = {"schema_version": SCHEMA_VERSION, "reader": reader.name, "reader_version": reader.version}
    pictures = list(_pictures(data))
    if path.exists() and not _is_begun(part):
        _same_reader(path, _read_lines(path, torn=False)[0], header)
        store = TextStore.open(path)
        if all(image_id in store for image_id, _, _ in pictures):
            return store
    done = _go_on(path, part, header)
    wanted = [picture for picture in pictures if picture[0] not in done]
    limit = max(10, len(pictures) // 100) if maximum_failures is None else maximum_failures
    failed = 0
    try:
        with open(part, "ab") as file:
            for image_id, split, row in tqdm(wanted, desc="text", unit="image", disable=not progress):
                try:
                    image = _opened(split, row)
                except DataError as error:
                    failed += 1
                    logger.warning("left out image %s: %s", image_id, error)
                    line = {"image_id": image_id, "failure": str(error)}
                    if failed > limit:
                        raise DataError(
                            f"{failed} images could not be opened (the limit is {limit}), the last is {image_id}; "
                            "repair the files, or raise maximum_failures"
                        ) from error
                else:
                    line = {"image_id": image_id, **reader.read(image).to_dict()}
                file.write(_written(line))
                file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        synchronize_folder(path.parent)
    except OSError as error:
        raise cannot_write(part, error, DataError) from error
    return TextStore.open(path)


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _is_begun(part: Path) -> bool:
    """Whether a part file has a first line that ends; with less than that there is nothing to go on with."""
    try:
        with open(part, "rb") as file:
            return file.readline().endswith(b"\n")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=part) from error


def _go_on(path: Path, part: Path, header: dict[str, Any]) -> set[str]:
    """Make the part file ready to be continued; returns the ids of the images whose text it has."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_begun(part):
            with whole_file(part, DataError) as file:
                if path.exists():
                    with open(path, "rb") as finished:
                        shutil.copyfileobj(finished, file)
                else:
                    file.write(_written(header))
        found, lines, whole = _read_lines(part, torn=True)
        _same_reader(part, found, header)
        kept = [line for line in lines if "failure" not in line]
        if len(kept) < len(lines):  # those that could not be opened are tried again
            with whole_file(part, DataError) as file:
                file.writelines(_written(line) for line in [found, *kept])
        else:
            os.truncate(part, whole)  # a run that was killed may have left half a line
    except OSError as error:
        raise cannot_write(part, error, DataError) from error
    return {line["image_id"] for line in kept}


def _written(line: dict[str, Any]) -> bytes:
    return f"{json.dumps(line, ensure_ascii=False)}\n".encode()


def _same_reader(path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
    for name, value in header.items():
        if found[name] != value:
            raise DataError(f"holds text with {name} {found[name]!r}, this is {value!r}; give another file", path=path)


def _read_lines(path: Path, *, torn: bool) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Read a store; returns its first line, the others, and how many bytes they are; the last may be torn."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("there is no text here; read it with read_texts", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=path) from error
    parts = content.split(b"\n")
    last = parts.pop()
    if last and not torn:
        raise DataError("truncated: the last line does not end; delete the file and read again", path=path)
    lines: list[dict[str, Any]] = []
    for number, part in enumerate(parts, start=1):
        try:
            line = parse_json(part)
            needed = {"schema_version", "reader", "reader_version"} if number == 1 else {"image_id"}
            if number > 1 and "failure" not in line:
                needed |= {"tokens", "boxes", "confidences"}
            if missing := sorted(needed - set(line)):
                raise ValueError(f"it lacks {missing[0]}")
            right = isinstance(line["schema_version"], int) if number == 1 else isinstance(line["image_id"], str)
            if not isinstance(line, dict) or not right:
                raise ValueError("it has a value of another type")
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"no line of a store of text ({error})", path=path, record=number) from error
        lines.append(line)
    if not lines:
        raise DataError("no store of text: it is empty", path=path)
    if lines[0]["schema_version"] > SCHEMA_VERSION:
        version = lines[0]["schema_version"]
        raise DataError(
            f"schema version {version}, this vl-alignment reads up to {SCHEMA_VERSION}; upgrade it", path=path
        )
    return lines[0], lines[1:], len(content) - len(last)


def _pictures(data: datasets.DatasetDict) -> Iterator[tuple[str, datasets.Dataset, int]]:
    """Where each picture of the data set is: (id, split with its encoded image, row)."""
    seen: set[str] = set()
    for name, split in data.items():
        if missing := [column for column in ("image_id", "image") if column not in split.column_names]:
            raise DataError(f"split {name!r} has no column {missing[0]!r}; text is read in images")
        encoded = split.select_columns(["image_id", "image"]).cast_column("image", datasets.Image(decode=False))
        for row, image_id in enumerate(encoded["image_id"][:]):
            if image_id in seen:
                raise DataError("this image id occurs twice in the data set", record=image_id)
            seen.add(image_id)
            yield image_id, encoded, row


def _opened(split: datasets.Dataset, row: int) -> Image.Image:
    value = split[row]["image"]
    try:
        return decode_picture(value)
    except ValueError as error:
        raise DataError(str(error), path=(value or {}).get("path")) from error

"""What may be changed of a preset's options of the data: where the text in the pictures comes from, words, vectors."""

from collections.abc import Mapping
from typing import Any

from ..data.answer_vocabulary import read_answer_vocabulary
from ..data.word_vectors import FastTextVectors
from ..models.errors import ConfigurationError

__all__ = ["READER", "changed_options"]

READER = "rapidocr"
"""What reads the text in pictures unless another reader is named."""

CHARACTER_ERROR_RATE = 0.05
# Options that go with one source of text, and what they are unless they are given.
_OF_SOURCE: dict[str, dict[str, Any]] = {
    "true": {},
    "corrupted": {"character_error_rate": CHARACTER_ERROR_RATE},
    "read": {"reader": READER},
}


def changed_options(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's options of the data with changes, whose files are read.

    Args:
        options: Of the preset.
        changes: `ocr` ("true", "corrupted" or "read"), `character_error_rate` of "corrupted", `reader` of "read";
            `answer_vocabulary`, a file of `build-vocabulary`; `fasttext`, a `.bin` or `.vec` file of word vectors;
            `text_encoder`, and other options as they are.

    Raises:
        ConfigurationError: The text of this data set is what it is, or an option goes with another source of text.
        DataError: A file cannot be read.
    """
    changed = {**options, **changes}
    of_text = {name for own in _OF_SOURCE.values() for name in own}
    if "ocr" not in options:
        for name in ("ocr", *sorted(of_text)):
            if name in changes:
                raise ConfigurationError(
                    f"{name}={changes[name]!r}: only the built-in pictures with words let one choose where their text "
                    f"comes from, not {options['name']!r}"
                )
    else:
        source = changed["ocr"]
        if source not in _OF_SOURCE:
            raise ConfigurationError(f"ocr={source!r}: the choices are {', '.join(_OF_SOURCE)}")
        for name in sorted(of_text & set(changes)):
            if name not in _OF_SOURCE[source]:
                raise ConfigurationError(f"{name}={changes[name]!r} does not go with ocr={source!r}")
        # An option of the preset's own source does not go with another one.
        changed = {name: value for name, value in changed.items() if name not in of_text - set(_OF_SOURCE[source])}
        changed = {**_OF_SOURCE[source], **changed}
    if "answer_vocabulary" in changes:
        changed["answer_vocabulary"] = read_answer_vocabulary(changes["answer_vocabulary"])
    if "fasttext" in changes:
        changed["word_vectors"] = FastTextVectors(changed.pop("fasttext"))
    return changed

"""What may be changed of a preset's options of the data: the text in pictures, words, vectors, what sees pictures."""

from collections.abc import Mapping
from typing import Any

from ..data.answer_vocabulary import read_answer_vocabulary
from ..data.word_vectors import FastTextVectors
from ..models.errors import ConfigurationError
from .presets import PRESETS

__all__ = ["READER", "changed_options", "check_option_names"]

READER = "rapidocr"
"""What reads the text in pictures unless another reader is named."""

CHARACTER_ERROR_RATE = 0.05
# Options that go with one source of text, and what they are unless they are given.
_OF_SOURCE: dict[str, dict[str, Any]] = {
    "true": {},
    "corrupted": {"character_error_rate": CHARACTER_ERROR_RATE},
    "read": {"reader": READER},
}
# What only generators' presets have.
_OF_PICTURES = (
    *("dataset", "image_encoder", "feature_network", "feature_variant", "pictures_per_image", "damsm_epochs"),
)
# What no preset gives and everything has a default for.
_DEFAULTED = (
    *("answer_vocabulary", "classifier", "fasttext", "image_size", "maximum_hops", "questions_per_image"),
    *("read_splits", "text_encoder"),
)


def changed_options(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's options of the data with changes, whose files are read.

    Args:
        options: Of the preset.
        changes: Of answering by reading `ocr` ("true", "corrupted" or "read"), `character_error_rate` of "corrupted",
            `reader` of "read"; `answer_vocabulary`, a file of `build-vocabulary`; `fasttext`, a `.bin` or `.vec` file
            of word vectors; `text_encoder`. Of pictures from words `dataset`, another data set in place of the
            preset's, and `damsm_epochs`. Other options as they are.

    Raises:
        ConfigurationError: There is no such option, the text of this data set is what it is, or an option goes with
            another source of text.
        DataError: A file cannot be read.
    """
    check_option_names(changes)
    for name in _OF_PICTURES:
        if name in changes and "damsm" not in options:
            raise ConfigurationError(f"{name}={changes[name]!r} is an option of pictures from words alone")
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
    if "dataset" in changes:
        # How the preset's own pictures are made, and how many, does not hold for others.
        changed = {key: value for key, value in changed.items() if key not in ("dataset", "loading", "sizes")}
        changed["name"] = changes["dataset"]
    if "damsm_epochs" in changes:
        changed["damsm"] = _damsm_of_epochs(changed["damsm"], changed.pop("damsm_epochs"))
    if "answer_vocabulary" in changes:
        changed["answer_vocabulary"] = read_answer_vocabulary(changes["answer_vocabulary"])
    if "fasttext" in changes:
        changed["word_vectors"] = FastTextVectors(changed.pop("fasttext"))
    return changed


def check_option_names(changes: Mapping[str, Any]) -> None:
    """Refuse options of the data that nothing reads.

    Raises:
        ConfigurationError: There is one.
    """
    of_text = (name for own in _OF_SOURCE.values() for name in own)
    known = {*(name for preset in PRESETS.values() for name in preset["data"]), *_OF_PICTURES, *of_text, *_DEFAULTED}
    if unknown := sorted(set(changes) - known):
        raise ConfigurationError(f"options: unknown {unknown}; known are {sorted(known)}")


def _damsm_of_epochs(damsm: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Return a DAMSM's options with another number of epochs, and the decays at the same shares of them."""
    settings, before = dict(damsm["settings"]), damsm["settings"]["epochs"]
    decays = {max(1, round(decay * epochs / before)) for decay in settings.get("decay_epochs", ())}
    return {**damsm, "settings": {**settings, "epochs": epochs, "decay_epochs": sorted(decays)}}

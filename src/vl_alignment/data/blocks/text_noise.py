"""What a text reader finds in a picture with words: the truth, or the truth with a reader's mistakes."""

from collections.abc import Sequence
from typing import NamedTuple

from vl_alignment.data.blocks.phrases import Draw
from vl_alignment.data.blocks.scene import scene_generator
from vl_alignment.data.blocks.text_scene import TextScene
from vl_alignment.models.errors import ConfigurationError

__all__ = ["PictureTokens", "check_character_error_rate", "corrupted_tokens", "true_tokens"]

_STREAM = 6
_SUBSTITUTED, _DELETED = 0.6, 0.2  # the rest of the errors are insertions
_BOX_JITTER = 0.08  # of a word's height
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LOOK_ALIKES = {
    "a": "oe", "b": "h6", "c": "eo", "d": "o0", "e": "c3", "f": "tp", "g": "q9", "h": "bn", "i": "l1", "j": "i1",
    "k": "xh", "l": "i1", "m": "nw", "n": "mh", "o": "0c", "p": "bf", "q": "g9", "r": "nt", "s": "5z", "t": "f7",
    "u": "vn", "v": "uy", "w": "vm", "x": "ky", "y": "vg", "z": "2s",
}  # fmt: skip


class PictureTokens(NamedTuple):
    """Words found in a picture, in reading order.

    Args:
        words: One string a word.
        boxes: [x0, y0, x1, y1] of each word, as fractions of the picture.
        confidences: In [0, 1].
    """

    words: list[str]
    boxes: list[list[float]]
    confidences: list[float]


def true_tokens(text_scene: TextScene) -> PictureTokens:
    """Every word as it is printed, label by label, with the box of its ink and full confidence."""
    words = [word for label in text_scene.labels for word in label.words]
    return PictureTokens([word.text for word in words], [list(word.box) for word in words], [1.0] * len(words))


def corrupted_tokens(text_scene: TextScene, character_error_rate: float) -> PictureTokens:
    """The words with mistakes: letters substituted, left out and put in, and boxes moved a little.

    Args:
        text_scene: The scene; its seed, split and index fix the mistakes.
        character_error_rate: Expected mistakes a letter. A scene has the mistakes of a lower rate at a higher one too.

    Returns:
        The tokens; a word of which no letter is left is not among them. Confidence falls with the mistakes.

    Raises:
        ConfigurationError: The rate is out of range.
    """
    check_character_error_rate(character_error_rate)
    scene = text_scene.scene
    draw = scene_generator(scene.seed, scene.split, scene.index, stream=_STREAM).random
    found = PictureTokens([], [], [])
    for word, box, _ in zip(*true_tokens(text_scene), strict=True):
        read, mistakes = _misread(word, character_error_rate, draw)
        moved = _jittered(box, draw)
        confidence = round((0.9 + 0.1 * draw()) * 0.85**mistakes, 4)
        if read:
            found.words.append(read)
            found.boxes.append(moved)
            found.confidences.append(confidence)
    return found


def check_character_error_rate(character_error_rate: float) -> None:
    """Raise `ConfigurationError` unless the rate is one."""
    if not 0.0 <= character_error_rate <= 1.0:
        raise ConfigurationError(f"character_error_rate={character_error_rate}: need a share between 0 and 1.")


def _misread(word: str, rate: float, draw: Draw) -> tuple[str, int]:
    read, mistakes = "", 0
    for letter in word:
        # The same numbers are drawn for every letter, so that a rate does not change where other mistakes are.
        happens, kind, which, where = draw(), draw(), draw(), draw()
        if happens >= rate:
            read += letter
            continue
        mistakes += 1
        if kind < _SUBSTITUTED:
            others = _LOOK_ALIKES.get(letter.lower(), _LETTERS)
            read += _in_case_of(letter, others[int(which * len(others))])
        elif kind >= _SUBSTITUTED + _DELETED:
            other = _in_case_of(letter, _LETTERS[int(which * len(_LETTERS))])
            read += letter + other if where < 0.5 else other + letter
    return read, mistakes


def _in_case_of(letter: str, other: str) -> str:
    return other.upper() if letter.isupper() else other


def _jittered(box: Sequence[float], draw: Draw) -> list[float]:
    height = box[3] - box[1]
    return [round(min(max(edge + (2.0 * draw() - 1.0) * _BOX_JITTER * height, 0.0), 1.0), 4) for edge in box]

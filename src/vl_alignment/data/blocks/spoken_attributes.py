"""What a caption of the blocks world says of each object that it names, read from its words alone.

The reader knows the language of `phrases` but not its sentences: it looks for noun phrases ("a small shiny red ball",
"two cubes made of rubber") and for what is said of them afterwards ("... is green and made of metal", "one large and
one small"), so that captions of any kind, and a user's own in the same words, are read alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vl_alignment.data.blocks.phrases import SYNONYMS
from vl_alignment.data.blocks.scene import ATTRIBUTES

__all__ = ["NounPhrase", "contradict", "noun_phrases", "spoken_attributes"]

_VALUES = {
    word: (name, value)
    for name, values in ATTRIBUTES.items()
    for value in values
    for word in SYNONYMS.get(value, (value,))
}  # "shiny": ("material", "metal")
_SHAPES = [word for word, (name, _) in _VALUES.items() if name == "shape"]
_DETAIL = "|".join(word for word in _VALUES if word not in _SHAPES)
_NOUN = rf"(?:{'|'.join([*_SHAPES, 'object', 'thing'])})(?:e?s)?\b"
_STUFF = "|".join(SYNONYMS[material][0] for material in ATTRIBUTES["material"])
_SAID = rf"(?:(?:{_DETAIL})\b|made of (?:{_STUFF})\b)"
_READER = re.compile(
    rf"(?:\b(?P<count>two|three) )?\b(?:(?:{_DETAIL}) )*(?P<noun>{_NOUN})(?: made of (?:{_STUFF})\b)?"
    # What is said without a noun: "is small, green and made of rubber", "one large".
    rf"|\b(?P<verb>one|is|are) {_SAID}(?:(?:,? and|,) {_SAID})*(?!,? (?:(?:{_DETAIL}) )*{_NOUN})"
)
_NUMBERS = {None: 1, "two": 2, "three": 3}


@dataclass(frozen=True)
class NounPhrase:
    """Some words of a caption that name objects.

    Attributes:
        start: Where its first letter is in the caption.
        end: Where the caption goes on after it.
        attributes: What it says of each of the objects.
        count: How many objects it names.
    """

    start: int
    end: int
    attributes: Mapping[str, str]
    count: int


def noun_phrases(caption: str) -> tuple[NounPhrase, ...]:
    """Find the noun phrases of a caption, such as "two small red cubes", that say something of their objects.

    Args:
        caption: A sentence in the words of the blocks world, with one space between words.
    """
    return tuple(
        NounPhrase(match.start(), match.end(), attributes, _NUMBERS[match["count"]])
        for match in _READER.finditer(caption.lower())
        if match["noun"] and (attributes := _attributes(match.group()))
    )


def spoken_attributes(caption: str) -> tuple[dict[str, str], ...]:
    """Read what a caption says of each object.

    Args:
        caption: A sentence in the words of the blocks world; other words are passed over.

    Returns:
        One mapping of attributes to values for each noun phrase, in the order of the sentence, for instance
        ({"size": "small", "color": "red", "shape": "cube"}, {"shape": "sphere"}); equal ones once, and none for phrases
        that say nothing ("one of the objects"). Objects that are counted together ("two red cubes") are one phrase;
        where they are told apart ("one large and one small") each is one more, with what is said of both.
    """
    text = " ".join(caption.lower().split())
    phrases: list[dict[str, str]] = []
    group: dict[str, str] | None = None  # what two or three counted objects share, while they are told apart
    end = 0
    for match in _READER.finditer(text):
        if phrases and phrases[-1] is group and not text[end:].startswith((",", ":")):
            group = None  # "two cubes and a ball": the ball is none of the two
        end = match.end()
        attributes = _attributes(match.group())
        if match["noun"]:
            if group is not None and "shape" not in group and list(attributes) == ["shape"]:
                attributes = {**group, **attributes}  # "two red things, a cube and a ball"
            else:
                group = attributes if match["count"] else None
            phrases.append(attributes)
        elif match["verb"] == "one" and group is not None:
            phrases.append({**group, **attributes})
        elif phrases:
            phrases[-1].update(attributes)
        else:
            phrases.append(attributes)
    if re.search(r"\b(?:only|just)\b", text):
        # "The only cube is small", "there is only one red thing: a large cone": all of it is said of one object.
        phrases = [{name: value for phrase in phrases for name, value in phrase.items()}]
    return tuple({frozenset(phrase.items()): phrase for phrase in phrases if phrase}.values())


def contradict(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether no object can be both: some attribute has one value here and another there."""
    return any(other.get(name, value) != value for name, value in one.items())


def _attributes(words: str) -> dict[str, str]:
    found = {}
    for word in re.findall(r"[a-z]+", words):
        value = _VALUES.get(word) or _VALUES.get(word.removesuffix("s")) or _VALUES.get(word.removesuffix("es"))
        if value is not None:
            found[value[0]] = value[1]
    return found

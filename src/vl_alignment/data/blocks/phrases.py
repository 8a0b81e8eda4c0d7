"""The language of the blocks world: words for attributes and relations, and sentence templates."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from vl_alignment.data.blocks.scene import SHAPES
from vl_alignment.data.blocks.statements import Caption, Mention

__all__ = ["OBJECT_NOUNS", "SYNONYMS", "TEMPLATES", "Draw", "choose", "word_caption"]

Element = TypeVar("Element")
Draw = Callable[[], float]
"""Draws a number in [0, 1)."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "cube": ("cube", "block", "box"),
    "sphere": ("sphere", "ball"),
    "small": ("small", "little"),
    "large": ("large", "big"),
    "metal": ("metal", "shiny"),
    "rubber": ("rubber", "matte"),
}
"""What an attribute value may be called, if not only by its own name. Of a material, the first word is the stuff."""

_PLURALS = {"box": "boxes"}
_THINGS = ("object", "thing")
_SINGULAR_NOUNS = (*(word for shape in SHAPES for word in SYNONYMS.get(shape, (shape,))), *_THINGS)
OBJECT_NOUNS = frozenset(word for noun in _SINGULAR_NOUNS for word in (noun, _PLURALS.get(noun, f"{noun}s")))
"""What captions call an object, or several."""

_NUMBERS = {2: "two", 3: "three"}

_BESIDE = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
}
_BESIDE_IT = {
    "left": ("to its left", "on its left", "to the left of it"),
    "right": ("to its right", "on its right", "to the right of it"),
    "front": ("in front of it",),
    "behind": ("behind it",),
}
_EXTREME_OBJECT = {
    "left": ("leftmost object", "object furthest to the left", "first object from the left"),
    "right": ("rightmost object", "object furthest to the right", "last object on the right"),
    "front": ("object closest to the viewer", "nearest object", "frontmost object"),
    "behind": ("object furthest away", "most distant object", "object at the very back"),
}
_IS_EXTREME = {
    "left": ("is the leftmost object", "stands left of everything else", "is furthest to the left"),
    "right": ("is the rightmost object", "stands right of everything else", "is furthest to the right"),
    "front": ("is closest to the viewer", "stands in front of everything else", "is the nearest object"),
    "behind": ("is furthest away", "stands behind everything else", "is the most distant object"),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "alone": (
        "{0}.",
        "there is {0}.",
        "{0} stands alone on the floor.",
        "a picture of {0}.",
        "you can see {0}.",
        "the only object is {0}.",
    ),
    "one": (
        "there is {0}.",
        "one of the objects is {0}.",
        "{0} stands among other things.",
        "you can find {0} here.",
    ),
    "two": (
        "{0} and {1}.",
        "there is {0}, and there is {1}.",
        "you can see {0} and {1}.",
        "{0} together with {1}.",
        "a picture of {0} and {1}.",
        "{0} and {1} stand on the floor.",
        "the scene has both {0} and {1}.",
    ),
    "three": (
        "{0}, {1} and {2}.",
        "{0}, {1} and {2} on the floor.",
        "among the objects are {0}, {1} and {2}.",
        "you can see {0}, {1} and {2}.",
        "a picture with {0}, {1} and {2}.",
        "there is {0}, and there are also {1} and {2}.",
    ),
    "all_three": (
        "{0}, {1} and {2}.",
        "{0}, {1} and {2} on the floor.",
        "there are {0}, {1} and {2}.",
        "you can see {0}, {1} and {2}.",
        "a picture of {0}, {1} and {2}.",
        "there is {0}, and there are also {1} and {2}.",
    ),
    "relation": (
        "{0} {beside0} {1}.",
        "{0} is {beside0} {1}.",
        "{0} stands {beside0} {1}.",
        "there is {0} {beside0} {1}.",
        "{beside0} {1} there is {0}.",
        "{beside0} {1} stands {0}.",
        "{1} with {0} {it0}.",
        "{1} has {0} {it0}.",
    ),
    "relations_of_one": (
        "{0} {beside0} {1} and {beside1} {2}.",
        "{0} is {beside0} {1} and {beside1} {2}.",
        "there is {0} {beside0} {1} and {beside1} {2}.",
    ),
    "relations_to_one": (
        "{0} with {1} {it0} and {2} {it1}.",
        "{0} has {1} {it0} and {2} {it1}.",
        "{1} is {beside0} {0}, which has {2} {it1}.",
    ),
    "same_relation_of_one": (
        "{0} {beside0} {1} and {2}.",
        "{0} is {beside0} both {1} and {2}.",
        "there is {0} {beside0} {1} and {2}.",
    ),
    "same_relation_to_one": (
        "{0} with {1} and {2} {it0}.",
        "{0} has both {1} and {2} {it0}.",
        "{1} and {2} are {beside0} {0}.",
        "{beside0} {0} stand {1} and {2}.",
    ),
    "between": (
        "{0} between {1} on the left and {2} on the right.",
        "{0} stands between {1} on its left and {2} on its right.",
        "from left to right, there are {1}, {0} and {2}.",
    ),
    "relations_in_turn": (
        "{0} {beside0} {1}, which is {beside1} {2}.",
        "{0} is {beside0} {1} that stands {beside1} {2}.",
        "there is {0} {beside0} {1}, which stands {beside1} {2}.",
    ),
    "only_shape": (
        "the only {0} is {1}.",
        "there is only one {0}, and it is {1}.",
        "there is just one {0}; it is {1}.",
    ),
    "only_object": (
        "the only {0} is {1}.",
        "{1} is the only {0}.",
        "there is only one {0}: {1}.",
    ),
    "count": (
        "there are exactly {0}.",
        "there are {0}.",
        "you can count {0}.",
        "a picture with {0} in it.",
    ),
    "count_and_one": (
        "{0} and {1}.",
        "there are {0} and {1}.",
        "{1} together with {0}.",
        "you can see {0} and also {1}.",
    ),
    "count_contrast": (
        "{0}, {1} and {2}.",
        "there are {0}, {1} and {2}.",
        "you can see {0}: {1} and {2}.",
    ),
    "count_relation": (
        "{0} {beside0} {1}.",
        "there are {0} {beside0} {1}.",
        "{beside0} {1} there are {0}.",
        "{1} with {0} {it0}.",
    ),
    "extreme": (
        "the {extreme0} is {0}.",
        "{0} {is_extreme0}.",
    ),
    "two_extremes": (
        "the {extreme0} is {0} and the {extreme1} is {1}.",
        "{0} {is_extreme0}, and {1} {is_extreme1}.",
    ),
}
"""Sentences by kind of caption.

{0}, {1}, {2} are the mentions; {beside0} words the first relation before a noun ("left of"), {it0} with a pronoun ("to
its left"); {extreme0} and {is_extreme0} word the first mention's place.
"""


def choose(options: Sequence[Element], draw: Draw) -> Element:
    """One of the options, all equally likely."""
    return options[int(draw() * len(options))]


def word_caption(caption: Caption, draw: Draw) -> str:
    """Word a structured caption: a sentence that says what it states and nothing else."""
    template = choose(TEMPLATES[caption.kind], draw)
    words: dict[str, str] = {}
    for number, mention in enumerate(caption.mentions):
        words[f"m{number}"] = _mention_words(caption, number, draw)
        if mention.place is not None:
            words[f"extreme{number}"] = choose(_EXTREME_OBJECT[mention.place], draw)
            words[f"is_extreme{number}"] = choose(_IS_EXTREME[mention.place], draw)
    for number, (_, relation, _) in enumerate(caption.relations):
        words[f"beside{number}"] = choose(_BESIDE[relation], draw)
        words[f"it{number}"] = choose(_BESIDE_IT[relation], draw)
    for number in range(len(caption.mentions)):
        template = template.replace(f"{{{number}}}", f"{{m{number}}}")
    sentence = template.format_map(words)
    return sentence[0].upper() + sentence[1:]


def _mention_words(caption: Caption, number: int, draw: Draw) -> str:
    mention = caption.mentions[number]
    if caption.kind == "only_shape" and number == 1:
        return _predicate(mention.attributes, draw)
    if caption.kind in ("only_shape", "only_object") and number == 0:
        return _noun_phrase(mention.attributes, draw)
    if caption.kind == "count_contrast" and number > 0:
        return _contrast(caption.mentions[0], mention, draw)
    if mention.determiner == "count":
        return f"{_NUMBERS[len(mention.objects)]} {_noun_phrase(mention.attributes, draw, plural=True)}"
    return f"{mention.determiner} {_noun_phrase(mention.attributes, draw)}"


def _noun_phrase(attributes: Mapping[str, str], draw: Draw, *, plural: bool = False) -> str:
    """For instance "small shiny red balls": size, sheen, color, stuff, noun, made of stuff."""
    noun = _word(attributes["shape"], draw) if "shape" in attributes else choose(_THINGS, draw)
    if plural:
        noun = _PLURALS.get(noun, noun + "s")
    sheen = stuff = made = ""
    if "material" in attributes:
        names = SYNONYMS[attributes["material"]]
        style = draw()
        if style < 0.42:
            stuff = names[0]
        elif style < 0.84:
            sheen = names[1]
        else:
            made = f"made of {names[0]}"
    size = _word(attributes["size"], draw) if "size" in attributes else ""
    return " ".join(word for word in (size, sheen, attributes.get("color", ""), stuff, noun, made) if word)


def _predicate(attributes: Mapping[str, str], draw: Draw) -> str:
    """What follows "is": for instance "small, green and made of rubber"."""
    words = [_word(attributes["size"], draw)] if "size" in attributes else []
    words = ["small" if word == "little" else word for word in words]  # nobody says "it is little"
    if "color" in attributes:
        words.append(attributes["color"])
    if "material" in attributes:
        stuff, sheen = SYNONYMS[attributes["material"]]
        words.append(choose((f"made of {stuff}", sheen), draw))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _contrast(group: Mention, member: Mention, draw: Draw) -> str:
    """How one member of a counted pair differs: "one large", "one made of metal", or "a cube"."""
    own = {name: value for name, value in member.attributes.items() if name not in group.attributes}
    return f"a {_word(own['shape'], draw)}" if "shape" in own else f"one {_predicate(own, draw)}"


def _word(value: str, draw: Draw) -> str:
    return choose(SYNONYMS.get(value, (value,)), draw)

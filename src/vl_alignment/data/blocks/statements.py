"""The structured form of a caption, and whether it is true of a scene."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vl_alignment.data.blocks.scene import Scene

__all__ = ["Caption", "Mention", "caption_holds", "matching_objects"]

MOST_NAMED = 3
"""A caption names at most this many objects; never all of a scene's, unless it is a description."""


@dataclass(frozen=True)
class Mention:
    """One noun phrase.

    Args:
        objects: The objects meant, numbered from 0; more than one only where they are counted.
        attributes: What is said of them, for instance {"color": "red", "shape": "cube"}.
        determiner: "a" says nothing more; "the" that no other object of the scene fits the attributes; "count" that
            exactly these do.
        place: A relation in which the object stands to every other one, said as "the leftmost object".
    """

    objects: tuple[int, ...]
    attributes: Mapping[str, str]
    determiner: Literal["a", "the", "count"] = "a"
    place: str | None = None


@dataclass(frozen=True)
class Caption:
    """One caption.

    Args:
        kind: Which sort of sentence; see `phrases.TEMPLATES`.
        mentions: The noun phrases, in the order of the kind's template numbers.
        relations: (first, relation, second): mention `first` stands in the relation to mention `second`.
        text: The sentence.
    """

    kind: str
    mentions: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    text: str = ""

    @property
    def named_objects(self) -> frozenset[int]:
        """All objects that the caption names."""
        return frozenset(number for mention in self.mentions for number in mention.objects)


def matching_objects(scene: Scene, attributes: Mapping[str, str]) -> tuple[int, ...]:
    """The objects of a scene that have all the attributes."""
    return tuple(
        number
        for number, item in enumerate(scene.objects)
        if all(getattr(item, name) == value for name, value in attributes.items())
    )


def caption_holds(caption: Caption, scene: Scene, *, names_all: bool = False) -> bool:
    """Whether a caption's structured form is true of a scene and names one to three objects, not all of them.

    Args:
        caption: What is said.
        scene: Of what.
        names_all: It is a description instead, and names all objects of the scene.
    """
    named = caption.named_objects
    if names_all and len(named) != len(scene.objects):
        return False
    if not 1 <= len(named) <= min(MOST_NAMED, len(scene.objects) - (not names_all)):
        return False
    for mention in caption.mentions:
        fitting = matching_objects(scene, mention.attributes)
        if not set(mention.objects) <= set(fitting):
            return False
        if mention.determiner != "a" and set(mention.objects) != set(fitting):
            return False
        if (mention.determiner == "count") != (len(mention.objects) > 1):
            return False
        if mention.place is not None and not _is_extreme(scene, mention.objects[0], mention.place):
            return False
    return all(
        scene.holds(one, relation, other)
        for first, relation, second in caption.relations
        for one in caption.mentions[first].objects
        for other in caption.mentions[second].objects
    )


def _is_extreme(scene: Scene, number: int, relation: str) -> bool:
    return all(scene.holds(number, relation, other) for other in range(len(scene.objects)) if other != number)

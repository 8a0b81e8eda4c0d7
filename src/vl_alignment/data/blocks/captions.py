"""What can be said of a scene: five varied captions, each true, naming one to three objects and never all.

And what a scene of one to three objects can be drawn from: five descriptions, each naming all of them. A caption is
first chosen as a structured statement (`statements`), and only then worded (`phrases`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

from vl_alignment.data.blocks.phrases import choose, word_caption
from vl_alignment.data.blocks.scene import ATTRIBUTES, RELATIONS, Scene, scene_generator
from vl_alignment.data.blocks.statements import MOST_NAMED, Caption, Mention, caption_holds, matching_objects
from vl_alignment.models.errors import ConfigurationError

__all__ = ["Caption", "Mention", "caption_holds", "make_captions", "make_descriptions"]

CAPTIONS = 5
"""Captions of a scene, as many as the photographs of Flickr and COCO have."""

# How often a mention tells an attribute. Details are what tells one scene's captions from another's.
_TELLING = {"shape": 0.96, "color": 0.94, "material": 0.62, "size": 0.66}
# Descriptions always tell shape and color, for a picture can hardly be drawn without them.
_TELLING_ALL = {"shape": 1.0, "color": 1.0, "material": 0.8, "size": 0.8}
_TRIES = 200
_GROUP_TRIES = 6


def make_captions(scene: Scene, count: int = CAPTIONS) -> tuple[Caption, ...]:
    """Caption a scene.

    Args:
        scene: The scene; its seed, split and index also fix the captions.
        count: How many captions.

    Returns:
        Captions with different texts, of different kinds as far as the scene allows.

    Raises:
        ConfigurationError: The scene has too few objects for that many different captions.
    """
    return _speak(_Speaker(scene), count)


def make_descriptions(scene: Scene, count: int = CAPTIONS) -> tuple[Caption, ...]:
    """Describe a scene of at most three objects: what `make_captions` returns, but each naming all objects.

    Every object's shape and color are told, and mostly its material and size; of an object that is alone, all of them.

    Raises:
        ConfigurationError: The scene has too many objects, or does not give that many different descriptions.
    """
    if len(scene.objects) > MOST_NAMED:
        raise ConfigurationError(
            f"A description names {MOST_NAMED} objects at most, and scene {scene.image_id} has {len(scene.objects)}; "
            f"set maximum_objects={MOST_NAMED}."
        )
    return _speak(_Describer(scene), count)


def _speak(speaker: "_Speaker", count: int) -> tuple[Caption, ...]:
    captions: list[Caption] = []
    kinds: Counter[str] = Counter()
    for _ in range(_TRIES):
        if len(captions) == count:
            return tuple(captions)
        kind = speaker.choose_kind(kinds)
        draft = speaker.say(kind)
        if draft is None:
            kinds[kind] += 1  # what cannot be said of this scene gets less likely
            continue
        caption = replace(draft, text=word_caption(draft, speaker.draw))
        if all(caption.text != other.text for other in captions):
            captions.append(caption)
            kinds[kind] += 2
            speaker.used.update(caption.named_objects)
    raise ConfigurationError(
        f"A scene of {len(speaker.scene.objects)} objects does not give {count} different captions."
    )


class _Speaker:
    """Finds true statements about one scene. Every `_say_...` method returns None where it finds none."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.draw = scene_generator(scene.seed, scene.split, scene.index, stream=1).random
        self.used: Counter[int] = Counter()
        self.most_named = min(MOST_NAMED, len(scene.objects) - 1)
        self.telling = _TELLING
        relations = partial(self._say_relations, "relation", ((0, 1),))
        # kind: (weight, objects named at most, method)
        self.kinds: dict[str, tuple[float, int, Callable[[], Caption | None]]] = {
            "one": (0.2, 1, partial(self._say_list, "one", 1)),
            "two": (1.2, 2, partial(self._say_list, "two", 2)),
            "three": (2.2, 3, partial(self._say_list, "three", 3)),
            "relation": (3.0, 2, relations),
            "relations_of_one": (1.2, 3, partial(self._say_relations, "relations_of_one", ((0, 1), (0, 2)))),
            "relations_to_one": (1.2, 3, partial(self._say_relations, "relations_to_one", ((1, 0), (2, 0)))),
            "relations_in_turn": (1.0, 3, partial(self._say_relations, "relations_in_turn", ((0, 1), (1, 2)))),
            "between": (0.8, 3, self._say_between),
            "only_shape": (0.6, 1, partial(self._say_only, "only_shape")),
            "only_object": (0.6, 1, partial(self._say_only, "only_object")),
            "count": (0.5, 3, self._say_count),
            "count_and_one": (1.0, 3, self._say_count_and_one),
            "count_contrast": (0.7, 2, self._say_count_contrast),
            "count_relation": (1.0, 3, self._say_count_relation),
            "extreme": (0.4, 1, partial(self._say_extremes, "extreme", 1)),
            "two_extremes": (0.6, 2, partial(self._say_extremes, "two_extremes", 2)),
        }

    def choose_kind(self, said: Mapping[str, int]) -> str:
        """A kind of caption by weight, less likely the more often it was said."""
        weights = {kind: weight / (1.0 + 3.0 * said[kind]) for kind, (weight, _, _) in self.kinds.items()}
        target = self.draw() * sum(weights.values())
        for kind, weight in weights.items():
            target -= weight
            if target < 0.0:
                return kind
        return next(iter(self.kinds))

    def say(self, kind: str) -> Caption | None:
        """A statement of that kind, not worded yet."""
        caption = self.kinds[kind][2]()
        if caption is None or len(caption.named_objects) > self.most_named:
            return None
        # Two equal descriptions of two objects would read as one object said twice.
        for one, other in combinations(caption.mentions, 2):
            if one.attributes == other.attributes:
                return None
        return caption

    def _pick(self, count: int, candidates: Sequence[int] | None = None) -> list[int]:
        """Objects in random order, those that fewer captions named first."""
        numbers = range(len(self.scene.objects)) if candidates is None else candidates
        return sorted(numbers, key=lambda number: self.used[number] + 1.5 * self.draw())[:count]

    def _values(self, number: int, names: Sequence[str]) -> dict[str, str]:
        return {name: getattr(self.scene.objects[number], name) for name in ATTRIBUTES if name in names}

    def _mention(self, number: int, *, definite: bool = False) -> Mention:
        names = [name for name in ATTRIBUTES if self.draw() < self.telling[name]]
        attributes = self._values(number, names if len(names) > 1 else list(ATTRIBUTES))
        alone = definite and self.draw() < 0.7 and len(matching_objects(self.scene, attributes)) == 1
        return Mention((number,), attributes, determiner="the" if alone else "a")

    def _say_list(self, kind: str, count: int) -> Caption | None:
        chosen = self._pick(count)
        return Caption(kind, tuple(map(self._mention, chosen))) if len(chosen) == count else None

    def _relation(self, first: Sequence[int], second: int) -> str | None:
        """A relation in which all of `first` stand to `second`."""
        holding = [name for name in RELATIONS if all(self.scene.holds(number, name, second) for number in first)]
        return choose(holding, self.draw) if holding else None

    def _say_relations(self, kind: str, pairs: Sequence[tuple[int, int]]) -> Caption | None:
        chosen = self._pick(max(map(max, pairs)) + 1)
        if len(chosen) > self.most_named:
            return None
        relations = []
        for first, second in pairs:
            relation = self._relation(chosen[first : first + 1], chosen[second])
            if relation is None:
                return None
            relations.append((first, relation, second))
        names = {relation for _, relation, _ in relations}
        if len(relations) == 2 and len(names) == 1 and kind != "relations_in_turn":
            kind = kind.replace("relations", "same_relation")
        # The one that others are placed by is the one that readers must find: "the" where there is no other like it.
        anchor = pairs[0][1]
        mentions = tuple(self._mention(number, definite=place == anchor) for place, number in enumerate(chosen))
        return Caption(kind, mentions, tuple(relations))

    def _say_between(self) -> Caption | None:
        chosen = sorted(self._pick(3), key=lambda number: self.scene.objects[number].coordinates[0])
        if len(chosen) < 3:
            return None
        left, middle, right = chosen
        if not (self.scene.holds(left, "left", middle) and self.scene.holds(right, "right", middle)):
            return None
        mentions = tuple(map(self._mention, (middle, left, right)))
        return Caption("between", mentions, ((1, "left", 0), (2, "right", 0)))

    def _say_only(self, kind: str) -> Caption | None:
        number = self._pick(1)[0]
        names = [name for name in ("color", "material", "size") if self.draw() < 0.4]
        if kind == "only_shape":
            names = names[:2] + ["shape"]
        attributes = self._values(number, names)
        if not 1 <= len(attributes) <= 3 or matching_objects(self.scene, attributes) != (number,):
            return None
        rest = self._values(number, [name for name in ATTRIBUTES if name not in attributes])
        return Caption(kind, (Mention((number,), attributes, determiner="the"), Mention((number,), rest)))

    def _group(self) -> Mention | None:
        """Two or three objects that a description fits, and no other."""
        for number in self._pick(_GROUP_TRIES):
            names = [name for name in ATTRIBUTES if self.draw() < (0.7 if name in ("shape", "color") else 0.35)]
            attributes = self._values(number, names)
            members = matching_objects(self.scene, attributes)
            if attributes and 2 <= len(members) <= self.most_named:
                return Mention(members, attributes, determiner="count")
        return None

    def _say_count(self) -> Caption | None:
        group = self._group()
        return None if group is None else Caption("count", (group,))

    def _say_count_and_one(self) -> Caption | None:
        group = self._group()
        if group is None or len(group.objects) >= self.most_named:
            return None
        other = self._pick(1, [number for number in range(len(self.scene.objects)) if number not in group.objects])[0]
        return Caption("count_and_one", (group, self._mention(other)))

    def _say_count_contrast(self) -> Caption | None:
        group = self._group()
        if group is None or len(group.objects) != 2:
            return None
        first, second = (self._values(number, list(ATTRIBUTES)) for number in group.objects)
        differing = [name for name in ATTRIBUTES if first[name] != second[name]]
        if not differing:
            return None
        name = choose(differing, self.draw)
        members = (
            Mention((number,), {**group.attributes, name: values[name]})
            for number, values in zip(group.objects, (first, second), strict=True)
        )
        return Caption("count_contrast", (group, *members))

    def _say_count_relation(self) -> Caption | None:
        group = self._group()
        if group is None or len(group.objects) >= self.most_named:
            return None
        other = self._pick(1, [number for number in range(len(self.scene.objects)) if number not in group.objects])[0]
        relation = self._relation(group.objects, other)
        if relation is None:
            return None
        return Caption("count_relation", (group, self._mention(other, definite=True)), ((0, relation, 1),))

    def _say_extremes(self, kind: str, count: int) -> Caption | None:
        numbers = range(len(self.scene.objects))
        extremes = [
            (number, relation)
            for relation in RELATIONS
            for number in numbers
            if all(self.scene.holds(number, relation, other) for other in numbers if other != number)
        ]
        if len(extremes) < count:
            return None
        first = choose(extremes, self.draw)
        others = [extreme for extreme in extremes if extreme[0] != first[0]]
        if count == 2 and not others:
            return None
        chosen = [first] if count == 1 else [first, choose(others, self.draw)]
        mentions = tuple(replace(self._mention(number), place=place) for number, place in chosen)
        return Caption(kind, mentions)


class _Describer(_Speaker):
    """Finds true statements that name all of one to three objects."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        number = len(scene.objects)
        self.most_named = number
        self.telling = dict.fromkeys(ATTRIBUTES, 1.0) if number == 1 else _TELLING_ALL
        lists = {1: "alone", 2: "two", 3: "all_three"}
        say_list = partial(self._say_list, lists[number], number)
        kinds: dict[str, tuple[float, int, Callable[[], Caption | None]]] = {lists[number]: (1.5, number, say_list)}
        if number == 2:
            kinds["relation"] = (2.0, 2, self.kinds["relation"][2])
        if number > 1:
            kinds["count"] = (1.0, 3, self._say_count)
        if number == 3:
            names = ("relations_of_one", "relations_to_one", "relations_in_turn", "between")
            kinds |= {name: self.kinds[name] for name in (*names, "count_and_one", "count_relation")}
        self.kinds = kinds

    def say(self, kind: str) -> Caption | None:
        """A statement of that kind about all objects."""
        caption = super().say(kind)
        if caption is None or len(caption.named_objects) < self.most_named:
            return None
        # Objects that are alike in everything are counted: told one by one, they would read as different.
        alike = self._group()
        if alike is not None and all(mention.objects != alike.objects for mention in caption.mentions):
            return None
        return caption

    def _group(self) -> Mention | None:
        """The objects that are alike in everything: only they are counted, so that nothing of them is left out."""
        for number in self._pick(self.most_named):
            attributes = self._values(number, list(ATTRIBUTES))
            members = matching_objects(self.scene, attributes)
            if len(members) > 1:
                return Mention(members, attributes, determiner="count")
        return None

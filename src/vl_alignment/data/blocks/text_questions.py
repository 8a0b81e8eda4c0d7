"""Questions about what is written in a scene, with their true answers.

make_text_questions(make_text_scene(make_scene(0, "train", 12, maximum_objects=6)))[0].question

Most answers are words of the picture, which a model has to copy; some are of a closed vocabulary (colours, shapes,
numbers, yes and no). No question is asked that has two answers or none: what it speaks of is there once, and where it
says "left of", everything else that could be meant is clearly on the other side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from vl_alignment.data.blocks.phrases import SYNONYMS, Draw, choose
from vl_alignment.data.blocks.question_wording import RELATION_WORDS
from vl_alignment.data.blocks.scene import ATTRIBUTES, RELATIONS, scene_generator
from vl_alignment.data.blocks.text_phrases import EXTREME_WORDS, TEXT_SENTENCES, THINGS_THAT_SAY
from vl_alignment.data.blocks.text_scene import TextScene
from vl_alignment.models.errors import ConfigurationError

__all__ = ["TEXT_QUESTION_MIX", "TextQuestion", "check_text_question_settings", "make_text_questions"]

TEXT_QUESTION_MIX: Mapping[str, tuple[int, float]] = {
    "read_object": (0, 0.24),
    "read_sign": (0, 0.06),
    "read_extreme": (0, 0.10),
    "color_of_word": (0, 0.08),
    "shape_of_word": (0, 0.06),
    "verify_word": (0, 0.09),
    "count_labels": (0, 0.03),
    "count_word": (0, 0.02),
    "read_related": (1, 0.15),
    "read_related_to_word": (1, 0.06),
    "attribute_of_related": (1, 0.04),
    "verify_relation": (1, 0.05),
    "read_two_relations": (2, 0.06),
}
"""Families of questions: hops, that is relations to follow, and how often each is asked where a scene allows all."""

MOST_HOPS = 2

_STREAM = 4
_TRIES_OF_FAMILY = 12
_MOST_FAILURES = 40
_UNREPEATED_SHARE = 0.02  # of the tries to count a word in a scene where none comes twice: the answer would always be 1
_OPPOSITES = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
_DESCRIPTIONS = ("color", "shape", "size", "material")
_NOT_FOUND = -1


@dataclass(frozen=True)
class TextQuestion:
    """A question about what is written in a scene.

    Args:
        question: The sentence.
        answer: What is written, in lower case; or a colour, a shape, a number, "yes" or "no".
        question_type: The family, a key of `TEXT_QUESTION_MIX`.
        hops: Relations to follow.
        copied: Whether the answer is words of the picture.
    """

    question: str
    answer: str
    question_type: str
    hops: int
    copied: bool


def make_text_questions(
    text_scene: TextScene, count: int = 6, *, maximum_hops: int = MOST_HOPS, draw: Draw | None = None
) -> list[TextQuestion]:
    """Ask about the words of a scene.

    Args:
        text_scene: The scene.
        count: How many questions.
        maximum_hops: The most relations to follow, 0 to 2.
        draw: Draws numbers in [0, 1); by default the scene's seed, split and index fix the questions.

    Returns:
        Different questions, each with one answer.

    Raises:
        ConfigurationError: A setting is out of range, or the scene does not give that many questions.
    """
    check_text_question_settings(count, maximum_hops)
    if draw is None:
        scene = text_scene.scene
        draw = scene_generator(scene.seed, scene.split, scene.index, stream=_STREAM).random
    asker = _Asker(text_scene, draw)
    mix = [(name, hops, share) for name, (hops, share) in TEXT_QUESTION_MIX.items() if hops <= maximum_hops]
    asked: dict[tuple[object, ...], TextQuestion] = {}
    failures = 0
    while len(asked) < count and failures < _MOST_FAILURES:
        name, hops, _ = _draw_weighted(mix, draw)
        failures += 1
        for _ in range(_TRIES_OF_FAMILY):
            draft = asker.families[name]()
            if draft is not None and (name, *draft.key) not in asked:
                question = TextQuestion(asker.word(draft), draft.answer, name, hops, draft.copied)
                asked[name, *draft.key] = question
                failures = 0
                break
    if len(asked) < count:
        raise ConfigurationError(
            f"Scene {text_scene.scene.image_id} with {len(text_scene.labels)} labels does not give {count} different "
            "questions; ask for fewer."
        )
    return list(asked.values())


def check_text_question_settings(count: int, maximum_hops: int) -> None:
    """Raise `ConfigurationError` unless so many questions of so many hops can be asked."""
    if count < 1:
        raise ConfigurationError(f"questions_per_image={count}: ask at least one.")
    if not 0 <= maximum_hops <= MOST_HOPS:
        raise ConfigurationError(f"maximum_hops={maximum_hops}: questions about words have 0 to {MOST_HOPS} hops.")


def _draw_weighted(mix: list[tuple[str, int, float]], draw: Draw) -> tuple[str, int, float]:
    target = draw() * sum(share for _, _, share in mix)
    for choice in mix:
        target -= choice[2]
        if target < 0.0:
            return choice
    return mix[-1]


@dataclass(frozen=True)
class _Draft:
    """A question before it is worded; two with the same key ask the same."""

    sentences: str
    parts: tuple[str, ...]
    answer: str
    key: tuple[object, ...]
    copied: bool = False


class _Asker:
    """Asks about one scene; a family returns None where the scene, or the draw, does not suit it.

    Things are numbered as in `TextScene.standing`: the objects, then the sign.
    """

    def __init__(self, text_scene: TextScene, draw: Draw) -> None:
        self.draw = draw
        self.standing = text_scene.standing
        self.objects = text_scene.scene.objects
        self.things = range(len(self.standing.objects))
        self.texts = {number: label.text for number, label in text_scene.borne.items()}
        lowered = [text.lower() for text in self.texts.values()]
        # What is written once can stand for the thing that it is written on.
        self.named = [number for number, text in self.texts.items() if lowered.count(text.lower()) == 1]
        self.families: dict[str, Callable[[], _Draft | None]] = {
            "read_object": self._read_object,
            "read_sign": self._read_sign,
            "read_extreme": self._read_extreme,
            "color_of_word": lambda: self._attribute_of_word("color"),
            "shape_of_word": lambda: self._attribute_of_word("shape"),
            "verify_word": self._verify_word,
            "count_labels": self._count_labels,
            "count_word": self._count_word,
            "read_related": self._read_related,
            "read_related_to_word": self._read_related_to_word,
            "attribute_of_related": self._attribute_of_related,
            "verify_relation": self._verify_relation,
            "read_two_relations": self._read_two_relations,
        }

    def word(self, draft: _Draft) -> str:
        """One of the sentences for a draft."""
        sentence = choose(TEXT_SENTENCES[draft.sentences], self.draw).format(*draft.parts)
        return sentence[0].upper() + sentence[1:]

    # What is spoken of

    def _one(self, numbers: list[int]) -> int:
        return choose(numbers, self.draw) if numbers else _NOT_FOUND

    def _thing(self, number: int) -> str:
        """The words for a thing by what it looks like, or "" where no description fits it alone."""
        if number >= len(self.objects):
            return "the sign"
        item = self.objects[number]
        for count in (2, 3, 4) if self.draw() < 0.7 else (1, 2, 3, 4):
            fitting = [
                names
                for names in combinations(_DESCRIPTIONS, count)
                if sum(all(getattr(other, name) == getattr(item, name) for name in names) for other in self.objects)
                == 1
            ]
            if fitting:
                # Colour and shape come first in `combinations`, and people say them first.
                names = fitting[0] if self.draw() < 0.6 else choose(fitting, self.draw)
                return self._noun_phrase({name: getattr(item, name) for name in names})
        return ""

    def _noun_phrase(self, attributes: Mapping[str, str]) -> str:
        """For instance "the big red ball"."""
        names = [name for name in ("size", "color", "material", "shape") if name in attributes]
        words = [choose(SYNONYMS.get(attributes[name], (attributes[name],)), self.draw) for name in names]
        if "shape" not in attributes:
            words.append(choose(("thing", "object"), self.draw))
        return " ".join(("the", *words))

    def _quoted(self, text: str) -> str:
        text = text.lower() if self.draw() < 0.7 else text
        return f'"{text}"' if self.draw() < 0.4 else text

    def _thing_that_says(self, number: int) -> str:
        return choose(THINGS_THAT_SAY, self.draw).format(self._quoted(self.texts[number]))

    def _related(self, relation: str, anchor: int, among: list[int]) -> int:
        """The only one of `among` in the relation to the anchor, all others being clearly on the other side."""
        found = _NOT_FOUND
        for number in among:
            if number == anchor or self.standing.holds(number, _OPPOSITES[relation], anchor):
                continue
            if found != _NOT_FOUND or not self.standing.holds(number, relation, anchor):
                return _NOT_FOUND
            found = number
        return found

    def _beside(self, relation: str) -> str:
        return choose(RELATION_WORDS[relation], self.draw)

    def _read(self, sentences: str, parts: tuple[str, ...], target: int, key: tuple[object, ...]) -> _Draft:
        return _Draft(sentences, parts, self.texts[target].lower(), key, copied=True)

    # Families without a relation

    def _read_object(self) -> _Draft | None:
        number = self._one([number for number in self.texts if number < len(self.objects)])
        phrase = self._thing(number) if number != _NOT_FOUND else ""
        return self._read("read_object", (phrase,), number, (number,)) if phrase else None

    def _read_sign(self) -> _Draft | None:
        sign = len(self.objects)
        return self._read("read_sign", (), sign, ()) if sign in self.texts else None

    def _read_extreme(self) -> _Draft | None:
        relation = choose(RELATIONS, self.draw)
        labelled = list(self.texts)
        found = [
            number
            for number in labelled
            if all(self.standing.holds(number, relation, other) for other in labelled if other != number)
        ]
        if len(labelled) < 2 or not found:
            return None
        where, which = EXTREME_WORDS[relation]
        return self._read("read_extreme", (where, which), found[0], (relation,))

    def _attribute_of_word(self, attribute: str) -> _Draft | None:
        number = self._one([number for number in self.named if number < len(self.objects)])
        if number == _NOT_FOUND:
            return None
        answer = getattr(self.objects[number], attribute)
        return _Draft(f"{attribute}_of_word", (self._thing_that_says(number),), answer, (number,))

    def _verify_word(self) -> _Draft | None:
        """Whether a word is on a thing, the thing told by one attribute or by as many as single it out."""
        said = self._one(self.named)
        true = self.draw() < 0.5
        if said == _NOT_FOUND or (true and said >= len(self.objects)):
            return None
        if self.draw() < 0.5:
            attribute = choose(("shape", "color"), self.draw)
            own = getattr(self.objects[said], attribute) if said < len(self.objects) else ""
            # What is asked for is there, so that the words have to be read.
            others = [getattr(item, attribute) for item in self.objects]
            values = [value for value in ATTRIBUTES[attribute] if value in others and (value == own) == true]
            if not values:
                return None
            value = choose(values, self.draw)
            phrase = self._noun_phrase({attribute: value}).replace("the ", "a ", 1)
            key: tuple[object, ...] = (said, value)
        else:
            bearers = [number for number in range(len(self.objects)) if (number == said) == true]
            number = self._one([number for number in bearers if number in self.texts])
            phrase = self._thing(number) if number != _NOT_FOUND else ""
            key = (said, number)
        parts = (phrase, self._quoted(self.texts[said]))
        return _Draft("verify_word", parts, "yes" if true else "no", key) if phrase else None

    def _count_labels(self) -> _Draft | None:
        return _Draft("count_labels", (), str(len(self.texts)), ())

    def _count_word(self) -> _Draft | None:
        repeated = [number for number in self.texts if number not in self.named]
        number = self._one(repeated if repeated else self.named)
        if number == _NOT_FOUND or (not repeated and self.draw() > _UNREPEATED_SHARE):
            return None
        text = self.texts[number].lower()
        answer = sum(other.lower() == text for other in self.texts.values())
        return _Draft("count_word", (self._quoted(text),), str(answer), (text,))

    # Families with relations

    def _read_related(self) -> _Draft | None:
        anchor, relation = choose(self.things, self.draw), choose(RELATIONS, self.draw)
        target = self._related(relation, anchor, list(self.texts))
        # With no second word in the picture the relation would not matter.
        if target == _NOT_FOUND or len(self.texts) < 2:
            return None
        phrase = self._thing(anchor)
        return (
            self._read("read_related", (phrase, self._beside(relation)), target, (anchor, relation)) if phrase else None
        )

    def _read_related_to_word(self) -> _Draft | None:
        anchor, relation = self._one(self.named), choose(RELATIONS, self.draw)
        target = self._related(relation, anchor, list(self.texts)) if anchor != _NOT_FOUND else _NOT_FOUND
        if target == _NOT_FOUND:
            return None
        parts = (self._quoted(self.texts[anchor]), self._beside(relation))
        return self._read("read_related_to_word", parts, target, (anchor, relation))

    def _attribute_of_related(self) -> _Draft | None:
        anchor, relation = self._one(self.named), choose(RELATIONS, self.draw)
        target = self._related(relation, anchor, list(self.things)) if anchor != _NOT_FOUND else _NOT_FOUND
        if target == _NOT_FOUND or target >= len(self.objects):
            return None
        attribute = choose(("color", "shape"), self.draw)
        parts = (self._thing_that_says(anchor), self._beside(relation))
        answer = getattr(self.objects[target], attribute)
        return _Draft(f"{attribute}_of_related", parts, answer, (anchor, relation, attribute))

    def _verify_relation(self) -> _Draft | None:
        said, anchor, relation = self._one(self.named), choose(self.things, self.draw), choose(RELATIONS, self.draw)
        if said in (anchor, _NOT_FOUND):
            return None
        true = self.draw() < 0.5
        if not self.standing.holds(said, relation if true else _OPPOSITES[relation], anchor):
            return None
        phrase = self._thing(anchor)
        parts = (phrase, self._beside(relation), self._quoted(self.texts[said]))
        return _Draft("verify_relation", parts, "yes" if true else "no", (said, anchor, relation)) if phrase else None

    def _read_two_relations(self) -> _Draft | None:
        # Few pairs of relations lead to one word, so that drawing a pair at a time would hardly find them.
        chains = []
        for anchor, first in product(self.things, RELATIONS):
            middle = self._related(first, anchor, list(self.things))
            if middle == _NOT_FOUND:
                continue
            for second in RELATIONS:
                target = self._related(second, middle, list(self.texts))
                if target not in (_NOT_FOUND, anchor):
                    chains.append((anchor, first, second, target))
        if not chains:
            return None
        anchor, first, second, target = choose(chains, self.draw)
        phrase = self._thing(anchor)
        parts = (phrase, self._beside(first), self._beside(second))
        return self._read("read_two_relations", parts, target, (anchor, first, second)) if phrase else None

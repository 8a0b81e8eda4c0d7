import re
from collections import Counter

import pytest

from vl_alignment.data.blocks.phrases import SYNONYMS
from vl_alignment.data.blocks.question_wording import RELATION_WORDS
from vl_alignment.data.blocks.scene import ATTRIBUTES, make_scene
from vl_alignment.data.blocks.text_phrases import EXTREME_WORDS, TEXT_SENTENCES, THINGS_THAT_SAY
from vl_alignment.data.blocks.text_questions import TEXT_QUESTION_MIX, TextQuestion, make_text_questions
from vl_alignment.data.blocks.text_scene import TextScene, make_text_scene
from vl_alignment.models.errors import ConfigurationError

SCENES = [
    make_text_scene(make_scene(3, split, index, minimum_objects=3, maximum_objects=6))
    for split in ("train", "test")
    for index in range(200)
]
ASKED = [(scene, make_text_questions(scene)) for scene in SCENES]
QUESTIONS = [question for _, questions in ASKED for question in questions]
OPPOSITES = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
VALUES = {
    word: (attribute, value)
    for attribute, values in ATTRIBUTES.items()
    for value in values
    for word in SYNONYMS.get(value, (value,))
}
RELATION_OF = {phrase: relation for relation, phrases in RELATION_WORDS.items() for phrase in phrases}
EXTREME_OF = {phrase: relation for relation, phrases in EXTREME_WORDS.items() for phrase in phrases}


class Reader:
    """Answers a question from its sentence and the scene alone; raises where it has no or several answers."""

    def __init__(self, scene: TextScene) -> None:
        self.scene = scene
        self.standing = scene.standing
        self.sign = len(scene.scene.objects)
        self.texts = {number: label.text.lower() for number, label in scene.borne.items()}
        self.numbers = range(len(self.standing.objects))

    def fitting(self, phrase: str) -> set[int]:
        """The things that a noun phrase fits."""
        if phrase == "the sign":
            return {self.sign} if self.sign in self.texts else set()
        for template in THINGS_THAT_SAY:
            match = re.fullmatch(template.format("(.+)"), phrase)
            if match:
                return self.saying(match[1])
        words = phrase.split()
        assert words[0] in ("the", "a"), phrase
        told = dict(VALUES[word] for word in words[1:] if word not in ("thing", "object"))
        return {
            number
            for number, item in enumerate(self.scene.scene.objects)
            if all(getattr(item, name) == value for name, value in told.items())
        }

    def saying(self, text: str) -> set[int]:
        return {number for number, own in self.texts.items() if own == text.strip('"').lower()}

    def one(self, numbers: set[int]) -> int:
        (number,) = numbers
        return number

    def related(self, relation: str, anchor: int, among) -> int:
        others = set(among) - {anchor}
        found = {number for number in others if self.standing.holds(number, relation, anchor)}
        elsewhere = {number for number in others if self.standing.holds(number, OPPOSITES[relation], anchor)}
        assert found | elsewhere == others, "a close call"
        return self.one(found)

    def answer(self, family: str, parts: tuple[str, ...]) -> str:
        if family == "read_object":
            return self.texts[self.one(self.fitting(parts[0]))]
        if family == "read_sign":
            return self.texts[self.sign]
        if family == "read_extreme":
            relation = EXTREME_OF[parts[0] or parts[1]]
            wins = {i for i in self.texts if all(self.standing.holds(i, relation, j) for j in set(self.texts) - {i})}
            return self.texts[self.one(wins)]
        if family in ("color_of_word", "shape_of_word"):
            return getattr(self.scene.scene.objects[self.one(self.fitting(parts[0]))], family.partition("_")[0])
        if family == "verify_word":
            self.one(self.saying(parts[1]))
            fitting = self.fitting(parts[0])
            assert fitting and (parts[0].startswith("a ") or len(fitting) == 1)
            return "yes" if self.saying(parts[1]) & fitting else "no"
        if family == "count_labels":
            return str(len(self.texts))
        if family == "count_word":
            return str(len(self.saying(parts[0])))
        if family in ("read_related", "read_related_to_word"):
            anchors = self.saying(parts[0]) if family.endswith("word") else self.fitting(parts[0])
            return self.texts[self.related(RELATION_OF[parts[1]], self.one(anchors), self.texts)]
        if family in ("color_of_related", "shape_of_related"):
            target = self.related(RELATION_OF[parts[1]], self.one(self.fitting(parts[0])), self.numbers)
            return getattr(self.scene.scene.objects[target], family.partition("_")[0])
        if family == "verify_relation":
            said, anchor, relation = self.one(self.saying(parts[2])), self.one(self.fitting(parts[0])), parts[1]
            holds = self.standing.holds(said, RELATION_OF[relation], anchor)
            assert holds or self.standing.holds(said, OPPOSITES[RELATION_OF[relation]], anchor)
            return "yes" if holds else "no"
        assert family == "read_two_relations"
        middle = self.related(RELATION_OF[parts[1]], self.one(self.fitting(parts[0])), self.numbers)
        return self.texts[self.related(RELATION_OF[parts[2]], middle, self.texts)]


def parses(question: TextQuestion, reader: Reader):
    """Every family, sentence and parts that the question can be."""
    word = '"?(?:' + "|".join(reader.texts.values()) + ')"?'
    names = [question.question_type]
    if names == ["attribute_of_related"]:
        names = ["color_of_related", "shape_of_related"]
    relations = "|".join(sorted(RELATION_OF, key=len, reverse=True))
    for name in names:
        for sentence in TEXT_SENTENCES[name]:
            groups = {"{0}": ".+", "{1}": ".+", "{2}": ".+"}
            if name.startswith("verify"):
                groups["{2}" if name == "verify_relation" else "{1}"] = word
            if "relat" in name:
                groups["{1}"] = relations
            if name == "read_two_relations":
                groups["{2}"] = relations
            pattern = sentence.replace("?", "[?]")
            for place, group in groups.items():
                pattern = pattern.replace(place, f"(?P<part{place[1]}>{group})")
            match = re.fullmatch(pattern, question.question, flags=re.IGNORECASE)
            if match:
                found = match.groupdict()
                yield name, sentence, tuple(found.get(f"part{number}", "") for number in range(3))


def test_answers_are_true_and_the_only_ones() -> None:
    used = set()
    for scene, questions in ASKED:
        reader = Reader(scene)
        for question in questions:
            answers = set()
            for family, sentence, parts in parses(question, reader):
                # Some sentences can be read in more ways than the one that speaks of what is there.
                try:
                    answers.add(reader.answer(family, parts))
                except (AssertionError, KeyError, ValueError):
                    continue
                used.add(sentence)
            assert answers == {question.answer}, (scene.scene.image_id, question, answers)
    assert used == {sentence for sentences in TEXT_SENTENCES.values() for sentence in sentences}


def test_hops_and_what_is_copied() -> None:
    for scene, questions in ASKED:
        printed = {label.text.lower() for label in scene.labels}
        for question in questions:
            assert question.hops == TEXT_QUESTION_MIX[question.question_type][0]
            assert question.copied == question.question_type.startswith("read")
            assert (question.answer in printed) == question.copied
    assert {question.hops for question in QUESTIONS} == {0, 1, 2}
    assert 0.5 < sum(question.copied for question in QUESTIONS) / len(QUESTIONS) < 0.7


def test_every_family_is_asked() -> None:
    families = Counter(question.question_type for question in QUESTIONS)
    assert set(families) == set(TEXT_QUESTION_MIX)
    assert families["read_object"] > 0.2 * len(QUESTIONS) and families["read_related"] > 0.09 * len(QUESTIONS)


def test_answers_are_balanced() -> None:
    answers: dict[str, Counter[str]] = {name: Counter() for name in TEXT_QUESTION_MIX}
    for question in QUESTIONS:
        answers[question.question_type][question.answer] += 1
    for name in ("verify_word", "verify_relation"):
        assert set(answers[name]) == {"yes", "no"}
        assert 0.38 < answers[name]["yes"] / answers[name].total() < 0.62
    assert max(answers["color_of_word"].values()) < 0.25 * answers["color_of_word"].total()
    assert max(answers["shape_of_word"].values()) < 0.4 * answers["shape_of_word"].total()
    assert max(answers["count_labels"].values()) < 0.5 * answers["count_labels"].total()
    assert set(answers["count_word"]) == {"1", "2"}
    # A label of a family that copies is hardly ever that of another scene.
    assert max(answers["read_object"].values()) < 0.02 * answers["read_object"].total()


def test_questions_about_a_scene_differ_and_come_again() -> None:
    for scene, questions in ASKED[:50]:
        assert len({question.question for question in questions}) == len(questions) == 6
        assert make_text_questions(scene) == questions
    assert make_text_questions(SCENES[0], 3) == ASKED[0][1][:3]
    for question in QUESTIONS:
        assert question.question[0].isupper() or question.question[0] == '"'
        assert question.question[-1] in "?." and not re.search(r"[{}]|  |\ban? [aeiou]", question.question)


@pytest.mark.parametrize("maximum_hops", [0, 1])
def test_questions_of_few_hops(maximum_hops: int) -> None:
    asked = [question for scene in SCENES[:60] for question in make_text_questions(scene, maximum_hops=maximum_hops)]
    assert max(question.hops for question in asked) == maximum_hops


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "ask at least one"),
        ({"maximum_hops": 3}, "0 to 2 hops"),
        ({"count": 500}, "does not give 500 different questions"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_text_questions(SCENES[0], **settings)

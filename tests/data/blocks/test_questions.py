import json
import operator
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from vl_alignment.data.blocks.programs import (
    QUESTION_TYPES,
    execute_program,
    program_depth,
    program_hops,
    question_type,
)
from vl_alignment.data.blocks.question_templates import question_templates, read_templates
from vl_alignment.data.blocks.questions import QUESTION_MIX, make_questions
from vl_alignment.data.blocks.scene import Scene, make_scene
from vl_alignment.models.errors import ConfigurationError

SCENES = [make_scene(3, "train", index) for index in range(150)]
ASKED = [(scene, make_questions(scene)) for scene in SCENES]
QUESTIONS = [question for _, questions in ASKED for question in questions]


def run(program, scene: Scene, replaced: dict[int, set[int]] | None = None) -> list:
    """All outputs of a program, by plain sets and the scene's own relations; some outputs can be replaced."""
    outputs: list = []
    for number, node in enumerate(program):
        name, inputs = node["function"], [outputs[source] for source in node["inputs"]]
        kind, _, attribute = name.partition("_")
        output: object
        if replaced and number in replaced:
            output = replaced[number]
        elif name == "scene":
            output = set(range(len(scene.objects)))
        elif kind == "filter":
            output = {i for i in inputs[0] if getattr(scene.objects[i], attribute) == node["value_inputs"][0]}
        elif name == "relate":
            output = {i for i in range(len(scene.objects)) if scene.holds(i, node["value_inputs"][0], inputs[0])}
        elif kind == "same":
            value = getattr(scene.objects[inputs[0]], attribute)
            output = {i for i, item in enumerate(scene.objects) if getattr(item, attribute) == value} - {inputs[0]}
        elif name == "unique":
            output = next(iter(inputs[0])) if len(inputs[0]) == 1 else None
        elif name in ("union", "intersect"):
            output = inputs[0] | inputs[1] if name == "union" else inputs[0] & inputs[1]
        elif kind == "query":
            output = None if inputs[0] is None else getattr(scene.objects[inputs[0]], attribute)
        else:
            first, second = inputs[0], inputs[-1]
            answers = {"count": len, "exist": bool}
            comparisons = {"less_than": operator.lt, "greater_than": operator.gt}
            output = answers[name](first) if name in answers else comparisons.get(name, operator.eq)(first, second)
        outputs.append(output)
        if output is None:
            break
    return outputs


def worded(answer: object) -> str:
    return {True: "yes", False: "no"}.get(answer, "") if isinstance(answer, bool) else str(answer)


def test_answers_are_true() -> None:
    for scene, questions in ASKED:
        for question in questions:
            outputs = run(question.program, scene)
            assert len(outputs) == len(question.program), "ill-posed"
            assert worded(outputs[-1]) == question.answer == execute_program(question.program, scene)
            assert execute_program(question.program, json.loads(scene.to_json())) == question.answer


def test_what_a_question_says_of_itself_is_what_its_program_says() -> None:
    for question in QUESTIONS:
        template = question_templates()[question.family_index]
        assert question.question_type == question_type(question.program) == template.question_type
        assert question.depth == program_depth(question.program)
        assert question.hops == program_hops(question.program) == template.hops


def set_that_counts(program, outputs: list, number: int) -> object:
    """The set or object that the filters behind a node lead to."""
    while number + 1 < len(program):
        users = [place for place, node in enumerate(program) if number in node["inputs"]]
        if not users or not program[users[0]]["function"].startswith("filter"):
            break
        number = users[0]
    return outputs[number]


def test_no_question_is_degenerate() -> None:
    """Leaving out a relation, a sameness, or one side of "and" or "or" chooses other objects."""
    checked: Counter[str] = Counter()
    for scene, questions in ASKED:
        for question in questions:
            program, outputs = question.program, run(question.program, scene)
            for number, node in enumerate(program):
                name, inputs = node["function"], [outputs[source] for source in node["inputs"]]
                if name == "relate" or name.startswith("same"):
                    without = [set(range(len(scene.objects))) - {inputs[0]}]
                elif name in ("union", "intersect"):
                    without = inputs
                else:
                    continue
                chosen = set_that_counts(program, outputs, number)
                for others in without:
                    other = set_that_counts(program, run(program, scene, {number: others}), number)
                    assert chosen != other, (scene.image_id, question)
                checked[name.partition("_")[0]] += 1
    assert checked["relate"] > 500 and min(checked["same"], checked["union"], checked["intersect"]) > 15


def test_questions_do_not_give_their_answers_away() -> None:
    for scene, questions in ASKED:
        for question in questions:
            program, outputs = question.program, run(question.program, scene)
            singled = [output for output, node in zip(outputs, program, strict=True) if node["function"] == "unique"]
            assert len(singled) == len(set(singled)), "an object is singled out twice"
            for number, node in enumerate(program):
                if node["function"].startswith("query"):
                    attribute = node["function"].removeprefix("query_")
                    number = node["inputs"][0]
                    while program[number]["function"].startswith(("filter", "unique")):
                        assert program[number]["function"] != f"filter_{attribute}"
                        number = program[number]["inputs"][0]
                    assert program[number]["function"] != f"same_{attribute}"
            if question.question_type == "compare_integer":
                sides = [outputs[program[source]["inputs"][0]] for source in program[-1]["inputs"]]
                assert any(sides) and sides[0] != sides[1]


def test_questions_about_a_scene_differ_and_come_again() -> None:
    for scene, questions in ASKED[:30]:
        assert len({question.question for question in questions}) == 10
        assert len({json.dumps(question.program) for question in questions}) == 10
        assert make_questions(scene) == questions
    assert make_questions(SCENES[0], 3) == ASKED[0][1][:3]
    assert len({question.question for question in QUESTIONS}) > 0.95 * len(QUESTIONS)


def test_the_mix() -> None:
    total = len(QUESTIONS)
    types = Counter(question.question_type for question in QUESTIONS)
    assert set(types) == set(QUESTION_TYPES)
    for name, share in QUESTION_MIX.items():
        assert types[name] > 0.1 * total and abs(types[name] / total - share) < 0.04
    assert sum(question.hops >= 2 for question in QUESTIONS) > 0.25 * total
    assert {question.hops for question in QUESTIONS} == {0, 1, 2, 3}
    groups = Counter(question_templates()[question.family_index].group for question in QUESTIONS)
    assert set(groups) == {template.group for template in question_templates()}


def test_answers_are_balanced() -> None:
    answers = {name: Counter(q.answer for q in QUESTIONS if q.question_type == name) for name in QUESTION_TYPES}
    for name in ("exist", "compare_integer", "compare_attribute"):
        assert set(answers[name]) == {"yes", "no"}
        assert 0.42 < answers[name]["yes"] / answers[name].total() < 0.58
    counts = answers["count"]
    assert max(counts.values()) < 0.35 * counts.total()
    assert counts["0"] + counts["1"] < 0.55 * counts.total()
    assert {str(number) for number in range(10)} <= set(counts)
    assert max(answers["query_attribute"].values()) < 0.2 * answers["query_attribute"].total()


def test_sentences() -> None:
    for question in QUESTIONS:
        text = question.question
        assert text.endswith("?") and text[0].isupper() and text.count("?") == 1
        assert not re.search(r"[<>\[\]]|  | [?,:]|\b[Aa] [aeiou]|\bboxs\b|None", text), text
    used = {word for question in QUESTIONS for word in re.findall(r"[a-z]+", question.question.lower())}
    assert {"ball", "sphere", "block", "box", "boxes", "shiny", "matte", "metal", "rubber", "little", "big"} <= used
    assert len(used) < 160


def words(text: str) -> list[str]:
    names = {"box": "cube", "block": "cube", "ball": "sphere", "little": "small", "big": "large"}
    names |= {"shiny": "metal", "matte": "rubber"}
    found = re.findall(r"[a-z]+", text.lower().replace("boxes", "box"))
    return [names.get(word, word) for word in (word.removesuffix("s") for word in found)]


def test_sentences_tell_what_the_program_filters_and_no_more() -> None:
    values = {value for item in SCENES for o in item.objects for value in (o.shape, o.color, o.material, o.size)}
    for question in QUESTIONS:
        text = question.question
        # "is it large or small?" names the answers, not what is told of an object.
        text = re.sub(r"large or small|of rubber or of metal|[Hh]ow large", "", question.question)
        said = Counter(word for word in words(text) if word in values)
        node_values = [value for node in question.program for value in node["value_inputs"]]
        assert said == Counter(value for value in node_values if value in values), question
        relations = sum(node["function"] == "relate" for node in question.program)
        places = re.findall(r"left|right|in front of|behind", question.question.lower())
        assert len(places) == relations


def test_settings() -> None:
    short = [question for scene in SCENES[:20] for question in make_questions(scene, maximum_hops=1)]
    assert {question.hops for question in short} == {0, 1}
    assert all(q.hops == 0 for scene in SCENES[:10] for q in make_questions(scene, maximum_hops=0))
    counted = [question for scene in SCENES[:10] for question in make_questions(scene, 4, types=["count"])]
    assert {question.question_type for question in counted} == {"count"} and len(counted) == 40
    mixed = make_questions(SCENES[0], 20, types={"exist": 1.0, "query_attribute": 1.0})
    assert {question.question_type for question in mixed} == {"exist", "query_attribute"}
    for settings, message in [
        ({"types": ["guess"]}, "Question types"),
        ({"types": {"exist": -1.0}}, "none negative"),
        ({"types": []}, "Question types"),
        ({"maximum_hops": 4}, "maximum_hops=4: questions have 0 to 3 hops"),
        ({"templates": question_templates()[:2], "types": ["compare_integer"]}, "No template has at most 3 hops"),
        ({"count": 900, "types": ["exist"], "maximum_hops": 0}, "does not give 900 different questions"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            make_questions(SCENES[4], **settings)


def test_tiny_scenes() -> None:
    for objects in (2, 3):
        for index in range(12):
            scene = make_scene(1, "train", index, minimum_objects=objects, maximum_objects=objects)
            questions = make_questions(scene)
            assert len(questions) == 10
            assert all(worded(run(question.program, scene)[-1]) == question.answer for question in questions)
    with pytest.raises(ConfigurationError, match="A scene of 0 objects"):
        make_questions({"objects": [], "relationships": {}}, draw=random.random)


def test_scenes_from_elsewhere_need_random_numbers() -> None:
    values = json.loads(SCENES[0].to_json())
    with pytest.raises(ConfigurationError, match="give `draw`"):
        make_questions(values)
    one, other = (make_questions(values, draw=random.Random(5).random) for _ in range(2))
    assert one == other and len(one) == 10


@pytest.mark.real_data
def test_the_published_families_can_be_asked(data_root: Path) -> None:
    families = read_templates(data_root / "clevr" / "question_templates" / "templates")
    asked = {}
    for scene in [scene for scene in SCENES if len(scene.objects) > 6][:60]:
        for name in QUESTION_TYPES:
            for question in make_questions(scene, 12, types=[name], templates=families, draw=random.random):
                asked[question.family_index] = question
                assert execute_program(question.program, scene) == question.answer
                assert not re.search(r"[<>\[\]]|  ", question.question)
    assert len(asked) == 90
    scene = json.loads((data_root / "clevr" / "generator_scene" / "CLEVR_scenes.json").read_text())["scenes"][0]
    for question in make_questions(scene, 20, draw=random.Random(0).random):
        assert execute_program(question.program, scene) == question.answer

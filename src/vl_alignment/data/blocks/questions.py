"""Questions about scenes, with their programs and answers.

make_questions(make_scene(0, "train", 12))[0].question
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vl_alignment.data.blocks.phrases import Draw
from vl_alignment.data.blocks.programs import QUESTION_TYPES, execute_program
from vl_alignment.data.blocks.question_sampler import Draft, QuestionSampler
from vl_alignment.data.blocks.question_templates import Description, Group, Template, question_templates
from vl_alignment.data.blocks.question_wording import word_question
from vl_alignment.data.blocks.scene import Scene, scene_generator
from vl_alignment.data.blocks.scene_graph import SceneGraph, scene_graph
from vl_alignment.models.errors import ConfigurationError

__all__ = ["QUESTION_MIX", "Question", "check_maximum_hops", "make_questions"]

QUESTION_MIX: Mapping[str, float] = {
    "query_attribute": 0.32,
    "count": 0.22,
    "exist": 0.16,
    "compare_attribute": 0.16,
    "compare_integer": 0.14,
}
"""How often each question type is asked, unless told otherwise."""

MOST_HOPS = 3
_TRIES_OF_TYPE = 12
_MOST_FAILURES = 60
_STREAM = 2


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Args:
        question: The sentence.
        answer: "yes" or "no", a number such as "3", or an attribute's value such as "red".
        program: The program that answers it, nodes in CLEVR's layout.
        family_index: Which of the templates it was made from.
        question_type: One of `QUESTION_TYPES`.
        depth: Functions on the program's longest chain; see `program_depth`.
        hops: The most steps by relation or sameness on one chain; see `program_hops`.
    """

    question: str
    answer: str
    program: tuple[Mapping[str, Any], ...]
    family_index: int
    question_type: str
    depth: int
    hops: int


def make_questions(
    scene: Scene | Mapping[str, Any],
    count: int = 10,
    *,
    maximum_hops: int = 3,
    types: Mapping[str, float] | Sequence[str] | None = None,
    templates: Sequence[Template] | None = None,
    draw: Draw | None = None,
) -> list[Question]:
    """Ask about a scene.

    Args:
        scene: A scene; of blocks, its seed, split and index also fix the questions. CLEVR's published scenes need
            `draw`.
        count: How many questions.
        maximum_hops: The most relations or samenesses on one chain, 0 to 3.
        types: Question types and how often each is asked, or only their names; `QUESTION_MIX` by default.
        templates: Families to ask from, by default this package's; see `read_templates`.
        draw: Draws numbers in [0, 1).

    Returns:
        Different questions; each has one answer, and none can be answered with less than it says.

    Raises:
        ConfigurationError: Unknown types, no template that fits, or a scene that does not give that many questions.
        DataError: The scene is none or contradicts itself.
    """
    check_maximum_hops(maximum_hops)
    if draw is None:
        if not isinstance(scene, Scene):
            raise ConfigurationError("Only a Scene of blocks fixes its own questions; give `draw` for other scenes.")
        draw = scene_generator(scene.seed, scene.split, scene.index, stream=_STREAM).random
    mix = tuple(sorted(_checked_types(types).items()))
    families = question_templates() if templates is None else tuple(templates)
    choices = _template_choices(families, maximum_hops, mix)
    return _Asker(scene_graph(scene), draw, choices).ask(count)


def check_maximum_hops(maximum_hops: int) -> None:
    """Raise `ConfigurationError` unless there are questions with at most that many hops."""
    if not 0 <= maximum_hops <= MOST_HOPS:
        raise ConfigurationError(f"maximum_hops={maximum_hops}: questions have 0 to {MOST_HOPS} hops.")


class _Asker:
    def __init__(self, graph: SceneGraph, draw: Draw, choices: "_Choices") -> None:
        self.graph = graph
        self.draw = draw
        self.choices = choices
        self.sampler = QuestionSampler(graph, draw)

    def ask(self, count: int) -> list[Question]:
        asked: dict[tuple[Any, ...], Question] = {}
        failures = 0
        while len(asked) < count and failures < _MOST_FAILURES and self.graph.count:
            # What a tiny scene cannot give with open answers it may give without.
            self.sampler.open_answers = failures < _MOST_FAILURES // 3
            type_templates = _draw_weighted(self.choices, self.draw)
            tries = (_draw_weighted(type_templates, self.draw) for _ in range(_TRIES_OF_TYPE))
            failures = 0 if any(self._ask_one(template, asked) for template in tries) else failures + 1
        if len(asked) < count:
            raise ConfigurationError(
                f"A scene of {self.graph.count} objects does not give {count} different questions; ask for fewer."
            )
        return list(asked.values())

    def _ask_one(self, template: Template, asked: dict[tuple[Any, ...], Question]) -> bool:
        draft = self.sampler.fill(template)
        if draft is None:
            return False
        program, depth = _program(draft)
        key = tuple((node["function"], *node["inputs"], *node["value_inputs"]) for node in program)
        if key in asked:
            return False
        asked[key] = Question(
            question=word_question(draft, self.draw),
            answer=execute_program(program, self.graph),
            program=program,
            family_index=template.index,
            question_type=template.question_type,
            depth=depth,
            hops=template.hops,
        )
        return True


_Choices = Sequence[tuple[float, Sequence[tuple[float, Template]]]]


def _checked_types(types: Mapping[str, float] | Sequence[str] | None) -> dict[str, float]:
    if types is None:
        return dict(QUESTION_MIX)
    mix = dict(types) if isinstance(types, Mapping) else dict.fromkeys(types, 1.0)
    unknown = [name for name in mix if name not in QUESTION_TYPES]
    if unknown or not mix or min(mix.values()) < 0.0 or not sum(mix.values()):
        raise ConfigurationError(
            f"Question types {mix}: need a share for at least one of {', '.join(QUESTION_TYPES)}, none negative."
        )
    return mix


@lru_cache(maxsize=16)
def _template_choices(
    templates: tuple[Template, ...], maximum_hops: int, mix: tuple[tuple[str, float], ...]
) -> _Choices:
    """For each type, the templates with at most that many hops, both with cumulative weights."""
    choices = []
    total = 0.0
    for name, share in mix:
        fitting = [item for item in templates if item.question_type == name and item.hops <= maximum_hops]
        if share and fitting:
            total += share
            bounds, weight = [], 0.0
            for template in fitting:
                weight += template.weight
                bounds.append((weight, template))
            choices.append((total, tuple(bounds)))
    if not choices:
        raise ConfigurationError(
            f"No template has at most {maximum_hops} hops and one of the types {', '.join(name for name, _ in mix)}."
        )
    return tuple(choices)


def _draw_weighted(bounds: Any, draw: Draw) -> Any:
    target = draw() * bounds[-1][0]
    for bound, item in bounds:
        if target < bound:
            return item
    return bounds[-1][1]


def _program(draft: Draft) -> tuple[tuple[dict[str, Any], ...], int]:
    """The draft's program and its depth."""
    nodes: list[dict[str, Any]] = []
    depths: list[int] = []

    def add(name: str, inputs: tuple[int, ...] = (), *values: str) -> int:
        nodes.append({"function": name, "inputs": list(inputs), "value_inputs": list(values)})
        depths.append(1 + max((depths[number] for number in inputs), default=0))
        return len(nodes) - 1

    def add_group(group: Group) -> int:
        if group.source == "scene":
            place = add("scene")
        elif group.source in ("union", "intersect"):
            place = add(group.source, tuple(map(add_group, group.parts)))
        else:
            single = add("unique", (add_group(group.parts[0]),))
            if group.source == "same":
                place = add(f"same_{group.name}", (single,))
            else:
                place = add("relate", (single,), str(draft.values[group.name]))
        return add_description(group.description, place)

    def add_description(description: Description, place: int) -> int:
        for name, parameter in description.slots:
            value = draft.values[parameter]
            if value is not None:
                place = add(f"filter_{name}", (place,), value)
        return place

    template = draft.template
    ends = tuple(map(add_group, template.groups))
    if template.attribute:
        ends = tuple(add("unique", (end,)) for end in ends)
    if len(ends) > 1:
        each = f"query_{template.attribute}" if template.attribute else "count"
        ends = tuple(add(each, (end,)) for end in ends)
    add(template.function, ends)
    return tuple(nodes), depths[-1]

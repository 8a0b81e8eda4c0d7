"""Functional programs over scene graphs: CLEVR's functions, run on scenes of blocks and on CLEVR's published ones.

A program is a list of nodes in CLEVR's layout, `{"function": "filter_color", "inputs": [0], "value_inputs": ["red"]}`,
where inputs are the numbers of earlier nodes and the last node gives the answer. "type" is read for "function" and
"side_inputs" for "value_inputs", as some published files write.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vl_alignment.data.blocks.scene import ATTRIBUTES, Scene
from vl_alignment.data.blocks.scene_graph import SceneGraph, mask_numbers, scene_graph
from vl_alignment.models.errors import DataError

__all__ = [
    "FUNCTIONS",
    "QUESTION_TYPES",
    "Program",
    "execute_program",
    "program_depth",
    "program_hops",
    "program_objects",
    "question_type",
]

Program = Sequence[Mapping[str, Any]]

QUESTION_TYPES = ("exist", "count", "compare_integer", "query_attribute", "compare_attribute")
"""The kinds of question that are told apart in tables, by the last function of the program."""


class Function(NamedTuple):
    """What a function takes and gives.

    Args:
        inputs: Kinds of its inputs: "objects" (a set), "object", "integer", "boolean" or the name of an attribute.
        values: How many value inputs it takes.
        output: Kind of what it gives.
        apply: (graph, inputs, values) -> output; a set is a bit mask, an object its number.
        question_type: The type of the questions that end in it, "" if none does.
    """

    inputs: tuple[str, ...]
    values: int
    output: str
    apply: Callable[[SceneGraph, list[Any], Sequence[str]], Any]
    question_type: str = ""


def _unique(graph: SceneGraph, inputs: list[Any], values: Sequence[str]) -> int:
    mask = inputs[0]
    if mask.bit_count() != 1:
        numbers = ", ".join(map(str, mask_numbers(mask))) or "none"
        raise DataError(f"ill-posed, exactly one object must be left but {mask.bit_count()} are ({numbers})")
    return mask.bit_length() - 1


def _relate(graph: SceneGraph, inputs: list[Any], values: Sequence[str]) -> int:
    try:
        return graph.related[values[0]][inputs[0]]
    except KeyError as error:
        known = ", ".join(graph.related) or "none"
        raise DataError(f"the scene has no relation {values[0]!r}; its relations are {known}") from error


def _attribute_functions(name: str) -> Iterator[tuple[str, Function]]:
    """filter_*, query_*, same_* and equal_* of one attribute."""
    yield (
        f"filter_{name}",
        Function(("objects",), 1, "objects", lambda graph, i, v: i[0] & graph.having[name].get(v[0], 0)),
    )
    yield (
        f"query_{name}",
        Function(("object",), 0, name, lambda graph, i, v: graph.values[name][i[0]], "query_attribute"),
    )
    yield (
        f"same_{name}",
        Function(
            ("object",),
            0,
            "objects",
            lambda graph, i, v: graph.having[name][graph.values[name][i[0]]] & ~(1 << i[0]),
        ),
    )
    yield f"equal_{name}", Function((name, name), 0, "boolean", lambda graph, i, v: i[0] == i[1], "compare_attribute")


FUNCTIONS: dict[str, Function] = {
    "scene": Function((), 0, "objects", lambda graph, i, v: graph.everything),
    "unique": Function(("objects",), 0, "object", _unique),
    "relate": Function(("object",), 1, "objects", _relate),
    "union": Function(("objects", "objects"), 0, "objects", lambda graph, i, v: i[0] | i[1]),
    "intersect": Function(("objects", "objects"), 0, "objects", lambda graph, i, v: i[0] & i[1]),
    "count": Function(("objects",), 0, "integer", lambda graph, i, v: i[0].bit_count(), "count"),
    "exist": Function(("objects",), 0, "boolean", lambda graph, i, v: i[0] != 0, "exist"),
    "equal_integer": Function(
        ("integer", "integer"), 0, "boolean", lambda graph, i, v: i[0] == i[1], "compare_integer"
    ),
    "less_than": Function(("integer", "integer"), 0, "boolean", lambda graph, i, v: i[0] < i[1], "compare_integer"),
    "greater_than": Function(("integer", "integer"), 0, "boolean", lambda graph, i, v: i[0] > i[1], "compare_integer"),
}
"""CLEVR's functions by name."""
for _name in ATTRIBUTES:
    FUNCTIONS.update(_attribute_functions(_name))


class _Step(NamedTuple):
    number: int
    name: str
    function: Function
    inputs: Sequence[int]
    values: Sequence[str]


def execute_program(program: Program, scene: Scene | SceneGraph | Mapping[str, Any]) -> str:
    """Answer a question by its program.

    Args:
        program: Nodes in CLEVR's layout.
        scene: A scene of blocks, what its `to_dict` gives, a scene of CLEVR's published files, or a `scene_graph`.

    Returns:
        "yes" or "no", a number such as "3", or an attribute's value such as "red".

    Raises:
        DataError: An unknown function, a wrong number or kind of inputs, an input that is no earlier node, a `unique`
            of none or several objects, a last function that answers nothing, or a scene that contradicts itself.
    """
    steps, outputs = _executed(program, scene)
    if not steps or not steps[-1].function.question_type:
        raise _no_answer(steps[-1] if steps else None)
    answer = outputs[-1]
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return str(answer)


def program_objects(program: Program, scene: Scene | SceneGraph | Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    """Say which objects a question is about, stage by stage.

    A stage ends where a description does: "the red cube" is one stage, and what stands left of it the next. The
    whole scene, before anything is said of it, is none.

    Args:
        program: Nodes in CLEVR's layout.
        scene: As of `execute_program`.

    Returns:
        The numbers of the objects of each stage, in the order of the program; empty where a stage has none.

    Raises:
        DataError: As of `execute_program`.
    """
    steps, outputs = _executed(program, scene)
    described = {step.inputs[0] for step in steps if step.name.startswith("filter_")}
    return tuple(
        tuple(mask_numbers(output))
        for step, output in zip(steps, outputs, strict=True)
        if step.function.output == "objects" and step.name != "scene" and step.number not in described
    )


def _executed(program: Program, scene: Scene | SceneGraph | Mapping[str, Any]) -> tuple[list["_Step"], list[Any]]:
    """Run a program; give its steps and what each gives."""
    graph = scene_graph(scene)
    steps: list[_Step] = []
    outputs: list[Any] = []
    for step in _steps(program):
        steps.append(step)
        try:
            outputs.append(step.function.apply(graph, [outputs[number] for number in step.inputs], step.values))
        except DataError as error:
            raise DataError(f"Step {step.number} of the program, {step.name!r}: {error}.") from error
    return steps, outputs


def question_type(program: Program) -> str:
    """One of `QUESTION_TYPES`, told by the program's last function as the study does.

    Raises:
        DataError: The last function is unknown or answers nothing.
    """
    name = _function_name(program[-1]) if program else None
    function = FUNCTIONS.get(name) if name is not None else None
    if name is not None and function is None:
        raise _unknown_function(len(program) - 1, name)
    if function is None or not function.question_type:
        raise DataError(f"A program that ends in {name!r} answers no question; it has to end in {_answering()}.")
    return function.question_type


def program_depth(program: Program) -> int:
    """Functions on the longest chain from a `scene` to the answer, both counted: scene -> count is 2.

    Raises:
        DataError: As `execute_program` for what can be seen without a scene.
    """
    return _longest(program, lambda name: True)


def program_hops(program: Program) -> int:
    """The most `relate` and `same_*` on one chain from a `scene` to the answer.

    Raises:
        DataError: As `execute_program` for what can be seen without a scene.
    """
    return _longest(program, lambda name: name == "relate" or name.startswith("same_"))


def _longest(program: Program, counts: Callable[[str], bool]) -> int:
    longest: list[int] = []
    for step in _steps(program):
        longest.append(counts(step.name) + max((longest[number] for number in step.inputs), default=0))
    if not longest:
        raise _no_answer(None)
    return longest[-1]


def _steps(program: Program) -> Iterator[_Step]:
    """The nodes, checked: known functions, as many inputs as they take, of the right kind, from earlier nodes."""
    kinds: list[str] = []
    for number, node in enumerate(program):
        name = _function_name(node)
        function = FUNCTIONS.get(name)
        if function is None:
            raise _unknown_function(number, name)
        inputs = node.get("inputs") or ()
        values = node.get("value_inputs") or node.get("side_inputs") or ()
        where = f"Step {number} of the program, {name!r},"
        if len(inputs) != len(function.inputs) or len(values) != function.values:
            raise DataError(
                f"{where} has {len(inputs)} inputs and {len(values)} values, but takes {len(function.inputs)} and "
                f"{function.values}."
            )
        for source, kind in zip(inputs, function.inputs, strict=True):
            if isinstance(source, bool) or not isinstance(source, int) or not 0 <= source < number:
                raise DataError(f"{where} has the input {source!r}, which is no earlier step; inputs point backward.")
            if kinds[source] != kind:
                raise DataError(f"{where} takes {kind} but step {source} gives {kinds[source]}.")
        kinds.append(function.output)
        yield _Step(number, name, function, inputs, values)


def _function_name(node: Mapping[str, Any]) -> str:
    name = node.get("function") or node.get("type")
    if not isinstance(name, str):
        raise DataError(f"A node of a program has a 'function' (or 'type'), but this one is {node!r}.")
    return name


def _unknown_function(number: int, name: str) -> DataError:
    return DataError(
        f"Step {number} of the program is the unknown function {name!r}; known are {', '.join(FUNCTIONS)}."
    )


def _no_answer(step: _Step | None) -> DataError:
    ending = "is empty" if step is None else f"ends in {step.name!r}, which answers nothing"
    return DataError(f"The program {ending}; it has to end in {_answering()}.")


def _answering() -> str:
    return ", ".join(name for name, function in FUNCTIONS.items() if function.question_type)

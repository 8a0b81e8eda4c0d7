"""Question templates: what a family of questions asks, as data, and its sentences.

The layout is that of CLEVR's published families, so that both are read alike: `text` (sentences), `nodes` (a program
with holes), `params` (the holes and their types) and `constraints`. Ours, in `question_templates.json`, add `group`
(their kind) and `weight` (how often a family is taken among those of its question type).

A template is read into a tree: groups of objects (all, those related to one object, those like it, two groups joined),
each narrowed by a description, and the answering function on top.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from vl_alignment.data.blocks.programs import FUNCTIONS
from vl_alignment.data.blocks.scene import ATTRIBUTES
from vl_alignment.models.errors import DataError

__all__ = ["Description", "Group", "Piece", "Template", "parse_templates", "question_templates", "read_templates"]

ATTRIBUTE_NAMES = tuple(ATTRIBUTES)


@dataclass(frozen=True)
class Description:
    """What narrows a group: "small red cubes".

    Args:
        slots: (attribute, parameter) in the order of the program.
        forms: Which attributes may be told together: bit i stands for the i-th of `ATTRIBUTES`.
    """

    slots: tuple[tuple[str, str], ...]
    forms: tuple[int, ...]


UNDESCRIBED = Description((), (0,))


@dataclass(frozen=True)
class Group:
    """Some of a scene's objects.

    Args:
        source: "scene" (all), "relate" or "same" (by the one object of `parts[0]`), "union" or "intersect".
        parts: The groups it comes from.
        name: The relation's parameter, or the attribute that is the same.
        description: What narrows it; `UNDESCRIBED` where nothing does.
        node: The template's node that gives it.
    """

    source: str
    parts: tuple["Group", ...] = ()
    name: str = ""
    description: Description = UNDESCRIBED
    node: int = 0

    @cached_property
    def hops(self) -> int:
        """The most steps by relation or sameness on one way to it."""
        return (self.source in ("relate", "same")) + max((part.hops for part in self.parts), default=0)


@dataclass(frozen=True)
class Piece:
    """A part of a sentence.

    Args:
        kind: "text", "noun" (a description with its noun), "value" (an attribute's value alone) or "relation".
        value: The text, or the parameter.
        slots: Of a noun, its (attribute, parameter) pairs.
        plural: Whether a noun is in the plural.
    """

    kind: str
    value: str = ""
    slots: tuple[tuple[str, str], ...] = ()
    plural: bool = False


@dataclass(frozen=True, eq=False)
class Template:
    """A family of questions. Two are equal only if they are the same: comparing whole trees would be slow.

    Args:
        index: Its number among the families it was read with.
        group: Kind of family, for instance "two_hop".
        question_type: One of `QUESTION_TYPES`.
        function: The answering function.
        groups: The one or two groups of objects that it answers about.
        different: Pairs of nodes that must not give the same objects.
        sentences: The wordings, each a sequence of pieces.
        weight: How often it is taken among the families of its question type.
    """

    index: int
    group: str
    question_type: str
    function: str
    groups: tuple[Group, ...]
    different: tuple[tuple[int, int], ...]
    sentences: tuple[tuple[Piece, ...], ...]
    weight: float = 1.0

    @cached_property
    def attribute(self) -> str:
        """The attribute that is asked for or compared, "" for counts and existence."""
        name = self.function.partition("_")[2]
        return name if name in ATTRIBUTES else ""

    @cached_property
    def hops(self) -> int:
        """The most steps by relation or sameness on one chain."""
        return max(group.hops for group in self.groups)


@cache
def question_templates() -> tuple[Template, ...]:
    """The families of this package."""
    content = json.loads(files(__package__).joinpath("question_templates.json").read_text(encoding="utf-8"))
    return parse_templates(content)


def read_templates(folder: str | Path) -> tuple[Template, ...]:
    """Read all families of a folder of template files, such as CLEVR's, numbered in the order of the file names.

    Raises:
        DataError: No file is there, one is not JSON, or a family cannot be read.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise DataError("No *.json with question templates here; give the folder that holds them.", path=folder)
    templates: list[Template] = []
    for path in paths:
        try:
            families = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"Not a file of question templates ({error}).", path=path) from error
        named = [{"group": path.stem, **family} for family in families]
        templates.extend(parse_templates(named, path=path, first_index=len(templates)))
    return tuple(templates)


def parse_templates(
    families: Iterable[Mapping[str, Any]], *, path: object = None, first_index: int = 0
) -> tuple[Template, ...]:
    """Read families.

    Args:
        families: Their content, as in the file.
        path: The file, for errors.
        first_index: Number of the first one.

    Returns:
        One template a family.

    Raises:
        DataError: A family cannot be read; the record is its number in the file.
    """
    templates = []
    for number, family in enumerate(families):
        try:
            templates.append(_Parser(family).template(first_index + number))
        except DataError as error:
            raise DataError(str(error), path=path, record=number) from error
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            message = f"This family lacks something or is laid out otherwise ({type(error).__name__}: {error})."
            raise DataError(message, path=path, record=number) from error
    return tuple(templates)


@dataclass(frozen=True)
class _Output:
    """What a node gives: its kind as in `FUNCTIONS`, the groups it comes from, and the last function."""

    kind: str
    groups: tuple[Group, ...]
    function: str


class _Parser:
    """Reads one family."""

    def __init__(self, family: Mapping[str, Any]) -> None:
        self.family = family
        self.types: dict[str, str] = {item["name"]: item["type"].lower() for item in family["params"]}
        self.never_told: set[str] = set()
        self.different: list[tuple[int, int]] = []
        self.slots: dict[str, tuple[tuple[str, str], ...]] = {}
        for constraint in family.get("constraints", ()):
            if constraint["type"] == "NULL":
                self.never_told.update(constraint["params"])
            elif constraint["type"] == "OUT_NEQ":
                first, second = constraint["params"]
                self.different.append((int(first), int(second)))
            else:
                raise DataError(f"Unknown constraint {constraint['type']!r}; known are NULL and OUT_NEQ.")

    def template(self, index: int) -> Template:
        outputs: list[_Output] = []
        unused: set[int] = set()
        for number, node in enumerate(self.family["nodes"]):
            inputs = list(node.get("inputs") or ())
            if not unused.issuperset(inputs):
                raise DataError(f"Node {number} has inputs {inputs}; each must be an earlier node that no other uses.")
            unused.difference_update(inputs)
            unused.add(number)
            outputs.append(self._node(number, node, [outputs[source] for source in inputs]))
        answer = outputs[-1]
        question_type = FUNCTIONS[answer.function].question_type if answer.function in FUNCTIONS else ""
        if not question_type or len(unused) > 1:
            raise DataError(f"The last node, {answer.function!r}, answers no question, or another node leads nowhere.")
        return Template(
            index=index,
            group=str(self.family.get("group", "")),
            question_type=question_type,
            function=answer.function,
            groups=answer.groups,
            different=tuple(self.different),
            sentences=tuple(sentence for text in self.family["text"] for sentence in self._sentences(text)),
            weight=float(self.family.get("weight", 1.0)),
        )

    def _node(self, number: int, node: Mapping[str, Any], inputs: list[_Output]) -> _Output:
        name = node.get("type") or node["function"]
        parameters = list(node.get("side_inputs") or node.get("value_inputs") or ())
        compound = re.fullmatch(r"(relate)?_?(filter)(?:_(unique|count|exist))?", name)
        for stage in [part for part in compound.groups() if part] if compound else [name]:
            inputs = [self._stage(number, stage, parameters, inputs)]
        if parameters:
            raise DataError(f"Node {number}, {name!r}, has more parameters than it takes: {', '.join(parameters)}.")
        return inputs[0]

    def _stage(self, number: int, stage: str, parameters: list[str], inputs: list[_Output]) -> _Output:
        """Apply one function; it takes its parameters from the front of the list."""
        kind, _, name = stage.partition("_")
        function = FUNCTIONS.get("filter_color" if stage == "filter" else stage)
        if function is None:
            raise DataError(f"Node {number} has the unknown function {stage!r}.")
        if tuple(output.kind for output in inputs) != function.inputs:
            given = ", ".join(output.kind for output in inputs) or "nothing"
            raise DataError(f"Node {number}, {stage!r}, takes {', '.join(function.inputs) or 'nothing'}, not {given}.")
        groups = tuple(group for output in inputs for group in output.groups)
        if kind == "filter":
            taken = parameters[:1] if name else parameters[:]
            description = self._description(taken, required=bool(name))
            if groups[0].description is not UNDESCRIBED:
                raise DataError(f"Node {number}, {stage!r}, follows a filter; give all attributes to the first one.")
            groups = (replace(groups[0], description=description, node=number),)
            del parameters[: len(taken)]
        elif kind in ("scene", "union", "intersect", "same"):
            groups = (Group(kind, groups, name, node=number),)
        elif stage == "relate":
            groups = (Group(kind, groups, self._checked(parameters.pop(0), "relation"), node=number),)
        elif stage in ("unique", "count", "exist"):
            groups = (replace(groups[0], node=number),)
        return _Output(function.output, groups, stage)

    def _checked(self, parameter: str, kind: str) -> str:
        if self.types.get(parameter) != kind:
            raise DataError(
                f"Parameter {parameter!r} should have the type {kind!r}, not {self.types.get(parameter)!r}."
            )
        return parameter

    def _description(self, parameters: list[str], *, required: bool) -> Description:
        slots = tuple((self.types.get(parameter, ""), parameter) for parameter in parameters)
        unknown = [parameter for name, parameter in slots if name not in ATTRIBUTES]
        if unknown:
            raise DataError(
                f"Parameters {', '.join(unknown)} of a filter are of no type among {', '.join(ATTRIBUTES)}."
            )
        allowed = sum(1 << ATTRIBUTE_NAMES.index(name) for name, parameter in slots if parameter not in self.never_told)
        forms = [form for form in range(1 << len(ATTRIBUTE_NAMES)) if form & ~allowed == 0]
        self.slots.update(dict.fromkeys(parameters, slots))
        return Description(slots, (allowed,) if required else tuple(forms))

    def _sentences(self, text: str) -> list[tuple[Piece, ...]]:
        """All variants of a text; what stands in square brackets may be left out."""
        parts = re.split(r"\[(.*?)\]", text)
        optional = [(part, "") for part in parts[1::2]]
        variants = []
        for chosen in product(*optional):
            parts[1::2] = chosen
            variants.append(self._pieces(re.sub(r"\s+", " ", "".join(parts)).strip()))
        return variants

    def _pieces(self, text: str) -> tuple[Piece, ...]:
        """Text and parameters; parameters of one description that stand together are one noun phrase."""
        pieces: list[Piece] = []
        place = 0
        pattern = re.compile(r"<\w+>(?: <\w+>)*(s(?![a-z]))?")
        for match in pattern.finditer(text):
            pieces.append(Piece("text", text[place : match.start()]))
            pieces.extend(self._parameter_pieces(re.findall(r"<\w+>", match[0]), plural=match[1] is not None))
            place = match.end()
        pieces.append(Piece("text", text[place:]))
        return tuple(piece for piece in pieces if piece.kind != "text" or piece.value)

    def _parameter_pieces(self, parameters: list[str], *, plural: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while parameters:
            first = parameters[0]
            slots = self.slots.get(first, ())
            together = [parameter for _, parameter in slots]
            if pieces:
                pieces.append(Piece("text", " "))
            if len(slots) > 1 and parameters[: len(slots)] == together:
                pieces.append(Piece("noun", slots=slots, plural=plural and len(parameters) == len(slots)))
                del parameters[: len(slots)]
            elif self.types.get(first) == "relation":
                pieces.append(Piece("relation", first))
                del parameters[0]
            elif self.types.get(first) in ATTRIBUTES:
                pieces.append(Piece("value", first, plural=plural and len(parameters) == 1))
                del parameters[0]
            else:
                raise DataError(f"The text has {first!r}, which is no parameter of this family.")
        return pieces

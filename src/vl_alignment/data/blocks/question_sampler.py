"""Fill a question template from a scene: which objects, which of their attributes are told, and which answer.

A set of objects is a bit mask. A *form* says which attributes a description tells: bit i stands for the i-th of
`ATTRIBUTES`. The answer is drawn first, evenly among those that the scene allows, and kept while a way to it is looked
for; whether something exists is asked in a form that allows both answers where it is asked. So neither the template nor
the length of a description gives the answer away. Where one step finds nothing, the draft is begun anew.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from math import prod
from typing import NamedTuple

from vl_alignment.data.blocks.phrases import Draw, choose
from vl_alignment.data.blocks.question_templates import ATTRIBUTE_NAMES, Description, Group, Template
from vl_alignment.data.blocks.scene import ATTRIBUTES, RELATIONS
from vl_alignment.data.blocks.scene_graph import SceneGraph, mask_numbers

__all__ = ["Draft", "QuestionSampler"]

# How often a description of a set tells no attribute, one, two, three or all four.
_SET_FORMS = (1.0, 4.0, 2.0, 0.4, 0.1)
_COUNT_FORMS = (4.0, 4.0, 1.5, 0.3, 0.05)
_COUNT_WEIGHTS = (0.4, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0)
_MINIMAL = 0.6  # share of descriptions of single objects that tell no more than needed
_TRIES = 12
_FORM_TRIES = 5
_ABSENT_TRIES = 50


class Source(NamedTuple):
    """Where a description chooses from.

    Args:
        mask: The objects.
        without: What they would be if one relation, sameness, "and" or "or" were left out of the question. A
            description that chooses the same from one of these makes the question degenerate.
    """

    mask: int
    without: tuple[int, ...] = ()

    def is_changed_by_all(self, described: int) -> bool:
        """Whether a description chooses something else from each of `without`."""
        chosen = described & self.mask
        for other in self.without:
            if described & other == chosen:
                return False
        return True


@dataclass
class Draft:
    """A template's holes filled.

    Args:
        template: The template.
        values: Parameter -> an attribute's value, a relation, or None where nothing is told.
        masks: Node of the template -> its objects.
    """

    template: Template
    values: dict[str, str | None] = field(default_factory=dict)
    masks: dict[int, int] = field(default_factory=dict)
    single: int = 0  # objects that were singled out


class QuestionSampler:
    """Drafts questions about one scene.

    Args:
        graph: The scene.
        draw: Draws numbers in [0, 1).
        open_answers: Refuse a description whose form allows only one answer in this scene. Tiny scenes need False.
    """

    def __init__(self, graph: SceneGraph, draw: Draw, *, open_answers: bool = True) -> None:
        self.graph = graph
        self.draw = draw
        self.open_answers = open_answers
        # alike[form][i]: the objects that a description of object i in that form fits.
        columns = [[graph.having[name][value] for value in graph.values[name]] for name in ATTRIBUTE_NAMES]
        self.alike: list[list[int]] = [[graph.everything] * graph.count]
        for form in range(1, 1 << len(columns)):
            rest, column = self.alike[form & (form - 1)], columns[(form & -form).bit_length() - 1]
            self.alike.append([one & other for one, other in zip(rest, column, strict=True)])
        # fitting[i][form]: the same the other way round.
        self.fitting = list(zip(*self.alike, strict=True))
        # shared["color"]: the objects of which another one has the color.
        self.shared = {
            name: sum(mask for mask in masks.values() if mask.bit_count() > 1) for name, masks in graph.having.items()
        }
        self.draft: Draft

    def fill(self, template: Template) -> Draft | None:
        """Fill a template, or None where that was not found to be possible."""
        if not self._is_open(template):
            return None
        wanted = self._wanted(template)
        fill = getattr(self, f"_fill_{template.question_type}")
        for _ in range(_TRIES):
            self.draft = Draft(template)
            if fill(template, wanted):
                masks = self.draft.masks
                if all(masks[one] != masks[other] for one, other in template.different):
                    return self.draft
        return None

    # The answering function, where the answer is decided.

    def _is_open(self, template: Template) -> bool:
        """Whether the scene allows different answers to what asks for or compares an attribute."""
        if not template.attribute or not self.open_answers:
            return True
        if template.question_type == "compare_attribute" and not self.shared[template.attribute]:
            return False
        return len(self.graph.having[template.attribute]) > 1

    def _wanted(self, template: Template) -> str | bool:
        """The answer to look for; it stays while the template is tried, so that easy answers are no more frequent."""
        if template.question_type == "query_attribute":
            return choose(list(self.graph.having[template.attribute]), self.draw)
        return self.draw() < 0.5

    def _fill_query_attribute(self, template: Template, wanted: str) -> bool:
        having = self.graph.having[template.attribute][wanted]
        return self._single(template.groups[0], having) is not None

    def _fill_compare_attribute(self, template: Template, wanted: bool) -> bool:
        first, second = template.groups
        having = self.graph.having[template.attribute]
        number = self._single(first, self.shared[template.attribute] if wanted else -1)
        if number is None:
            return False
        alike = having[self.graph.values[template.attribute][number]]
        return self._single(second, alike if wanted else ~alike) is not None

    def _fill_exist(self, template: Template, wanted: bool) -> bool:
        group = template.groups[0]
        source = self._source(group)
        if source is None or (wanted and not source.mask):
            return False
        # A form that allows both answers does not tell which it is. With "and" there hardly is one.
        both = self.open_answers and group.source != "intersect" and group.description.slots
        for _ in range(_FORM_TRIES):
            options = self._options(self._form(group.description, _SET_FORMS), source, absent=not source.without)
            fitting = [option for option in options if (option.fitting & source.mask != 0) == wanted]
            if fitting and (not both or len(fitting) < len(options)):
                return self._tell_set(group, source, choose(fitting, self.draw))
        return False

    def _fill_count(self, template: Template, wanted: bool) -> bool:
        group = template.groups[0]
        source = self._source(group)
        if source is None:
            return False
        by_count: dict[int, list[_Option]] = {}
        for _ in range(_FORM_TRIES):
            form = self._form(group.description, _COUNT_FORMS)
            for option in self._options(form, source, absent=not source.without):
                by_count.setdefault((option.fitting & source.mask).bit_count(), []).append(option)
        # What is narrowed much is often empty: a wanted answer of False asks for more than that.
        if not by_count or (not wanted and not any(by_count)):
            return False
        # Large counts are rare, so they are preferred where there is one.
        bounds = list(accumulate(_COUNT_WEIGHTS[min(count, len(_COUNT_WEIGHTS) - 1)] for count in by_count))
        count = list(by_count)[bisect_right(bounds, self.draw() * bounds[-1])]
        return self._tell_set(group, source, choose(by_count[count], self.draw))

    def _fill_compare_integer(self, template: Template, wanted: bool) -> bool:
        first, second = template.groups
        before, source = self._set(first), self._source(second)
        if not before or source is None:
            return False
        count = before.bit_count()
        # As many attributes on both sides, or else the longer description would tell which number is smaller. Half the
        # time one more in all of the scene than in a part of it, since a part is smaller already.
        told = {name: value for name, p in first.description.slots if (value := self.draft.values[p]) is not None}
        size = len(told)
        if self.draw() < 0.5:
            size = max(0, size + (second.source == "scene") - (first.source == "scene"))
        fitting = []
        for form in second.description.forms:
            if form.bit_count() == size:
                for option in self._options(form, source):
                    other = (option.fitting & source.mask).bit_count()
                    holds = count < other if template.function == "less_than" else count > other
                    if (count == other if template.function == "equal_integer" else holds) == wanted:
                        fitting.append(option)
        if not fitting:
            return False
        option = choose(fitting, self.draw)
        # Cubes against red cubes make a question only where both are narrowed by something else as well.
        pairs, others = told.items(), self._told(option).items()
        if "scene" in (first.source, second.source) and (pairs <= others or others <= pairs):
            return False
        return self._tell_set(second, source, option)

    def _told(self, option: "_Option") -> dict[str, str]:
        values = self.graph.values
        return {name: values[name][option.number] for i, name in enumerate(ATTRIBUTE_NAMES) if option.form >> i & 1}

    # Groups on the way. Each method fills the draft as it goes and returns None where it finds nothing.

    def _source(self, group: Group) -> Source | None:
        """What a group's description chooses from."""
        if group.source == "scene":
            return Source(self.graph.everything)
        if group.source in ("union", "intersect"):
            one, other = self._set(group.parts[0]), self._set(group.parts[1])
            if one is None or other is None:
                return None
            return Source(one | other if group.source == "union" else one & other, (one, other))
        number = self._single(group.parts[0])
        if number is None:
            return None
        others = self.graph.everything & ~(1 << number)
        if group.source == "same":
            value = self.graph.values[group.name][number]
            return Source(self.graph.having[group.name][value] & others, (others,))
        related = self.graph.related
        telling = [name for name in RELATIONS if name in related and 0 != related[name][number] != others]
        if not telling:
            return None
        relation = choose(telling, self.draw)
        self.draft.values[group.name] = relation
        return Source(related[relation][number], (others,))

    def _single(self, group: Group, among: int = -1) -> int | None:
        """Single out one object of a group, one of the mask `among`, that the question has not singled out before."""
        source = self._source(group)
        if source is None:
            return None
        numbers = list(mask_numbers(source.mask & among & ~self.draft.single))
        while numbers:
            number = numbers.pop(int(self.draw() * len(numbers)))
            bit, fitting = 1 << number, self.fitting[number]
            forms = tuple([form for form in group.description.forms if fitting[form] & source.mask == bit])
            if source.without:
                forms = tuple([form for form in forms if source.is_changed_by_all(fitting[form])])
            if forms:
                minimal = self.draw() < _MINIMAL
                form = choose(_minimal_forms(forms) if minimal else forms, self.draw)
                self._tell(group.description, number, form)
                self.draft.single |= bit
                self.draft.masks[group.node] = bit
                return number
        return None

    def _set(self, group: Group) -> int | None:
        """Choose a group that is not empty: the mask of its objects."""
        source = self._source(group)
        if source is None or not source.mask:
            return None
        form = self._form(group.description, _SET_FORMS)
        number = choose(list(mask_numbers(source.mask)), self.draw)
        option = _Option(form, self.alike[form][number], number)
        if not source.is_changed_by_all(option.fitting):
            return None
        self._tell_set(group, source, option)
        return option.fitting & source.mask

    # Descriptions.

    def _form(self, description: Description, weights: tuple[float, ...]) -> int:
        bounds = _cumulative(description.forms, weights)
        return description.forms[bisect_right(bounds, self.draw() * bounds[-1])]

    def _options(self, form: int, source: Source, *, absent: bool = False) -> list["_Option"]:
        """Different descriptions of one form that are not degenerate; if `absent`, also one that fits nothing."""
        seen: set[int] = set()
        options = []
        for number, fitting in enumerate(self.alike[form]):
            if fitting not in seen:
                seen.add(fitting)
                if source.is_changed_by_all(fitting):
                    options.append(_Option(form, fitting, number))
        if absent and len(seen) < self._combinations(form):
            options.append(_Option(form, 0, int(self.draw() * self.graph.count)))
        return options

    def _combinations(self, form: int) -> int:
        """How many descriptions of a form there are, fitting or not."""
        return prod(len(ATTRIBUTES[name]) for i, name in enumerate(ATTRIBUTE_NAMES) if form >> i & 1)

    def _tell_set(self, group: Group, source: Source, option: "_Option") -> bool:
        self._tell(group.description, option.number, option.form)
        self.draft.masks[group.node] = option.fitting & source.mask
        return bool(option.fitting) or self._tell_absent(group.description, option.form)

    def _tell(self, description: Description, number: int, form: int) -> None:
        values = self.draft.values
        for name, parameter in description.slots:
            told = form >> ATTRIBUTE_NAMES.index(name) & 1
            values[parameter] = self.graph.values[name][number] if told else None

    def _tell_absent(self, description: Description, form: int) -> bool:
        """Change what is told of an object, attribute by attribute, until nothing fits it."""
        told = [(name, parameter) for name, parameter in description.slots if form >> ATTRIBUTE_NAMES.index(name) & 1]
        values = self.draft.values
        for _ in range(_ABSENT_TRIES):
            name, parameter = choose(told, self.draw)
            values[parameter] = choose(ATTRIBUTES[name], self.draw)
            fitting = self.graph.everything
            for other, its_parameter in told:
                fitting &= self.graph.having[other].get(str(values[its_parameter]), 0)
            if not fitting:
                return True
        return False


class _Option(NamedTuple):
    """A description of one form: the objects of the scene that fit it, and one object that it was taken from."""

    form: int
    fitting: int
    number: int


@cache
def _cumulative(forms: tuple[int, ...], weights: tuple[float, ...]) -> tuple[float, ...]:
    """Rising bounds that share the weight for a number of attributes evenly among the forms that tell so many."""
    sizes = [form.bit_count() for form in forms]
    bounds = tuple(accumulate(weights[size] / sizes.count(size) for size in sizes))
    return bounds if bounds[-1] else tuple(range(1, len(forms) + 1))


@cache
def _minimal_forms(forms: tuple[int, ...]) -> tuple[int, ...]:
    """Those of which no other is part."""
    return tuple(form for form in forms if not any(other != form and other & form == other for other in forms))

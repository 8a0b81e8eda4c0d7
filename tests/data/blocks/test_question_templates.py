import json
import re
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest

from vl_alignment.data.blocks.programs import QUESTION_TYPES
from vl_alignment.data.blocks.question_templates import parse_templates, question_templates, read_templates
from vl_alignment.models.errors import DataError

FAMILY = {
    "text": ["How many [other] <Z2> <S2>s stand <R> the <Z> <S>?"],
    "nodes": [
        {"type": "scene", "inputs": []},
        {"type": "filter_unique", "inputs": [0], "side_inputs": ["<Z>", "<S>"]},
        {"type": "relate_filter_count", "inputs": [1], "side_inputs": ["<R>", "<Z2>", "<S2>"]},
    ],
    "params": [
        {"type": "Size", "name": "<Z>"},
        {"type": "Shape", "name": "<S>"},
        {"type": "Relation", "name": "<R>"},
        {"type": "Size", "name": "<Z2>"},
        {"type": "Shape", "name": "<S2>"},
    ],
    "constraints": [{"type": "NULL", "params": ["<Z2>"]}],
}


def test_a_family_becomes_a_tree_and_sentences() -> None:
    (template,) = parse_templates([FAMILY], first_index=7)
    assert (template.index, template.function, template.question_type, template.hops) == (7, "count", "count", 1)
    (group,) = template.groups
    assert (group.source, group.name, group.node) == ("relate", "<R>", 2)
    assert group.description.slots == (("size", "<Z2>"), ("shape", "<S2>"))
    assert group.description.forms == (0, 1)  # shape, the first attribute, may be told; size may not
    (anchor,) = group.parts
    assert (anchor.source, anchor.node, anchor.description.forms) == ("scene", 1, (0, 1, 8, 9))
    with_word, without = template.sentences
    assert [piece.kind for piece in with_word] == ["text", "noun", "text", "relation", "text", "noun", "text"]
    assert [piece.value for piece in without if piece.kind == "text"] == ["How many ", " stand ", " the ", "?"]
    assert with_word[0].value == "How many other "
    assert [piece.plural for piece in without if piece.kind == "noun"] == [True, False]


def test_our_families() -> None:
    templates = question_templates()
    assert [template.index for template in templates] == list(range(len(templates)))
    assert set(Counter(template.question_type for template in templates)) == set(QUESTION_TYPES)
    assert {template.hops for template in templates} == {0, 1, 2, 3}
    assert all(len(template.sentences) >= 2 for template in templates)
    asked = {template.function for template in templates}
    attributes = ("shape", "color", "material", "size")
    assert asked == {
        *("count", "exist", "equal_integer", "less_than", "greater_than"),
        *(f"{kind}_{name}" for kind in ("query", "equal") for name in attributes),
    }
    # Whatever is told or chosen is said, in every sentence.
    for template in templates:
        for sentence in template.sentences:
            said = Counter(parameter for piece in sentence for _, parameter in piece.slots)
            said.update(piece.value for piece in sentence if piece.kind in ("value", "relation"))
            assert set(said.values()) == {1}
            assert set(said) == set(parameters(template.groups))


def parameters(groups) -> list[str]:
    found = []
    for group in groups:
        found += [parameter for _, parameter in group.description.slots] + parameters(group.parts)
        found += [group.name] if group.source == "relate" else []
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["nodes"][1].update(type="filter_best"), "record 0: .*unknown function 'filter_best'"),
        (lambda f: f["nodes"][1].update(inputs=[2]), "each must be an earlier node"),
        (lambda f: f["nodes"].append({"type": "exist", "inputs": [0]}), "earlier node that no other uses"),
        (lambda f: f["nodes"].append({"type": "scene", "inputs": []}), "answers no question"),
        (lambda f: f["nodes"].pop(), "'unique', answers no question"),
        (lambda f: f["nodes"][2].update(type="relate"), "answers no question|more parameters"),
        (lambda f: f["nodes"][1].update(type="count"), "has more parameters than it takes"),
        (lambda f: f["nodes"][1].update(type="filter"), "'relate', takes object, not objects"),
        (lambda f: f["params"][2].update(type="Size"), "should have the type 'relation', not 'size'"),
        (lambda f: f["params"].pop(), "are of no type among"),
        (lambda f: f["constraints"][0].update(type="MORE"), "Unknown constraint 'MORE'"),
        (lambda f: f["text"].append("Is <X> there?"), "has '<X>', which is no parameter"),
        (lambda f: f.pop("text"), "lacks something"),
        (lambda f: f["nodes"][2].update(side_inputs=[]), "lacks something"),
        (
            lambda f: f["nodes"].insert(2, {"type": "filter_size", "inputs": [1], "side_inputs": ["<Z>"]}),
            "takes objects, not object",
        ),
    ],
)
def test_families_that_cannot_be_read_are_refused(change, message: str) -> None:
    family = deepcopy(FAMILY)
    change(family)
    with pytest.raises(DataError, match=message):
        parse_templates([family])


def test_two_filters_on_each_other_are_refused() -> None:
    family = deepcopy(FAMILY)
    family["nodes"][1] = {"type": "filter_size", "inputs": [0], "side_inputs": ["<Z>"]}
    family["nodes"][2] = {"type": "filter_count", "inputs": [1], "side_inputs": ["<Z2>", "<S2>"]}
    with pytest.raises(DataError, match="follows a filter"):
        parse_templates([family])


def test_folders_without_templates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No .*json"):
        read_templates(tmp_path)
    (tmp_path / "one.json").write_text("[{")
    with pytest.raises(DataError, match="one.json: Not a file of question templates"):
        read_templates(tmp_path)
    (tmp_path / "one.json").write_text(json.dumps([FAMILY, {}]))
    with pytest.raises(DataError, match="one.json, record 1: "):
        read_templates(tmp_path)


@pytest.mark.real_data
def test_the_published_families_give_the_five_types(data_root: Path) -> None:
    folder = data_root / "clevr" / "question_templates" / "templates"
    templates = read_templates(folder)
    assert len(templates) == 90 and [template.index for template in templates] == list(range(90))
    types = Counter(template.question_type for template in templates)
    assert types == {"query_attribute": 32, "count": 21, "compare_attribute": 16, "exist": 12, "compare_integer": 9}
    hops = {template.group: template.hops for template in templates if template.group.endswith("hop")}
    assert hops == {"zero_hop": 0, "one_hop": 1, "two_hop": 2, "three_hop": 3}
    # Our sentences are our own.
    texts = {
        text for path in folder.glob("*.json") for family in json.loads(path.read_text()) for text in family["text"]
    }
    published = {sentence_key(text) for text in texts}
    ours = json.loads(Path(read_templates.__code__.co_filename).with_suffix(".json").read_text())
    assert not published & {sentence_key(text) for family in ours for text in family["text"]}


def sentence_key(text: str) -> str:
    return re.sub(r"[\W\d]+", " ", re.sub(r"\[|\]|<\w+>", "", text)).lower().strip()

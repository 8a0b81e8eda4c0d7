import json
from pathlib import Path

import pytest

from vl_alignment.data.blocks.programs import (
    FUNCTIONS,
    QUESTION_TYPES,
    execute_program,
    program_depth,
    program_hops,
    program_objects,
    question_type,
)
from vl_alignment.data.blocks.scene import ATTRIBUTES, make_scene
from vl_alignment.data.blocks.scene_graph import scene_graph
from vl_alignment.models.errors import DataError

# From left to right: a small red rubber cube, a large red metal ball, a small blue metal cube.
SCENE = {
    "image_filename": "three.png",
    "objects": [
        {"shape": "cube", "color": "red", "material": "rubber", "size": "small"},
        {"shape": "sphere", "color": "red", "material": "metal", "size": "large"},
        {"shape": "cube", "color": "blue", "material": "metal", "size": "small"},
    ],
    "relationships": {
        "left": [[], [0], [0, 1]],
        "right": [[1, 2], [2], []],
        "front": [[1], [], [0, 1]],
        "behind": [[2], [0, 2], []],
    },
}


def program(*nodes: tuple) -> list[dict]:
    """Each node: function, inputs, value inputs."""
    return [{"function": name, "inputs": list(inputs), "value_inputs": list(values)} for name, inputs, *values in nodes]


BALL = [("scene", []), ("filter_shape", [0], "sphere"), ("unique", [1])]
BLUE = [("scene", []), ("filter_color", [3], "blue"), ("unique", [4])]


@pytest.mark.parametrize(
    ("nodes", "answer", "kind", "depth", "hops"),
    [
        ([("scene", []), ("count", [0])], "3", "count", 2, 0),
        ([("scene", []), ("filter_size", [0], "tiny"), ("count", [1])], "0", "count", 3, 0),
        ([("scene", []), ("filter_material", [0], "metal"), ("exist", [1])], "yes", "exist", 3, 0),
        ([*BALL, ("query_size", [2])], "large", "query_attribute", 4, 0),
        ([*BALL, ("relate", [2], "left"), ("unique", [3]), ("query_color", [4])], "red", "query_attribute", 6, 1),
        ([*BALL, ("relate", [2], "front"), ("exist", [3])], "no", "exist", 5, 1),
        ([*BALL, ("same_material", [2]), ("unique", [3]), ("query_shape", [4])], "cube", "query_attribute", 6, 1),
        ([*BALL, ("same_shape", [2]), ("count", [3])], "0", "count", 5, 1),
        ([*BALL, ("same_color", [2]), ("unique", [3]), ("same_size", [4]), ("count", [5])], "1", "count", 7, 2),
        ([*BALL, *BLUE, ("query_color", [2]), ("query_color", [5]), ("equal_color", [6, 7])], "no",
         "compare_attribute", 5, 0),
        ([*BALL, *BLUE, ("query_material", [2]), ("query_material", [5]), ("equal_material", [6, 7])], "yes",
         "compare_attribute", 5, 0),
        ([*BALL, *BLUE, ("relate", [2], "left"), ("relate", [5], "left"), ("union", [6, 7]), ("count", [8])], "2",
         "count", 6, 1),
        ([*BALL, *BLUE, ("relate", [2], "behind"), ("relate", [5], "left"), ("intersect", [6, 7]), ("count", [8])],
         "1", "count", 6, 1),
        ([*BALL, ("relate", [2], "behind"), ("count", [3]), ("scene", []), ("count", [5]), ("less_than", [4, 6])],
         "yes", "compare_integer", 6, 1),
        ([("scene", []), ("count", [0]), ("greater_than", [1, 1])], "no", "compare_integer", 3, 0),
        ([("scene", []), ("count", [0]), ("equal_integer", [1, 1])], "yes", "compare_integer", 3, 0),
    ],
)  # fmt: skip
def test_programs_are_answered_and_measured(nodes, answer: str, kind: str, depth: int, hops: int) -> None:
    steps = program(*nodes)
    assert execute_program(steps, SCENE) == answer
    assert question_type(steps) == kind and kind in QUESTION_TYPES
    assert (program_depth(steps), program_hops(steps)) == (depth, hops)
    renamed = [{"type": s["function"], "inputs": s["inputs"], "side_inputs": s["value_inputs"]} for s in steps]
    assert execute_program(renamed, SCENE) == answer and question_type(renamed) == kind


def test_every_function_of_clevr_is_there() -> None:
    families = [f"{kind}_{name}" for kind in ("filter", "query", "same", "equal") for name in ATTRIBUTES]
    others = "scene unique relate union intersect count exist equal_integer less_than greater_than".split()
    assert set(FUNCTIONS) == {*families, *others}


def test_a_scene_of_blocks_answers_the_same_as_its_json() -> None:
    scene = make_scene(0, "train", 3)
    read = json.loads(scene.to_json())
    assert scene_graph(scene) == scene_graph(read)
    looks = [tuple(getattr(item, name) for name in ATTRIBUTES) for item in scene.objects]
    alone = [number for number, look in enumerate(looks) if looks.count(look) == 1]
    assert len(alone) > 2
    for number in alone:
        filters = [
            (f"filter_{name}", [i], value)
            for i, (name, value) in enumerate(zip(ATTRIBUTES, looks[number], strict=True))
        ]
        for relation, rows in scene.relationships.items():
            steps = program(("scene", []), *filters, ("unique", [4]), ("relate", [5], relation), ("count", [6]))
            assert execute_program(steps, read) == execute_program(steps, scene) == str(len(rows[number]))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("scene", []), ("filter_weight", [0], "heavy")], "Step 1 .* unknown function 'filter_weight'"),
        ([("scene", []), ("filter_color", [0])], "Step 1 .* has 1 inputs and 0 values, but takes 1 and 1"),
        ([("scene", []), ("union", [0]), ("count", [1])], "has 1 inputs and 0 values, but takes 2 and 0"),
        ([("scene", []), ("count", [1])], "the input 1, which is no earlier step"),
        ([("scene", []), ("exist", [-1])], "the input -1, which is no earlier step"),
        ([("scene", []), ("query_color", [0])], "takes object but step 0 gives objects"),
        ([("scene", []), ("filter_color", [0], "red"), ("unique", [1]), ("query_size", [2])],
         r"Step 2 .*ill-posed, exactly one object must be left but 2 are \(0, 1\)"),
        ([*BALL, ("relate", [2], "inside"), ("count", [3])], "no relation 'inside'; its relations are left, right"),
        ([("scene", [])], "ends in 'scene', which answers nothing"),
        ([], "The program is empty"),
        ([("", [])], "has a 'function'"),
    ],
)  # fmt: skip
def test_programs_that_cannot_run_are_refused(nodes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        execute_program(program(*nodes), SCENE)


def test_objects_of_a_question_come_stage_by_stage() -> None:
    nodes = program(
        ("scene", []),
        ("filter_color", [0], "red"),
        ("filter_shape", [1], "cube"),
        ("unique", [2]),
        ("relate", [3], "right"),
        ("filter_material", [4], "metal"),
        ("count", [5]),
    )
    assert program_objects(nodes, SCENE) == ((0,), (1, 2))
    assert program_objects(program(("scene", []), ("count", [0])), SCENE) == ()
    none = program(("scene", []), ("filter_color", [0], "green"), ("exist", [1]))
    assert program_objects(none, SCENE) == ((),)
    with pytest.raises(DataError, match="ill-posed"):
        program_objects(program(("scene", []), ("unique", [0])), SCENE)


def test_measures_of_what_is_no_program_are_refused() -> None:
    with pytest.raises(DataError, match="unknown function 'guess'"):
        question_type(program(("scene", []), ("guess", [0])))
    with pytest.raises(DataError, match="answers no question"):
        question_type([])
    with pytest.raises(DataError, match="no earlier step"):
        program_depth(program(("scene", []), ("count", [7])))


@pytest.mark.real_data
def test_the_published_questions_keep_their_answers(data_root: Path) -> None:
    folder = data_root / "clevr" / "generator_1obj"
    checked = 0
    for split in ("train", "val", "test"):
        scenes = json.loads((folder / "scenes" / f"CLEVR_{split}_scenes.json").read_text())["scenes"]
        graphs = {scene["image_index"]: scene_graph(scene) for scene in scenes}
        for question in json.loads((folder / "questions" / f"CLEVR_{split}_questions.json").read_text())["questions"]:
            assert execute_program(question["program"], graphs[question["image_index"]]) == question["answer"]
            assert question_type(question["program"]) == "query_attribute"
            checked += 1
    assert checked == 116

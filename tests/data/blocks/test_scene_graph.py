import json
from copy import deepcopy
from pathlib import Path

import pytest

from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.scene_graph import compute_relations, mask_numbers, scene_graph
from vl_alignment.models.errors import DataError

SCENE = json.loads(make_scene(5, "test", 4, minimum_objects=4, maximum_objects=6).to_json())


def test_masks_say_what_the_lists_say() -> None:
    graph = scene_graph(SCENE)
    assert graph.count == len(SCENE["objects"]) and list(mask_numbers(graph.everything)) == list(range(graph.count))
    for color, mask in graph.having["color"].items():
        assert list(mask_numbers(mask)) == [i for i, item in enumerate(SCENE["objects"]) if item["color"] == color]
    for name, rows in SCENE["relationships"].items():
        assert [list(mask_numbers(mask)) for mask in graph.related[name]] == rows
    assert scene_graph(graph) is graph


def test_relations_follow_from_coordinates_where_none_are_stored() -> None:
    def thing(x: float, y: float) -> dict:
        return {"shape": "cube", "color": "red", "material": "metal", "size": "small", "3d_coords": [x, y, 0.0]}

    directions = {"left": [-1, 0, 0], "right": [1, 0, 0], "front": [0, -1, 0], "behind": [0, 1, 0], "above": [0, 0, 1]}
    scene = {"objects": [thing(0.0, 0.0), thing(0.25, 1.0), thing(0.5, 1.1)], "directions": directions}
    assert compute_relations(scene) == {
        "left": [[], [0], [0, 1]],
        "right": [[1, 2], [2], []],
        "front": [[], [0], [0]],
        "behind": [[1, 2], [], []],
    }
    assert scene_graph(scene).related["left"] == (0, 1, 3)
    assert compute_relations(scene, margin=0.3)["left"] == [[], [], [0]]


def test_contradictions_are_refused() -> None:
    def broken(name: str, number: int, row: list) -> dict:
        scene = deepcopy(SCENE)
        scene["relationships"][name][number] = row
        scene["image_filename"] = "broken.png"
        return scene

    rows = SCENE["relationships"]["left"]
    first = next(number for number, row in enumerate(rows) if row)
    other = rows[first][0]
    with pytest.raises(DataError, match=rf"broken.png.*object {first} is left of object {other} and the other way"):
        scene_graph(broken("left", other, [*rows[other], first]))
    with pytest.raises(DataError, match="being left of .* does not agree with .* being right of"):
        scene_graph(broken("left", first, rows[first][1:]))
    with pytest.raises(DataError, match="object 1 is front of object 1"):
        scene_graph(broken("front", 1, [1]))
    with pytest.raises(DataError, match="names object 99; there are objects 0 to"):
        scene_graph(broken("front", 1, [99]))
    short = deepcopy(SCENE)
    short["relationships"]["behind"].pop()
    with pytest.raises(DataError, match="'behind' has .* rows for"):
        scene_graph(short)


def test_a_circle_is_a_contradiction() -> None:
    scene = {
        "objects": [{"shape": "cube", "color": "red", "material": "metal", "size": "small"}] * 3,
        "relationships": {"left": [[1], [2], [0]]},
    }
    with pytest.raises(DataError, match="leads back to where it began"):
        scene_graph(scene)


@pytest.mark.parametrize("scene", [{}, {"objects": [{"shape": "cube"}]}, {"objects": []}, 3])
def test_what_is_no_scene_is_refused(scene) -> None:
    with pytest.raises(DataError, match="no scene|Relations need"):
        scene_graph(scene)


@pytest.mark.real_data
def test_relations_of_the_published_scene_are_those_of_its_coordinates(data_root: Path) -> None:
    scene = json.loads((data_root / "clevr" / "generator_scene" / "CLEVR_scenes.json").read_text())["scenes"][0]
    assert len(scene["objects"]) == 7
    assert compute_relations(scene) == scene["relationships"]
    assert scene_graph(scene).count == 7

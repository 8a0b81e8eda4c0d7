import json

import numpy as np
import pytest

from vl_alignment.data.blocks.scene import (
    ATTRIBUTES,
    RELATION_MARGIN,
    RELATIONS,
    SPLITS,
    VISIBLE_AREA,
    Scene,
    make_scene,
)
from vl_alignment.models.errors import ConfigurationError, DataError

SCENES = [make_scene(seed, split, index) for seed in (0, 5) for split in SPLITS for index in range(25)]


def test_a_scene_depends_only_on_seed_split_and_index() -> None:
    make_scene(0, "train", 3)
    again = make_scene(0, "test", 12)
    assert again == make_scene(0, "test", 12)
    assert again.image_id == "blocks-test-000012"
    assert again.objects != make_scene(1, "test", 12).objects


def test_no_scene_occurs_in_two_splits() -> None:
    seen = [tuple(item.coordinates for item in scene.objects) for scene in SCENES]
    assert len(set(seen)) == len(seen)


def test_the_number_of_objects_covers_the_limits() -> None:
    counts = {len(make_scene(2, "train", index, minimum_objects=2, maximum_objects=4).objects) for index in range(40)}
    assert counts == {2, 3, 4}
    assert len(make_scene(2, "train", 0, minimum_objects=12, maximum_objects=12).objects) == 12


def test_every_attribute_value_occurs() -> None:
    for name, choices in ATTRIBUTES.items():
        assert {getattr(item, name) for scene in SCENES for item in scene.objects} == set(choices)


def test_objects_stand_apart_and_inside_the_picture() -> None:
    for scene in SCENES:
        for number, item in enumerate(scene.objects):
            x0, y0, x1, y1 = item.box
            assert 0.0 < x0 < x1 < 1.0 and 0.0 < y0 < y1 < 1.0
            assert (x1 - x0) * (y1 - y0) >= VISIBLE_AREA
            for other in scene.objects[:number]:
                distance = np.hypot(*(np.array(item.coordinates[:2]) - other.coordinates[:2]))
                assert distance > item.solid.footprint + other.solid.footprint


def test_relations_agree_with_coordinates_and_are_antisymmetric() -> None:
    related = 0
    axes = {"left": (0, -1), "right": (0, 1), "front": (1, -1), "behind": (1, 1)}
    opposite = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
    for scene in SCENES:
        for relation in RELATIONS:
            axis, sign = axes[relation]
            for i, others in enumerate(scene.relationships[relation]):
                for j in others:
                    related += 1
                    shift = scene.objects[j].coordinates[axis] - scene.objects[i].coordinates[axis]
                    assert sign * shift > RELATION_MARGIN
                    assert i in scene.relationships[opposite[relation]][j]
                    assert i not in scene.relationships[relation][j]
            if relation in ("left", "right"):  # also as the viewer sees it
                for i, others in enumerate(scene.relationships[relation]):
                    for j in others:
                        seen = scene.objects[j].pixel_coordinates[0] - scene.objects[i].pixel_coordinates[0]
                        assert sign * seen > 0.0
    assert related > 1000


def test_json_round_trip_under_the_names_of_clevr() -> None:
    scene = SCENES[0]
    values = json.loads(scene.to_json())
    assert {"split", "image_index", "objects", "relationships", "directions"} <= set(values)
    names = {"shape", "color", "material", "size", "3d_coords", "pixel_coords", "rotation", "box"}
    assert names <= set(values["objects"][0])
    assert values["relationships"]["left"] == [list(row) for row in scene.relationships["left"]]
    values["questions"] = ["a later version may add keys"]
    assert Scene.from_json(json.dumps(values)) == scene


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(schema_version=99), "schema version 99"),
        (lambda values: values["objects"][0].update(color="pink"), "Unknown color 'pink'"),
        (lambda values: values.pop("objects"), "not a scene"),
    ],
)
def test_bad_json_is_named(change, message: str) -> None:
    values = SCENES[0].to_dict()
    change(values)
    with pytest.raises(DataError, match=message):
        Scene.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "train, validation, test"),
        ({"seed": -1}, "-1"),
        ({"index": -2}, "-2"),
        ({"minimum_objects": 0}, "minimum_objects=0"),
        ({"minimum_objects": 6, "maximum_objects": 5}, "minimum_objects=6"),
        ({"maximum_objects": 13}, "maximum_objects=13"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    arguments = {"seed": 0, "split": "train", "index": 0, **settings}
    with pytest.raises(ConfigurationError, match=message):
        make_scene(**arguments)

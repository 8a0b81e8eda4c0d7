import numpy as np
import pytest

from vl_alignment.data.blocks import COLORS, MATERIALS, SHAPES, SIZES, cell_attributes, make_scene, render_scene
from vl_alignment.data.blocks.grid_labels import cell_objects
from vl_alignment.models.errors import ConfigurationError


def test_the_object_that_covers_most_of_a_cell_wins_if_it_covers_enough() -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[0:2, 0:4] = 1  # 8 of 16 pixels of the first cell
    mask[2, 0:4] = 2  # 4 of them
    mask[0, 4:6] = 2  # 2 of 16: too little
    mask[4:8, 4:8] = 3
    assert cell_objects(mask, 2).tolist() == [[1, 0], [0, 3]]
    assert cell_objects(mask, 2, minimum_share=0.1).tolist() == [[1, 2], [0, 3]]
    assert cell_objects(np.zeros((8, 8), dtype=np.uint8), 3).tolist() == [[0] * 3] * 3


def test_labels_are_those_of_the_objects() -> None:
    scene = make_scene(0, "train", 4)
    _, mask = render_scene(scene, 96)
    numbers = cell_objects(mask, 7)
    labels = cell_attributes(scene, mask, 7)
    assert set(labels) == {"shape", "color", "material", "size"}
    assert len(set(numbers.ravel().tolist()) - {0}) >= len(scene.objects) - 2
    for row, column in np.ndindex(7, 7):
        item = scene.objects[numbers[row, column] - 1] if numbers[row, column] else None
        for name, choices in (("shape", SHAPES), ("color", COLORS), ("material", MATERIALS), ("size", SIZES)):
            expected = 0 if item is None else choices.index(getattr(item, name)) + 1
            assert labels[name][row, column] == expected


def test_a_grid_or_mask_that_does_not_fit_is_refused() -> None:
    scene = make_scene(0, "train", 4)
    with pytest.raises(ConfigurationError, match="9 x 9"):
        cell_objects(np.zeros((8, 8), dtype=np.uint8), 9)
    with pytest.raises(ConfigurationError, match="shows object 200"):
        cell_attributes(scene, np.full((8, 8), 200, dtype=np.uint8), 2)

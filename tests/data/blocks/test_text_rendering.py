import numpy as np
import pytest

from vl_alignment.data.blocks.rendering import render_scene
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.text_rendering import render_text_scene
from vl_alignment.data.blocks.text_scene import TextScene, make_text_scene
from vl_alignment.models.errors import ConfigurationError

SCENE = make_text_scene(make_scene(0, "train", 2, minimum_objects=3, maximum_objects=6))


@pytest.mark.parametrize("image_size", [192, 256])
def test_words_are_dark_or_light_where_their_boxes_are(image_size: int) -> None:
    picture, mask = render_text_scene(SCENE, image_size)
    assert picture.shape == (image_size, image_size, 3) and mask.shape == (image_size, image_size)
    assert picture.dtype == mask.dtype == np.uint8
    for label in SCENE.labels:
        for word in label.words:
            x0, y0, x1, y1 = (round(value * image_size) for value in word.box)
            shades = picture[y0:y1, x0:x1].mean(axis=2)
            assert shades.min() < 80 and shades.max() > 200
            assert 0.1 < (shades < 128).mean() < 0.9


def test_nothing_but_labels_is_added_to_the_blocks() -> None:
    picture, mask = render_text_scene(SCENE, 256)
    bare, _ = render_text_scene(TextScene(SCENE.scene, ()), 256)
    changed = (picture != bare).any(axis=2)
    allowed = np.zeros_like(changed)
    for label in SCENE.labels:
        x0, y0, x1, y1 = (int(value * 256) for value in label.box)
        allowed[y0 - 1 : y1 + 8, x0 - 1 : x1 + 8] = True
        if label.foot is not None:
            allowed[y1 : int(label.foot.row * 256) + 3, x0 : x1 + 16] = True
    assert changed.any() and not (changed & ~allowed).any()
    small, small_mask = render_scene(SCENE.scene, 128)
    np.testing.assert_array_equal(mask[::2, ::2], small_mask)
    assert np.abs(bare[::2, ::2].astype(int) - small).mean() < 3


@pytest.mark.parametrize("image_size", [190, 514, 257])
def test_sizes_out_of_range_are_refused(image_size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"image_size={image_size}"):
        render_text_scene(SCENE, image_size)

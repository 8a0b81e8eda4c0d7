import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vl_alignment.data.blocks import geometry
from vl_alignment.data.blocks.captions import make_captions
from vl_alignment.data.blocks.geometry import SHAPES, Solid
from vl_alignment.data.blocks.rendering import render_scene
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.models.errors import ConfigurationError

# Change CONTENT_VERSION in builder.py whenever this has to change.
PINNED = "f836f5f9865c2c21"


def content_digest() -> str:
    digest = hashlib.sha256()
    for index in (4, 5):
        scene = make_scene(7, "test", index)
        picture, mask = render_scene(scene, 48)
        texts = "\n".join(caption.text for caption in make_captions(scene))
        for part in (scene.to_json().encode(), picture.tobytes(), mask.tobytes(), texts.encode()):
            digest.update(part)
    return digest.hexdigest()[:16]


def test_content_is_pinned_and_the_same_in_another_process() -> None:
    assert content_digest() == PINNED
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_rendering as t; print(t.content_digest())"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == PINNED


@pytest.mark.parametrize("image_size", [32, 96, 101, 256])
def test_boxes_agree_with_masks(image_size: int) -> None:
    for index in range(4):
        scene = make_scene(0, "train", index)
        picture, mask = render_scene(scene, image_size)
        assert picture.shape == (image_size, image_size, 3) and picture.dtype == np.uint8
        assert mask.shape == (image_size, image_size) and mask.dtype == np.uint8
        assert set(np.unique(mask)) == set(range(len(scene.objects) + 1))
        for number, item in enumerate(scene.objects, start=1):
            rows, columns = np.nonzero(mask == number)
            seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            # Boxes are of the subsamples: a pixel that an object covers by less than half is not in the mask.
            np.testing.assert_allclose(seen, np.array(item.box) * image_size, atol=2.0)


def test_objects_show_their_color() -> None:
    hue = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for index in range(12):
        scene = make_scene(1, "train", index)
        picture, mask = render_scene(scene, 64)
        for number, item in enumerate(scene.objects, start=1):
            if item.color in hue:
                mean = picture[mask == number].astype(float).mean(axis=0)
                assert mean.argmax() == hue[item.color]
                checked += 1
    assert checked > 10


def test_shadows_fall_behind_on_the_right() -> None:
    scene = make_scene(0, "train", 7)
    picture, mask = render_scene(scene, 96)
    item = next(item for item in scene.objects if item.shape == "sphere")
    ground = np.where(mask[..., None] == 0, picture.astype(float), np.nan)
    x, y, _ = geometry.project((item.coordinates[0] + 0.75, item.coordinates[1] + 0.3, 0.0))
    other_x, other_y, _ = geometry.project((item.coordinates[0] - 0.75, item.coordinates[1] - 0.3, 0.0))
    shadowed = ground[int(y * 96), int(x * 96)].mean()
    lit = ground[int(other_y * 96), int(other_x * 96)].mean()
    assert shadowed < 0.9 * lit


@pytest.mark.parametrize("shape", SHAPES)
def test_ray_casting_meets_the_surface(shape: str) -> None:
    solid = Solid(shape, x=0.4, y=-0.7, radius=0.8, rotation=25.0)
    window, depth = geometry.cast_solid(solid, 128)
    ray_x, ray_y, ray_z = geometry.camera_rays(128)
    hit = np.isfinite(depth)
    assert hit.sum() > 300
    rows, columns = np.nonzero(hit)
    rows, columns = rows + window.top, columns + window.left
    t = depth[hit]
    x = geometry.EYE[0] + t * ray_x[0, columns] - solid.x
    y = geometry.EYE[1] + t * ray_y[rows, 0] - solid.y
    z = geometry.EYE[2] + t * ray_z[rows, 0]
    cosine, sine = solid.axis
    level = {
        "sphere": lambda: np.sqrt(x**2 + y**2 + (z - 0.8) ** 2) / 0.8,
        "cylinder": lambda: np.maximum(np.hypot(x, y) / 0.8, z / solid.height),
        "cone": lambda: np.hypot(x, y) / 0.8 + z / solid.height,
        "cube": lambda: np.maximum.reduce(
            [abs(cosine * x + sine * y) / 0.8, abs(cosine * y - sine * x) / 0.8, z / solid.height]
        ),
    }[shape]()
    np.testing.assert_allclose(level, 1.0, atol=1e-6)
    normal = np.stack(geometry.surface_normals(solid, x, y, z))
    np.testing.assert_allclose(np.sqrt((normal**2).sum(0)), 1.0, atol=1e-6)
    view = np.stack([ray_x[0, columns], ray_y[rows, 0], ray_z[rows, 0]])
    assert np.mean((normal * view).sum(0) < 0.0) > 0.96  # all but softened edges face the viewer


def test_nearer_objects_hide_farther_ones() -> None:
    near, far = Solid("sphere", 0.0, -1.0, 0.7), Solid("sphere", 0.0, 0.7, 0.7)
    for order in ([near, far], [far, near]):
        index, alone = geometry.cast_index(order, 96)
        shown = [int((index == number).sum()) for number in (1, 2)]
        place = order.index(near)
        assert shown[place] == alone[place]
        assert shown[1 - place] < alone[1 - place]


@pytest.mark.parametrize("image_size", [31, 257])
def test_sizes_out_of_range_are_refused(image_size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"image_size={image_size}"):
        render_scene(make_scene(0, "train", 0), image_size)

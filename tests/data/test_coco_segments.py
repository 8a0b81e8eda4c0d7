import json

import numpy as np
import pytest

from vl_alignment.data.coco_segments import CocoSegments, category_nouns
from vl_alignment.models.errors import DataError

CONTENT = {
    "images": [{"id": 7, "height": 10, "width": 20}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
        # Column by column: the last two columns of twenty are of the crowd.
        {"image_id": 7, "category_id": 2, "segmentation": {"counts": [180, 20], "size": [10, 20]}},
    ],
}


def test_outlines_lie_on_the_picture_whatever_its_shape(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(CONTENT))
    segments = CocoSegments(path)
    assert segments.categories("7") == ["dog", "person"] and segments.categories("8") == []
    dog, crowd = (segments.mask("7", name, 40) for name in ("dog", "person"))
    assert dog[:, :20].all() and not dog[:, 21:].any()
    assert np.array_equal(np.flatnonzero(crowd.all(axis=0)), [36, 37, 38, 39]) and crowd.sum() == 160
    assert not segments.mask("7", "cat", 8).any()


def test_what_is_no_outline_is_refused(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(DataError, match="categories"):
        CocoSegments(path)
    annotation = {"image_id": 7, "category_id": 1, "segmentation": {"counts": "a0b", "size": [10, 20]}}
    path.write_text(json.dumps({**CONTENT, "annotations": [annotation]}))
    with pytest.raises(DataError, match="compressed"):
        CocoSegments(path).mask("7", "dog", 8)


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("Two men eat a hot dog near a dog.", ["person", "hot dog", "dog"]),
        ("A teddy bear on the couches", ["teddy bear", "couch"]),
        ("Doughnuts, knives and buses", ["donut", "knife", "bus"]),
        ("Planting a carpet", []),
    ],
)
def test_nouns_of_captions(caption, nouns):
    assert [category for _, _, category in category_nouns(caption)] == nouns
    assert all(caption[start:end].strip() for start, end, _ in category_nouns(caption))


@pytest.mark.real_data
def test_published_outlines_agree_with_their_boxes(data_root):
    path = data_root / "coco" / "annotations" / "instances_train2017.json"
    segments, content = CocoSegments(path), json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    side = 64
    for annotation in content["annotations"][:60]:
        image = str(annotation["image_id"])
        height, width = segments.sizes[image]
        x, y, w, h = np.asarray(annotation["bbox"]) / (width, height, width, height) * side
        if min(w, h) > 4:
            middle = segments.mask(image, names[annotation["category_id"]], side)[
                int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))
            ]
            expected = annotation["area"] / (height * width) * side * side
            assert middle.sum() >= 0.8 * expected - 4


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0, 0, 10]],
        ["dog"],
        [[0, 0, 1e300, 0, 10, 10]],
        [[0, 0, None, 0]],
        {"counts": [10**12], "size": [10**6, 10**6 - 1]},
        {"counts": [-1, 201], "size": [10, 20]},
        {"counts": [["a"]], "size": [10, 20]},
        7,
    ],
)
def test_outlines_that_cannot_be_drawn_are_named(tmp_path, segmentation):
    path = tmp_path / "instances.json"
    annotation = {"image_id": 7, "category_id": 1, "segmentation": segmentation}
    path.write_text(json.dumps({**CONTENT, "annotations": [annotation]}))
    with pytest.raises(DataError, match="instances.json, record 7: an outline cannot be drawn"):
        CocoSegments(path).mask("7", "dog", 8)


def test_a_crowd_of_any_size_takes_no_memory(tmp_path):
    path, side = tmp_path / "instances.json", 2**20
    runs = {"counts": [side * side // 2, side * side // 2], "size": [side, side]}
    annotation = {"image_id": 7, "category_id": 1, "segmentation": runs}
    path.write_text(json.dumps({**CONTENT, "annotations": [annotation]}))
    mask = CocoSegments(path).mask("7", "dog", 4)
    assert not mask[:, :2].any() and mask[:, 2:].all()

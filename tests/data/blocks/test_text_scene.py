import hashlib
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from vl_alignment.data.blocks.printed_words import word_split
from vl_alignment.data.blocks.scene import SPLITS, Scene, make_scene
from vl_alignment.data.blocks.text_scene import TextScene, make_text_scene
from vl_alignment.models.errors import DataError


def scene_of(split: str, index: int) -> TextScene:
    return make_text_scene(make_scene(0, split, index, minimum_objects=3, maximum_objects=6))


SCENES = [scene_of(split, index) for split in SPLITS for index in range(100)]


def shared(one, other) -> float:
    return max(min(one[2], other[2]) - max(one[0], other[0]), 0) * max(min(one[3], other[3]) - max(one[1], other[1]), 0)


def test_a_scene_shows_words_of_its_split_only() -> None:
    for scene in SCENES:
        for label in scene.labels:
            assert {word_split(word.text) for word in label.words} == {scene.scene.split}


def test_words_are_wholly_visible() -> None:
    for scene in SCENES:
        for label in scene.labels:
            assert 0.0 < min(label.box) and max(label.box) < 1.0
            for word in label.words:
                inside = label.box[0] < word.box[0] < word.box[2] < label.box[2]
                assert inside and label.box[1] < word.box[1] < word.box[3] < label.box[3]
                assert word.box[3] - word.box[1] > 0.03
        for one, other in combinations(scene.labels, 2):
            assert shared(one.box, other.box) == 0.0


def test_labels_leave_the_objects_to_be_seen() -> None:
    for scene in SCENES:
        boxes = [item.box for item in scene.scene.objects]
        for label in scene.labels:
            for number, box in enumerate(boxes):
                most = 0.0 if label.bearer is None else 0.6 if label.bearer == number else 0.2
                assert shared(label.box, box) <= (most + 0.01) * (box[2] - box[0]) * (box[3] - box[1])


def test_scenes_have_enough_words_and_each_thing_one_label() -> None:
    for scene in SCENES:
        assert len({label.text.lower() for label in scene.labels}) >= 2
        assert len(scene.borne) == len(scene.labels)
        for number, label in scene.borne.items():
            assert (number if label.bearer is not None else None) == label.bearer
    counts = [len(scene.labels) for scene in SCENES]
    assert 3.0 < sum(counts) / len(counts) < 5.0
    assert 0.25 < sum(label.foot is not None for scene in SCENES for label in scene.labels) / len(SCENES) < 0.6
    assert 0.1 < sum(len(label.words) == 2 for scene in SCENES for label in scene.labels) / sum(counts) < 0.3


def test_a_label_may_come_twice_but_no_more() -> None:
    repeated = 0
    for scene in SCENES:
        texts = [tuple(word.text for word in label.words) for label in scene.labels]
        words = [word for text in set(texts) for word in text]
        repeated += len(set(texts)) < len(texts)
        assert len(texts) - len(set(texts)) <= 1 and len(words) - len(set(words)) <= 1
    assert 10 < repeated < 60


def test_labels_are_in_reading_order() -> None:
    for scene in SCENES:
        assert [label.box[1] for label in scene.labels] == sorted(label.box[1] for label in scene.labels)
        for label in scene.labels:
            for one, other in zip(label.words, label.words[1:], strict=False):
                assert one.box[3] < other.box[1] or one.box[2] < other.box[0]


def test_the_sign_stands_somewhere_too() -> None:
    scene = next(scene for scene in SCENES if any(label.foot for label in scene.labels))
    sign = len(scene.scene.objects)
    assert len(scene.standing.objects) == sign + 1
    place = scene.standing.objects[sign]
    foot = scene.borne[sign].foot
    assert foot is not None and place.coordinates[:2] == (foot.x, foot.y) and place.pixel_coordinates[1] == foot.row
    x0, _, x1, _ = scene.borne[sign].box
    assert x0 < place.pixel_coordinates[0] < x1


def test_json_comes_back_and_is_that_of_a_scene() -> None:
    for scene in SCENES[:20]:
        assert TextScene.from_json(scene.to_json()) == scene
        assert Scene.from_json(scene.to_json()) == scene.scene
    with pytest.raises(DataError, match="labels of scene blocks-train-000000 are missing"):
        TextScene.from_json(SCENES[0].scene.to_json())
    values = json.loads(SCENES[0].to_json())
    values["labels"][0]["box"] = [0.1]
    with pytest.raises(DataError, match="a box has four numbers"):
        TextScene.from_json(json.dumps(values))


def content_digest() -> str:
    text = "\n".join(scene_of(split, index).to_json() for split in SPLITS for index in range(5))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.slow
def test_scenes_are_the_same_in_another_process() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_text_scene as t; print(t.content_digest())"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == content_digest()

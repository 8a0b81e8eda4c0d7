import io
import json

import numpy as np
import pytest
from PIL import Image

from vl_alignment.analysis.grounding_truth import (
    MASK_SIDE,
    caption_places,
    coco_places,
    object_masks,
    question_places,
    read_place,
)
from vl_alignment.data.blocks.builder import picture_record
from vl_alignment.data.blocks.captions import make_captions
from vl_alignment.data.blocks.rendering import render_scene
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.text_questions import make_text_questions
from vl_alignment.data.blocks.text_rendering import render_text_scene
from vl_alignment.data.blocks.text_scene import make_text_scene
from vl_alignment.data.coco_segments import CocoSegments

SCENES = [make_scene(0, "test", index, maximum_objects=6) for index in range(3)]


def record_of(drawn, written):
    record = picture_record("picture", *drawn, scene=written)
    return {**record, "masks": Image.open(io.BytesIO(record["masks"]["bytes"]))}


@pytest.fixture(scope="module")
def records():
    return [record_of(render_scene(scene, 96), scene.to_json()) for scene in SCENES]


def inside(box, size=MASK_SIDE):
    x0, y0, x1, y1 = (round(edge * size) for edge in box)
    return slice(max(0, y0 - 1), y1 + 1), slice(max(0, x0 - 1), x1 + 1)


def test_masks_lie_in_the_boxes_of_their_objects(records):
    for scene, record in zip(SCENES, records, strict=True):
        masks = object_masks(record, len(scene.objects))
        assert masks.any(axis=(1, 2)).all() and masks.sum(axis=0).max() == 1
        for mask, item in zip(masks, scene.objects, strict=True):
            assert mask[inside(item.box)].sum() == mask.sum()


def test_phrases_of_captions_name_what_the_captions_mean(records):
    found = 0
    for scene, record in zip(SCENES, records, strict=True):
        masks = object_masks(record, len(scene.objects))
        for caption in make_captions(scene):
            meant = [masks[list(mention.objects)].any(axis=0) for mention in caption.mentions]
            for place in caption_places(caption.text, record):
                assert any(np.array_equal(place.mask, mask) for mask in meant), caption.text
                found += 1
    assert found >= 15  # most phrases fit one object alone


def test_a_phrase_that_fits_other_objects_too_is_left_out(records):
    scene, record = SCENES[0], records[0]
    item = scene.objects[0]
    alike = [other for other in scene.objects if other.material == item.material]
    assert len(alike) > 1
    assert caption_places(f"there is a {item.material} object", record) == []
    whole = f"a {item.size} {item.color} {item.material} {item.shape}"
    (place,) = caption_places(f"there is {whole}.", record)
    assert np.array_equal(place.mask, object_masks(record, len(scene.objects))[0])
    assert f"there is {whole}."[place.start : place.end] == whole.removeprefix("a ")


def test_stages_of_programs_are_their_objects(records):
    scene, record = SCENES[0], records[0]
    item = scene.objects[0]
    nodes = [
        {"function": "scene", "inputs": []},
        {"function": "filter_color", "inputs": [0], "value_inputs": [item.color]},
        {"function": "count", "inputs": [1]},
    ]
    (mask,) = question_places(json.dumps(nodes), record)
    colors = [number for number, other in enumerate(scene.objects) if other.color == item.color]
    assert np.array_equal(mask, object_masks(record, len(scene.objects))[colors].any(axis=0))
    assert question_places("", record) == []


def test_what_is_read_is_where_it_is_printed():
    read = 0
    for scene in SCENES[:2]:
        text_scene = make_text_scene(scene)
        record = record_of(render_text_scene(text_scene, 256), text_scene.to_json())
        for question in make_text_questions(text_scene, 6):
            asked = {"question": question.question, "answers": [question.answer] * 10}
            place = read_place({**asked, "question_type": question.question_type}, record)
            if not question.question_type.startswith("read_") or place is None:
                continue
            (label,) = [label for label in text_scene.labels if label.text.lower() == question.answer]
            words = np.zeros_like(place.words)
            for word in label.words:
                words[inside(word.box)] = True
            assert place.words.any() and words[place.words].all()
            assert (place.bearer & place.words).sum() > 0.8 * place.words.sum()
            read += 1
    assert read >= 3


def test_questions_about_several_things_have_no_place(records):
    text_scene = make_text_scene(SCENES[0])
    question = {"question": "how many labels are there?", "answers": ["2"], "question_type": "count_labels"}
    assert read_place(question, {"scene": text_scene.to_json(), "masks": records[0]["masks"]}) is None


def test_nouns_of_photographs_are_all_outlines_of_their_category(tmp_path):
    square = [[0, 0, 5, 0, 5, 10, 0, 10]]
    content = {
        "images": [{"id": 7, "height": 10, "width": 10}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 1, "segmentation": square}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    caption = "A cat looks at two puppies."
    (place,) = coco_places(caption, "7", CocoSegments(tmp_path / "instances.json"))
    assert caption[place.start : place.end] == "puppies" and place.mask.mean() == pytest.approx(0.5, abs=0.02)

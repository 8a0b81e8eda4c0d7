import json

import pytest

from vl_alignment.data.blocks.programs import execute_program, question_type
from vl_alignment.data.question_answering import QUESTION_FEATURES, load_question_dataset, question_dataset_names
from vl_alignment.models.errors import ConfigurationError, DataError

SIZES = {"train": 4, "validation": 2, "test": 2}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return load_question_dataset("blocks", cache_dir=cache, sizes=SIZES, questions_per_image=5, seed=3, image_size=32)


def test_blocks_needs_no_folder(blocks):
    assert {split: len(table) for split, table in blocks.images.items()} == SIZES
    assert blocks.images["train"].column_names == ["image_id", "image", "scene", "masks"]
    assert blocks.questions["train"].features == QUESTION_FEATURES
    assert blocks.images["test"][0]["image"].size == (32, 32)


def test_questions_are_about_the_scene_of_their_image(blocks):
    for split, images in blocks.images.items():
        scenes = dict(zip(images["image_id"], images["scene"], strict=True))
        questions = blocks.questions[split]
        assert questions["image_id"][:] == [image_id for image_id in scenes for _ in range(5)]
        for record in questions:
            program = json.loads(record["program"])
            assert execute_program(program, json.loads(scenes[record["image_id"]])) == record["answer"]
            assert question_type(program) == record["question_type"]


def test_records_have_the_picture(blocks):
    record = blocks.records("validation")[5]
    assert record["image_id"] == blocks.images["validation"][1]["image_id"]
    assert record["image"].tobytes() == blocks.images["validation"][1]["image"].tobytes()


def test_wrong_names(tmp_path, monkeypatch):
    monkeypatch.delenv("VL_ALIGNMENT_DATA", raising=False)
    assert question_dataset_names() == ["blocks", "clevr"]
    with pytest.raises(ConfigurationError, match="unknown data set 'vqa'; the known ones are blocks, clevr"):
        load_question_dataset("vqa")
    with pytest.raises(DataError, match="where is clevr.*--data-dir"):
        load_question_dataset("clevr")
    with pytest.raises(DataError, match="nowhere: the folder of clevr does not exist"):
        load_question_dataset("clevr", tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no split 'dev'; the data set has train, validation, test"):
        load_question_dataset("blocks", sizes={"dev": 1}, cache_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="data set 'blocks': .*'colour'"):
        load_question_dataset("blocks", sizes=SIZES, cache_dir=tmp_path, colour=1)
    with pytest.raises(ConfigurationError, match="questions_per_image=0"):
        load_question_dataset("blocks", sizes=SIZES, cache_dir=tmp_path, questions_per_image=0)
    assert not list(tmp_path.rglob("*.arrow"))  # nothing was made before the error

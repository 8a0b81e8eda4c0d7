import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from vl_alignment.data.blocks import load_blocks, make_questions, make_scene
from vl_alignment.data.blocks.programs import execute_program
from vl_alignment.data.blocks.question_builder import BlocksQuestionsBuilder, load_blocks_questions
from vl_alignment.data.question_records import QUESTION_FEATURES
from vl_alignment.models.errors import ConfigurationError

SMALL = {"train": 5, "validation": 3, "test": 2, "questions_per_image": 4}

# Change QUESTION_VERSION in question_builder.py whenever this has to change.
PINNED = "1d75c0f3d05007fc"


def content_digest() -> str:
    digest = hashlib.sha256()
    for split in ("train", "validation", "test"):
        for index in range(20):
            for question in make_questions(make_scene(0, split, index)):
                digest.update(json.dumps([question.question, question.answer, question.program]).encode())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("questions-cache"))


@pytest.fixture(scope="module")
def questions(cache_dir: str) -> datasets.DatasetDict:
    return load_blocks_questions(**SMALL, cache_dir=cache_dir)


@pytest.mark.slow
def test_questions_are_pinned_and_the_same_in_another_process() -> None:
    assert content_digest() == PINNED
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_question_builder as t; print(t.content_digest())"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == PINNED


def test_splits_and_columns(questions: datasets.DatasetDict) -> None:
    assert {split: len(records) for split, records in questions.items()} == {"train": 20, "validation": 12, "test": 8}
    assert questions["train"].features == QUESTION_FEATURES
    assert questions["test"]["question_id"][:5] == [
        *(f"blocks-test-000000#{number}" for number in range(4)),
        "blocks-test-000001#0",
    ]


def test_records_are_the_questions_about_the_images(questions: datasets.DatasetDict, cache_dir: str) -> None:
    images = load_blocks(train=5, validation=3, test=2, image_size=32, cache_dir=cache_dir)
    for split, records in questions.items():
        scenes = {image["image_id"]: json.loads(image["scene"]) for image in images[split].remove_columns("image")}
        assert list(dict.fromkeys(records["image_id"])) == list(scenes)
        for record in records:
            assert execute_program(json.loads(record["program"]), scenes[record["image_id"]]) == record["answer"]
    first = make_questions(make_scene(0, "validation", 1), 4)
    assert questions["validation"]["question"][4:8] == [question.question for question in first]
    assert questions["validation"]["program_depth"][4:8] == [question.depth for question in first]


def test_no_picture_is_drawn_and_a_second_load_makes_nothing(cache_dir: str, questions, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("made")

    monkeypatch.setattr("vl_alignment.data.blocks.builder.render_scene", refuse)
    load_blocks_questions(train=1, validation=0, test=0, cache_dir=cache_dir)
    monkeypatch.setattr(BlocksQuestionsBuilder, "_generate_examples", refuse)
    assert load_blocks_questions(**SMALL, cache_dir=cache_dir)["test"][:] == questions["test"][:]


def test_the_cache_key_depends_on_every_setting_and_on_both_versions(cache_dir: str, monkeypatch) -> None:
    settings = {
        "train": 7,
        "validation": 4,
        "test": 3,
        "seed": 1,
        "questions_per_image": 5,
        "maximum_hops": 2,
        "minimum_objects": 4,
        "maximum_objects": 9,
    }
    variants = [SMALL] + [{**SMALL, name: value} for name, value in settings.items()]
    folders = {BlocksQuestionsBuilder(**variant, cache_dir=cache_dir).cache_dir for variant in variants}
    assert len(folders) == len(variants)
    assert BlocksQuestionsBuilder(**SMALL, maximum_hops=3, cache_dir=cache_dir).cache_dir in folders
    monkeypatch.setattr("vl_alignment.data.blocks.builder.CONTENT_VERSION", "99.0.0")
    assert BlocksQuestionsBuilder(**SMALL, cache_dir=cache_dir).cache_dir not in folders
    monkeypatch.undo()
    monkeypatch.setattr(BlocksQuestionsBuilder, "VERSION", datasets.Version("99.0.0"))
    assert BlocksQuestionsBuilder(**SMALL, cache_dir=cache_dir).cache_dir not in folders


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 0, "validation": 0, "test": 0}, "at least one scene"),
        ({"questions_per_image": 0}, "ask at least one"),
        ({"maximum_hops": 5}, "0 to 3 hops"),
        ({"minimum_objects": 1}, "minimum_objects=1"),
    ],
)
def test_settings_that_cannot_be_made_are_refused(settings: dict, message: str, cache_dir: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_blocks_questions(**{**SMALL, **settings}, cache_dir=cache_dir)

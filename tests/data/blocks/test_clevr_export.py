import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from vl_alignment.data.blocks import (
    execute_program,
    export_clevr,
    load_blocks,
    load_blocks_questions,
    make_questions,
    make_scene,
)
from vl_alignment.data.blocks.__main__ import main
from vl_alignment.data.question_answering import load_question_dataset
from vl_alignment.models.errors import DataError

SIZES = {"train": 4, "validation": 2, "test": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def images(cache: Path) -> datasets.DatasetDict:
    return load_blocks(**SIZES, image_size=40, cache_dir=cache)


@pytest.fixture(scope="module")
def questions(cache: Path) -> datasets.DatasetDict:
    return load_blocks_questions(**SIZES, questions_per_image=6, cache_dir=cache)


@pytest.fixture(scope="module")
def folder(images, questions, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clevr")
    export_clevr(images, questions, path)
    return path


def test_the_files_have_clevrs_layout(folder: Path, images, questions) -> None:
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*_val_*")) == [
        "images/val/CLEVR_val_000000.png",
        "images/val/CLEVR_val_000001.png",
        "questions/CLEVR_val_questions.json",
        "scenes/CLEVR_val_scenes.json",
    ]
    content = json.loads((folder / "questions" / "CLEVR_val_questions.json").read_text())
    assert content["info"]["split"] == "val" and len(content["questions"]) == 12
    question = content["questions"][7]
    expected = make_questions(make_scene(0, "validation", 1), 6)[1]
    assert question == {
        "split": "val",
        "question_index": 7,
        "image_index": 1,
        "image": "CLEVR_val_000001",
        "image_filename": "CLEVR_val_000001.png",
        "question": expected.question,
        "answer": expected.answer,
        "program": [dict(node) for node in expected.program],
        "question_family_index": expected.family_index,
    }
    assert set(question["program"][0]) == {"function", "inputs", "value_inputs"}
    scenes = json.loads((folder / "scenes" / "CLEVR_val_scenes.json").read_text())["scenes"]
    assert [(scene["image_index"], scene["image_filename"], scene["split"]) for scene in scenes] == [
        (0, "CLEVR_val_000000.png", "val"),
        (1, "CLEVR_val_000001.png", "val"),
    ]
    made = make_scene(0, "validation", 1).to_dict()
    assert scenes[1]["relationships"] == made["relationships"] and scenes[1]["directions"] == made["directions"]
    for written, item in zip(scenes[1]["objects"], made["objects"], strict=True):
        assert written["3d_coords"] == item["3d_coords"] and written["color"] == item["color"]
        assert written["pixel_coords"][:2] == [round(40 * fraction) for fraction in item["pixel_coords"][:2]]
    picture = Image.open(folder / "images" / "val" / "CLEVR_val_000001.png")
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(images["validation"][1]["image"]))


def test_the_reader_of_clevr_reads_it(folder: Path, questions, cache: Path) -> None:
    with pytest.warns(UserWarning, match="not all of CLEVR"):
        data = load_question_dataset("clevr", folder, scenes=True, cache_dir=cache)
    for split, expected in questions.items():
        table = data.questions[split]
        for column in ("question", "answer", "question_type", "program_depth", "question_family_index"):
            assert table[column][:] == expected[column][:]
        scenes = dict(zip(data.images[split]["image_id"], data.images[split]["scene"], strict=True))
        for record in table:
            program, scene = json.loads(record["program"]), json.loads(scenes[record["image_id"]])
            assert execute_program(program, scene) == record["answer"]


def test_what_does_not_belong_together_or_cannot_be_written_is_refused(images, questions, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'train' lacks scene; give what load_blocks"):
        export_clevr({"train": images["train"].remove_columns("scene")}, questions, tmp_path)
    with pytest.raises(DataError, match="'test' lacks questions"):
        export_clevr({"test": images["test"]}, {}, tmp_path)
    with pytest.raises(DataError, match="'dev' is not one of CLEVR's"):
        export_clevr({"dev": images["test"]}, {"dev": questions["test"]}, tmp_path)
    with pytest.raises(DataError, match="blocks-train-000001#0: The question is about blocks-train-000001"):
        export_clevr({"train": images["train"].select([0])}, questions, tmp_path / "part")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Cannot write"):
        export_clevr(images, questions, tmp_path / "file")


def test_one_command_exports(tmp_path: Path, capsys) -> None:
    sizes = ["--train", "2", "--validation", "1", "--test", "0", "--image-size", "32", "--cache-dir", str(tmp_path)]
    asking = ["--clevr", "--questions-per-image", "3", "--maximum-hops", "1"]
    assert main([str(tmp_path / "out"), *sizes, *asking]) == 0
    assert "9 questions" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "questions" / "CLEVR_train_questions.json").read_text())["questions"]
    assert len(written) == 6
    assert main([str(tmp_path / "out"), *sizes, "--clevr", "--maximum-hops", "9"]) == 2
    assert "maximum_hops=9" in capsys.readouterr().err

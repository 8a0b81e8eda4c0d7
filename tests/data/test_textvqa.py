import json
import logging
import os

import pytest
from PIL import Image

from vl_alignment.data.question_records import QuestionData
from vl_alignment.data.text_question_records import TEXT_FEATURES, TEXT_QUESTION_FEATURES, WHOLE_PICTURE
from vl_alignment.data.textvqa import load_stvqa, load_textvqa
from vl_alignment.models.errors import DataError


def question(number, image_id, text="What does it say?", answers=("stop",) * 10, **other):
    entry = {"question_id": number, "image_id": image_id, "question": text, "image_width": 20, "set_name": "train"}
    return {**entry, **({"answers": list(answers)} if answers else {}), **other}


def detail(word, left=0.25, top=0.5, width=0.25, height=0.25):
    box = {"top_left_x": left, "top_left_y": top, "width": width, "height": height, "rotation": 3.5, "yaw": 0}
    return {"word": word, "bounding_box": box}


def text(image_id, *details):
    return {"image_id": image_id, "ocr_tokens": [entry["word"] for entry in details], "ocr_info": list(details)}


def write(path, entries, name="data"):
    path.write_text(json.dumps({"dataset_name": "textvqa", name: entries}))


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (shade, shade, shade)).save(path)


@pytest.fixture
def textvqa(tmp_path):
    """A folder in TextVQA's layout: three training questions about two pictures, one of validation, one of test."""
    train = [question(7, "b"), question(8, "a", answers=["go", "Go "]), question(9, "b", "Where?")]
    write(tmp_path / "TextVQA_0.5.1_train.json", train)
    write(tmp_path / "TextVQA_0.5.1_val.json", [question(20, "c")])
    write(tmp_path / "TextVQA_0.5.1_test.json", [question(30, "d", answers=())])
    write(
        tmp_path / "TextVQA_Rosetta_OCR_v0.2_train.json",
        [
            text("unasked", detail("no")),
            text("a"),
            text("b", detail("Stop"), detail(" "), detail("sign", 0.75, -0.5, 0.5, 1.0)),
        ],
    )
    write(tmp_path / "TextVQA_Rosetta_OCR_v0.2_val.json", [text("c", detail("42"))])
    write(tmp_path / "TextVQA_Rosetta_OCR_v0.2_test.json", [text("d", detail("x"))])
    return tmp_path


def test_textvqa_records(textvqa, caplog):
    with caplog.at_level(logging.INFO, logger="vl_alignment.data.textvqa"):
        data = load_textvqa(textvqa)
    assert list(data.images) == ["train", "validation", "test"]
    assert data.questions["train"].features == TEXT_QUESTION_FEATURES
    assert data.questions["train"]["question_id"][:] == ["7", "9", "8"]  # by picture, in the order of the questions
    assert data.questions["train"][2] == {
        "question_id": "8",
        "image_id": "a",
        "question": "What does it say?",
        "answers": ["go", "Go "],
        "question_type": "",
        "hops": -1,
    }
    assert data.images["train"].column_names == ["image_id", *TEXT_FEATURES]
    assert data.images["train"][0] == {
        "image_id": "b",
        "ocr_tokens": ["Stop", "sign"],
        "ocr_boxes": [[0.25, 0.5, 0.5, 0.75], [0.75, 0.0, 1.0, 0.5]],
        "ocr_confidences": [1.0, 1.0],
    }
    assert data.images["train"][1]["ocr_tokens"] == []  # a picture without text
    assert "train: 1 empty OCR tokens left out, 1 boxes clipped" in caplog.text


def test_the_test_split_has_no_answers(textvqa):
    data = load_textvqa(textvqa, splits=["test"])
    assert list(data.questions) == ["test"]
    assert data.questions["test"][0]["answers"] == []


def test_textvqa_pictures_by_id(textvqa):
    for name, shade in (("a", 10), ("b", 20), ("c", 30)):
        picture(textvqa / "train_images" / f"{name}.jpg", shade)
    data = load_textvqa(textvqa)
    assert data.images["train"].column_names == ["image_id", "image", *TEXT_FEATURES]
    assert data.records("train")[2]["image"].getpixel((0, 0)) == (10, 10, 10)
    assert data.records("validation")[0]["image"].getpixel((0, 0)) == (30, 30, 30)
    assert "image" not in data.images["test"].column_names  # no folder of test pictures
    (textvqa / "train_images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"train.json, record a: the picture a.jpg is not in .*train_images; fetch it"):
        load_textvqa(textvqa)
    # A folder `images` may hold all of them.
    (textvqa / "train_images").rename(textvqa / "images")
    picture(textvqa / "images" / "a.jpg")
    picture(textvqa / "images" / "d.jpg")
    assert all("image" in table.column_names for table in load_textvqa(textvqa).images.values())


def test_questions_that_carry_their_tokens(tmp_path):
    entries = [
        {"image_id": "b", "question": "What?", "ocr_tokens": ["two", "", "words"]},
        {"image_id": "a", "question": "What?", "ocr_tokens": []},
        {"image_id": "b", "question": "Which?", "ocr_tokens": ["two", "", "words"]},
    ]
    write(tmp_path / "textvqa_val_questions_ocr.json", entries)
    with pytest.warns(UserWarning, match="The OCR tokens of 1 validation pictures have no boxes"):
        data = load_textvqa(tmp_path)
    assert data.questions["validation"]["question_id"][:] == ["validation-0", "validation-2", "validation-1"]
    assert data.images["validation"][0]["ocr_tokens"] == ["two", "words"]
    assert data.images["validation"][0]["ocr_boxes"] == [WHOLE_PICTURE] * 2


def test_splits_and_files_that_are_missing(textvqa, tmp_path):
    with pytest.raises(DataError, match="there is no split 'dev'; TextVQA has train, validation, test"):
        load_textvqa(textvqa, splits=["dev"])
    (textvqa / "TextVQA_0.5.1_val.json").unlink()
    assert list(load_textvqa(textvqa).images) == ["train", "test"]
    with pytest.raises(DataError, match="TextVQA_0.5.1_val.json: this file is missing"):
        load_textvqa(textvqa, splits=["validation"])
    (textvqa / "TextVQA_Rosetta_OCR_v0.2_test.json").unlink()
    with pytest.raises(DataError, match="OCR_v0.2_test.json: the file with the OCR tokens is missing"):
        load_textvqa(textvqa)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder has no TextVQA_0.5.1_train.json or "):
        load_textvqa(tmp_path / "empty")


@pytest.mark.parametrize("name", ["TextVQA_0.5.1_train.json", "TextVQA_Rosetta_OCR_v0.2_train.json"])
def test_a_file_cut_short(textvqa, name):
    os.truncate(textvqa / name, (textvqa / name).stat().st_size // 2)
    with pytest.raises(DataError, match=f"{name}: not complete, valid JSON"):
        load_textvqa(textvqa)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "the list of questions is empty"),
        (["What?"], "record 0: the entry is no question"),
        ([question(1, "a"), {"question": "What?"}], 'record 1: the question has no "image_id"'),
        ([question(1, "a", "")], 'record 1: the question has no "question"'),
        ([question(1, "a", " ? ")], "record 1: the question ' \\? ' has no words"),
        ([question(1, "a"), question(2, "a", answers=())], "record 2: the training question has no answers"),
        ([question(1, "a", answers=[1, 2])], 'record 1: "answers" is not a list of texts'),
        ([{**question(1, "a"), "answers": "stop"}], 'record 1: "answers" is not a list of texts'),
        ([question(1, "a"), question(1, "b")], "record 1: this question id occurs twice"),
    ],
)
def test_bad_questions_are_named(textvqa, entries, message):
    write(textvqa / "TextVQA_0.5.1_train.json", entries)
    with pytest.raises(DataError, match=f"TextVQA_0.5.1_train.json.*{message}"):
        load_textvqa(textvqa)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([text("b")], "record a: there are questions about this image, but no entry with its text"),
        ([{"ocr_tokens": []}], 'record 0: this entry has no "image_id"'),
        ([text("a"), {"image_id": "b"}], 'record b: there is no list "ocr_tokens"'),
        ([text("a"), {**text("b", detail("x")), "ocr_info": []}], "record b: 1 OCR tokens have 0 boxes"),
        ([text("a"), text("b", {"word": "x"})], 'record b: "ocr_info" is not in TextVQA\'s layout'),
        ([text("a"), text("b", detail("x", width=-1.0))], "record b: .*ends before it begins"),
    ],
)
def test_bad_text_is_named(textvqa, entries, message):
    write(textvqa / "TextVQA_Rosetta_OCR_v0.2_train.json", entries)
    with pytest.raises(DataError, match=f"TextVQA_Rosetta_OCR_v0.2_train.json, {message}"):
        load_textvqa(textvqa)


def stvqa_entry(number, file, answers=("stop", "Stop")):
    entry = {"question_id": number, "question": "What?", "file_path": file, "dataset": file.split("/")[0]}
    return {**entry, **({"answers": list(answers)} if answers else {})}


@pytest.mark.parametrize("place", ["", "images", "train_imgs"])
def test_stvqa_as_published(tmp_path, place):
    entries = [stvqa_entry(5, "coco-text/x.jpg"), stvqa_entry(6, "vizwiz/x.jpg"), stvqa_entry(7, "coco-text/x.jpg")]
    write(tmp_path / "train_task_3.json", entries)
    picture(tmp_path / place / "coco-text" / "x.jpg", 10)
    picture(tmp_path / place / "vizwiz" / "x.jpg", 20)
    data = load_stvqa(tmp_path)
    assert list(data.images) == ["train"]
    assert data.questions["train"]["question_id"][:] == ["5", "7", "6"]
    assert data.questions["train"][0]["answers"] == ["stop", "Stop"]
    assert data.images["train"].column_names == ["image_id", "image"]  # no OCR is published with it
    assert data.records("train")[2]["image"].getpixel((0, 0)) == (20, 20, 20)
    (tmp_path / place / "vizwiz" / "x.jpg").unlink()
    with pytest.raises(DataError, match="train_task_3.json, record vizwiz/x.jpg: the picture vizwiz/x.jpg is not in"):
        load_stvqa(tmp_path)


def test_stvqa_without_pictures_or_answers(tmp_path):
    write(tmp_path / "test_task_3.json", [stvqa_entry(5, "coco-text/x.jpg", answers=())])
    data = load_stvqa(tmp_path)
    assert data.images["test"].column_names == ["image_id"] and data.questions["test"][0]["answers"] == []
    write(tmp_path / "train_task_3.json", [stvqa_entry(5, "coco-text/x.jpg", answers=())])
    with pytest.raises(DataError, match="record 5: the training question has no answers"):
        load_stvqa(tmp_path)
    with pytest.raises(DataError, match="there is no split 'validation'; ST-VQA has train, test"):
        load_stvqa(tmp_path, splits=["validation"])


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore:The OCR tokens of 3082 validation pictures")
def test_real_questions_with_tokens(data_root):
    data = load_textvqa(data_root / "textvqa")
    assert isinstance(data, QuestionData)
    assert len(data.questions["validation"]) == 5000 and len(data.images["validation"]) == 3166  # as published
    assert data.questions["validation"][0]["question"] == "What is the brand of this camera?"
    assert data.images["validation"][0]["ocr_tokens"][:2] == ["DAKOTA", "DIGITAL"]
    lengths = [len(tokens) for tokens in data.images["validation"]["ocr_tokens"]]
    assert min(lengths) == 0 and max(lengths) > 50


@pytest.mark.real_data
def test_real_photographs(data_root):
    data = load_stvqa(data_root / "stvqa")
    assert len(data.questions["test"]) == 111 and len(data.images["test"]) == 110
    record = data.records("test")[0]
    assert record["question"] == "What type of business is this?" and record["image"].size == (300, 400)


@pytest.mark.parametrize("name", ["../outside", "/outside", "x" * 300])
def test_names_of_pictures_stay_within_the_folder(textvqa, name):
    (textvqa / "train_images").mkdir(exist_ok=True)
    picture(textvqa / "outside.jpg")
    write(textvqa / "TextVQA_0.5.1_train.json", [question(7, name)])
    with pytest.raises(DataError, match="TextVQA_0.5.1_train.json.*(leads out of the folder|too long)"):
        load_textvqa(textvqa, splits=["train"])

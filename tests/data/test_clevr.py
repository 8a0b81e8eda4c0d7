import json
import os

import pytest
from PIL import Image

from vl_alignment.data.clevr import OFFICIAL_SIZES, load_clevr, official_size_differences
from vl_alignment.data.features import extract_regions, open_regions
from vl_alignment.data.question_answering import QuestionData, load_question_dataset
from vl_alignment.models.errors import ConfigurationError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*is not all of CLEVR")


def node(function, inputs=(), *values):
    return {"function": function, "inputs": list(inputs), "value_inputs": list(values)}


COUNT = [node("scene"), node("filter_color", [0], "red"), node("count", [1])]
EXIST = [node("scene"), node("exist", [0])]
QUERY = [node("scene"), node("unique", [0]), node("query_size", [1])]
FEWER = [*COUNT, node("scene"), node("count", [3]), node("less_than", [2, 4])]
SAME = [*QUERY, node("scene"), node("unique", [3]), node("query_size", [4]), node("equal_size", [2, 5])]


def question(split, image, text="What?", answer="yes", program=EXIST, **other):
    entry = {"image_filename": f"CLEVR_{split}_{image:06d}.png", "image_index": image, "split": split, "question": text}
    known = {"answer": answer, "program": program, "question_family_index": 7}
    return {**entry, **(known if split != "test" else {}), **other}


class Folder:
    """A folder in CLEVR's layout: three images in train, two in val and one in test."""

    def __init__(self, root):
        self.root = root
        self.questions = {
            "train": [
                question("train", 0, "How many red things are there?", "2", COUNT),
                question("train", 0),
                question("train", 1, "Is it so?", "no", FEWER),
                question("train", 2, "What size is it?", "small", QUERY),
            ],
            "val": [question("val", 1, "Do they have the same size?", "yes", SAME)],
            "test": [question("test", 0, "Is anything there?")],
        }
        for split, number in (("train", 3), ("val", 2), ("test", 1)):
            (root / "images" / split).mkdir(parents=True)
            for image in range(number):
                name = f"CLEVR_{split}_{image:06d}.png"
                Image.new("RGB", (6, 4), (image, 0, 0)).save(root / "images" / split / name)
        self.write()

    def write(self, **changes):
        (self.root / "questions").mkdir(exist_ok=True)
        for split, questions in {**self.questions, **changes}.items():
            numbered = [{"question_index": number, **entry} for number, entry in enumerate(questions)]
            content = {"info": {"split": split}, "questions": numbered}
            self.path(split).write_text(json.dumps(content))

    def path(self, split):
        return self.root / "questions" / f"CLEVR_{split}_questions.json"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "clevr")


def test_records(folder, tmp_path):
    data = load_clevr(folder.root, cache_dir=tmp_path / "cache")
    assert {split: len(table) for split, table in data.images.items()} == {"train": 3, "validation": 2, "test": 1}
    assert data.questions["train"][0] == {
        "question_id": "train-0",
        "image_id": "CLEVR_train_000000",
        "question": "How many red things are there?",
        "answer": "2",
        "question_type": "count",
        "program": json.dumps(COUNT, separators=(",", ":")),
        "program_depth": 3,
        "question_family_index": 7,
    }
    assert data.questions["train"]["question_type"][:] == ["count", "exist", "compare_integer", "query_attribute"]
    assert data.questions["validation"][0]["question_type"] == "compare_attribute"
    assert data.records("train")[3]["image"].getpixel((0, 0)) == (2, 0, 0)


def test_test_split_has_no_answers(folder, tmp_path):
    record = load_clevr(folder.root, cache_dir=tmp_path / "cache").questions["test"][0]
    assert [record[name] for name in ("answer", "question_type", "program")] == [""] * 3
    assert record["program_depth"] == record["question_family_index"] == -1


def test_pictures_are_paths(folder, tmp_path):
    data = load_clevr(folder.root, cache_dir=tmp_path / "cache")
    images = data.images["validation"].with_format("arrow")[:]
    assert images["image"].to_pylist()[1] == {
        "bytes": None,
        "path": str(folder.root / "images/val/CLEVR_val_000001.png"),
    }
    assert images["image_index"].to_pylist() == [0, 1]


def test_without_pictures_the_questions_name_the_images(folder, tmp_path):
    (folder.root / "images").rename(folder.root / "elsewhere")
    data = load_clevr(folder.root, cache_dir=tmp_path / "cache")
    assert data.images["validation"][:] == {"image_id": ["CLEVR_val_000001"], "image_index": [1]}
    assert data.images["train"].num_rows == 3


def test_order_is_that_of_the_image_numbers(folder, tmp_path):
    for number in (1_000_000, 999_999):
        Image.new("RGB", (6, 4)).save(folder.root / "images" / "val" / f"CLEVR_val_{number}.png")
    folder.write(val=[question("val", 1_000_000), question("val", 1), question("val", 999_999), question("val", 1)])
    data = load_clevr(folder.root, cache_dir=tmp_path / "cache", splits=["validation"])
    assert data.images["validation"]["image_index"][:] == [0, 1, 999_999, 1_000_000]
    assert data.questions["validation"]["question_id"][:] == [f"validation-{number}" for number in (1, 3, 2, 0)]


def test_own_scenes_need_no_numbers(folder, tmp_path):
    (folder.root / "images/val/CLEVR_val_000001.png").rename(folder.root / "images/val/kitchen.jpg")
    folder.write(val=[question("val", 0), question("val", 1, image_filename="kitchen.jpg")])
    images = load_clevr(folder.root, cache_dir=tmp_path / "cache", splits=["validation"]).images["validation"]
    assert dict(zip(images["image_id"], images["image_index"], strict=True)) == {"CLEVR_val_000000": 0, "kitchen": 1}


def test_the_generator_s_own_layout(folder, tmp_path):
    program = [{"type": "scene", "inputs": [], "_output": [0]}, {"type": "exist", "inputs": [0], "side_inputs": []}]
    entries = [question("val", 1, answer=answer, program=program) for answer in (True, False, 3)]
    folder.write(val=entries)
    questions = load_clevr(folder.root, cache_dir=tmp_path / "cache").questions["validation"]
    assert questions["answer"][:] == ["yes", "no", "3"]
    assert json.loads(questions[0]["program"]) == EXIST


def test_a_split_at_a_time(folder, tmp_path):
    assert list(load_clevr(folder.root, cache_dir=tmp_path / "cache", splits=["validation"]).images) == ["validation"]
    folder.path("test").unlink()
    assert list(load_clevr(folder.root, cache_dir=tmp_path / "cache").images) == ["train", "validation"]
    with pytest.raises(DataError, match="CLEVR_test_questions.json: this file is missing"):
        load_clevr(folder.root, cache_dir=tmp_path / "cache", splits=["test"])
    with pytest.raises(DataError, match="there is no split 'dev'; CLEVR has train, validation, test"):
        load_clevr(folder.root, splits=["dev"])


def test_questions_are_read_once_and_again_when_the_file_changes(folder, tmp_path, monkeypatch):
    first = load_clevr(folder.root, cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("vl_alignment.data.clevr.stream_json_list", lambda *_: pytest.fail("read again"))
        assert load_clevr(folder.root, cache_dir=tmp_path / "cache").content_hash == first.content_hash
    folder.write(val=[question("val", 0, answer="no")])
    assert load_clevr(folder.root, cache_dir=tmp_path / "cache").questions["validation"][0]["answer"] == "no"


def test_many_questions_come_in_several_tables(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("vl_alignment.data.clevr.ROWS_PER_TABLE", 3)
    folder.write(train=[question("train", number // 3, f"Number {number}?") for number in range(7)])
    questions = load_clevr(folder.root, cache_dir=tmp_path / "cache").questions["train"]
    assert questions["question"][:] == [f"Number {number}?" for number in range(7)]


def test_scenes_on_request(folder, tmp_path):
    (folder.root / "scenes").mkdir()
    for split, number in (("train", 3), ("val", 2)):
        scenes = [{"image_filename": f"CLEVR_{split}_{image:06d}.png", "objects": []} for image in range(number)]
        path = folder.root / "scenes" / f"CLEVR_{split}_scenes.json"
        path.write_text(json.dumps({"info": {}, "scenes": scenes[::-1]}))
    data = load_clevr(folder.root, cache_dir=tmp_path / "cache", scenes=True)
    assert json.loads(data.images["train"][2]["scene"])["image_filename"] == "CLEVR_train_000002.png"
    assert data.images["test"]["scene"][:] == [""]  # published without scenes
    path.write_text(json.dumps({"scenes": scenes[:1]}))
    with pytest.raises(DataError, match="CLEVR_val_scenes.json, record CLEVR_val_000001: the image has no scene"):
        load_clevr(folder.root, cache_dir=tmp_path / "cache", scenes=True)


@pytest.mark.filterwarnings("default")
def test_other_sizes_than_the_official_ones_are_noted(folder, tmp_path):
    with pytest.warns(
        UserWarning, match="train has 3 images instead of 70,000, train has 4 questions instead of 699,989"
    ):
        load_clevr(folder.root, cache_dir=tmp_path / "cache")


def test_a_complete_folder_differs_in_nothing():
    tables = {
        kind: {split: range(OFFICIAL_SIZES[split][kind]) for split in OFFICIAL_SIZES}
        for kind in ("images", "questions")
    }
    complete = QuestionData(**tables)
    assert official_size_differences(complete) == []
    tables["questions"]["test"] = range(149_991)
    assert official_size_differences(complete) == ["test has 149,991 questions instead of 149,988"]


def bad_program(*nodes):
    return [question("val", 0), question("val", 1, program=list(nodes))]


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (
            [question("val", 7)],
            "val_questions.json, record validation-0: the question is about image CLEVR_val_000007,",
        ),
        (bad_program(node("scene"), node("juggle", [0])), "val_questions.json, record question 1: .*juggle"),
        (bad_program(node("juggle"), node("exist", [0])), "val_questions.json, record question 1: .*juggle"),
        (bad_program({"inputs": []}), "record question 1: the program is not in CLEVR's layout"),
        (bad_program("scene"), "record question 1: the program is not in CLEVR's layout"),
        ([question("val", 0, " ? ")], "record question 0: the question ' \\? ' has no words"),
        ([{"question": "What?"}], 'record 0: this entry has no "image_filename"'),
        ([], "val_questions.json: the list of questions is empty"),
        ([question("val", 0, question_index=1)] * 2, "record validation-1: this question id occurs twice"),
    ],
)
def test_bad_questions_are_named(folder, tmp_path, questions, message):
    content = [{"question_index": number, **entry} for number, entry in enumerate(questions)]
    folder.path("val").write_text(json.dumps({"questions": content}))
    with pytest.raises(DataError, match=message):
        load_clevr(folder.root, cache_dir=tmp_path / "cache")


def test_a_file_cut_short(folder, tmp_path):
    path = folder.path("train")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match="CLEVR_train_questions.json: not complete, valid JSON"):
        load_clevr(folder.root, cache_dir=tmp_path / "cache")


def test_missing_folders(folder, tmp_path):
    with pytest.raises(DataError, match=r"has no questions/CLEVR_\{train,val,test\}_questions.json"):
        load_clevr(tmp_path)
    (folder.root / "images" / "val").rename(tmp_path / "val")
    with pytest.raises(DataError, match="images/val: the images of the validation questions cannot be read"):
        load_clevr(folder.root, cache_dir=tmp_path / "cache")


def test_by_name(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VL_ALIGNMENT_DATA", str(tmp_path))
    data = load_question_dataset("clevr", cache_dir=tmp_path / "cache", sizes={"train": 2, "validation": 1})
    assert [len(data.images[split]) for split in data.images] == [2, 1, 1]
    assert [len(data.questions[split]) for split in data.questions] == [3, 0, 1]
    with pytest.raises(DataError, match="split 'test' of clevr has 1 images, 2 were asked for"):
        load_question_dataset("clevr", cache_dir=tmp_path / "cache", sizes={"test": 2})
    with pytest.raises(ConfigurationError, match="data set 'clevr': .*'colour'"):
        load_question_dataset("clevr", cache_dir=tmp_path / "cache", colour=1)


def test_features_of_the_pictures(folder, tmp_path, extractor):
    data = load_clevr(folder.root, cache_dir=tmp_path / "cache")
    store = extract_regions(data.images, extractor, tmp_path / "store", progress=False)
    assert store.image_ids[:2] == ["CLEVR_train_000000", "CLEVR_train_000001"] and len(store) == 6
    assert store.features(["CLEVR_train_000002"])[0, 0].tolist() == pytest.approx([2 / 255, 0, 0], abs=1e-4)
    # Read again without the pictures, as one does on another machine.
    (folder.root / "images").rename(tmp_path / "elsewhere")
    images = load_clevr(folder.root, cache_dir=tmp_path / "cache").images
    assert all(image_id in open_regions(tmp_path / "store", images) for image_id in images["train"]["image_id"])


@pytest.mark.real_data
def test_what_the_generator_wrote(data_root, tmp_path):
    data = load_clevr(data_root / "clevr" / "generator_1obj", cache_dir=tmp_path)
    assert [len(data.images[split]) for split in data.images] == [10, 10, 10]
    assert [len(data.questions[split]) for split in data.questions] == [30, 42, 44]  # 116 in all
    assert set(data.questions["test"]["question_type"]) == {"query_attribute"}
    record = data.records("validation")[0]
    assert (record["question"], record["answer"]) == ("What color is the thing?", "blue")
    assert record["image"].size == (320, 240)


@pytest.mark.parametrize("number", ["seven", 2**40, [1]])
def test_a_family_that_is_no_number_is_named(folder, tmp_path, number):
    folder.write(train=[question("train", 0, question_family_index=number)])
    with pytest.raises(DataError, match='CLEVR_train_questions.json.*"question_family_index" is'):
        load_clevr(folder.root, splits=["train"], cache_dir=tmp_path / "cache")

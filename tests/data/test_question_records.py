import pickle

import datasets
import pytest

from vl_alignment.data.question_answering import QUESTION_FEATURES, QuestionData, align_questions
from vl_alignment.models.errors import DataError


def question_table(image_ids, prefix="q"):
    columns = {
        "question_id": [f"{prefix}{number}" for number in range(len(image_ids))],
        "image_id": image_ids,
        "question": [f"What is {number}?" for number in range(len(image_ids))],
        "answer": ["yes"] * len(image_ids),
        "question_type": ["exist"] * len(image_ids),
        "program": [""] * len(image_ids),
        "program_depth": [-1] * len(image_ids),
        "question_family_index": [-1] * len(image_ids),
    }
    return datasets.Dataset.from_dict(columns, features=QUESTION_FEATURES)


@pytest.fixture
def data(photographs):
    photographs = photographs.remove_columns("captions")
    questions = datasets.DatasetDict(
        {
            "train": question_table(["00", "00", "01", "03", "03", "07"]),
            "validation": question_table(["08"], "v"),
            "test": question_table(["10", "11"], "t"),
        }
    )
    return QuestionData(photographs, questions)


def test_records_add_the_picture_when_read(data, monkeypatch):
    records = data.records("train")
    assert len(records) == 6
    assert records[2]["image_id"] == "01" and records[2]["image"].size == (20, 10)
    assert records[2]["image"].getpixel((5, 5)) == data.images["train"][1]["image"].getpixel((5, 5))
    decoded = []
    decode = datasets.Image.decode_example
    monkeypatch.setattr(
        datasets.Image,
        "decode_example",
        lambda *arguments, **options: decoded.append(1) or decode(*arguments, **options),
    )
    batch = records[:5]
    assert [batch["image"][0] is batch["image"][1], batch["image"][3] is batch["image"][4]] == [True, True]
    assert len(decoded) == 3  # each picture once, not once a question
    assert records.select_columns("question_id")[0] == {"question_id": "q0"} and len(decoded) == 3


def test_records_travel_to_workers(data):
    records = pickle.loads(pickle.dumps(data.records("test")))
    assert records[1]["image"].size == (20, 10)


def test_records_without_pictures_are_the_questions(data):
    features_only = QuestionData(data.images.remove_columns("image"), data.questions)
    assert features_only.records("test")[0]["question_id"] == "t0"
    with pytest.raises(DataError, match="there is no split 'dev'; the data set has train, validation, test"):
        data.records("dev")


def test_fewer_images_have_fewer_questions(data):
    images = datasets.DatasetDict({**data.images, "train": data.images["train"].select([0, 3, 4])})
    fewer = data.with_images(images)
    assert fewer.images["train"]["image_id"][:] == ["00", "03", "04"]
    assert fewer.questions["train"]["question_id"][:] == ["q0", "q1", "q3", "q4"]
    assert fewer.questions["test"] is data.questions["test"] and len(data.questions["train"]) == 6


def test_content_hash_notices_questions_and_answers(data):
    def changed(**values):
        records = [dict(record) for record in data.questions["test"]]
        records[0].update(values)
        table = datasets.Dataset.from_list(records, features=QUESTION_FEATURES)
        return QuestionData(data.images, datasets.DatasetDict({**data.questions, "test": table}))

    assert changed().content_hash == data.content_hash and len(data.content_hash) == 16
    hashes = {changed(**{name: "x"}).content_hash for name in ("image_id", "question", "answer")}
    assert len(hashes | {data.content_hash}) == 4


def test_splits_must_be_the_same(data):
    del data.questions["test"]
    with pytest.raises(DataError, match="images have the splits train, validation, test, the questions train, valid"):
        QuestionData(data.images, data.questions)


def test_questions_are_sorted_in_the_order_of_the_images(data):
    images = data.images["train"].select([3, 1, 0])
    table = align_questions(question_table(["00", "01", "00", "03"]), images)
    assert table["question_id"][:] == ["q3", "q1", "q0", "q2"]
    in_order = question_table(["03", "03", "00"])
    assert align_questions(in_order, images) is in_order


def test_questions_and_images_must_fit(data):
    with pytest.raises(
        DataError, match="questions.json, record q1: the question is about image 99, which is not there"
    ):
        align_questions(question_table(["00", "99"]), data.images["train"], path="questions.json")
    with pytest.raises(DataError, match="record 00: this image id occurs twice"):
        align_questions(question_table(["00"]), data.images["train"].select([0, 1, 0]))
    twice = datasets.concatenate_datasets([question_table(["00"]), question_table(["00"])])
    with pytest.raises(DataError, match="record q0: this question id occurs twice"):
        align_questions(twice, data.images["train"])

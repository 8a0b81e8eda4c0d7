import pytest

from vl_alignment.data.caption_folder import load_caption_folder
from vl_alignment.models.errors import DataError


def test_jsonl_beside_the_pictures(image_folder):
    folder = image_folder.parent
    (folder / "captions.jsonl").write_text(
        '{"file_name": "images/00.jpg", "captions": ["A red field.", "Red."]}\n'
        "\n"
        '{"file_name": "images/01.jpg", "caption": "Green.", "split": "test", "image_id": "grass"}\n'
    )
    data = load_caption_folder(folder)
    assert list(data) == ["train", "test"]
    assert data["train"][0]["image_id"] == "images/00" and data["train"][0]["captions"] == ["A red field.", "Red."]
    assert data["test"][0]["image_id"] == "grass" and data["test"][0]["image"].size == (20, 10)


def test_csv_among_the_pictures_one_line_a_caption(image_folder):
    (image_folder / "metadata.csv").write_text(
        'file_name,caption\n00.jpg,"Red, all over."\n01.jpg,Green.\n00.jpg,Still red.\n', encoding="utf-8"
    )
    data = load_caption_folder(image_folder)
    assert data["train"]["captions"][:] == [["Red, all over.", "Still red."], ["Green."]]


def test_a_folder_a_split(image_folder, tmp_path):
    for name, number in (("train", 0), ("val", 1), ("test", 2)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (image_folder / f"{number:02d}.jpg").rename(tmp_path / "mine" / name / "same.jpg")
        (tmp_path / "mine" / name / "metadata.jsonl").write_text('{"file_name": "same.jpg", "caption": "Plain."}\n')
    data = load_caption_folder(tmp_path / "mine")
    assert [split["image_id"][:] for split in data.values()] == [["train/same"], ["val/same"], ["test/same"]]
    assert list(data) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "00.jpg"}', "record line 1: needs file_name and caption"),
        ('{"file_name": "00.jpg", "caption": "A.", "split": "dev"}', "line 1: unknown split 'dev'"),
        ('{"file_name": "00.jpg", "caption": "A."', "cannot be read"),
        ("[]", "the line is not an object"),
        ('{"file_name": "00.jpg", "caption": "..."}', "record 00: the caption '...' has no words"),
        ('{"file_name": "99.jpg", "caption": "A."}', "1 of 1 image files are missing"),
        (
            '{"file_name": "00.jpg", "caption": "A.", "image_id": 1}\n'
            '{"file_name": "01.jpg", "caption": "B.", "image_id": 1}',
            "record 1: this image id occurs twice with different files",
        ),
    ],
)
def test_wrong_lines_are_named(image_folder, text, message):
    (image_folder / "captions.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        load_caption_folder(image_folder)


def test_folder_without_annotations(tmp_path):
    with pytest.raises(DataError, match="none of captions.jsonl, metadata.jsonl, metadata.csv"):
        load_caption_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "../beside.jpg", "caption": "A."}', "leads out of the folder"),
        ('{"file_name": "/etc/a.jpg", "caption": "A."}', "leads out of the folder"),
        ('{"file_name": "00.jpg", "captions": 7}', "the captions are 7"),
        ('{"file_name": "00.jpg", "caption": "A.", "split": ["train"]}', "unknown split"),
        ('{"file_name": "00.jpg", "caption": "\\ud800 half"}', "half of a character"),
        ("[" * 50_000, "nested too deeply"),
    ],
)
def test_names_and_values_that_cannot_be_used_are_refused(image_folder, text, message):
    (image_folder / "captions.jsonl").write_text(text)
    with pytest.raises(DataError, match=f"captions.jsonl.*{message}"):
        load_caption_folder(image_folder)


def test_a_split_may_name_pictures_of_the_folder_that_it_is_in(image_folder):
    folder = image_folder.parent
    (folder / "train").mkdir()
    (folder / "train" / "metadata.jsonl").write_text('{"file_name": "../images/00.jpg", "caption": "Red."}\n')
    assert load_caption_folder(folder)["train"][0]["image"].size == (20, 10)

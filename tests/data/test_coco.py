import pytest

from vl_alignment.data.coco import load_coco_captions
from vl_alignment.models.errors import DataError

IMAGES = [{"id": 20, "file_name": "00.jpg"}, {"id": 10, "file_name": "01.jpg"}]
CAPTIONS = {
    "images": IMAGES,
    "annotations": [
        {"image_id": 10, "id": 1, "caption": "A cat."},
        {"image_id": 20, "id": 2, "caption": "A red dog."},
        {"image_id": 10, "id": 3, "caption": "A cat again."},
    ],
}
INSTANCES = {
    "images": IMAGES,
    "categories": [
        {"id": 18, "name": "dog", "supercategory": "animal"},
        {"id": 17, "name": "cat", "supercategory": "animal"},
        {"id": 1, "name": "person", "supercategory": "person"},
    ],
    "annotations": [
        {"image_id": 10, "category_id": 17},
        {"image_id": 10, "category_id": 1},
        {"image_id": 10, "category_id": 17},
    ],
}
PERSON, CAT = {"name": "person", "supercategory": "person"}, {"name": "cat", "supercategory": "animal"}


def test_captions_and_categories(write_json, image_folder):
    data = load_coco_captions(
        write_json("captions_val2017.json", CAPTIONS), image_folder, write_json("instances_val2017.json", INSTANCES)
    )
    assert list(data) == ["validation"]
    records = list(data["validation"].remove_columns("image"))
    assert records == [
        {"image_id": "20", "captions": ["A red dog."], "categories": []},
        {"image_id": "10", "captions": ["A cat.", "A cat again."], "categories": [PERSON, CAT]},
    ]
    assert data["validation"][0]["image"].size == (20, 10)


def test_captions_alone(write_json):
    data = load_coco_captions(write_json("captions_train2017.json", CAPTIONS), None, split="test")
    assert data["test"].column_names == ["image_id", "captions"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 99, "caption": "A."}]}, "record 99: a caption of an image that is not listed"),
        ({"annotations": [{"image_id": 10}]}, 'an entry has no "caption"'),
        ({"annotations": None}, 'there is no list "annotations"'),
        ({"annotations": CAPTIONS["annotations"][:1]}, "record 20: the image has no captions"),
        ({"images": [IMAGES[0], IMAGES[0]]}, "an image id occurs twice"),
        ({"images": [{"id": 1}]}, 'an entry has no "file_name"'),
    ],
)
def test_wrong_captions_are_named(write_json, image_folder, change, message):
    with pytest.raises(DataError, match=f"captions.json.*{message}"):
        load_coco_captions(write_json("captions.json", CAPTIONS | change), image_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": None}, 'there is no list "categories"'),
        ({"annotations": [{"image_id": 10, "category_id": 5}]}, "record 5: an unknown category id"),
    ],
)
def test_wrong_instances_are_named(write_json, image_folder, change, message):
    with pytest.raises(DataError, match=f"instances.json.*{message}"):
        load_coco_captions(
            write_json("captions.json", CAPTIONS), image_folder, write_json("instances.json", INSTANCES | change)
        )


@pytest.mark.real_data
def test_photographs_of_coco(data_root):
    folder = data_root / "coco"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    annotations = folder / "annotations"
    data = load_coco_captions(
        annotations / "captions_train2017.json", folder / "train2017", annotations / "instances_train2017.json"
    )["train"]
    assert len(data) == 80 and all(len(captions) >= 5 for captions in data["captions"])
    supercategories = {category["supercategory"] for categories in data["categories"] for category in categories}
    assert supercategories >= {"animal", "person", "vehicle"} and len(supercategories) <= 12
    assert data[0]["image"].mode in ("RGB", "L")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": [1], "file_name": "00.jpg"}]}, r'"id" of an entry is \[1\]'),
        ({"images": [{"id": 20, "file_name": ["00.jpg"]}]}, '"file_name" of an entry is'),
        ({"images": [{"id": 20, "file_name": "../images/00.jpg"}]}, "leads out of the folder"),
        ({"annotations": [{"image_id": {}, "caption": "A."}]}, '"image_id" of an entry is {}'),
        ({"annotations": [{"image_id": 10, "caption": 7}]}, '"caption" of an entry is 7'),
    ],
)
def test_values_of_other_types_are_named(write_json, image_folder, change, message):
    with pytest.raises(DataError, match=f"captions.json.*{message}"):
        load_coco_captions(write_json("captions.json", CAPTIONS | change), image_folder)

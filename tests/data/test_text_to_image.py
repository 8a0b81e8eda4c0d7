import json

import pytest
from PIL import Image

from vl_alignment.data.blocks import Scene
from vl_alignment.data.text_to_image import (
    captioned_pictures,
    load_text_to_image_dataset,
    text_to_image_dataset_names,
)
from vl_alignment.models.errors import ConfigurationError, DataError

SIZES = {"train": 4, "validation": 2, "test": 2}


def test_blocks_describe_all_of_few_objects(tmp_path):
    data = load_text_to_image_dataset("blocks", sizes=SIZES, cache_dir=tmp_path)
    assert {name: len(split) for name, split in data.items()} == SIZES
    assert data["train"].column_names == ["image_id", "image", "captions", "scene"]
    for record in data["train"]:
        scene = Scene.from_json(record["scene"])
        assert 1 <= len(scene.objects) <= 3 and record["image"].size == (64, 64) and len(record["captions"]) == 5
        for caption in record["captions"]:
            assert all(item.color in caption.lower() for item in scene.objects)
    larger = load_text_to_image_dataset("blocks", sizes={"test": 1}, cache_dir=tmp_path, image_size=128, train=0)
    assert larger["test"][0]["image"].size == (128, 128)


def test_wrong_names_and_options(tmp_path):
    with pytest.raises(DataError, match="there is no split 'dev'; the data set has train, validation, test"):
        load_text_to_image_dataset("blocks", sizes={"dev": 1}, cache_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="data set 'blocks': .*'colour'"):
        load_text_to_image_dataset("blocks", cache_dir=tmp_path, colour=1)
    with pytest.raises(ConfigurationError, match="unknown data set 'birds'; .* are blocks, cub, .*owner/name"):
        load_text_to_image_dataset("birds")
    assert text_to_image_dataset_names()[0] == "blocks"


def test_a_folder_and_its_sizes(image_folder):
    lines = [
        json.dumps({"file_name": f"{number:02d}.jpg", "captions": [f"A field {number}.", "Plain."], "split": split})
        for number, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    ]
    (image_folder / "captions.jsonl").write_text("\n".join(lines))
    data = load_text_to_image_dataset("folder", image_folder, sizes={"train": 3})
    assert {name: len(split) for name, split in data.items()} == {"train": 3, "validation": 2, "test": 2}
    assert data["test"][1]["captions"] == ["A field 7.", "Plain."]
    with pytest.raises(DataError, match="split 'test' of folder has 2 images, 3 were asked for"):
        load_text_to_image_dataset("folder", image_folder, sizes={"test": 3})


@pytest.fixture
def coco_folder(tmp_path, write_json):
    (tmp_path / "annotations").mkdir()
    for part, ids in (("val2014", (5,)), ("train2014", (1, 2))):
        (tmp_path / part).mkdir()
        for number in ids:
            Image.new("RGB", (20, 10)).save(tmp_path / part / f"{number}.jpg")
        content = {
            "images": [{"id": number, "file_name": f"{number}.jpg"} for number in ids],
            "annotations": [{"image_id": number, "caption": f"Cat {number}."} for number in ids],
        }
        write_json(f"annotations/captions_{part}.json", content)
    return tmp_path


def test_coco_in_its_own_layout(coco_folder, write_json):
    data = load_text_to_image_dataset("coco", coco_folder)
    assert {name: split["captions"][:] for name, split in data.items()} == {
        "train": [["Cat 1."], ["Cat 2."]],
        "validation": [["Cat 5."]],
    }
    assert data["train"][0]["image"].size == (20, 10)
    write_json("annotations/captions_val2017.json", {"images": [], "annotations": []})
    with pytest.raises(DataError, match="captions of the years 2014, 2017; choose with year"):
        load_text_to_image_dataset("coco", coco_folder)
    assert len(load_text_to_image_dataset("coco", coco_folder, year=2014)["train"]) == 2
    with pytest.raises(DataError, match=r"neither dataset_coco.json nor annotations/captions_\*2015.json"):
        load_text_to_image_dataset("coco", coco_folder, year=2015)
    (coco_folder / "val2014").rename(coco_folder / "elsewhere")
    with pytest.raises(DataError, match="no folder val2014 or images/val2014"):
        load_text_to_image_dataset("coco", coco_folder, year=2014)


@pytest.mark.filterwarnings("error::UserWarning")
def test_coco_in_karpathys_layout(image_folder, write_json):
    images = [
        {"filename": f"{number:02d}.jpg", "split": split, "sentences": [{"raw": "A dog."}]}
        for number, split in enumerate(["train", "restval", "val", "test"])
    ]
    write_json("dataset_coco.json", {"images": images})
    data = load_text_to_image_dataset("coco", image_folder.parent)
    assert {name: len(split) for name, split in data.items()} == {"train": 2, "validation": 1, "test": 1}
    with pytest.raises(ConfigurationError, match="year=2014: Karpathy's"):
        load_text_to_image_dataset("coco", image_folder.parent, year=2014)


def test_what_datasets_reads_by_path(photographs, image_folder, tmp_path):
    photographs.rename_columns({"image": "photo", "captions": "texts"}).save_to_disk(tmp_path / "saved")
    options = {"image_column": "photo", "caption_column": "texts"}
    data = load_text_to_image_dataset(str(tmp_path / "saved"), sizes={"train": 3}, **options)
    assert {name: len(split) for name, split in data.items()} == {"train": 3, "validation": 2, "test": 2}
    assert data["train"].column_names == ["image_id", "image", "captions"]
    assert data["test"][0]["captions"] == ["picture 10", "colour 4"] and data["test"][0]["image"].size == (20, 10)
    # A folder of imagefolder's kind: one caption a picture, no ids.
    (image_folder / "metadata.csv").write_text(
        "file_name,text\n" + "".join(f"{number:02d}.jpg,Plain {number}.\n" for number in range(12))
    )
    data = load_text_to_image_dataset(str(image_folder), cache_dir=tmp_path / "cache")
    assert list(data) == ["train"] and data["train"]["captions"][3:5] == [["Plain 3."], ["Plain 4."]]
    assert data["train"]["image_id"][:2] == ["train-000000", "train-000001"]
    with pytest.raises(DataError, match="saved: the train split has no column 'image', only image_id, photo, texts"):
        load_text_to_image_dataset(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="nowhere/nothing: datasets cannot read it"):
        load_text_to_image_dataset("nowhere/nothing", cache_dir=tmp_path / "cache")


def test_rows_of_one_image_are_one_picture(photographs):
    rows = photographs["train"].select([0, 1, 0]).remove_columns("captions")
    rows = rows.add_column("caption", ["Red.", "Green.", "Still red."]).add_column("class_id", [3, 4, 3])
    data = captioned_pictures({"test": rows.select([0]), "val": rows.select([1])})
    assert list(data) == ["validation", "test"]
    split = captioned_pictures({"train": rows})["train"]
    assert split["captions"][:] == [["Red.", "Still red."], ["Green."]] and split["class_id"][:] == [3, 4]
    assert split["image_id"][:] == ["00", "01"] and split[1]["image"].size == (20, 10)
    with pytest.raises(DataError, match="record 00: this image id is in test and in train"):
        captioned_pictures({"test": rows.select([0]), "train": rows})


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("caption", ["Red.", "..."], "record 01: the caption '...' has no words"),
        ("captions", [["Red."], []], r"record 01: its captions are \[\], neither a text nor several"),
        ("class_id", ["a", "b"], "record 00: its class_id is 'a', no whole number"),
        ("image", ["a.jpg", "b.jpg"], "column 'image' of the train split holds no images"),
    ],
)
def test_wrong_columns(photographs, column, values, message):
    split = photographs["train"].select([0, 1])
    split = split.remove_columns(
        [name for name in split.column_names if name == column or column == "caption" == name[:-1]]
    )
    with pytest.raises(DataError, match=message):
        captioned_pictures({"train": split.add_column(column, values)})


@pytest.mark.real_data
def test_coco_photographs(data_root):
    if not (data_root / "coco").is_dir():
        pytest.skip(f"no folder {data_root / 'coco'}")
    data = load_text_to_image_dataset("coco", data_root / "coco")
    assert list(data) == ["train"] and len(data["train"]) == 80
    assert all(len(captions) >= 5 for captions in data["train"]["captions"])

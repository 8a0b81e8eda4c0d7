import json

import datasets
import pytest

from vl_alignment.data.retrieval import content_hash, load_retrieval_dataset, retrieval_dataset_names, select_split
from vl_alignment.models.errors import ConfigurationError, DataError


@pytest.fixture
def data_dir(write_json, image_folder):
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    images = [
        {"filename": f"{number:02d}.jpg", "split": split, "sentences": [{"raw": f"Dog {number}."}]}
        for number, split in enumerate(splits)
    ]
    write_json("dataset_mine.json", {"images": images})
    return image_folder.parent


def test_a_folder_by_name(data_dir):
    data = load_retrieval_dataset("karpathy", data_dir)
    assert {name: len(split) for name, split in data.items()} == {"train": 8, "validation": 2, "test": 2}
    assert data["train"][0]["image"].size == (20, 10)


def test_categories_come_from_annotations_beside_the_pictures(write_json, image_folder):
    images = [{"filename": "00.jpg", "split": "test", "cocoid": 391895, "sentences": [{"raw": "A plane."}]}]
    path = write_json("dataset_coco.json", {"images": images})
    categories = [{"id": 5, "name": "airplane", "supercategory": "vehicle"}]
    found = [{"image_id": 391895, "category_id": 5}]
    (path.parent / "annotations").mkdir()
    instances = {"images": [{"id": 391895, "file_name": "00.jpg"}], "annotations": found, "categories": categories}
    (path.parent / "annotations" / "instances_val2014.json").write_text(json.dumps(instances))
    data = load_retrieval_dataset("coco", path.parent, image_folder=image_folder)
    assert data["test"]["categories"][:] == [[{"name": "airplane", "supercategory": "vehicle"}]]


def test_default_folder_comes_from_the_environment(data_dir, monkeypatch):
    (data_dir / "karpathy").symlink_to(data_dir, target_is_directory=True)
    monkeypatch.setenv("VL_ALIGNMENT_DATA", str(data_dir))
    assert len(load_retrieval_dataset("karpathy")["train"]) == 8
    monkeypatch.delenv("VL_ALIGNMENT_DATA")
    with pytest.raises(DataError, match="where is flickr8k.*--data-dir"):
        load_retrieval_dataset("flickr8k")
    with pytest.raises(DataError, match="nowhere: the folder of coco does not exist.*--data-dir"):
        load_retrieval_dataset("coco", data_dir / "nowhere")


def test_sizes_take_the_first_images(data_dir):
    data = load_retrieval_dataset("karpathy", data_dir, sizes={"train": 3})
    assert data["train"]["image_id"][:] == ["00", "01", "02"] and len(data["test"]) == 2
    with pytest.raises(DataError, match="split 'test' of karpathy has 2 images, 3 were asked for"):
        load_retrieval_dataset("karpathy", data_dir, sizes={"test": 3})
    with pytest.raises(DataError, match="there is no split 'dev'; the data set has train, validation, test"):
        load_retrieval_dataset("karpathy", data_dir, sizes={"dev": 1})


def test_blocks_needs_no_folder(tmp_path):
    sizes = {"train": 3, "validation": 2, "test": 2}
    data = load_retrieval_dataset("blocks", sizes=sizes, cache_dir=tmp_path, seed=5)
    assert {name: len(split) for name, split in data.items()} == sizes
    with pytest.raises(DataError, match="there is no split 'dev'; the data set has train, validation, test"):
        load_retrieval_dataset("blocks", sizes={"dev": 1}, cache_dir=tmp_path)


def test_options_reach_the_reader(data_dir, image_folder):
    annotations = (data_dir / "dataset_mine.json").rename(data_dir / "other.json")
    data = load_retrieval_dataset("karpathy", data_dir, annotations=annotations, image_folder=None)
    assert data["test"].column_names == ["image_id", "captions"]
    with pytest.raises(ConfigurationError, match="data set 'karpathy': .*'colour'"):
        load_retrieval_dataset("karpathy", data_dir, annotations=annotations, colour=1)


def test_wrong_names(data_dir):
    with pytest.raises(ConfigurationError, match="unknown data set 'flickr'; the known ones are blocks, flickr8k, "):
        load_retrieval_dataset("flickr")
    with pytest.raises(DataError, match="dataset_flickr8k.json is not in the folder"):
        load_retrieval_dataset("flickr8k", data_dir)
    assert retrieval_dataset_names()[0] == "blocks"


def test_missing_split_names_those_that_exist(photographs):
    assert select_split(photographs, "test") is photographs["test"]
    with pytest.raises(DataError, match="there is no split 'dev'; the data set has train, validation, test"):
        select_split(photographs, "dev")


def test_content_hash_is_stable_and_notices_changes(photographs):
    assert content_hash(photographs) == "b6f58b4febdc7a79"
    order = datasets.DatasetDict({name: photographs[name] for name in ("test", "train", "validation")})
    assert content_hash(order) == content_hash(photographs)
    assert content_hash(photographs.remove_columns("image")) == content_hash(photographs)

    def changed(split, row, **values):
        records = list(photographs[split].remove_columns("image"))
        records[row] = {**records[row], **values}
        return datasets.DatasetDict({**photographs, split: datasets.Dataset.from_list(records)})

    different = [
        changed("train", 3, image_id="x"),
        changed("train", 3, captions=["picture 3 ", "colour 3"]),
        changed("test", 0, captions=["picture 10colour 4"]),
        datasets.DatasetDict({**photographs, "train": photographs["train"].select(range(7))}),
        datasets.DatasetDict({**photographs, "train": photographs["train"].select([1, 0, *range(2, 8)])}),
        datasets.DatasetDict(train=photographs["train"], test=photographs["test"], dev=photographs["validation"]),
    ]
    hashes = [content_hash(data) for data in different]
    assert len({content_hash(photographs), *hashes}) == 7


@pytest.mark.real_data
def test_flickr8k_by_name(data_root, monkeypatch):
    if not (data_root / "flickr8k").is_dir():
        pytest.skip(f"no folder {data_root / 'flickr8k'}")
    monkeypatch.setenv("VL_ALIGNMENT_DATA", str(data_root))
    data = load_retrieval_dataset("flickr8k")
    assert content_hash(data) == "6e14427b5895881e"

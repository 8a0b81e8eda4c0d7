import logging
import warnings

import datasets
import pytest
from PIL import Image

from vl_alignment.data import karpathy
from vl_alignment.data.caption_records import image_ids_hash
from vl_alignment.data.karpathy import load_karpathy
from vl_alignment.models.errors import DataError


def entry(number: int, split: str = "train", **values) -> dict:
    return {
        "filename": f"{number:02d}.jpg",
        "split": split,
        "imgid": number,
        "sentences": [{"raw": f" A dog number {number} .", "tokens": ["a"]}, {"raw": "Another.", "tokens": []}],
        **values,
    }


SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2 + ["restval"] * 2


@pytest.fixture
def entries() -> list[dict]:
    return [entry(number, split) for number, split in enumerate(SPLITS)]


def test_splits_columns_and_raw_captions(entries, write_json, image_folder):
    data = load_karpathy(write_json("dataset.json", {"images": entries}), image_folder)
    assert list(data) == ["train", "validation", "test"]
    assert [len(split) for split in data.values()] == [8, 2, 2]
    assert data["train"].features == datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "image": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
        }
    )
    record = data["validation"][0]
    assert record["image_id"] == "06" and record["captions"] == [" A dog number 6 .", "Another."]
    assert record["image"].size == (20, 10)
    assert data["train"]["image_id"][-2:] == ["10", "11"], "restval counts as train"


def test_restval_can_be_left_out(entries, write_json, image_folder):
    data = load_karpathy(write_json("dataset.json", {"images": entries}), image_folder, restval_as_train=False)
    assert len(data["train"]) == 6


def test_ids_and_paths_of_coco(write_json, image_folder):
    (image_folder / "val2014").mkdir()
    Image.new("RGB", (5, 4)).save(image_folder / "val2014" / "00.jpg")
    images = [entry(0, "test", cocoid=391895, filepath="val2014"), entry(1, "test", cocoid=7, filepath="elsewhere")]
    data = load_karpathy(write_json("dataset.json", {"images": images}), image_folder)
    assert data["test"]["image_id"][:] == ["391895", "7"]
    # The sub-folder where it exists, the folder itself where all pictures were put into one.
    assert [image.size for image in data["test"]["image"]] == [(5, 4), (20, 10)]


def test_captions_alone(entries, write_json):
    entries[0]["sentences"] = ["Plain text, as in copies of these files."]
    data = load_karpathy(write_json("dataset.json", {"images": entries}), None)
    assert data["train"].column_names == ["image_id", "captions"]
    assert data["train"][0]["captions"] == ["Plain text, as in copies of these files."]


def test_broken_pictures_are_only_read_when_asked_for(entries, write_json, image_folder):
    (image_folder / "00.jpg").write_bytes(b"no picture")
    data = load_karpathy(write_json("dataset.json", {"images": entries}), image_folder)
    assert data["train"][1]["image"].size == (20, 10)


def test_missing_pictures_are_counted_and_limited(entries, write_json, image_folder, caplog):
    annotations = write_json("dataset.json", {"images": entries})
    for name in ("01.jpg", "02.jpg"):
        (image_folder / name).unlink()
    with caplog.at_level(logging.WARNING):
        data = load_karpathy(annotations, image_folder)
    assert "left out 2 images whose files are missing" in caplog.text and "01.jpg" in caplog.text
    assert data["train"]["image_id"][:3] == ["00", "03", "04"]
    with pytest.raises(DataError, match=r"2 of 12 image files are missing \(the limit is 1\), the first are .*01.jpg"):
        load_karpathy(annotations, image_folder, maximum_failures=1)
    with pytest.raises(DataError, match="the image folder does not exist"):
        load_karpathy(annotations, image_folder / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filename": "01.jpg"}, "record 01: this image id occurs twice"),
        ({"sentences": [{"raw": "Good."}, {"raw": " \t"}]}, r"record 00: the caption ' \\t' has no words"),
        ({"sentences": [{"raw": " . "}]}, r"the caption ' \. ' has no words"),
        ({"sentences": []}, "record 00: the image has no captions"),
        ({"sentences": [{"tokens": ["a"]}]}, 'record 00.jpg: this image has no "sentences" with "raw" text'),
        ({"split": "dev"}, "record 00.jpg: unknown split 'dev'; the known ones are train, val"),
        ({"filename": None}, 'record 0: this image has no "filename"'),
    ],
)
def test_wrong_records_are_named(entries, write_json, image_folder, change, message):
    entries[0].update(change)
    with pytest.raises(DataError, match=f"dataset.json, {message}" if message.startswith("record") else message):
        load_karpathy(write_json("dataset.json", {"images": entries}), image_folder)


def test_truncated_missing_and_other_files(entries, write_json, image_folder, tmp_path):
    annotations = write_json("dataset.json", {"images": entries})
    annotations.write_text(annotations.read_text()[:-30])
    with pytest.raises(DataError, match="dataset.json: not complete, valid JSON"):
        load_karpathy(annotations, image_folder)
    with pytest.raises(DataError, match="nowhere.json: cannot be read"):
        load_karpathy(tmp_path / "nowhere.json", image_folder)
    with pytest.raises(DataError, match='no list "images"'):
        load_karpathy(write_json("other.json", [1]), image_folder)
    with pytest.raises(DataError, match="no images with captions"):
        load_karpathy(write_json("empty.json", {"images": []}), image_folder)


def test_published_sizes_are_checked_with_a_warning(entries, write_json):
    annotations = write_json("dataset.json", {"images": entries, "dataset": "flickr30k"})
    with pytest.warns(UserWarning, match="train 8 instead of 29,000, validation 2 instead of 1,000 or 1,014, test 2"):
        load_karpathy(annotations, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_karpathy(annotations, None, name="my own")


def test_subset_of_the_paper(entries, write_json, monkeypatch):
    monkeypatch.setattr(karpathy, "PAPER_SUBSET", {"train": 4, "validation": 1, "test": 1})
    annotations = write_json("dataset.json", {"images": entries[::-1], "dataset": "mine"})
    data = load_karpathy(annotations, None, paper_subset=True)
    # The first of the file's order, and never restval.
    assert [split["image_id"][:] for split in data.values()] == [["05", "04", "03", "02"], ["07"], ["09"]]
    assert image_ids_hash(["05", "04", "03", "02", "07", "09"]) in data["train"].info.description
    monkeypatch.setattr(karpathy, "PAPER_SUBSET", {"train": 7})
    with pytest.raises(DataError, match="needs 7 images in train, there are 6"):
        load_karpathy(annotations, None, paper_subset=True)


def test_categories_of_coco_come_from_its_instances(write_json, image_folder):
    categories = [{"id": 5, "name": "airplane", "supercategory": "vehicle"}]
    pictures = [{"id": 391895, "file_name": "00.jpg"}]
    found = {"images": pictures, "annotations": [{"image_id": 391895, "category_id": 5}] * 2, "categories": categories}
    images = [entry(0, "test", cocoid=391895), entry(1, "test", cocoid=7)]
    data = load_karpathy(
        write_json("dataset.json", {"images": images}), image_folder, instances=[write_json("instances.json", found)]
    )
    assert data["test"]["categories"][:] == [[{"name": "airplane", "supercategory": "vehicle"}], []]


@pytest.mark.real_data
def test_flickr8k(data_root):
    folder = data_root / "flickr8k"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_karpathy(folder / "dataset_flickr8k.json", folder / "images")
    assert {name: len(split) for name, split in data.items()} == {"train": 6000, "validation": 1000, "test": 1000}
    assert {len(captions) for split in data.values() for captions in split["captions"]} == {5}
    first = data["train"][0]
    assert first["image_id"] == "1000268201_693b08cb0e" and first["image"].size == (224, 224)
    assert first["captions"][0] == "A child in a pink dress is climbing up a set of stairs in an entry way ."


@pytest.mark.real_data
def test_captions_of_flickr30k(data_root, tmp_path):
    import gzip

    packed = data_root / "flickr30k" / "flickr30k_captions_all_31014.json.gz"
    if not packed.is_file():
        pytest.skip(f"no file {packed}")
    (tmp_path / "dataset_flickr30k.json").write_bytes(gzip.decompress(packed.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 29,000 / 1,014 / 1,000 are the published sizes
        data = load_karpathy(tmp_path / "dataset_flickr30k.json", None)
    assert sum(len(captions) for captions in data["train"]["captions"]) == 145_000


OUT = ("../beside.jpg", "a/../../beside.jpg", "/beside.jpg", "..\\beside.jpg", "nul\0.jpg", "")


@pytest.mark.parametrize("change", [*({"filename": name} for name in OUT), {"filepath": "../.."}, {"filepath": "/"}])
def test_names_of_pictures_stay_within_the_folder(entries, write_json, image_folder, change):
    Image.new("RGB", (4, 4)).save(image_folder.parent / "beside.jpg")
    path = write_json("dataset.json", {"images": [{**entries[0], **change}, *entries[1:]]})
    with pytest.raises(DataError, match="dataset.json.*leads out of the folder"):
        load_karpathy(path, image_folder)


@pytest.mark.parametrize("split", [["train"], {"a": 1}])
def test_values_that_are_no_names_are_refused(entries, write_json, image_folder, split):
    content = {"dataset": ["coco"], "images": [{**entries[0], "split": split}, *entries[1:]]}
    with pytest.raises(DataError, match="unknown split"):
        load_karpathy(write_json("dataset.json", content), image_folder)
    content["images"] = entries
    assert len(load_karpathy(write_json("dataset.json", content), image_folder)) == 3

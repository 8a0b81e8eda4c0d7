import json

import numpy as np
import pytest

from vl_alignment.data.caption_records import read_json
from vl_alignment.data.scan_precomputed import load_scan_precomputed, open_scan_regions, read_scan_vocabulary
from vl_alignment.models.errors import DataError

IMAGES = {"train": 4, "dev": 2, "test": 3, "testall": 6}


def features_of(name: str, images: int) -> np.ndarray:
    """[N, 3, 2] whose numbers tell split, image, region and column."""
    offset = list(IMAGES).index(name) * 1000
    return offset + np.arange(images * 6, dtype=np.float32).reshape(images, 3, 2)


@pytest.fixture
def folder(tmp_path):
    for name, images in IMAGES.items():
        lines = [f"{name} image {image} caption {caption}" for image in range(images) for caption in range(5)]
        # The published test captions of Flickr30k end without a line feed.
        (tmp_path / f"{name}_caps.txt").write_text("\n".join(lines) + ("" if name == "test" else "\n"))
        np.save(tmp_path / f"{name}_ims.npy", features_of(name, images))
    return tmp_path


def test_captions_and_ids(folder):
    data = load_scan_precomputed(folder)
    assert {name: len(split) for name, split in data.items()} == {"train": 4, "validation": 2, "test": 3}
    assert data["validation"][1] == {
        "image_id": "dev-1",
        "captions": [f"dev image 1 caption {caption}" for caption in range(5)],
    }


def test_five_thousand_image_test_set_by_name(folder):
    assert load_scan_precomputed(folder, test="testall")["test"]["image_id"][-1] == "testall-5"
    np.testing.assert_array_equal(
        open_scan_regions(folder, test="testall").features(["testall-5"])[0], features_of("testall", 6)[5]
    )


def test_features_are_read_from_the_map(folder):
    store = open_scan_regions(folder)
    assert (store.regions, store.feature_size, store.dtype, len(store)) == (3, 2, np.float32, 9)
    expected = np.stack([features_of("test", 3)[2], features_of("train", 4)[0], features_of("dev", 2)[1]])
    np.testing.assert_array_equal(store.features(["test-2", "train-0", "dev-1"]), expected)
    assert all(isinstance(shard.base, np.memmap) for shard in store._features.shards)
    with pytest.raises(DataError, match="published without boxes"):
        store.boxes(["test-2"])


def test_one_row_a_caption_as_in_the_first_release(folder):
    np.save(folder / "train_ims.npy", features_of("train", 4).repeat(5, axis=0))
    store = open_scan_regions(folder)
    np.testing.assert_array_equal(store.features(["train-3", "train-1"]), features_of("train", 4)[[3, 1]])
    assert isinstance(store._features.shards[0].base, np.memmap), "a strided view, no copy"


def test_ids_of_captions_and_features_agree(folder):
    (folder / "train_caps.txt").unlink()
    data = load_scan_precomputed(folder)
    assert list(data) == ["validation", "test"]
    assert open_scan_regions(folder).image_ids == [name for split in data.values() for name in split["image_id"]]


def test_wrong_files_are_named(folder, tmp_path):
    captions = folder / "dev_caps.txt"
    whole = captions.read_text()
    captions.write_text(whole[: whole.rindex("dev image")])
    with pytest.raises(DataError, match="dev_caps.txt: 9 lines are not five an image"):
        load_scan_precomputed(folder)
    captions.write_text(whole.replace("dev image 0 caption 2", " "))
    with pytest.raises(DataError, match="dev_caps.txt, record line 3: an empty line"):
        load_scan_precomputed(folder)
    captions.write_bytes(b"\xff\xfe\xfa" * 3)
    with pytest.raises(DataError, match="dev_caps.txt: cannot be read"):
        load_scan_precomputed(folder)
    captions.write_text(whole)

    features = folder / "dev_ims.npy"
    content = features.read_bytes()
    features.write_bytes(content[:-4])
    with pytest.raises(DataError, match="dev_ims.npy: truncated"):
        open_scan_regions(folder)
    np.save(features, features_of("dev", 3))
    with pytest.raises(DataError, match="3 rows of features fit neither the 10 captions nor their 2 images"):
        open_scan_regions(folder)
    np.save(features, np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match=r"expected floats \[images, regions, size\]"):
        open_scan_regions(folder)
    np.save(features, np.zeros((2, 3, 7), np.float32))
    with pytest.raises(DataError, match="different shapes"):
        open_scan_regions(folder)
    features.unlink()
    with pytest.raises(DataError, match="dev_ims.npy: the feature file of these captions is missing"):
        open_scan_regions(folder)
    with pytest.raises(DataError, match="none of train_caps.txt, dev_caps.txt, test_caps.txt"):
        load_scan_precomputed(tmp_path / "nowhere")


def test_vocabulary(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({"word2idx": {"<pad>": 0, "dog": 4}, "idx2word": {"0": "<pad>"}, "idx": 5}))
    assert read_scan_vocabulary(path) == {"<pad>": 0, "dog": 4}
    path.write_text(json.dumps({"words": []}))
    with pytest.raises(DataError, match="not a vocabulary of SCAN"):
        read_scan_vocabulary(path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("place", "vocabulary", "sizes"),
    [
        ("flickr30k", "f30k_precomp_vocab.json", {"validation": 1014, "test": 1000}),
        ("coco/precomp_text", "coco_precomp_vocab.json", {"validation": 1000, "test": 1000}),
    ],
)
def test_published_captions(data_root, tmp_path, place, vocabulary, sizes):
    source = data_root / place
    if not source.is_dir():
        pytest.skip(f"no folder {source}")
    data = load_scan_precomputed(source)
    assert {name: len(split) for name, split in data.items()} == sizes
    # Features of the right length, tiny: the published ones are 20 GB.
    for split, name in (("validation", "dev"), ("test", "test")):
        (tmp_path / f"{name}_caps.txt").symlink_to(source / f"{name}_caps.txt")
        np.save(tmp_path / f"{name}_ims.npy", np.arange(sizes[split], dtype=np.float32).reshape(-1, 1, 1))
    assert open_scan_regions(tmp_path).features(["test-999", "dev-7"]).ravel().tolist() == [999.0, 7.0]
    words = read_scan_vocabulary(source / vocabulary)
    assert words["<pad>"] == 0 and len(words) == read_json(source / vocabulary)["idx"]


@pytest.mark.parametrize("header", ["(" * 500 + ")" * 500, "{'descr': '<f4',\n", "{'descr': '|O', 'shape': (2,)}", "7"])
def test_a_damaged_header_is_named(folder, header):
    """NumPy reads headers with Python's own parser, whose errors are of many kinds."""
    body = header.encode().ljust(117) + b"\n"
    (folder / "dev_ims.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
    with pytest.raises(DataError, match="dev_ims.npy: truncated or not a NumPy array"):
        open_scan_regions(folder)


def test_several_arrays_are_not_one(folder):
    np.savez(folder / "arrays.npz", a=np.zeros(3))
    (folder / "arrays.npz").rename(folder / "dev_ims.npy")
    with pytest.raises(DataError, match="dev_ims.npy"):
        open_scan_regions(folder)

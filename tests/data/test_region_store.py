import json

import numpy as np
import pytest

from vl_alignment.data.features import extract_regions
from vl_alignment.data.region_store import RegionStore
from vl_alignment.models.errors import DataError


@pytest.fixture
def folder(photographs, extractor, tmp_path):
    extract_regions(photographs, extractor, tmp_path / "store", batch_size=4, images_per_shard=5, progress=False)
    return tmp_path / "store"


def change_index(folder, **values):
    index = json.loads((folder / "index.json").read_text())
    index.update(values)
    (folder / "index.json").write_text(json.dumps(index))


def test_gather_follows_the_given_order_across_shards():
    features = np.arange(10 * 2 * 3, dtype=np.float32).reshape(10, 2, 3)
    ids = [f"image{row}" for row in range(10)]
    store = RegionStore(ids, [features[:4], features[4:5], features[5:]], None, extractor="x", extractor_version="1")
    rows = [9, 0, 4, 4, 3, 5]
    np.testing.assert_array_equal(store.features([ids[row] for row in rows]), features[rows])
    assert store.features([]).shape == (0, 2, 3)
    gathered = store.features(["image0"])
    gathered[:] = -1
    assert features[0, 0, 0] == 0, "a gather is a copy"


def test_unknown_image_is_named(folder):
    store = RegionStore.open(folder)
    assert "00" in store and "elsewhere" not in store
    with pytest.raises(DataError, match="no image 'elsewhere'; run extract-features"):
        store.features(["00", "elsewhere"])


def test_index_has_the_agreed_fields(folder):
    index = json.loads((folder / "index.json").read_text())
    assert {name: index[name] for name in ("schema_version", "extractor", "extractor_version", "complete")} == {
        "schema_version": 1,
        "extractor": "quadrant_colours",
        "extractor_version": "1",
        "complete": True,
    }
    assert (index["feature_size"], index["regions"], index["dtype"]) == (3, 4, "float16")
    assert index["image_ids"][:2] == ["00", "01"] and index["image_sizes"][0] == [10, 20]
    assert sorted(path.name for path in folder.iterdir()) == [
        *[f"boxes-0000{number}.npy" for number in range(3)],
        *[f"features-0000{number}.npy" for number in range(3)],
        "index.json",
    ]


def test_features_stay_on_disk(folder):
    store = RegionStore.open(folder)
    shard = store._features.shards[0]
    assert isinstance(shard.base, np.memmap) and not shard.flags.writeable


def test_damaged_stores_are_refused(folder):
    shard = folder / "features-00001.npy"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(DataError, match="features-00001.npy: .*truncated"):
        RegionStore.open(folder)
    shard.write_bytes(b"")
    with pytest.raises(DataError, match="truncated"):
        RegionStore.open(folder)
    shard.unlink()
    with pytest.raises(DataError, match="features-00001.npy: .*missing"):
        RegionStore.open(folder)
    np.save(shard, np.zeros((5, 4, 9), np.float16))
    with pytest.raises(DataError, match=r"holds \(5, 4, 9\) float16, the index says \(5, 4, 3\)"):
        RegionStore.open(folder)


def test_newer_incomplete_and_unreadable_indices_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no region store here"):
        RegionStore.open(tmp_path / "nowhere")
    change_index(folder, complete=False)
    with pytest.raises(DataError, match="incomplete"):
        RegionStore.open(folder)
    change_index(folder, complete=True, schema_version=2)
    with pytest.raises(DataError, match="schema version 2, .* reads up to 1; upgrade"):
        RegionStore.open(folder)
    (folder / "index.json").write_text('{"schema_version": 1, "complete": true}')
    with pytest.raises(DataError, match="index.json lacks dtype, extractor, "):
        RegionStore.open(folder)
    (folder / "index.json").write_text('{"schema_version": 1, ')
    with pytest.raises(DataError, match="not readable JSON"):
        RegionStore.open(folder)


def test_rows_must_fit_the_ids():
    features = np.zeros((2, 4, 3))
    with pytest.raises(DataError, match="2 rows of features do not fit 1 images"):
        RegionStore(["a"], [features], None, extractor="x", extractor_version="1")
    with pytest.raises(DataError, match="occurs twice"):
        RegionStore(["a", "a"], [features], None, extractor="x", extractor_version="1")
    store = RegionStore(["a", "b"], [features], None, extractor="x", extractor_version="1")
    with pytest.raises(DataError, match="without boxes"):
        store.boxes(["a"])


@pytest.mark.parametrize(
    "values",
    [
        {"dtype": "no type"},
        {"dtype": "x" * 10_000},
        {"image_sizes": 3},
        {"image_sizes": [[8]]},
        {"image_ids": [["00"]]},
        {"shards": []},
        {"shards": [{"features": 7, "boxes": "b.npy", "images": 1}]},
        {"shards": [{"features": "../features.npy", "boxes": "b.npy", "images": 1}]},
        {"shards": [{"features": "/features.npy", "boxes": "b.npy", "images": 1}]},
        {"shards": ["a"]},
        {"regions": "4"},
        {"failures": [1]},
    ],
)
def test_a_damaged_index_is_named(folder, values):
    change_index(folder, **values)
    with pytest.raises(DataError, match="store: index.json is damaged") as raised:
        RegionStore.open(folder)
    assert len(str(raised.value)) < 1_000


def test_an_index_that_is_a_folder_or_nested_without_end_is_named(folder):
    (folder / "index.json").write_text("[" * 50_000)
    with pytest.raises(DataError, match="nested too deeply"):
        RegionStore.open(folder)
    (folder / "index.json").unlink()
    (folder / "index.json").mkdir()
    with pytest.raises(DataError, match="store: the index is not readable"):
        RegionStore.open(folder)

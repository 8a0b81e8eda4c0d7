import multiprocessing
import os
import pickle
import sys

import datasets
import numpy as np
import pytest

from vl_alignment.data.features import RegionStore, extract_regions, open_regions
from vl_alignment.data.hdf5_features import Hdf5Regions
from vl_alignment.models.errors import ConfigurationError, DataError

h5py = pytest.importorskip("h5py")

SIZE, HEIGHT, WIDTH = 5, 3, 2


def grids(number, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(number, SIZE, HEIGHT, WIDTH)).astype(dtype)


def write(path, array, name="features", **options):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=array, **options)
    return path


@pytest.fixture
def images():
    """Three training images, of which the second of the file is not used, and two for validation."""
    train = {"image_id": ["t0", "t2", "t3"], "image_index": [0, 2, 3]}
    return datasets.DatasetDict(
        train=datasets.Dataset.from_dict(train), validation=datasets.Dataset.from_dict({"image_id": ["v0", "v1"]})
    )


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train_features.h5", grids(4))
    write(tmp_path / "val_features.h5", grids(2, seed=1))
    return tmp_path


def test_it_reads_like_a_region_store(folder, images):
    store = open_regions(folder, images)
    assert isinstance(store, Hdf5Regions) and isinstance(store, RegionStore)
    assert (len(store), store.regions, store.feature_size, store.dtype) == (5, 6, 5, np.float32)
    assert store.path == folder and store.extractor == "hdf5" and store.extractor_version.startswith("5x3x2-")
    assert "t2" in store and "t1" not in store and store.image_ids == ["t0", "t2", "t3", "v0", "v1"]
    features = store.features(["v1", "t2", "t2"])
    assert features.shape == (3, 6, 5) and features.flags.c_contiguous and features.flags.writeable
    for position, grid in enumerate((grids(2, seed=1)[1], grids(4)[2], grids(4)[2])):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                np.testing.assert_array_equal(features[position, row * WIDTH + column], grid[:, row, column])
    # Boxes of the cells in the same order: row by row.
    np.testing.assert_allclose(store.boxes(["t0", "v0"])[1, 1], [0.5, 0, 1, 1 / 3])
    with pytest.raises(DataError, match="the region store has no image 't1'"):
        store.features(["t1"])
    with pytest.raises(DataError, match="without image sizes"):
        store.image_sizes(["t0"])
    assert store.failures == []


@pytest.mark.parametrize("options", [{"chunks": (1, SIZE, HEIGHT, WIDTH)}, {"compression": "gzip"}])
@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64"])
def test_chunks_compression_and_other_numbers(tmp_path, images, options, dtype):
    array = grids(4, dtype=dtype)
    plain = Hdf5Regions({"train": write(tmp_path / "plain.h5", array)}, images)
    packed = Hdf5Regions({"train": write(tmp_path / "packed.hdf5", array, **options)}, images)
    assert plain.dtype == packed.dtype == np.dtype("float16" if dtype == "float16" else "float32")
    expected = array[[3, 0]].reshape(2, SIZE, -1).transpose(0, 2, 1).astype(plain.dtype)
    for store in (plain, packed):
        features = store.features(["t3", "t0"])
        assert features.dtype == store.dtype and features.dtype.isnative
        np.testing.assert_array_equal(features, expected)
    assert plain.extractor_version == packed.extractor_version


def test_version_notices_other_features(tmp_path, images):
    first, second = (Hdf5Regions({"train": write(tmp_path / f"{seed}.h5", grids(4, seed))}, images) for seed in (0, 1))
    assert first.extractor_version != second.extractor_version
    named = Hdf5Regions(
        {"train": tmp_path / "0.h5"}, images, extractor="resnet101-conv4", extractor_version="torchvision"
    )
    assert (named.extractor, named.extractor_version) == ("resnet101-conv4", "torchvision")


def test_files_by_their_usual_names(folder, images):
    (folder / "val_features.h5").rename(folder / "features_validation.hdf5")
    assert len(open_regions(folder, images)) == 5
    (folder / "features_validation.hdf5").unlink()
    with pytest.raises(DataError, match="no feature file for the validation split: none of validation_features.h5, "):
        open_regions(folder, images)
    train = datasets.DatasetDict(train=images["train"])
    assert len(open_regions(folder / "train_features.h5", train)) == 3
    (folder / "train_features.h5").rename(folder / "features.h5")
    assert len(open_regions(folder, train)) == 3
    with pytest.raises(DataError, match="one file cannot hold the splits train, validation"):
        open_regions(folder / "features.h5", images)


def test_folder_of_a_region_store_is_opened_as_one(photographs, extractor, tmp_path):
    extract_regions(photographs, extractor, tmp_path / "store", progress=False)
    assert type(open_regions(tmp_path / "store", photographs)) is RegionStore
    with pytest.raises(DataError, match="there is no region store here"):
        open_regions(tmp_path, photographs)


@pytest.mark.parametrize(
    ("array", "name", "message"),
    [
        (grids(3), "features", "has 3 rows, but the train split 3 images with indices up to 3; .* not from all"),
        (grids(4), "data", "there is no dataset 'features' in it; it holds data"),
        (grids(4).reshape(4, -1), "features", r"expected floats .*, found float32 \(4, 30\)"),
        (grids(4).astype(int), "features", r"expected floats .*, found int64 \(4, 5, 3, 2\)"),
        (grids(0), "features", "expected floats"),
        (np.zeros((4, 3, 3, 5)), "features", "looks like .images, rows, columns, channels."),
    ],
)
def test_wrong_content_is_named(tmp_path, images, array, name, message):
    path = write(tmp_path / "train.h5", array, name)
    with pytest.raises(DataError, match=f"train.h5.*: .*{message}"):
        Hdf5Regions({"train": path}, images)


@pytest.mark.parametrize("options", [{}, {"chunks": (1, SIZE, HEIGHT, WIDTH)}])
def test_a_file_cut_short(tmp_path, images, options):
    path = write(tmp_path / "train.h5", grids(4), **options)
    length = path.stat().st_size
    for kept in (length - 1, length // 2, 100, 0):
        os.truncate(path, kept)
        with pytest.raises(DataError, match="train.h5: cut short or no HDF5 file"):
            Hdf5Regions({"train": path}, images)


def test_files_that_cannot_be_opened(tmp_path, images):
    with pytest.raises(DataError, match="nowhere.h5: this feature file is missing"):
        Hdf5Regions({"train": tmp_path / "nowhere.h5"}, images)
    first, second = write(tmp_path / "a.h5", grids(4)), write(tmp_path / "b.h5", grids(4)[:, :4])
    with pytest.raises(DataError, match=r"b.h5: it holds \(4, 3, 2\) of float32 an image, but .*a.h5 \(5, 3, 2\)"):
        Hdf5Regions({"train": first, "validation": second}, images)


def test_damaged_chunks_are_named_when_they_are_read(tmp_path, images):
    path = write(tmp_path / "train.h5", grids(4), chunks=(1, SIZE, HEIGHT, WIDTH), fletcher32=True)
    with h5py.File(path) as file:
        offset = file["features"].id.get_chunk_info(2).byte_offset
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 8)
    with pytest.raises(DataError, match="train.h5, record 2: cannot be read"):
        Hdf5Regions({"train": path}, images).features(["t2"])


def test_without_h5py_the_message_says_how_to_get_it(folder, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigurationError, match=r"vl-alignment\[hdf5\]"):
        open_regions(folder, images)


def read_in_worker(store, queue):
    queue.put(store.features(["t2", "v1"]))


@pytest.mark.distributed
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_forked_and_spawned_workers_read_the_same(tmp_path, images, options):
    write(tmp_path / "train.h5", grids(4), **options)
    write(tmp_path / "validation.h5", grids(2), **options)
    store = open_regions(tmp_path, images)
    expected = store.features(["t2", "v1"])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=read_in_worker, args=(store, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        np.testing.assert_array_equal(queue.get(timeout=60), expected)
    for worker in workers:
        worker.join(timeout=60)
    # What a spawned worker gets: the files opened anew, not their content.
    content = pickle.dumps(store)
    assert len(content) < 5000
    np.testing.assert_array_equal(pickle.loads(content).features(["t2", "v1"]), expected)


def test_nothing_else_is_read(tmp_path):
    """A file far larger than memory: only what is asked for is touched."""
    path = tmp_path / "train.h5"
    with h5py.File(path, "w") as file:
        features = file.create_dataset("features", (100_000, 1024, 14, 14), "float32", chunks=(1, 1024, 14, 14))
        features[99_999] = np.full((1024, 14, 14), 2.5)
    images = datasets.DatasetDict(train=datasets.Dataset.from_dict({"image_id": ["a"], "image_index": [99_999]}))
    store = Hdf5Regions({"train": path}, images)
    assert store.features(["a"]).shape == (1, 196, 1024) and (store.features(["a"]) == 2.5).all()


def test_features_that_lie_in_another_file_are_refused(tmp_path, images):
    """HDF5 can point to any file of the machine, in three ways, or to something else in the same file."""
    array, path = grids(4), tmp_path / "train_features.h5"
    other = write(tmp_path / "other.h5", array)
    only = {"train": images["train"]}
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(str(other), "features")
    with pytest.raises(DataError, match="train_features.h5: .* is only a link"):
        Hdf5Regions.find(path, only)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", array.shape, "f4", external=[(str(other), 0, array.nbytes)])
    with pytest.raises(DataError, match="is only a link"):
        Hdf5Regions.find(path, only)
    layout = h5py.VirtualLayout(array.shape, "f4")
    layout[:] = h5py.VirtualSource(str(other), "features", array.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)
    with pytest.raises(DataError, match="is only a link"):
        Hdf5Regions.find(path, only)
    with h5py.File(path, "w") as file:
        file["features"] = h5py.SoftLink("/features")
    with pytest.raises(DataError, match="is only a link"):
        Hdf5Regions.find(path, only)


def test_features_too_large_for_any_picture_are_refused(tmp_path, images):
    path = tmp_path / "train_features.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (4, 10**6, 10**3, 10**3), "f4", chunks=(1, 10, 10, 10))
    with pytest.raises(DataError, match="train_features.h5: .* too large"):
        Hdf5Regions.find(path, {"train": images["train"]})

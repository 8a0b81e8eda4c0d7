import json
import logging
import subprocess
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from vl_alignment.data import features as features_module
from vl_alignment.data.features import (
    RegionStore,
    build_extractor,
    extract_regions,
    extractor_names,
    register_extractor,
    without_failed_images,
)
from vl_alignment.models.errors import ConfigurationError, DataError

SMALL = {"batch_size": 2, "images_per_shard": 5, "progress": False}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_are_those_of_the_right_picture(photographs, extractor, tmp_path):
    store = extract_regions(photographs, extractor, tmp_path / "store", dtype="float32", **SMALL)
    assert store.image_ids == [f"{number:02d}" for number in range(12)]
    assert (store.extractor, store.extractor_version, store.feature_size, store.regions) == (
        "quadrant_colours",
        "1",
        3,
        4,
    )
    # JPEG changes plain colours by at most 1 of 255. 00 and 06 are red, 02 is blue.
    expected = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0]], dtype=np.float32)[:, None].repeat(4, axis=1)
    np.testing.assert_allclose(store.features(["02", "00", "06"]), expected, atol=2 / 255)
    assert store["11"]["image_size"] == (10, 20)
    np.testing.assert_allclose(store["11"]["boxes"][1], [0.5, 0, 1, 0.5])


def test_pictures_held_as_bytes(extractor, tmp_path):
    data = datasets.Dataset.from_dict(
        {"image_id": ["a", "b"], "image": [Image.new("RGB", (4, 4), "white"), Image.new("L", (4, 6), 255)]},
        features=datasets.Features({"image_id": datasets.Value("string"), "image": datasets.Image()}),
    )
    store = extract_regions(datasets.DatasetDict(test=data), extractor, tmp_path / "store", progress=False)
    np.testing.assert_array_equal(store.features(["b", "a"]), np.ones((2, 4, 3)))
    assert store.image_sizes(["b"]) == [(6, 4)]


@pytest.mark.parametrize("stop_after", [0, 3, 5, 9, 11])
def test_interrupted_run_ends_with_the_same_bytes(photographs, extractor, tmp_path, stop_after):
    extract_regions(photographs, type(extractor)(), tmp_path / "whole", **SMALL)
    extractor.stop_after = stop_after
    with pytest.raises(KeyboardInterrupt):
        extract_regions(photographs, extractor, tmp_path / "resumed", **SMALL)
    finished_shards = extractor.seen // 5
    message = "incomplete" if finished_shards else "no region store"
    with pytest.raises(DataError, match=message):
        RegionStore.open(tmp_path / "resumed")
    # What a kill in the middle of a write leaves.
    (tmp_path / "resumed" / ".features-00000.npy-abc").write_bytes(b"half")
    second = type(extractor)()
    extract_regions(photographs, second, tmp_path / "resumed", **SMALL)
    assert second.seen == 12 - 5 * finished_shards
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")


def test_finished_store_is_left_alone_and_extended(photographs, extractor, tmp_path):
    train = datasets.DatasetDict(train=photographs["train"])
    extract_regions(train, extractor, tmp_path / "store", **SMALL)
    before = files_of(tmp_path / "store")
    again = type(extractor)()
    extract_regions(train, again, tmp_path / "store", **SMALL)
    assert again.seen == 0 and files_of(tmp_path / "store") == before
    store = extract_regions(photographs, again, tmp_path / "store", **SMALL)
    assert again.seen == 4 and len(store) == 12
    whole = extract_regions(photographs, type(extractor)(), tmp_path / "whole", **SMALL)
    np.testing.assert_array_equal(store.features(whole.image_ids), whole.features(whole.image_ids))


def test_another_extractor_or_dtype_is_refused(photographs, extractor, tmp_path):
    extract_regions(photographs, extractor, tmp_path / "store", **SMALL)
    with pytest.raises(DataError, match="dtype 'float16', these would have 'float32'"):
        extract_regions(photographs, extractor, tmp_path / "store", dtype="float32", **SMALL)
    extractor.version = "2"
    with pytest.raises(DataError, match="extractor_version '1', these would have '2'; give another output"):
        extract_regions(photographs, extractor, tmp_path / "store", **SMALL)


def test_unfinished_extraction_of_another_kind_is_refused(photographs, extractor, tmp_path):
    extractor.stop_after = 6
    with pytest.raises(KeyboardInterrupt):
        extract_regions(photographs, extractor, tmp_path / "store", **SMALL)
    with pytest.raises(DataError, match="unfinished extraction"):
        extract_regions(datasets.DatasetDict(test=photographs["test"]), extractor, tmp_path / "store", **SMALL)


def test_broken_images_are_reported_counted_and_left_out(photographs, image_folder, extractor, tmp_path, caplog):
    truncated = image_folder / "03.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-40])
    (image_folder / "10.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        store = extract_regions(photographs, extractor, tmp_path / "store", **SMALL)
    assert "left out image 03" in caplog.text and str(truncated) in caplog.text
    assert "left out image 10" in caplog.text and "2 of 12 images were left out" in caplog.text
    assert store.image_ids == ["00", "01", "02", "04", "05", "06", "07", "08", "09", "11"]
    assert json.loads((tmp_path / "store" / "index.json").read_text())["failures"] == ["03", "10"]
    np.testing.assert_allclose(store.features(["04"])[0, 0], [0, 1, 1], atol=2 / 255)
    readable = without_failed_images(photographs, store)
    assert [len(split) for split in readable.values()] == [7, 2, 1] and readable["test"]["image_id"][:] == ["11"]
    # Nothing new to read: the store stays as it is, byte for byte.
    before = files_of(tmp_path / "store")
    extract_regions(photographs, extractor, tmp_path / "store", **SMALL)
    assert files_of(tmp_path / "store") == before
    # A repaired picture is added by running again.
    Image.new("RGB", (20, 10), (255, 255, 0)).save(truncated)
    store = extract_regions(photographs, extractor, tmp_path / "store", **SMALL)
    assert len(store) == 11
    np.testing.assert_allclose(store.features(["03"])[0, 0], [1, 1, 0], atol=2 / 255)


def test_a_shard_without_readable_images_leaves_a_gap(photographs, image_folder, extractor, tmp_path):
    for number in (2, 3):
        (image_folder / f"{number:02d}.jpg").write_bytes(b"")
    settings = {"batch_size": 2, "images_per_shard": 2, "progress": False}
    train = datasets.DatasetDict(train=photographs["train"])
    extract_regions(train, extractor, tmp_path / "store", **settings)
    store = extract_regions(photographs, extractor, tmp_path / "store", **settings)
    assert len(store) == 10
    np.testing.assert_allclose(store.features(["07"])[0, 0], [0, 1, 0], atol=2 / 255)
    np.testing.assert_allclose(store.features(["08"])[0, 0], [0, 0, 1], atol=2 / 255)


def test_too_many_broken_images_stop_the_run(photographs, image_folder, extractor, tmp_path):
    for number in (1, 4, 7):
        (image_folder / f"{number:02d}.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="3 images could not be read .*limit is 2.* 01, 04, 07"):
        extract_regions(photographs, extractor, tmp_path / "store", maximum_failures=2, **SMALL)
    # Repaired, the run goes on and has all of them, those of the finished shards too.
    for number in (1, 4, 7):
        Image.new("RGB", (20, 10)).save(image_folder / f"{number:02d}.jpg")
    store = extract_regions(photographs, extractor, tmp_path / "store", maximum_failures=2, **SMALL)
    assert len(store) == 12


def test_features_that_are_not_finite_name_the_image(photographs, extractor, tmp_path, monkeypatch):
    def with_value(value):
        def call(self, images):
            features = np.zeros((len(images), 4, 3), dtype=np.float32)
            features[-1, 2, 1] = value
            return features, np.zeros((len(images), 4, 4))

        monkeypatch.setattr(type(extractor), "__call__", call)

    with_value(np.nan)
    with pytest.raises(DataError, match="record 01: .*not finite"):
        extract_regions(photographs, extractor, tmp_path / "nan", **SMALL)
    with_value(1e5)
    with pytest.raises(DataError, match="record 01: .*too large for float16: extract with dtype float32"):
        extract_regions(photographs, extractor, tmp_path / "large", **SMALL)
    assert len(extract_regions(photographs, extractor, tmp_path / "float32", dtype="float32", **SMALL)) == 12


def test_wrong_shapes_and_pixel_boxes_are_refused(photographs, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(type(extractor), "__call__", lambda self, images: (np.zeros((2, 4, 2)), np.zeros((2, 4, 4))))
    with pytest.raises(DataError, match=r"gave features \(2, 4, 2\) where it promised \(2, 4, 3\)"):
        extract_regions(photographs, extractor, tmp_path / "a", **SMALL)
    monkeypatch.setattr(type(extractor), "__call__", lambda self, images: (np.zeros((2, 4, 3)), np.full((2, 4, 4), 7)))
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        extract_regions(photographs, extractor, tmp_path / "b", **SMALL)


def test_unwritable_output_is_found_before_anything_else(photographs, extractor, tmp_path):
    (tmp_path / "file").write_text("in the way")
    broken = photographs.remove_columns("image")  # an error of its own, later
    with pytest.raises(DataError, match="cannot write to the output folder"):
        extract_regions(broken, extractor, tmp_path / "file" / "store", **SMALL)
    assert extractor.seen == 0


def test_wrong_input_is_named(photographs, extractor, tmp_path):
    with pytest.raises(DataError, match="split 'train' has no column 'image'"):
        extract_regions(photographs.remove_columns("image"), extractor, tmp_path / "store", **SMALL)
    twice = datasets.DatasetDict(train=photographs["train"], test=photographs["train"])
    with pytest.raises(DataError, match="record 00: this image id occurs twice"):
        extract_regions(twice, extractor, tmp_path / "store", **SMALL)
    with pytest.raises(ConfigurationError, match="float16 or float32, not 'int8'"):
        extract_regions(photographs, extractor, tmp_path / "store", dtype="int8")
    with pytest.raises(ConfigurationError, match="at least 1"):
        extract_regions(photographs, extractor, tmp_path / "store", batch_size=0)


def test_extractors_by_name(extractor, monkeypatch):
    monkeypatch.setattr(features_module, "_FACTORIES", dict(features_module._FACTORIES))
    register_extractor("mine", lambda scale=1: (extractor, scale))
    assert build_extractor("mine", scale=3) == (extractor, 3)
    assert "mine" in extractor_names()
    with pytest.raises(ConfigurationError, match="'mine' is already registered"):
        register_extractor("mine", lambda: extractor)
    with pytest.raises(
        ConfigurationError, match="unknown extractor 'other'; .* efficientnet_lite0, mine, transformers"
    ):
        build_extractor("other")
    with pytest.raises(ConfigurationError, match="extractor 'mine': .*'scales'"):
        build_extractor("mine", scales=3)


def test_postscript_under_the_name_of_a_picture_starts_no_program(photographs, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / "images" / "03.jpg"
    Image.new("RGB", (9, 9)).save(path, "EPS")
    store = extract_regions(photographs, extractor, tmp_path / "store", progress=False)
    assert store.failures == ["03"]


def test_a_damaged_record_of_a_shard_is_named(photographs, extractor, tmp_path):
    (tmp_path / "store").mkdir()
    for content in ("[1]", "{}", '{"failures": 7}', "[" * 50_000):
        (tmp_path / "store" / "part-00000.json").write_text(content)
        with pytest.raises(DataError, match="part-00000.json: not readable"):
            extract_regions(photographs, extractor, tmp_path / "store", progress=False)

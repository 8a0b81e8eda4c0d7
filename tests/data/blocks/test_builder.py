import datasets
import numpy as np
import pytest

from vl_alignment.data.blocks import BlocksBuilder, Scene, load_blocks, render_scene
from vl_alignment.models.errors import ConfigurationError

SMALL = {"train": 6, "validation": 3, "test": 2, "image_size": 32}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("blocks-cache"))


@pytest.fixture(scope="module")
def blocks(cache_dir: str) -> datasets.DatasetDict:
    return load_blocks(**SMALL, cache_dir=cache_dir)


def test_splits_and_columns(blocks: datasets.DatasetDict) -> None:
    assert {split: len(records) for split, records in blocks.items()} == {"train": 6, "validation": 3, "test": 2}
    assert blocks["train"].column_names == ["image_id", "image", "captions", "scene", "masks"]
    assert blocks["test"]["image_id"][:] == ["blocks-test-000000", "blocks-test-000001"]
    ids = [image_id for records in blocks.values() for image_id in records["image_id"]]
    assert len(set(ids)) == 11


def test_records_hold_the_picture_and_mask_of_their_scene(blocks: datasets.DatasetDict) -> None:
    record = blocks["validation"][1]
    picture, mask = render_scene(Scene.from_json(record["scene"]), 32)
    assert record["image"].mode == "RGB" and record["masks"].mode == "L"
    np.testing.assert_array_equal(np.asarray(record["image"]), picture)
    np.testing.assert_array_equal(np.asarray(record["masks"]), mask)
    assert len(record["captions"]) == 5


def test_a_second_load_makes_nothing(blocks: datasets.DatasetDict, cache_dir: str, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(BlocksBuilder, "_generate_examples", refuse)
    again = load_blocks(**SMALL, cache_dir=cache_dir)
    assert again["train"]["captions"][:] == blocks["train"]["captions"][:]


def test_streaming_gives_the_same_records(blocks: datasets.DatasetDict, cache_dir: str) -> None:
    stream = BlocksBuilder(**SMALL, cache_dir=cache_dir).as_streaming_dataset("train")
    records = list(stream.take(2))
    assert [record["scene"] for record in records] == blocks["train"]["scene"][:2]
    np.testing.assert_array_equal(np.asarray(records[1]["image"]), np.asarray(blocks["train"][1]["image"]))
    many = BlocksBuilder(train=1000, cache_dir=cache_dir).as_streaming_dataset("train")
    assert many.num_shards == 4


def test_the_cache_key_depends_on_every_setting_and_on_the_content(cache_dir: str, monkeypatch) -> None:
    settings = {
        "train": 7,
        "validation": 4,
        "test": 3,
        "seed": 1,
        "image_size": 33,
        "minimum_objects": 4,
        "maximum_objects": 9,
    }
    variants = [SMALL] + [{**SMALL, name: value} for name, value in settings.items()]
    folders = {BlocksBuilder(**variant, cache_dir=cache_dir).cache_dir for variant in variants}
    assert len(folders) == len(variants)
    # A default that is given is the same as one that is not.
    assert BlocksBuilder(**SMALL, seed=0, cache_dir=cache_dir).cache_dir in folders
    monkeypatch.setattr(BlocksBuilder, "VERSION", datasets.Version("99.0.0"))
    assert BlocksBuilder(**SMALL, cache_dir=cache_dir).cache_dir not in folders


def test_a_record_does_not_depend_on_the_split_sizes(blocks: datasets.DatasetDict, cache_dir: str) -> None:
    other = load_blocks(train=2, validation=0, test=0, image_size=32, cache_dir=cache_dir)
    assert list(other) == ["train"]
    assert other["train"]["scene"][:] == blocks["train"]["scene"][:2]
    assert other["train"]["captions"][:] == blocks["train"]["captions"][:2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 0, "validation": 0, "test": 0}, "at least one scene"),
        ({"train": -1}, "none negative"),
        ({"image_size": 500}, "image_size=500"),
        ({"maximum_objects": 40}, "maximum_objects=40"),
    ],
)
def test_settings_that_cannot_be_made_are_refused(settings: dict, message: str, cache_dir: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_blocks(**{**SMALL, **settings}, cache_dir=cache_dir)


def test_the_environment_moves_the_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VL_ALIGNMENT_CACHE", str(tmp_path))
    load_blocks(train=1, validation=0, test=0, image_size=32)
    assert list((tmp_path / "datasets" / "blocks").iterdir())


def test_descriptions_are_a_setting_of_their_own(cache_dir: str) -> None:
    few = {"train": 3, "validation": 0, "test": 0, "image_size": 32, "minimum_objects": 1, "maximum_objects": 3}
    described = load_blocks(**few, descriptions=True, cache_dir=cache_dir)["train"]
    partly = load_blocks(**{**few, "minimum_objects": 2}, cache_dir=cache_dir)["train"]
    assert described["captions"][:] != partly["captions"][:]
    with pytest.raises(ConfigurationError, match="minimum_objects=1, .*need 2 <= minimum"):
        load_blocks(**few, cache_dir=cache_dir)
    with pytest.raises(ConfigurationError, match="maximum_objects=4: descriptions name all objects of a scene, 3 at"):
        load_blocks(**{**few, "maximum_objects": 4}, descriptions=True, cache_dir=cache_dir)

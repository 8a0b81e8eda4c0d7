import pytest

from vl_alignment.data.blocks import Scene
from vl_alignment.data.text_to_image import load_text_to_image_dataset, text_to_image_dataset_names
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
    with pytest.raises(ConfigurationError, match="unknown data set 'birds'; the known ones are blocks"):
        load_text_to_image_dataset("birds")
    assert text_to_image_dataset_names()[0] == "blocks"

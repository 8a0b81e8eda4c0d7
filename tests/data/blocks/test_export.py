from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml

from vl_alignment.data.blocks import export_blocks, load_blocks
from vl_alignment.data.blocks.__main__ import main
from vl_alignment.data.retrieval import content_hash
from vl_alignment.models.errors import DataError


@pytest.fixture(scope="module")
def blocks(tmp_path_factory) -> datasets.DatasetDict:
    return load_blocks(
        train=5, validation=2, test=2, image_size=32, cache_dir=str(tmp_path_factory.mktemp("blocks-cache"))
    )


def test_round_trip(blocks: datasets.DatasetDict, tmp_path: Path) -> None:
    fingerprint = export_blocks(blocks, tmp_path / "out")
    assert fingerprint == content_hash(blocks)
    assert export_blocks(blocks, tmp_path / "again") == fingerprint
    assert (tmp_path / "out" / "data" / "train-00000-of-00001.parquet").is_file()
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].features == blocks["train"].features
    assert content_hash(loaded) == fingerprint
    for split in blocks:
        assert loaded[split]["scene"][:] == blocks[split]["scene"][:]
        for name in ("image", "masks"):
            pairs = zip(loaded[split][name], blocks[split][name], strict=True)
            assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in pairs)


def test_the_card_has_valid_metadata_and_says_how_it_was_made(blocks: datasets.DatasetDict, tmp_path: Path) -> None:
    fingerprint = export_blocks(blocks, tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", maxsplit=2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "apache-2.0"
    assert metadata["size_categories"] == "n<1K"
    assert "text-to-image" in metadata["task_categories"]
    assert metadata["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-00000-of-00001.parquet"}
    assert [split["num_examples"] for split in metadata["dataset_info"]["splits"]] == [5, 2, 2]
    assert fingerprint in text and "32 x 32" in text and blocks["train"]["captions"][0][0] in text
    assert "$" not in text
    assert (tmp_path / "examples.png").is_file()


def test_what_is_no_blocks_data_set_or_cannot_be_written_is_refused(
    blocks: datasets.DatasetDict, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="lacks scene"):
        export_blocks(datasets.DatasetDict(train=blocks["train"].remove_columns("scene")), tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Cannot write"):
        export_blocks(blocks, tmp_path / "file")


def test_one_command_exports(tmp_path: Path, capsys) -> None:
    sizes = ["--train", "2", "--validation", "1", "--test", "1", "--image-size", "32"]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert main([str(tmp_path / "out"), *sizes, *cache]) == 0
    assert "content hash" in capsys.readouterr().out
    assert len(datasets.load_dataset(str(tmp_path / "out"), split="test", cache_dir=str(tmp_path / "cache"))) == 1
    assert main([str(tmp_path / "out"), "--image-size", "7"]) == 2
    assert "image_size=7" in capsys.readouterr().err

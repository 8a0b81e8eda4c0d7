import json
import sys
from types import ModuleType

import pytest

from vl_alignment.data.text_question_answering import load_text_question_dataset, text_question_dataset_names
from vl_alignment.models.errors import ConfigurationError, DataError


@pytest.fixture
def stvqa(tmp_path):
    entries = [
        {"question_id": number, "question": "What?", "file_path": f"vizwiz/{number // 2}.jpg", "answers": ["x"]}
        for number in range(6)
    ]
    folder = tmp_path / "stvqa"
    folder.mkdir()
    (folder / "train_task_3.json").write_text(json.dumps({"data": entries}))
    return folder


def test_by_name_and_size(stvqa, tmp_path, monkeypatch):
    monkeypatch.setenv("VL_ALIGNMENT_DATA", str(tmp_path))
    data = load_text_question_dataset("stvqa", sizes={"train": 2})
    assert data.images["train"]["image_id"][:] == ["vizwiz/0.jpg", "vizwiz/1.jpg"]
    assert data.questions["train"]["question_id"][:] == ["0", "1", "2", "3"]
    assert len(load_text_question_dataset("stvqa", stvqa).questions["train"]) == 6


def test_blocks_are_made_with_the_sizes_and_options(tmp_path, monkeypatch):
    module = ModuleType("vl_alignment.data.blocks.text_builder")
    calls = []

    def load_blocks_text(*, cache_dir=None, train=5, validation=5, test=5, seed=0):
        calls.append({"cache_dir": cache_dir, "train": train, "validation": validation, "test": test, "seed": seed})
        return "data"

    module.load_blocks_text = load_blocks_text
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sizes = {"train": 3, "test": 2}
    assert load_text_question_dataset("blocks-text", cache_dir=tmp_path, sizes=sizes, seed=4) == "data"
    assert calls == [{"cache_dir": tmp_path, "train": 3, "validation": 5, "test": 2, "seed": 4}]
    with pytest.raises(ConfigurationError, match="data set 'blocks-text': .*'colour'"):
        load_text_question_dataset("blocks-text", colour=1)
    with pytest.raises(DataError, match="there is no split 'dev'"):
        load_text_question_dataset("blocks-text", sizes={"dev": 1})


def test_wrong_names(stvqa, tmp_path, monkeypatch):
    monkeypatch.delenv("VL_ALIGNMENT_DATA", raising=False)
    assert text_question_dataset_names() == ["blocks-text", "textvqa", "stvqa"]
    with pytest.raises(ConfigurationError, match="unknown data set 'vqa'; the known ones are blocks-text, textvqa, st"):
        load_text_question_dataset("vqa")
    with pytest.raises(DataError, match="where is textvqa.*--data-dir"):
        load_text_question_dataset("textvqa")
    with pytest.raises(DataError, match="nowhere: the folder of textvqa does not exist"):
        load_text_question_dataset("textvqa", tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="data set 'stvqa': .*'colour'"):
        load_text_question_dataset("stvqa", stvqa, colour=1)
    with pytest.raises(DataError, match="split 'train' of stvqa has 3 images, 4 were asked for"):
        load_text_question_dataset("stvqa", stvqa, sizes={"train": 4})
    with pytest.raises(DataError, match="there is no split 'test'; the data set has train"):
        load_text_question_dataset("stvqa", stvqa, sizes={"test": 1})

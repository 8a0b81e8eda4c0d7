from types import SimpleNamespace

import datasets
import pytest
from PIL import Image

from vl_alignment.analysis.comparison import compare, planned_runs
from vl_alignment.analysis.run_examples import _save, write_run_examples
from vl_alignment.hub.card_examples import read_examples
from vl_alignment.models.errors import ResultsError
from vl_alignment.training.preparation import prepare_study

SIZES = {"train": 16, "validation": 8, "test": 8}


def test_examples_of_a_run_are_its_model_s_own_from_pixels(tmp_path):
    study = prepare_study(
        "blocks",
        output=tmp_path,
        sizes=SIZES,
        settings={"epochs": 1, "batch_size": 8, "decay_epochs": [], "all_negatives_epochs": 1, "device": "cpu"},
        model_fields={"hidden_size": 8, "word_embedding_size": 4},
    )
    results = compare(study, tmp_path, planned_runs(["dot"], [0]), controls=False, announce=lambda line: None)
    write_run_examples(study, tmp_path, results)
    folder = tmp_path / "scan-blocks-dot-seed0"
    examples = read_examples(folder)
    assert len(examples) == 2
    assert examples[0].texts[0] == study.data["test"][0]["captions"][0] and len(examples[0].texts) == 4
    assert {label for label, _ in examples[0].output} == set(examples[0].texts)
    assert Image.open(folder / "scene-1.png").size == study.data["test"][0]["image"].size
    assert Image.open(folder / "attention.png").format == "PNG"

    before = (folder / "examples.json").stat().st_mtime_ns  # finished runs keep theirs
    write_run_examples(study, tmp_path, results)
    assert (folder / "examples.json").stat().st_mtime_ns == before


def test_photographs_of_a_data_set_are_not_handed_on(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    test = datasets.Dataset.from_dict({"image_id": ["1"], "captions": [["a dog"]]})
    study = SimpleNamespace(images=datasets.DatasetDict({"test": test}), store=None, draws=True)
    write_run_examples(study, tmp_path, [{"run_id": "run"}])
    assert not (tmp_path / "run" / "examples.json").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "scene-1.png" / "in the way").mkdir(parents=True)
    with pytest.raises(ResultsError, match="scene-1.png.*cannot be written"):
        _save(Image.new("RGB", (2, 2)), tmp_path / "scene-1.png")

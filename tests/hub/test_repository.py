"""The folder that is pushed, and the runs that are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vl_alignment.hub.repository import write_repository, write_weights
from vl_alignment.models import ScanConfig, ScanForImageTextRetrieval, ScanProcessor, SquareImageProcessorPil
from vl_alignment.models.errors import CheckpointError, ConfigurationError, ResultsError

from .run_folder import SETTINGS, write_run

REPOSITORY = "me/scan-blocks-general_key"
SCAN_FILES = {
    *("README.md", "config.json", "handler.py", "image_text_matching.py", "model.safetensors", "packaged_pipeline.py"),
    "processor_config.json",
    *("requirements.txt", "results.json", "tokenizer.json", "tokenizer_config.json", "training_arguments.json"),
    *("alignment.py", "alignment_function.py", "checked_inputs.py", "configuration_base.py", "configuration_scan.py"),
    *("errors.py", "modeling_base.py", "modeling_scan.py", "processing_base.py", "processing_scan.py"),
    *("similarity_scan.py", "vision.py"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of SCAN; tests copy it before they change it."""
    torch.manual_seed(0)
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_repository_is_flat_and_the_same_each_time(finished, tmp_path):
    for name in ("first", "second"):
        write_repository(finished, tmp_path / name, repo_id=REPOSITORY)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert {path.name for path in (tmp_path / "first").iterdir()} == SCAN_FILES


def test_what_the_configuration_says(finished, tmp_path):
    write_weights(finished, tmp_path / "repository")
    configuration = json.loads((tmp_path / "repository" / "config.json").read_text())
    model = "modeling_scan.ScanForImageTextRetrieval"
    assert configuration["auto_map"] == {
        "AutoConfig": "configuration_scan.ScanConfig",
        "AutoModel": model,
        "AutoModelForZeroShotImageClassification": model,
    }
    pipeline = {"impl": "image_text_matching.ImageTextMatchingPipeline", "pt": ["AutoModel"]}
    assert configuration["custom_pipelines"] == {"image-text-matching": pipeline}
    assert configuration["alignment_function"] == "general_key"
    processor = json.loads((tmp_path / "repository" / "processor_config.json").read_text())
    assert processor["auto_map"]["AutoProcessor"] == "processing_scan.ScanProcessor"


def test_weights_and_results_are_those_of_the_run(finished, tmp_path):
    write_weights(finished, tmp_path / "repository")
    written, trained = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "repository", finished / "model")
    )
    assert written.keys() == trained.keys()
    assert all(torch.equal(written[name], trained[name]) for name in trained)
    assert json.loads((tmp_path / "repository" / "results.json").read_text()) == json.loads(
        (finished / "results.json").read_text()
    )
    arguments = json.loads((tmp_path / "repository" / "training_arguments.json").read_text())
    assert arguments["settings"] == SETTINGS and arguments["seed"] == 0 and "model" not in arguments
    requirements = (tmp_path / "repository" / "requirements.txt").read_text().splitlines()
    assert [line.split("<")[0].split(">")[0] for line in requirements][-2:] == ["torch", "transformers"]


def test_folders_of_this_machine_do_not_travel(run, tmp_path):
    file = run / "model" / "config.json"
    configuration = json.loads(file.read_text())
    configuration["vision_config"]["_name_or_path"] = "/home/somebody/region-encoder/model"
    file.write_text(json.dumps(configuration))
    write_weights(run, tmp_path / "repository")
    for name, content in contents(tmp_path / "repository").items():
        assert b"/home/somebody" not in content and str(tmp_path).encode() not in content, name


def test_examples_travel_with_their_pictures(run, tmp_path):
    (run / "examples.json").write_text("[]")
    (run / "attention.png").write_bytes(b"picture")
    (run / "history.txt").write_text("stays")
    write_weights(run, tmp_path / "repository")
    files = contents(tmp_path / "repository")
    assert files["examples.json"] == b"[]" and files["attention.png"] == b"picture" and "history.txt" not in files


def test_classes_save_without_code_afterwards(finished, tmp_path):
    write_weights(finished, tmp_path / "repository")
    for one in (ScanConfig, ScanForImageTextRetrieval, ScanProcessor, SquareImageProcessorPil):
        assert one._auto_class is None


def no_results(run):
    (run / "results.json").unlink()


def half_written_results(run):
    text = (run / "results.json").read_text()
    (run / "results.json").write_text(text[: len(text) // 2])


def results_of_another(run):
    text = (run / "results.json").read_text()
    (run / "results.json").write_text(text.replace('"general_key"', '"dot"'))


def damaged_run_file(run):
    (run / "run.json").write_text("{")


def no_model(run):
    shutil.rmtree(run / "model")


def no_processor(run):
    (run / "model" / "processor_config.json").unlink()


def half_written_weights(run):
    file = run / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def half_written_config(run):
    (run / "model" / "config.json").write_text('{"model_type": "sc')


def half_written_tokenizer(run):
    (run / "model" / "tokenizer.json").write_text("{")


def change_weights(run, change):
    file = run / "model" / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def diverged(run):
    change_weights(run, lambda weights: weights["model.cross_attention.alignment.weight"][0].fill_(float("nan")))


def missing_tensor(run):
    change_weights(run, lambda weights: weights.pop(next(iter(weights))))


def another_type(run):
    file = run / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "alignment_function": "mine"}))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (shutil.rmtree, ResultsError, "no such folder of a run"),
        (no_results, ResultsError, "no results: train it to its end first"),
        (half_written_results, ResultsError, "Damaged"),
        (results_of_another, ResultsError, "results are of .*'dot'.*the model beside them is .*'general_key'"),
        (damaged_run_file, ResultsError, "run.json: Cannot be read"),
        (no_model, CheckpointError, "half written: there is no config.json"),
        (no_processor, CheckpointError, "half written: there is no processor_config.json"),
        (half_written_weights, CheckpointError, "cannot be loaded"),
        (half_written_config, CheckpointError, "cannot be loaded"),
        (half_written_tokenizer, CheckpointError, "cannot be loaded"),
        (diverged, CheckpointError, "not finite; the training diverged"),
        (missing_tensor, CheckpointError, "1 missing tensor"),
        (another_type, ConfigurationError, "'mine' is unknown; .*or register_alignment_function first"),
    ],
)
def test_runs_that_are_refused(run, tmp_path, spoil, error, message):
    spoil(run)
    with pytest.raises(error, match=message):
        write_repository(run, tmp_path / "repository", repo_id=REPOSITORY)

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vl_alignment.training.runs import RunDirectory

from .tiny import weights

EXAMPLES = Path(__file__).parents[2] / "examples"
PRESETS = {
    "train_scan": ["blocks", "coco", "flickr30k", "flickr8k"],
    "train_mac": ["blocks-vqa", "clevr"],
    "train_m4c": ["blocks-text", "textvqa"],
    "train_attngan": ["blocks-t2i", "coco-t2i", "cub"],
    "train_damsm": ["blocks-t2i", "coco-t2i", "cub"],
}
TINY = ["--sizes", "train=16", "validation=6", "test=6", "--epochs", "1", "--batch-size", "4", "--cpu"]


@pytest.fixture(params=sorted(PRESETS))
def example(request, monkeypatch):
    """The module of an example, and the one that both import."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "one_run", raising=False)
    return load(request.param)


def load(name):
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def call(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    return module.main(module.build_parser())


def test_presets_are_those_of_the_task(example):
    [presets] = [action.choices for action in example.build_parser()._actions if action.dest == "preset"]
    assert presets == PRESETS[example.__name__]


def test_missing_data_ends_with_one_line_and_exit_status_2(example, tmp_path, monkeypatch, capsys):
    preset = PRESETS[example.__name__][-1]
    given = ["--preset", preset, "--data-dir", tmp_path / "nothing", "--output", tmp_path / "out"]
    assert call(example, monkeypatch, *given) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and preset in error
    assert not list((tmp_path / "out").glob("*"))


def test_interruption_ends_with_exit_status_130(example, tmp_path, monkeypatch, capsys):
    shared = sys.modules["one_run"]

    def interrupted(*arguments, **options):
        raise shared.TrainingInterrupted("Stopped after step 3.")

    # DAMSM shares nothing with other runs that would have to be prepared.
    module, name = (example, "load_study") if hasattr(example, "load_study") else (shared, "prepare_study")
    monkeypatch.setattr(module, name, interrupted)
    assert call(example, monkeypatch, "--output", tmp_path) == 130
    assert capsys.readouterr().err == "Stopped after step 3.\n"


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("name", "preset", "run", "same"),
    [
        # Each process pads its own questions, and the preset's control unit attends to padding; the classifier hardly
        # notices, and shows that batches and gradients were the same.
        ("train_mac", "blocks-vqa", "mac-blocks-scaled_dot-seed0", "classifier."),
        # M4C's results do not depend on padding; its answers are drawn alike.
        ("train_m4c", "blocks-text", "m4c-blocks_text-scaled_dot-seed0", ""),
    ],
)
def test_two_processes_train_as_one_does(name, preset, run, same, tmp_path, monkeypatch, capsys):
    # Batches of four pictures with several questions each, from a region encoder that the two processes train first.
    questions = {"train_mac": "10", "train_m4c": "2"}[name]
    arguments = [*TINY, "--questions-per-image", questions, "--preset", preset]
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    options = ["--mixed_precision", "no", "--dynamo_backend", "no", str(EXAMPLES / f"{name}.py")]
    command = [sys.executable, "-m", *launch, *options, *arguments, "--output", str(tmp_path / "two")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "VL_ALIGNMENT_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, errors = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the launcher's own children too
            raise
    assert process.returncode == 0, errors
    assert len([line for line in output.splitlines() if line.startswith("{'accuracy'")]) == 1

    monkeypatch.setenv("VL_ALIGNMENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "one_run", raising=False)
    assert call(load(name), monkeypatch, *arguments, "--output", tmp_path / "one") == 0
    one, two = (RunDirectory(tmp_path / place / run) for place in ("one", "two"))
    alone, together = (json.loads(run.results.read_text()) for run in (one, two))
    assert alone["dataset"] == together["dataset"] and alone["training"]["steps"] == together["training"]["steps"]
    assert alone["metrics"] == pytest.approx(together["metrics"], abs=1e-4)
    expected, found = weights(one.model), weights(two.model)
    for tensor in (tensor for tensor in expected if tensor.startswith(same)):
        torch.testing.assert_close(found[tensor], expected[tensor], rtol=0, atol=1e-6)

"""Checkpoints that are not what they seem, and the average of the weights in them."""

import json
import os
import pickle
import shutil
from io import BytesIO

import pytest
import torch

from vl_alignment.models.errors import CheckpointError
from vl_alignment.training import checkpoints
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.loop import train
from vl_alignment.training.runs import RunDirectory

from .tiny import TinyModel, TinyObjective, tiny_settings

SETTINGS = {"ema_decay": 0.9}
AVERAGE, PICKLED_AVERAGE = "average.safetensors", "custom_checkpoint_0.pkl"


class Exploit:
    """Makes a file when an ordinary reader unpickles it."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that was stopped in its second epoch."""
    settings, run = tiny_settings(**SETTINGS), RunDirectory(tmp_path_factory.mktemp("stopped") / "run")
    objective = TinyObjective(settings)
    objective.before_loss = {7: lambda: os.kill(os.getpid(), 2)}
    with pytest.raises(TrainingInterrupted):
        train(TinyModel(), objective, settings, run)
    return run.path


def copied(stopped, folder):
    """The run again, elsewhere, and its newest checkpoint."""
    run = RunDirectory(shutil.copytree(stopped, folder))
    return run, max(run.checkpoints.iterdir())


def go_on(run):
    settings, model = tiny_settings(**SETTINGS), TinyModel(seed=5)
    train(model, TinyObjective(settings), settings, run)
    return model


def renew_manifest(checkpoint):
    manifest = json.loads((checkpoint / "checkpoint.json").read_text())
    manifest["files"] = checkpoints._fingerprints(checkpoint)
    (checkpoint / "checkpoint.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", [AVERAGE, PICKLED_AVERAGE, "optimizer.bin", "random_states_0.pkl"])
def test_nothing_in_a_forged_checkpoint_runs(stopped, tmp_path, name, zipped):
    run, checkpoint = copied(stopped, tmp_path / "run")
    target = tmp_path / "created"
    torch.save({"state": Exploit(target)}, checkpoint / name, _use_new_zipfile_serialization=zipped)
    torch.load(BytesIO((checkpoint / name).read_bytes()), weights_only=False)
    target.rmdir()  # the file is one that an ordinary load runs
    renew_manifest(checkpoint)
    if name == "random_states_0.pkl":  # Accelerate goes on without what it refuses there; no weights depend on it
        go_on(run)
    else:
        with pytest.raises(CheckpointError, match=checkpoint.name):
            go_on(run)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(7, 2), pickle.dumps({"state": [print]}, 2)])
@pytest.mark.parametrize("name", [AVERAGE, "optimizer.bin", "model.safetensors"])
def test_damage_that_the_manifest_hides_is_one_clear_error(stopped, tmp_path, name, content):
    run, checkpoint = copied(stopped, tmp_path / "run")
    (checkpoint / name).write_bytes(content)
    renew_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=checkpoint.name) as caught:
        go_on(run)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_average_is_covered_by_the_manifest(stopped, tmp_path):
    run, checkpoint = copied(stopped, tmp_path / "run")
    assert AVERAGE in json.loads((checkpoint / "checkpoint.json").read_text())["files"]
    assert not list(checkpoint.glob("custom_checkpoint_*"))
    (checkpoint / AVERAGE).write_bytes((checkpoint / AVERAGE).read_bytes()[:-1] + b"\x7f")
    with pytest.warns(UserWarning, match=f"{checkpoint.name} is damaged and skipped"):
        go_on(run)


def test_checkpoint_without_an_average_is_refused_by_a_run_that_keeps_one(stopped, tmp_path):
    run, checkpoint = copied(stopped, tmp_path / "run")
    (checkpoint / AVERAGE).unlink()
    renew_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=checkpoint.name):
        go_on(run)

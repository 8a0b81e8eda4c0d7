"""A disk that is full, a real one of half a megabyte: one clear error, and everything complete is still there."""

import errno
import json
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from vl_alignment.data.features import extract_regions
from vl_alignment.models.errors import CheckpointError, DataError, ResultsError
from vl_alignment.training import epoch_loop
from vl_alignment.training.loop import train
from vl_alignment.training.runs import RunDirectory, write_json

from .launching import launched
from .shared_work import MeanColours, pictures
from .tiny import TinyModel, TinyObjective, tiny_settings
from .tiny_adversarial import train_tiny as train_tiny_generator

FULL = "The disk is full; make room and run the same command again"


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, leaving):
    (folder / "filler").write_bytes(b"\0" * (shutil.disk_usage(folder).free - leaving))


def left_half_written(folder):
    return [path for path in folder.rglob(".*") if "writing" in path.name]


@pytest.mark.parametrize("leaving", [0, 8192, 24576])
def test_training_stops_with_its_last_checkpoint_and_goes_on_when_there_is_room(tmp_path, small_disk, leaving):
    settings = tiny_settings(checkpoint_every_steps=2)
    whole = TinyModel()
    train(whole, TinyObjective(settings), settings, RunDirectory(tmp_path / "whole"))
    run, objective = RunDirectory(small_disk / "run"), TinyObjective(settings)
    objective.before_loss = {8: lambda: fill(small_disk, leaving)}
    with pytest.raises(CheckpointError, match=FULL) as caught:
        train(TinyModel(), objective, settings, run)
    assert str(small_disk) in str(caught.value)
    assert len(list(run.checkpoints.glob("epoch-*"))) == 2 and not left_half_written(small_disk)
    (small_disk / "filler").unlink()
    model, objective = TinyModel(seed=5), TinyObjective(settings)
    train(model, objective, settings, run)
    assert objective.calls < 15
    assert all(torch.equal(model.state_dict()[name], value) for name, value in whole.state_dict().items())


def test_sample_pictures_that_find_no_room_are_one_error_and_none_is_half_written(small_disk):
    samples = small_disk / "run" / "samples"
    with pytest.raises(ResultsError, match=rf"samples/.*: {FULL}"):
        train_tiny_generator(small_disk / "run", before_batch={3: lambda batch: fill(small_disk, 0)})
    assert {path.name for path in samples.iterdir()} == {"captions.txt", "step-00000000.png"}
    (small_disk / "filler").unlink()


def test_learning_curve_that_cannot_be_flushed_is_one_error(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(epoch_loop, "synchronize", full)
    with pytest.raises(CheckpointError, match=rf"history.jsonl: {FULL}"):
        train(TinyModel(), TinyObjective(tiny_settings()), tiny_settings(), RunDirectory(tmp_path))


@pytest.mark.slow
@pytest.mark.distributed
def test_learning_curve_that_cannot_be_written_is_one_error_on_all_processes(tmp_path):
    first, second = launched("distributed_unwritable_run.py", Path(__file__).parents[1], tmp_path, processes=2)
    assert first["error"] == second["error"] and "history.jsonl: It cannot be written" in first["error"]


def test_extraction_stops_with_its_finished_shards_and_goes_on_when_there_is_room(tmp_path, small_disk):
    data = pictures(tmp_path / "pictures")
    sizes = {"batch_size": 2, "images_per_shard": 5, "progress": False}

    class Filling(MeanColours):
        seen = 0

        def __call__(self, images):
            self.seen += len(images)
            if self.seen == 14:
                fill(small_disk, 0)
            return super().__call__(images)

    extract_regions(data, MeanColours(), tmp_path / "whole", **sizes)
    store, extractor = small_disk / "store", Filling()
    with pytest.raises(DataError, match=rf"features-\d+.npy: {FULL}"):
        extract_regions(data, extractor, store, **sizes)
    assert list(store.glob("part-*.json")) and not left_half_written(small_disk)
    (small_disk / "filler").unlink()
    again = Filling()
    extract_regions(data, again, store, **sizes)
    assert again.seen < len(data["train"])
    assert {path.name: path.read_bytes() for path in store.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


def test_results_and_weights_that_find_no_room_leave_the_earlier_ones(small_disk):
    run = RunDirectory(small_disk / "run")
    run.check_writable()
    run.save_model(TinyModel())
    write_json(run.results, {"number": 1})
    before = (run.model / "model.safetensors").read_bytes()
    fill(small_disk, 0)
    with pytest.raises(ResultsError, match=rf"results.json: {FULL}"):
        write_json(run.results, {"number": 2})
    with pytest.raises(CheckpointError, match=rf"model: {FULL}"):
        run.save_model(TinyModel(seed=1))
    with pytest.raises(ResultsError, match=rf"predictions.parquet: {FULL}"):
        run.write_predictions([{"item_id": str(number)} for number in range(1000)])
    assert json.loads(run.results.read_text()) == {"number": 1}
    assert (run.model / "model.safetensors").read_bytes() == before and not left_half_written(small_disk)


def test_limit_on_the_size_of_files_is_one_error_too(tmp_path):
    """Wherever nothing can be mounted: what torch then raises does not say why."""
    settings = tiny_settings(checkpoint_every_steps=2)
    run, objective = RunDirectory(tmp_path / "run"), TinyObjective(settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    objective.before_loss = {8: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))}
    try:
        with pytest.raises(CheckpointError, match="The disk is full|cannot be written"):
            train(TinyModel(), objective, settings, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(run.checkpoints.glob("epoch-*"))) == 2 and not left_half_written(run.path)
    train(TinyModel(seed=5), TinyObjective(settings), settings, run)

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.models.scan_model import tiny_model

from vl_alignment.models.errors import ResultsError
from vl_alignment.training import all_pairs
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.objectives import RetrievalObjective
from vl_alignment.training.score_shards import ScoreShards

from .matching import FEATURES, VOCABULARY, matching_data, word_tokenizer


@pytest.fixture
def small_shards(monkeypatch):
    """9 pictures x 18 captions become 3 x 3 shards."""
    monkeypatch.setattr(all_pairs, "IMAGES_PER_SHARD", 4)
    monkeypatch.setattr(all_pairs, "CAPTIONS_PER_SHARD", 7)


def scan(**fields):
    return tiny_model(vocab_size=VOCABULARY, feature_size=FEATURES, **fields)


def objective(scores, **settings):
    data, store = matching_data()
    return RetrievalObjective(data, word_tokenizer(), TrainingSettings(**settings), region_store=store, scores=scores)


def scored(scores, model=None, **settings):
    return objective(scores, **settings).evaluate(model or scan(), "test", Accelerator(cpu=True))


class Stops:
    """A model that is killed when it has scored so many shards."""

    def __init__(self, model, after):
        self._model, self._left = model, after

    def __getattr__(self, name):
        return getattr(self._model, name)

    def similarity(self, *arguments, **masks):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._model.similarity(*arguments, **masks)


def test_stopped_evaluation_goes_on_to_the_same_numbers(tmp_path, small_shards):
    whole = scored(None)
    shards = lambda: sorted(tmp_path.glob("scores-*.npy"))  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, after=5)
    assert len(shards()) == 5
    written = {path: path.stat().st_mtime_ns for path in shards()}
    resumed = scored(tmp_path)
    assert resumed == whole and len(shards()) == 9
    assert {path: path.stat().st_mtime_ns for path in written} == written
    with pytest.raises(KeyboardInterrupt):  # nothing is left to be scored, so that nothing stops it
        interrupted(tmp_path / "anew", after=0)
    assert scored(tmp_path) == whole


def interrupted(folder, after):
    task, model = objective(folder), scan()
    shards = task._shards(model, "test", Accelerator(cpu=True))
    return task.similarity(Stops(model, after), "test", np.arange(18), Accelerator(cpu=True), shards=shards)


def test_a_damaged_shard_is_computed_again(tmp_path, small_shards):
    whole = scored(tmp_path)
    first, second, *_ = sorted(tmp_path.glob("scores-*.npy"))
    first.write_bytes(first.read_bytes()[:100])
    np.save(second, np.zeros((2, 2), dtype=np.float32))
    with pytest.warns(UserWarning, match="damaged"):
        assert scored(tmp_path) == whole


@pytest.mark.parametrize("change", ["weights", "configuration", "another file"])
def test_scores_of_another_evaluation_are_refused(tmp_path, change, small_shards):
    scored(tmp_path)
    model = scan(lambda_softmax=4.0) if change == "configuration" else scan()
    if change == "weights":
        with torch.no_grad():
            model.model.region_encoder.projection.bias += 1
    if change == "another file":
        (tmp_path / "shards.json").write_text("[]")
    with pytest.raises(ResultsError, match="another folder"):
        scored(tmp_path, model)


def test_unreadable_identity_is_one_error(tmp_path):
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(ResultsError, match="shards.json: not readable"):
        ScoreShards(tmp_path, {})


def test_validation_keeps_no_scores(tmp_path):
    objective(tmp_path / "scores").evaluate(scan(), "validation", Accelerator(cpu=True), final=False)
    assert not (tmp_path / "scores").exists()


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from tests.training import test_all_pairs as tests
from vl_alignment.training import all_pairs
all_pairs.IMAGES_PER_SHARD, all_pairs.CAPTIONS_PER_SHARD = 4, 7
similarity = type(tests.scan()).similarity
def slow(*arguments, **masks):
    time.sleep(0.2)
    return similarity(*arguments, **masks)
type(tests.scan()).similarity = slow
tests.scored(sys.argv[2])
"""


@pytest.mark.slow
def test_killed_evaluation_goes_on(tmp_path, small_shards):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[2]), str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("scores-*.npy"))) < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 3 <= len(list(tmp_path.glob("scores-*.npy"))) < 9
    (tmp_path / ".scores-00000000-00000000.npy-abc.writing").write_bytes(b"half")  # where the signal seldom hits
    assert scored(tmp_path) == scored(None)
    assert not list(tmp_path.glob(".*.writing"))

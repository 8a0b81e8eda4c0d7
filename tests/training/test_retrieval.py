import json
import os
import signal

import filelock
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from vl_alignment.models.errors import ConfigurationError, DataError
from vl_alignment.models.modeling_scan import ScanForImageTextRetrieval
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.objectives import RetrievalObjective
from vl_alignment.training.runs import RunDirectory, load_results, rebuild_results

from .matching import matching_data, run_small, small_settings
from .tiny import history

RUN = "scan-codes-general_key-seed0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    return output, run_small(output)


def test_results_have_the_schema(finished):
    output, result = finished
    assert result == json.loads((output / RUN / "results.json").read_text())
    assert result["schema_version"] == 1 and result["run_id"] == RUN and result["task"] == "retrieval"
    assert [result["dataset"][name] for name in ("name", "train", "validation", "test")] == ["codes", 24, 7, 9]
    assert {"steps": 9, "epochs": 3, "device": "cpu", "precision": "no"}.items() <= result["training"].items()
    assert result["metrics"]["rsum"] > 0 and result["command"] == "test"
    rebuild_results(output)
    assert load_results(output) == [result]


def test_run_directory_holds_what_a_run_leaves(finished):
    run = RunDirectory(finished[0] / RUN)
    rows = pyarrow.parquet.read_table(run.predictions).to_pylist()
    assert len(rows) == 9 + 18
    assert set(rows[0]) >= {"item_id", "direction", "prediction", "reference", "rank", "score", "caption_length"}
    description = json.loads(run.run_file.read_text())
    assert description["settings"] == small_settings().to_dict()
    assert description["model"]["alignment_function"] == "general_key"
    assert description["dataset"]["regions"] == {"extractor": "codes", "version": "1"}
    assert len(list(run.checkpoints.iterdir())) == 1
    assert (run.model / "tokenizer.json").exists()


def test_metrics_are_those_of_the_saved_weights(finished):
    output, result = finished
    from accelerate import Accelerator
    from transformers import AutoTokenizer

    run = RunDirectory(output / RUN)
    data, store = matching_data()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    task = RetrievalObjective(data, tokenizer, small_settings(), region_store=store)
    model = ScanForImageTextRetrieval.from_pretrained(run.model)
    assert task.evaluate(model, "test", Accelerator(cpu=True)).metrics == pytest.approx(result["metrics"])


def test_finished_run_is_kept(finished):
    output, result = finished
    before = (output / RUN / "results.json").stat().st_mtime_ns
    assert run_small(output) == result
    assert (output / RUN / "results.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": small_settings(learning_rate=0.1)}, "another settings .*learning_rate 0.005 -> 0.1"),
        ({"settings": small_settings(epochs=4)}, "another settings .*epochs 3 -> 4"),
        ({"hidden_size": 8}, "another model .*hidden_size 16 -> 8"),
        ({"data": matching_data(seed=1)}, "another dataset .*content_hash"),
    ],
)
def test_other_run_under_the_same_name_is_refused(finished, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        run_small(finished[0], **changes)


@pytest.mark.parametrize("step", [2, 3, 5, 8])
def test_interrupted_run_equals_uninterrupted_bit_for_bit(tmp_path, finished, step, monkeypatch):
    output, result = finished
    loss, calls = RetrievalObjective.loss, []

    def interrupting(self, *arguments):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, *arguments)

    monkeypatch.setattr(RetrievalObjective, "loss", interrupting)
    with pytest.raises(TrainingInterrupted):
        run_small(tmp_path)
    assert not RunDirectory(tmp_path / RUN).finished and len(calls) == step
    again = run_small(tmp_path)
    assert len(calls) == 9 and again["metrics"] == result["metrics"]
    assert history(RunDirectory(tmp_path / RUN)) == history(RunDirectory(output / RUN))
    first = load_file(output / RUN / "model" / "model.safetensors")
    second = load_file(tmp_path / RUN / "model" / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_function_starts_from_the_same_shared_weights_and_sees_the_same_batches(tmp_path, monkeypatch):
    seen = {}

    class Stop(Exception):
        pass

    def remember(self, model, batch, epoch):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        seen.setdefault(model.config.alignment_function, []).append((batch, weights, torch.rand(3)))
        raise Stop

    monkeypatch.setattr(RetrievalObjective, "loss", remember)
    for function in ("cosine", "general_query", "biased_general_key"):
        with pytest.raises(Stop):
            run_small(tmp_path, alignment_function=function)
    (batch, weights, draw) = seen["cosine"][0]
    for function in ("general_query", "biased_general_key"):
        other_batch, other_weights, other_draw = seen[function][0]
        assert torch.equal(draw, other_draw)
        assert all(torch.equal(batch[name], other_batch[name]) for name in batch)
        assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
        assert len(other_weights) > len(weights)


def test_unknown_names_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigurationError, match="hiden_size"):
        run_small(tmp_path, hiden_size=3)
    with pytest.raises(ConfigurationError, match="generalized"):
        run_small(tmp_path, alignment_function="generalized")
    assert list(tmp_path.iterdir()) == []


def test_a_second_program_in_the_same_run_says_so(tmp_path):
    """Whether two call `train`, or one of them a study."""
    run = tmp_path / "scan-codes-cosine-seed0"
    run.mkdir()
    with (
        filelock.FileLock(run / ".lock"),
        pytest.raises(ConfigurationError, match=f"{run.name}: another process works on it"),
    ):
        run_small(tmp_path, alignment_function="cosine")
    assert not (run / "run.json").exists()


def test_missing_test_split_is_named_before_training(tmp_path):
    data, store = matching_data()
    del data["test"]
    with pytest.raises(DataError, match=r"\['test'\]"):
        run_small(tmp_path, data=(data, store))

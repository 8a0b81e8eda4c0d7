"""Grounding of whole models on the built-in data sets, and of runs."""

import json

import numpy as np
import pytest
import torch

from vl_alignment import cli
from vl_alignment.analysis.grounding import GroundingSettings, evaluate_grounding, ground_run, run_folders
from vl_alignment.analysis.grounding_models import gather_answers, gather_captions, gather_drawings, gather_readings
from vl_alignment.models.errors import ConfigurationError, DataError, ResultsError
from vl_alignment.training.evaluation import load_split

from .grounding_runs import write_run

pytestmark = pytest.mark.usefixtures("no_bars_on_stderr")

SIZES = {"train": 1, "validation": 1, "test": 3}
FEW = GroundingSettings(limit=3, resamples=50)
TRUTHS = {"pointing_game", "attention_mass", "attention_iou"}
OF_SCORES = {"rank_correlation", "deletion_auc", "insertion_auc", "faithfulness", "entropy"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    return {kind: write_run(output, kind) for kind in ("scan", "mac", "m4c", "attngan")}


def loaded(run):
    return load_split(run / "model", sizes=SIZES)


def check_looks(gathered, kinds):
    assert {look.kind for look in gathered.looks} == kinds
    for look in gathered.looks:
        assert np.allclose(look.weights.sum(axis=1), 1, atol=1e-4) and look.truth.any()
        assert look.weights.shape[1] == len(look.rectangles)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_captions_are_probed_by_their_own_similarity(tmp_path, direction):
    of = loaded(write_run(tmp_path, "scan", direction=direction))
    gathered = gather_captions(of, "zero")
    check_looks(gathered, {""})
    record = of.part["test"][0]
    pixels = of.processor(text=record["captions"][:1], images=[record["image"].convert("RGB")])
    with torch.no_grad():
        output = of.model(**pixels, return_loss=False, output_attentions=True)
    probe = gathered.probes[0]
    score = probe.score(np.ones((1, len(probe.weights)), dtype=bool))
    assert score == pytest.approx(output.logits_per_image.numpy()[0], abs=1e-5)
    assert len(gathered.maps) == 15 and probe.weights.sum() == pytest.approx(1, abs=1e-4)
    assert np.allclose(gathered.maps[0][1].weights, output.attentions[0].numpy(), atol=1e-5)


def test_answers_are_probed_by_their_own_probability(runs):
    of = loaded(runs["mac"])
    gathered = gather_answers(of, "mean")
    check_looks(gathered, {"", "stage_"})
    assert {len(look.weights) for look in gathered.looks if look.kind} == {of.model.config.num_steps}
    record, question = of.part.images["test"][0], of.part.questions["test"][0]
    inputs = of.processor(text=[question["question"]], images=[record["image"].convert("RGB")])
    with torch.no_grad():
        best = of.model(**inputs).logits.softmax(dim=-1).max()
    keep = np.stack([np.ones(9, dtype=bool), np.zeros(9, dtype=bool)])
    scores = gathered.probes[0].score(keep)
    assert scores[0] == pytest.approx(float(best), abs=1e-5) and scores[0] != scores[1]


def test_readings_are_probed_over_objects_and_tokens(runs):
    of = loaded(runs["m4c"])
    gathered = gather_readings(of, "mean")
    check_looks(gathered, {"", "object_"})
    probe, tokens = gathered.probes[0], of.part.images["test"][0]["ocr_tokens"]
    assert len(probe.weights) == 9 + len(tokens)
    whole, without = (
        probe.score(np.stack([np.ones(len(probe.weights), dtype=bool)] * 2)),
        probe.score(~np.eye(len(probe.weights), dtype=bool)),
    )
    assert whole[0] == whole[1] and 0 < whole[0] < 1 and (without != whole[0]).any()


def test_drawings_are_alike_to_themselves_alone(runs):
    of = loaded(runs["attngan"])
    gathered = gather_drawings(of, "mean", seed=0)
    assert gathered.looks == []
    probe = gathered.probes[0]
    scores = probe.score(np.stack([np.ones(len(probe.weights), dtype=bool), np.zeros(len(probe.weights), dtype=bool)]))
    assert scores[0] == pytest.approx(1, abs=1e-5) and scores[1] < 1
    change = gathered.changes[0]
    assert change.weights.shape == change.effects.shape == (len(probe.weights), 16 * 16)
    effects = 1 - probe.score(~np.eye(len(probe.weights), dtype=bool))
    assert change.effects.mean(axis=1) / 2 == pytest.approx(effects, abs=1e-5)


def test_a_measurement_says_what_it_was(runs):
    found = evaluate_grounding(runs["scan"] / "model", settings=FEW, device="cpu")
    assert set(found["metrics"]) == TRUTHS | OF_SCORES
    assert (found["task"], found["dataset"], found["split"], found["pictures"]) == ("retrieval", "blocks", "test", 3)
    assert found["metrics"]["attention_mass"]["pictures"] == 3
    for metric in TRUTHS:
        summary = found["metrics"][metric]
        assert 0 <= summary["low"] <= summary["mean"] <= summary["high"] <= 1
    again = evaluate_grounding(runs["scan"] / "model", settings=FEW, device="cpu")
    assert again["metrics"] == found["metrics"]


def test_wrong_settings_and_splits_are_refused(runs, tmp_path):
    with pytest.raises(ConfigurationError, match="threshold"):
        GroundingSettings(threshold=0)
    with pytest.raises(ConfigurationError, match="occlusion"):
        GroundingSettings(occlusion="blur")
    with pytest.raises(DataError, match="tset"):
        evaluate_grounding(runs["scan"] / "model", split="tset")
    with pytest.raises(ConfigurationError, match="for question-answering"):
        evaluate_grounding(runs["scan"] / "model", "blocks-vqa")
    with pytest.raises(ResultsError, match="no finished run"):
        run_folders([tmp_path])


def test_a_run_is_measured_once_with_the_same_settings(runs):
    said = []
    first = ground_run(runs["scan"], FEW, announce=said.append, device="cpu")
    assert ground_run(runs["scan"], FEW, announce=said.append, device="cpu") == first
    assert [line.split(": ")[1] for line in said] == ["measuring", "measured before"]
    (runs["scan"] / "grounding.json").write_text('{"schema_version": 1')
    with pytest.raises(ResultsError, match="remove it"):
        ground_run(runs["scan"], FEW, announce=said.append, device="cpu")
    (runs["scan"] / "grounding.json").unlink()


def test_the_command_prints_a_table_of_runs(tmp_path, capsys):
    for function in ("dot", "general_key"):
        write_run(tmp_path, "scan", function)
    command = ["grounding", str(tmp_path), "--limit", "2", "--device", "cpu", "--output", str(tmp_path / "all.json")]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert "| Dot product |" in printed.out and "too few to correlate" in printed.out
    assert printed.err.count(": measuring") == 2
    written = json.loads((tmp_path / "all.json").read_text())
    assert len(written["runs"]) == 2 and written["correlations"][0]["performance"] == "rsum"
    assert cli.main(["grounding", str(tmp_path / "nothing")]) == 2


@pytest.mark.real_data
def test_nouns_of_photographs_are_measured_on_their_outlines(runs, data_root):
    found = evaluate_grounding(runs["scan"] / "model", "coco", data_dir=data_root / "coco", settings=FEW, device="cpu")
    assert found["split"] == "train2017" and set(found["metrics"]) == TRUTHS | OF_SCORES

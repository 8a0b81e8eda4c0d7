import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vl_alignment.analysis.best_against_worst import best_and_worst
from vl_alignment.analysis.comparison import compare, failed_runs, planned_runs, write_comparison
from vl_alignment.analysis.controls import caption_owners, perfect_reader, shuffled_captions
from vl_alignment.data.blocks import load_blocks
from vl_alignment.models.errors import ConfigurationError, ResultsError
from vl_alignment.training.preparation import prepare_study

SIZES = {"train": 32, "validation": 12, "test": 12}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    study = prepare_study(
        "blocks",
        output=output,
        sizes=SIZES,
        settings={"epochs": 1, "batch_size": 8, "decay_epochs": [], "all_negatives_epochs": 1},
        model_fields={"hidden_size": 16, "word_embedding_size": 8},
    )
    lines: list[str] = []
    results = compare(study, output, planned_runs(["dot", "general_key"], [0]), announce=lines.append)
    table = write_comparison(output, study, pictures=1)
    return study, output, results, lines, table


def test_runs_are_planned_seed_by_seed():
    assert planned_runs(["dot", "cosine"], [3, 1]) == [(3, "dot"), (3, "cosine"), (1, "dot"), (1, "cosine")]
    assert len(planned_runs(None, [0])) == 8


@pytest.mark.parametrize(
    ("functions", "seeds"), [(["dott"], [0]), (["dot", "dot"], [0]), (["dot"], [1, 1]), ([], [0]), (["dot"], [])]
)
def test_impossible_plans_are_refused(functions, seeds):
    with pytest.raises(ConfigurationError):
        planned_runs(functions, seeds)


def test_a_run_that_fails_stops_no_other(compared, tmp_path):
    study, output, *_ = compared
    folder = shutil.copytree(output, tmp_path / "runs")
    blocked = folder / "scan-blocks-cosine-seed0"
    blocked.write_text("in the way")
    lines: list[str] = []
    runs = planned_runs(["cosine", "dot"], [0])
    results = compare(study, folder, runs, controls=False, announce=lines.append)
    assert [result["alignment_function"] for result in results] == ["dot"]
    failed = failed_runs(folder, runs)
    assert list(failed) == ["cosine, seed 0"] and str(blocked) in failed["cosine, seed 0"]
    assert any("cosine, seed 0: FAILED" in line for line in lines)
    with pytest.raises(Exception, match="cosine"):  # nothing went well
        compare(study, folder, runs[:1], controls=False, announce=lines.append)
    blocked.unlink()
    compare(study, folder, runs[:1], controls=False, announce=lines.append)
    assert failed_runs(folder, runs) == {}


def test_the_best_function_stands_above_the_worst(compared):
    _, output, results, _, _ = compared
    pair = best_and_worst(results)
    assert set(pair) == {"dot", "general_key"}
    values = {result["alignment_function"]: result["metrics"]["rsum"] for result in results}
    assert values[pair[0]] >= values[pair[1]] and best_and_worst(results[:1]) is None
    with Image.open(output / "best-against-worst" / "1.png") as page:
        assert page.height > page.width / 4 and len(page.convert("RGB").getcolors(1 << 16)) > 10


def test_every_run_is_a_line_of_the_results(compared):
    _, output, results, lines, _ = compared
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert {row["run_id"] for row in rows} == {"scan-blocks-dot-seed0", "scan-blocks-general_key-seed0"}
    assert [result["alignment_function"] for result in results] == ["dot", "general_key"]
    assert rows[0]["dataset"]["content_hash"] and rows[0]["dataset"]["test"] == 12
    assert any("general_key, seed 0: Rsum" in line for line in lines)
    run = json.loads((output / "scan-blocks-dot-seed0" / "run.json").read_text())
    assert run["model"]["vision_config"]["_name_or_path"] == ""  # not a folder of this machine


def test_controls_stand_beside_the_results(compared):
    _, output, _, _, table = compared
    controls = {row["name"]: row["metrics"] for row in json.loads((output / "controls.json").read_text())}
    assert set(controls) == {"chance", "shuffled captions", "blind", "ceiling"}
    assert controls["blind"]["rsum"] == 0  # ties count against the model
    assert controls["chance"]["sentence_retrieval_r1"] == pytest.approx(100 / 12)
    assert controls["ceiling"]["rsum"] > controls["chance"]["rsum"]
    for name in controls:
        assert name in table


def test_report_holds_the_pictures_of_every_function(compared):
    _, output, _, _, _ = compared
    page = (output / "report.html").read_text()
    assert page.count("data:image/webp;base64") >= 2
    assert "region encoder" in page or "convolutional encoder" in page
    endings = ("md", "tex", "csv", "html")
    tables = [f"{name}.{ending}" for name in ("table", "paper") for ending in endings]
    for name in (*tables, "paper-coco.csv", "published.md", "results.csv"):
        assert (output / name).read_text().strip()


def test_breakdowns_of_retrieval_stand_in_the_report(compared):
    _, output, _, _, _ = compared
    page = (output / "report.html").read_text()
    assert ">Breakdowns</h2>" in page and 'id="strata-shape-sentence_retrieval-' in page
    assert "Nouns: the words of the caption grammar" in page
    rows = list(csv.DictReader((output / "strata.csv").read_text().splitlines()))
    assert {row["name"] for row in rows} == {"Dot product", "General†", "Queries", "Pictures"}
    charts = {file.name for file in output.glob("strata-*.svg")}
    assert {"strata-shape-image_retrieval.svg", "strata-caption-nouns-image_retrieval.svg"} <= charts
    assert len(charts) == 6
    for name in ("strata.tex", "strata.html", "strata.md", "strata-color.csv", "strata-picture-nouns.csv"):
        assert (output / name).read_text().strip()


def test_saved_model_works_from_pixels_as_from_the_store(compared):
    import torch

    from vl_alignment.training.evaluation import load_model

    study, output, _, _, _ = compared
    model, processor = load_model(output / "scan-blocks-dot-seed0" / "model")
    test = study.data["test"]
    texts = [captions[0] for captions in test["captions"]]
    with torch.no_grad():
        pixels = model(**processor(text=texts, images=list(test["image"]))).logits_per_image
        features = torch.from_numpy(np.asarray(study.store.features(test["image_id"])))
        stored = model(**processor(text=texts, region_features=list(features))).logits_per_image
    torch.testing.assert_close(pixels, stored, rtol=1e-4, atol=1e-4)


def test_second_comparison_keeps_the_finished_runs(compared):
    study, output, results, _, _ = compared
    again = compare(study, output, planned_runs(["dot"], [0]), controls=False, announce=lambda line: None)
    assert again == results[:1]


def test_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="no finished runs"):
        write_comparison(tmp_path)


def test_shuffled_captions_are_never_a_picture_s_own():
    data = load_blocks(**SIZES)
    mixed = shuffled_captions(data, seed=4)
    for name, split in data.items():
        own, other = split["captions"], mixed[name]["captions"]
        assert all(a != b for a, b in zip(own, other, strict=True))
        assert sorted(map(tuple, own)) == sorted(map(tuple, other))


def test_perfect_reader_is_right_unless_scenes_share_a_caption():
    test = load_blocks(**SIZES)["test"]
    metrics = perfect_reader(test)
    assert metrics["sentence_retrieval_r10"] == 100.0
    assert metrics["image_retrieval_r1"] > 80.0
    assert caption_owners(test).tolist() == [row for row in range(12) for _ in range(5)]

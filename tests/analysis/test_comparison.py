import csv
import json
import shutil

import filelock
import numpy as np
import pytest
from PIL import Image

from vl_alignment.analysis.best_against_worst import best_and_worst
from vl_alignment.analysis.comparison import compare, failed_runs, planned_runs, read_controls, write_comparison
from vl_alignment.analysis.controls import caption_owners, perfect_reader, shuffled_captions
from vl_alignment.analysis.failures import failure_findings, read_failure, record_failure
from vl_alignment.data.blocks import load_blocks
from vl_alignment.models.errors import ConfigurationError, ResultsError
from vl_alignment.training.preparation import prepare_study

from .synthetic import make_result

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


def test_a_second_comparison_in_the_same_folder_says_so(tmp_path):
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(ConfigurationError, match="another process works on it"),
    ):
        compare(None, tmp_path, [(0, "dot")])


def write_results(folder, *results):
    (folder / "results.jsonl").write_text("".join(json.dumps(result) + "\n" for result in results))


def test_runs_that_failed_stand_on_the_page(tmp_path):
    results = [make_result("dot", 0), make_result("dot", 1)]
    write_results(tmp_path, *results)
    record_failure(tmp_path, "run-general_key-1-released", ValueError("no room\nfor anything"))
    record_failure(tmp_path, "run-dot-0", "went well since")
    record_failure(tmp_path, "report", "of an earlier call")
    (tmp_path / "failures" / "controls.json").write_text("{")
    found = failure_findings(tmp_path, results)
    assert [finding.kind for finding in found] == ["warning", "warning"]
    assert "controls" in found[0].text and "cannot be read" in found[0].text
    assert found[1].text == "General† (released), seed 1, failed and is not on this page: ValueError: no room"
    write_comparison(tmp_path, section="part")
    assert found[1].text in (tmp_path / "report.html").read_text()
    assert found[1].text in {one["text"] for one in json.loads((tmp_path / "section.json").read_text())["findings"]}


def test_runs_of_several_versions_are_said_to_be(tmp_path):
    other = make_result("dot", 1, versions={"vl_alignment": "0.2.0", "torch": "2.13.0"})
    write_results(tmp_path, make_result("dot", 0), other)
    write_comparison(tmp_path, section="part")
    told = [one for one in json.loads((tmp_path / "section.json").read_text())["findings"] if "versions" in one["text"]]
    assert [one["kind"] for one in told] == ["warning"]
    assert "vl_alignment 0.1.0 (1 run), 0.2.0 (1 run)." in told[0]["text"] and "torch" not in told[0]["text"]


def test_a_damaged_failure_is_still_one(tmp_path):
    record_failure(tmp_path, "run-dot-0", "something")
    (tmp_path / "failures" / "run-dot-0.json").write_text('{"error"')
    assert "run-dot-0.json" in read_failure(tmp_path, "run-dot-0")


def test_damaged_controls_are_named_and_a_damaged_curve_is_left_out(tmp_path):
    write_results(tmp_path, make_result("dot", 0))
    curve = tmp_path / "scan-blocks-dot-seed0" / "history.jsonl"
    curve.parent.mkdir()
    curve.write_text('{"step": 1, "loss": 2.0}\n{"step"')
    with pytest.warns(UserWarning, match="history.jsonl.*not drawn"):
        write_comparison(tmp_path)
    for text in ("[", "{}"):
        (tmp_path / "controls.json").write_text(text)
        with pytest.raises(ResultsError, match="controls.json"):
            read_controls(tmp_path)


@pytest.mark.parametrize("name", ["table.md", "paper.md", "results.csv", "section.html"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, name):
    write_results(tmp_path, make_result("dot", 0))
    (tmp_path / name / "in the way").mkdir(parents=True)
    with pytest.raises(ResultsError, match=f"{name}.*cannot be written"):
        write_comparison(tmp_path, section="part")


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
    for name in (*tables, "paper-coco.csv", "results.csv"):
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

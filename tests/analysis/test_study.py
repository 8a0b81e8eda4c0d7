"""A study of small retrieval runs, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import filelock
import pytest

from vl_alignment import cli
from vl_alignment.analysis.failures import read_failure
from vl_alignment.analysis.study import _devices, _value, _Work, _write_report, finished_cells, run_study, waiting_cells
from vl_alignment.analysis.study_checks import PLAN_FILE, changed_runs, check_part, keep_plan
from vl_alignment.analysis.study_plan import read_plan
from vl_alignment.models.errors import ConfigurationError, ResultsError
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.preparation import preset_settings

from .synthetic import make_drawing_result, make_result

PLAN = """
processes: 2
output: {output}
parts:
  - name: small
    preset: blocks
    functions: [{functions}]
    released: [general_key]
    seeds: [0]
    sizes: {{train: 16, validation: 8, test: 8}}
    settings: {{epochs: {epochs}, batch_size: 8, decay_epochs: [], all_negatives_epochs: 1, device: cpu}}
    model: {{hidden_size: 8, word_embedding_size: 4}}
    controls: false
    grounding: 2
    pictures: 0
"""


def written_plan(folder, functions="dot", epochs=1):
    file = folder / "plan.yaml"
    (folder / "out").mkdir(exist_ok=True)
    file.write_text(PLAN.format(output=folder / "out", functions=functions, epochs=epochs))
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study one of whose runs failed at first: its folder could not be written."""
    folder = tmp_path_factory.mktemp("study")
    file = written_plan(folder)
    blocked = folder / "out" / "small" / "scan-blocks-dot-seed0"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    lines: list[str] = []
    first = run_study(read_plan(file), command="vl-alignment study plan.yaml", announce=lines.append)
    recorded = json.loads((blocked.parent / "failures" / "run-dot-0.json").read_text())
    blocked.unlink()
    second = run_study(read_plan(file), command="vl-alignment study plan.yaml", announce=lines.append)
    return folder, first, recorded, second, lines


@pytest.mark.slow
def test_a_run_that_fails_is_recorded_and_stops_no_other(finished):
    _, first, recorded, _, lines = finished
    assert first.done == 1 and list(first.failed) == ["small: dot, seed 0"]
    assert recorded["error"] in first.failed["small: dot, seed 0"] and "Traceback" in recorded["traceback"]
    assert any("small: general_key (released), seed 0: done, Rsum" in line for line in lines)
    assert any("small: dot, seed 0: FAILED" in line and "run-dot-0.log" in line for line in lines)


@pytest.mark.slow
def test_the_next_call_does_what_is_missing(finished):
    folder, _, _, second, lines = finished
    assert second.done == 2 and second.failed == {}
    assert read_failure(folder / "out" / "small", "run-dot-0") is None
    assert sum("general_key (released), seed 0: done" in line for line in lines) == 1
    rows = [json.loads(line) for line in (folder / "out" / "small" / "results.jsonl").read_text().splitlines()]
    assert {row["run_id"] for row in rows} == {"scan-blocks-dot-seed0", "scan-blocks-general_key-released-seed0"}
    assert {row["command"] for row in rows} == {"vl-alignment study plan.yaml"}
    page = (folder / "out" / "report.html").read_text()
    assert 'id="small-grounding"' in page and len(list((folder / "out" / "small").glob("*/grounding.json"))) == 2
    assert (folder / "out" / "small" / "report.html").exists()
    assert 'id="small"' in page and 'id="small-results"' in page and "Released" not in page.split("<main>")[0]


@pytest.mark.slow
def test_one_part_goes_on_while_another_process_has_the_rest(finished):
    folder, *_ = finished
    file = folder / "two.yaml"
    file.write_text((folder / "plan.yaml").read_text() + "  - {preset: blocks-vqa, seeds: [0]}\n")
    with filelock.FileLock(folder / "out" / "blocks-vqa" / ".lock"):
        assert run_study(read_plan(file), only=["small"], announce=lambda line: None).done == 2
        with pytest.raises(ConfigurationError, match="another process"):
            run_study(read_plan(file))


@pytest.mark.slow
def test_results_of_a_half_written_line_are_kept_and_made_again(finished):
    folder, *_ = finished
    plan = read_plan(folder / "plan.yaml")
    file = folder / "out" / "small" / "results.jsonl"
    whole = file.read_text()
    file.write_text(whole[: len(whole) - 40])
    with pytest.warns(UserWarning, match="Damaged"):
        assert len(finished_cells(plan)) == 2  # the runs' own folders say it
    with pytest.warns(UserWarning, match="Damaged"):
        run_study(plan, announce=lambda line: None)
    assert file.read_text() == whole and file.with_suffix(".jsonl.damaged").exists()


def test_the_first_run_of_every_part_goes_first_since_it_makes_what_the_others_wait_for(tmp_path):
    text = "parts: [{preset: blocks, seeds: [0], functions: [dot, cosine]}, {preset: blocks-vqa, seeds: [0]}]"
    (tmp_path / "plan.yaml").write_text(f"processes: 2\n{text}")
    plan = read_plan(tmp_path / "plan.yaml")
    order = waiting_cells(plan, {plan.cells[2]})
    assert order == [plan.cells[0], plan.cells[3], plan.cells[1], *plan.cells[4:]]
    (tmp_path / "alone.yaml").write_text(text)
    alone = read_plan(tmp_path / "alone.yaml")
    assert waiting_cells(alone, set()) == alone.cells


def test_runs_of_other_settings_are_not_mixed_up(tmp_path):
    part = read_plan(written_plan(tmp_path)).parts[0]
    folder = tmp_path / "out" / "small"
    check_part(folder, part)
    check_part(folder, part)
    (folder / "scan-blocks-dot-seed0" / "checkpoints" / "epoch-1").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="made with another settings"):
        run_study(read_plan(written_plan(tmp_path, epochs=2)))


def test_a_plan_may_be_put_right_before_anything_is_trained_and_data_may_move_after_it(tmp_path):
    folder = tmp_path / "out" / "small"
    wrong = read_plan(written_plan(tmp_path, epochs=2)).parts[0]
    right = read_plan(written_plan(tmp_path)).parts[0]
    check_part(folder, wrong)
    check_part(folder, right)
    assert json.loads((folder / "part.json").read_text())["settings"]["epochs"] == 1
    (folder / "results.jsonl").write_text(json.dumps(make_result("dot", 0)) + "\n")
    moved = replace(right, data_dir="elsewhere", regions="elsewhere too")
    check_part(folder, moved)
    assert json.loads((folder / "part.json").read_text())["data_dir"] == "elsewhere"
    with pytest.raises(ConfigurationError, match="made with another settings"):
        check_part(folder, wrong)


def test_a_damaged_record_of_a_part_is_named(tmp_path):
    part = read_plan(written_plan(tmp_path)).parts[0]
    folder = tmp_path / "out" / "small"
    check_part(folder, part)
    (folder / "results.jsonl").write_text(json.dumps(make_result("dot", 0)) + "\n")
    for text in ('{"preset": ', "[]"):
        (folder / "part.json").write_text(text)
        with pytest.raises(ResultsError, match="part.json"):
            check_part(folder, part)


def test_a_damaged_section_leaves_the_other_parts_on_the_page(tmp_path):
    plan = read_plan(written_plan(tmp_path))
    plan = replace(plan, parts=(*plan.parts, replace(plan.parts[0], name="other")))
    for part in plan.parts:
        folder = plan.output / part.name
        folder.mkdir(parents=True)
        described = {"title": f"Title of {part.name}", "subtitle": [], "findings": []}
        (folder / "section.json").write_text(json.dumps(described))
        (folder / "section.html").write_text("<p></p>")
    (plan.output / "small" / "section.json").write_text('{"title": ')
    with pytest.warns(UserWarning, match="small is left out of the page.*section.json"):
        _write_report(plan)
    page = (plan.output / "report.html").read_text()
    assert "Title of other" in page and "1 data set of 2 planned" in page


def write_run(folder, result, model, settings, dataset="blocks"):
    run = folder / result["run_id"]
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps(result))
    described = {"dataset": {"name": dataset}, "model": model, "settings": settings}
    (run / "run.json").write_text(json.dumps(described))
    return run


def made_as_planned(part, function="dot"):
    settings = preset_settings(part.preset, part.settings).to_dict()
    return json.loads(json.dumps(part.configuration(function).to_dict(), default=str)), settings


def test_finished_runs_that_the_plan_would_make_otherwise_are_named_with_field_and_values(tmp_path):
    part = read_plan(written_plan(tmp_path, functions="dot, cosine")).parts[0]
    folder = tmp_path / "out" / "small"
    model, settings = made_as_planned(part)
    # What the data decide, what does not matter to the weights, and what a version did not know yet at its default.
    model |= {"vocab_size": 7, "feature_size": 12, "gone_since": 3}
    del model["margin"], settings["gather_negatives"]
    settings |= {"log_every_steps": 999, "seed": 5}
    run = write_run(folder, make_result("dot", 0), model, settings)
    assert changed_runs(folder, part) == []
    write_run(folder, make_result("cosine", 0), {**model, "lambda_softmax": 4.0}, {**settings, "batch_size": 9}, "coco")
    (line,) = changed_runs(folder, part)
    for piece in ("small: scan-blocks-cosine-seed0 was", "lambda_softmax: 4.0 -> 9.0", "batch_size: 9 -> 8", "'coco'"):
        assert piece in line
    del model["negatives"]  # the preset gives it its default: a run of before is the same
    del model["lambda_softmax"]
    (run / "run.json").write_text(json.dumps({"model": model, "settings": settings}))
    assert len(changed_runs(folder, replace(part, model={**part.model, "lambda_softmax": 3.0}))) == 2
    (run / "run.json").write_text("{")
    with pytest.warns(UserWarning, match="run.json.*not known"):
        assert len(changed_runs(folder, part)) == 1


def test_the_processes_follow_a_copy_of_the_plan(tmp_path):
    file = written_plan(tmp_path)
    part = read_plan(file).parts[0]
    part = replace(part, settings={**part.settings, "learning_rate": 1e-05}, metric="rsum")
    keep_plan(tmp_path / "out" / "small", part)
    written_plan(tmp_path, epochs=7)
    assert read_plan(tmp_path / "out" / "small" / PLAN_FILE).parts == (part,)


def test_a_metric_that_was_not_measured_does_not_end_the_study(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("parts: [{preset: blocks-t2i, seeds: [0], functions: [dot], metric: fid}]")
    plan = read_plan(file)
    (tmp_path / "results.jsonl").write_text(json.dumps(make_drawing_result("dot", 0)) + "\n")
    work = _Work.of_cell(plan.parts[0], plan.cells[0])
    assert _value(tmp_path, work) == ", fid not measured after 62 s"


@pytest.mark.parametrize(
    ("visible", "count", "chosen", "expected"),
    [
        (None, 2, None, ["0", "1"]),
        (None, 0, None, []),
        (None, 0, (1,), ["1"]),
        ("2, 5,GPU-1", 3, None, ["2", "5", "GPU-1"]),
        ("2,5", 1, None, ["2"]),  # the second is not there
        ("", 0, None, []),
        ("2,5,7", 3, (2, 0), ["7", "2"]),
    ],
)
def test_runs_share_the_devices_that_are_visible_here(tmp_path, monkeypatch, visible, count, chosen, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    plan = replace(read_plan(written_plan(tmp_path)), devices=chosen)
    assert _devices(plan) == expected


def test_a_device_that_is_not_visible_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ConfigurationError, match=r"devices=\[1\].*CUDA_VISIBLE_DEVICES='3'"):
        _devices(replace(read_plan(written_plan(tmp_path)), devices=(1,)))


def test_the_longest_cells_go_first_where_their_time_is_known(tmp_path):
    (tmp_path / "plan.yaml").write_text(
        "parts: [{preset: blocks, seeds: [0], functions: [dot, cosine]}, "
        "{preset: blocks-vqa, seeds: [0], functions: [dot]}, {preset: blocks-text, seeds: [0], functions: [dot]}]"
    )
    plan = read_plan(tmp_path / "plan.yaml")
    order = waiting_cells(plan, set(), {"blocks": 5.0, "blocks-vqa": 50.0})
    assert [cell.part for cell in order] == ["blocks-text", "blocks-vqa", "blocks", "blocks"]


def test_a_dry_run_says_what_would_be_done(tmp_path, capsys):
    file = written_plan(tmp_path)
    part = read_plan(file).parts[0]
    model, settings = made_as_planned(part)
    write_run(tmp_path / "out" / "small", make_result("dot", 0), {**model, "lambda_softmax": 4.0}, settings)
    assert cli.main(["study", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "small: blocks, retrieval; 16 train, 8 validation, 8 test pictures" in printed
    assert "is done: small: dot, seed 0" in printed
    assert "would train: small: general_key (released), seed 0" in printed
    assert "warning: small: scan-blocks-dot-seed0" in printed
    assert not (tmp_path / "out" / "small" / PLAN_FILE).exists()


def test_a_second_process_says_that_the_study_runs_already(tmp_path):
    file = written_plan(tmp_path)
    with (
        filelock.FileLock(tmp_path / "out" / "small" / ".lock"),
        pytest.raises(ConfigurationError, match="another process"),
    ):
        run_study(read_plan(file))


@pytest.mark.slow
def test_an_interrupted_study_has_saved_and_goes_on(tmp_path):
    file = written_plan(tmp_path, epochs=400)
    plan = read_plan(file)
    history = plan.output / "small" / "scan-blocks-dot-seed0" / "history.jsonl"

    def interrupt():
        for _ in range(1200):
            if history.exists() and history.stat().st_size:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.1)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(TrainingInterrupted, match="stopped after saving"):
            run_study(plan, announce=lambda line: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert any((plan.output / "small" / "scan-blocks-dot-seed0" / "checkpoints").iterdir())
    assert finished_cells(plan) == set()


@pytest.mark.slow
def test_runs_end_with_the_study_s_process_however_it_ends(tmp_path):
    file = written_plan(tmp_path, epochs=400)
    history = tmp_path / "out" / "small" / "scan-blocks-dot-seed0" / "history.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "vl_alignment.cli", "study", str(file)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (history.exists() and history.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    checkpoints = history.parent / "checkpoints"
    while not any(checkpoints.glob("epoch-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert any(checkpoints.glob("epoch-*"))  # it was told to stop, and saved
    size = -1
    while history.stat().st_size != size:  # and writes nothing more
        size = history.stat().st_size
        time.sleep(1.5)

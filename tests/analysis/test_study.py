"""A study of small retrieval runs, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import filelock
import pytest

from vl_alignment.analysis.failures import read_failure
from vl_alignment.analysis.study import check_part, finished_cells, run_study, waiting_cells
from vl_alignment.analysis.study_plan import read_plan
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.training.interruption import TrainingInterrupted

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
    first = run_study(read_plan(file), file, command="vl-alignment study plan.yaml", announce=lines.append)
    recorded = json.loads((blocked.parent / "failures" / "run-dot-0.json").read_text())
    blocked.unlink()
    second = run_study(read_plan(file), file, command="vl-alignment study plan.yaml", announce=lines.append)
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
        assert run_study(read_plan(file), file, only=["small"], announce=lambda line: None).done == 2
        with pytest.raises(ConfigurationError, match="another process"):
            run_study(read_plan(file), file)


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
        run_study(plan, folder / "plan.yaml", announce=lambda line: None)
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
    check_part(tmp_path / "out" / "small", part)
    check_part(tmp_path / "out" / "small", part)
    with pytest.raises(ConfigurationError, match="made with another settings"):
        run_study(read_plan(written_plan(tmp_path, epochs=2)), tmp_path / "plan.yaml")


def test_a_second_process_says_that_the_study_runs_already(tmp_path):
    file = written_plan(tmp_path)
    with (
        filelock.FileLock(tmp_path / "out" / "small" / ".lock"),
        pytest.raises(ConfigurationError, match="another process"),
    ):
        run_study(read_plan(file), file)


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
            run_study(plan, file, announce=lambda line: None)
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

import json
from pathlib import Path

import pytest

from vl_alignment.models.errors import ResultsError
from vl_alignment.training.runs import (
    RunDirectory,
    describe_machine,
    load_results,
    rebuild_results,
    recorded_command,
    versions,
)


def result(**changes):
    values = {
        "task": "retrieval",
        "dataset": {"name": "blocks", "content_hash": "0" * 16, "train": 4, "validation": 2, "test": 2},
        "model": "scan",
        "alignment_function": "dot",
        "released_layout": False,
        "seed": 0,
        "metrics": {"rsum": 12.5},
        "training": {"steps": 1, "epochs": 1, "seconds": 0.1, "examples_per_second": 10.0, "device": "cpu"},
        "versions": versions(),
        "commit": None,
        "command": "vl-alignment train",
        "started": "2026-11-01T00:00:00+00:00",
        "finished": "2026-11-01T00:01:00+00:00",
    }
    return {**values, **changes}


def make_run(output, seed=0, **changes):
    run = RunDirectory.named(output, model="scan", dataset="blocks", alignment_function="dot", seed=seed)
    run.check_writable()
    run.write_results(result(seed=seed, **changes))
    return run


def test_names():
    names = {"model": "scan", "dataset": "my set/2", "alignment_function": "general_key", "seed": 3}
    assert RunDirectory.named("out", **names).path == Path("out/scan-my_set_2-general_key-seed3")
    assert RunDirectory.named("out", **names, released_layout=True).run_id.endswith("general_key-released-seed3")


def test_results_are_written_whole_with_the_schema(tmp_path):
    run = make_run(tmp_path)
    content = json.loads(run.results.read_text())
    assert content["schema_version"] == 1 and content["run_id"] == "scan-blocks-dot-seed0"
    assert run.finished and [file.name for file in run.path.iterdir() if file.is_file()] == ["results.json"]


def test_failed_write_leaves_the_earlier_results(tmp_path):
    run = make_run(tmp_path)
    before = run.results.read_text()
    with pytest.raises(TypeError):
        run.write_results(result(metrics={"rsum": object()}))
    assert run.results.read_text() == before
    assert [file.name for file in run.path.iterdir() if file.is_file()] == ["results.json"]


def test_missing_field_is_refused(tmp_path):
    incomplete = result()
    del incomplete["seed"]
    run = RunDirectory(tmp_path / "run")
    run.check_writable()
    with pytest.raises(ResultsError, match="seed"):
        run.write_results(incomplete)
    assert not run.finished


def test_rebuilt_lines_are_the_runs(tmp_path):
    for seed in (1, 0):
        make_run(tmp_path, seed)
    file = rebuild_results(tmp_path)
    assert [json.loads(line)["seed"] for line in file.read_text().splitlines()] == [0, 1]
    assert load_results(tmp_path) == load_results(file)


def test_lines_without_a_run_folder_are_kept(tmp_path):
    make_run(tmp_path / "first", 0)
    rebuild_results(tmp_path / "first")
    (tmp_path / "first" / "results.jsonl").rename(tmp_path / "results.jsonl")
    make_run(tmp_path, 1)
    rebuild_results(tmp_path)
    assert [line["seed"] for line in load_results(tmp_path)] == [0, 1]


def test_damaged_file_is_reported_and_kept(tmp_path):
    make_run(tmp_path, 0)
    damaged = make_run(tmp_path, 1)
    damaged.results.write_text(damaged.results.read_text()[:40])
    with pytest.warns(UserWarning, match="seed1.*Damaged"):
        assert [line["seed"] for line in load_results(tmp_path)] == [0]
    with pytest.raises(ResultsError, match="seed1"):
        load_results(tmp_path, strict=True)
    with pytest.warns(UserWarning, match="not taken as finished"):
        assert not damaged.finished
    assert damaged.results.exists()


def test_damaged_line_is_reported_and_kept_aside(tmp_path):
    make_run(tmp_path, 0)
    file = rebuild_results(tmp_path)
    file.write_text(file.read_text() + '{"half": \n')
    with pytest.warns(UserWarning, match="results.jsonl:2.*Damaged"):
        rebuild_results(tmp_path)
    assert len(file.read_text().splitlines()) == 1
    assert '{"half": ' in (tmp_path / "results.jsonl.damaged").read_text()


def test_newer_schema_asks_for_an_update(tmp_path):
    run = make_run(tmp_path)
    run.results.write_text(json.dumps({**json.loads(run.results.read_text()), "schema_version": 2}))
    with pytest.raises(ResultsError, match="update vl-alignment"):
        load_results(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(ResultsError, match="no such"):
        load_results(tmp_path / "nothing")


def test_model_folder_is_replaced_and_recovered(tmp_path):
    class Saved:
        def __init__(self, text):
            self.text = text

        def save_pretrained(self, folder):
            folder.mkdir(exist_ok=True)
            (folder / "weights").write_text(self.text)

    run = RunDirectory(tmp_path / "run")
    run.check_writable()
    run.save_model(Saved("first"))
    run.save_model(Saved("second"))
    assert (run.model / "weights").read_text() == "second"
    run.model.rename(run.path / ".previous-model")  # killed between the two renames
    run.check_writable()
    assert (run.model / "weights").read_text() == "second"


def test_predictions(tmp_path):
    import pyarrow.parquet

    run = RunDirectory(tmp_path / "run")
    run.check_writable()
    run.write_predictions([{"item_id": "a", "rank": 0}, {"item_id": "b", "rank": 3}])
    assert pyarrow.parquet.read_table(run.predictions).to_pydict() == {"item_id": ["a", "b"], "rank": [0, 3]}


def test_command_is_recorded_without_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    given = ["/usr/bin/vl-alignment", "train", "--data-dir", "/home/somebody/data", f"--output={tmp_path}/out", "a b"]
    assert recorded_command(given) == "vl-alignment train --data-dir ~/data --output=out 'a b'"


def test_machine_names_no_host():
    import platform

    machine = describe_machine()
    assert machine["cores"] >= 1 and platform.node() not in json.dumps(machine).split()


@pytest.mark.parametrize("run_id", ["../elsewhere", "/elsewhere", "..", "a/b", 7, None])
def test_a_run_id_that_leads_out_of_the_folder_is_refused(tmp_path, run_id):
    row = {**result(), "schema_version": 1, "run_id": run_id}
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ResultsError, match="results.jsonl:1: Damaged: run_id is no name of a folder"):
        load_results(tmp_path, strict=True)


def test_results_that_nest_without_end_are_damaged(tmp_path):
    (tmp_path / "results.jsonl").write_text("[" * 50_000 + "\n")
    with pytest.raises(ResultsError, match="results.jsonl:1: Damaged: nested too deeply"):
        load_results(tmp_path, strict=True)
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.run_file.write_text("[" * 50_000)
    with pytest.raises(ResultsError, match="run.json: Cannot be read"):
        run.read_run()

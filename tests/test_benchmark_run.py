"""The program that runs all benchmarks: its table, and one program of it for real."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"


@pytest.mark.slow
def test_figures_and_table_of_one_program(tmp_path):
    output = tmp_path / "run.json"
    command = [sys.executable, RUN, "--quick", "--repeats", "1", "--threads", "1", "--only", "questions"]
    finished = subprocess.run([*command, "--output", output], capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(output.read_text())["questions"]
    assert found["figures"]["questions_per_second"]["value"] > 0
    assert str(tmp_path) not in output.read_text() and str(RUN.parent) not in output.read_text()
    table = output.with_suffix(".md").read_text()
    assert table == finished.stdout.removesuffix("\n") and "No target counts" in table
    assert "| questions_per_second |" in table


def test_the_same_command_goes_on_with_what_has_no_figures_yet(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(RUN.parent))
    import run

    output, asked, fails = tmp_path / "run.json", [], True

    def measure(program, arguments, folder):
        asked.append(program.name)
        found = {"title": program.title, "seconds": 1.0, "settings": run.settings(arguments)}
        if fails and program.name == "m4c":
            return {**found, "failure": "exit status 1"}
        figure = {"value": len(asked), "unit": "x", "target": None, "reference": "beside the loop"}
        return {**found, "figures": {"ratio": figure}}

    def call(*options):
        asked.clear()
        monkeypatch.setattr("sys.argv", ["run.py", "--output", str(output), *options])
        with pytest.raises(SystemExit) as end:
            run.main()
        return end.value.code

    monkeypatch.setattr(run, "measure", measure)
    assert call() == 1 and asked == [program.name for program in run.PROGRAMS]
    fails = False
    assert call() == 0 and asked == ["m4c"]
    assert call("--only", "questions") == 0 and asked == ["questions"]
    found = json.loads(output.read_text())
    assert list(found) == [program.name for program in run.PROGRAMS]
    assert found["damsm"]["figures"]["ratio"]["value"] == 5 and found["questions"]["figures"]["ratio"]["value"] == 1
    assert "similarity was measured with" in call("--threads", "1") and not asked


def test_a_program_that_fails_is_named_in_the_table(monkeypatch):
    monkeypatch.syspath_prepend(str(RUN.parent))
    import run

    figures = {
        "ratio": {"value": 1.5, "unit": "x", "target": "at most 1.7 x", "reference": "beside the loop"},
        "share": {"value": 80.0, "unit": "%", "target": "at least 90 %", "reference": "of training"},
    }
    measured = {
        "similarity": {"title": "Similarity", "seconds": 3.0, "figures": figures},
        "m4c": {"title": "M4C", "seconds": 1.0, "failure": "exit status 1"},
    }
    table = run.table(measured, quick=False)
    assert "| ratio | 1.5 x | at most 1.7 x | met | beside the loop |" in table
    assert "| share | 80 % | at least 90 % | not met | of training |" in table
    assert "## M4C (`m4c.py`, 1 s)\n\nNo figures: exit status 1." in table


def test_matrix_products_of_a_call_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(RUN.parent))
    from measuring import CountedProducts

    layer, rows = torch.nn.Linear(8, 16), torch.randn(4, 8)
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context, CountedProducts() as counted:
            layer(rows)
        assert counted.operations == 2 * 4 * 8 * 16
    with CountedProducts() as counted:
        torch.autograd.grad(layer(rows).sum(), layer.weight)
    assert counted.operations == 2 * (2 * 4 * 8 * 16)

"""The program that runs all benchmarks: its table, and one program of it for real."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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

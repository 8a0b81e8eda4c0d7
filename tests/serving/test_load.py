"""The load test of `benchmarks/`, for a few seconds: no client meets anything but answers and stated refusals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[2] / "benchmarks" / "load.py"


@pytest.mark.slow
def test_many_clients_meet_answers_and_stated_refusals(tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: pip install 'vl-alignment[demo]'")
    output = tmp_path / "load.json"
    command = [sys.executable, LOAD, "--clients", "32", "--seconds", "6", "--output", output]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-3000:]
    figures = json.loads(output.read_text())
    for kind in ("page", "handler"):
        assert figures[f"{kind}_errors"]["value"] == 0
        assert figures[f"{kind}_answers"]["value"] >= 1 and figures[f"{kind}_refused"]["value"] >= 1

"""The benchmark that kills runs, with fewer kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_runs_that_are_killed_end_as_one_that_was_left_alone(tmp_path):
    output = tmp_path / "kills.json"
    call = [sys.executable, ROOT / "benchmarks" / "kills.py", "--kills", "4", "--seed", "1", "--output", output]
    done = subprocess.run(call, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {name: figure["value"] for name, figure in json.loads(output.read_text()).items()}
    assert figures["equal_after_running_again"] == 4 and figures["left_half_written_at_the_end"] == 0
    assert all(figures[f"kills_in_{phase}"] == 1 for phase in ("extraction", "training", "evaluation", "saving"))

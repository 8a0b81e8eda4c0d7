"""The load test of `benchmarks/`, for a few seconds: no client meets anything but answers and stated refusals."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import pytest

LOAD = Path(__file__).resolve().parents[2] / "benchmarks" / "load.py"


@pytest.fixture
def load():
    with patch.object(sys, "path", [str(LOAD.parent), *sys.path]):
        import load

        return load


def test_answers_count_while_the_time_runs(load):
    found, stop = load.Load(), threading.Event()
    answers = iter([0.0, 0.0, 0.3])

    def ask():
        time.sleep(next(answers))
        if time.perf_counter() > until:
            stop.set()

    until = time.perf_counter() + 0.2
    load.run_client(ask, found, stop, until)
    assert len(found.seconds) == 2 and not found.errors


@pytest.mark.parametrize(("last", "status"), [(104, 0), (107, 1)])
def test_memory_that_grows_is_a_failure(load, last, status, capsys):
    figures, found = {}, load.Load(seconds=[1.0], bytes_by_second={10.0: 100, 60.0: last})
    load.add_figures(figures, "page", found, 64, 60.0)
    assert load.exit_status(figures) == status
    assert ("page_memory_growth is 1.07, at most 1.05" in capsys.readouterr().err) == bool(status)


@pytest.mark.slow
def test_many_clients_meet_answers_and_stated_refusals(tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: pip install 'vl-alignment[demo]'")
    output = tmp_path / "load.json"
    command = [sys.executable, LOAD, "--clients", "32", "--seconds", "6", "--output", output]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    figures = json.loads(output.read_text())
    # So soon after the start memory still grows: the status may be that of a bound that is not met.
    unmet = [line for line in finished.stderr.splitlines() if ", at " in line and " is " in line]
    assert finished.returncode == 0 or unmet and all("memory_growth" in line for line in unmet), finished.stderr[-3000:]
    for kind in ("page", "handler"):
        assert figures[f"{kind}_errors"]["value"] == 0
        assert figures[f"{kind}_answers"]["value"] >= 1 and figures[f"{kind}_refused"]["value"] >= 1

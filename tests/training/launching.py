"""Starts scripts under torchrun, and ends all of their processes where they hang."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes")


def launched(script: str, *arguments: object, processes: int, launcher: tuple[str, ...] = TORCHRUN) -> list[Any]:
    """Run a script of this folder in several processes; the JSON objects that they print, one a line, by rank."""
    call = [sys.executable, *launcher, str(processes), str(Path(__file__).with_name(script)), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(call, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, errors = process.communicate(timeout=900)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun's own children too
            raise
    assert process.returncode == 0, errors
    rows = sorted((json.loads(line) for line in output.splitlines() if line[:1] == "{"), key=lambda row: row["rank"])
    assert [row["rank"] for row in rows] == list(range(processes))
    return rows

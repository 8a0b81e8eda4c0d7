"""Started by torchrun from test_full_disk.py: only the first process writes the learning curve, and cannot."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

sys.path.insert(0, sys.argv[1])
from training.tiny import TinyModel, TinyObjective, tiny_settings  # noqa: E402
from vl_alignment.models.errors import CheckpointError  # noqa: E402
from vl_alignment.training.loop import train  # noqa: E402
from vl_alignment.training.runs import RunDirectory  # noqa: E402

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
settings, run = tiny_settings(), RunDirectory(Path(sys.argv[2]))
objective, error = TinyObjective(settings), None
objective.before_loss = {1: lambda: run.history.mkdir() if accelerator.is_main_process else None}
try:
    train(TinyModel(), objective, settings, run, accelerator=accelerator)
except CheckpointError as caught:
    error = str(caught)
sys.stdout.write(json.dumps({"rank": accelerator.process_index, "error": error}) + "\n")
sys.stdout.flush()
accelerator.end_training()

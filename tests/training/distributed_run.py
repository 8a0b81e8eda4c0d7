"""Started by torchrun from test_retrieval.py: one run on small data; every process prints its metrics."""

import json
import sys

import torch
from accelerate import Accelerator

sys.path.insert(0, sys.argv[1])
from training.matching import run_small, small_settings  # noqa: E402

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == int(sys.argv[3])
result = run_small(sys.argv[2], settings=small_settings(), accelerator=accelerator)
row = {"rank": accelerator.process_index, "metrics": result["metrics"]}
sys.stdout.write(json.dumps(row) + "\n")  # at once: two processes share the pipe
sys.stdout.flush()
accelerator.end_training()

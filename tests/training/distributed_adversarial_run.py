"""Started by torchrun from test_adversarial_loop.py: every process prints its share of the data and its weights."""

import json
import sys

import torch
from accelerate import Accelerator

sys.path.insert(0, sys.argv[1])
from training.tiny_adversarial import train_tiny  # noqa: E402

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
# Other starting weights in every process: those of the first must win.
_, networks, _, task = train_tiny(sys.argv[2], seed=accelerator.process_index, accelerator=accelerator)
weights = [float(tensor.double().sum()) for network in networks for tensor in network.parameters()]
statistics = [float(buffer.double().sum()) for buffer in networks[0].buffers()]
row = {"rank": accelerator.process_index, "batches": task.batches, "weights": weights, "statistics": statistics}
sys.stdout.write(json.dumps(row) + "\n")  # at once: two processes share the pipe
sys.stdout.flush()
accelerator.end_training()

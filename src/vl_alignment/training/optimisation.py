"""What training loops optimise with: Accelerate, the learning rate over time, the average of the weights, seeds."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, str_to_bool
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vl_alignment.models.errors import ConfigurationError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.runs import RunDirectory

__all__ = ["average_of", "build_accelerator", "learning_rate_factor", "step_seed"]


def build_accelerator(settings: TrainingSettings, run: RunDirectory | None = None) -> Accelerator:
    """Return the Accelerator that the settings ask for.

    Raises:
        ConfigurationError: This machine has not what the settings ask for, or the launcher shards the weights.
    """
    for plugin in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if str_to_bool(os.environ.get(f"ACCELERATE_USE_{plugin}", "false")):
            raise ConfigurationError(
                f"{plugin} shards weights over the processes, but here each evaluates and saves a whole model, which "
                "fits on one device; launch without it (docs/devices.md)."
            )
    if AcceleratorState._shared_state.get("_mixed_precision", settings.precision) != settings.precision:
        # One process may train several runs; Accelerate would keep the precision of the first one.
        AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            cpu=settings.device == "cpu",
            mixed_precision=settings.precision,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            log_with=list(settings.trackers) or None,
            project_dir=str(run.path) if run is not None else None,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except (ValueError, ImportError) as error:
        raise ConfigurationError(
            f"Training with device={settings.device!r}, precision={settings.precision!r}, "
            f"trackers={list(settings.trackers)} is not possible here: {error}"
        ) from error
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigurationError("precision='fp16' needs an accelerator; use 'bf16' or 'no' on a CPU.")
    return accelerator


def learning_rate_factor(settings: TrainingSettings, epoch: int, step: int, plateaus: int = 0) -> float:
    """Return what the learning rate is multiplied by at a step of an epoch, both counted from 0 over the whole run.

    Args:
        settings: With the decays.
        epoch: That the step belongs to.
        step: Of the whole run.
        plateaus: Epochs before this one whose training loss did not fall.
    """
    decays = sum(epoch >= decay for decay in settings.decay_epochs)
    decays += sum(step >= decay for decay in settings.decay_steps)
    risen = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    warmup = settings.warmup_factor + (1.0 - settings.warmup_factor) * risen
    return warmup * settings.decay_factor**decays * (settings.plateau_factor or 1.0) ** plateaus


def average_of(model: nn.Module, settings: TrainingSettings) -> AveragedModel | None:
    """Return the moving average of the weights that the settings ask for; its buffers are the model's own."""
    if settings.ema_decay is None:
        return None
    decay = settings.ema_decay

    def update(averages: Any, weights: Any, updates: Any) -> None:
        # Early on a fixed decay would hold on to the random start (Polyak averaging as in TensorFlow).
        now = min(decay, (1.0 + float(updates)) / (10.0 + float(updates)))
        torch._foreach_lerp_(averages, weights, 1.0 - now)

    return AveragedModel(model, multi_avg_fn=update)


def step_seed(seed: int, step: int, process_index: int) -> int:
    """Return a seed for the random numbers of one step: the same for every function and after a resume."""
    return (seed * 1_000_003 + step * 7_919 + process_index) % 2**63

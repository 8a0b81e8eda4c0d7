"""The training loop of every task with one loss.

    objective.train_dataset(epoch) --> batches (order from seed and epoch) --> objective.loss --> Adam (--> average)
             every `evaluate_every` epochs: objective.evaluate --> best weights to `model/`
             between steps: checkpoint, learning curve (`history.jsonl`), trackers, a wish to stop

An interrupted run that is started again equals an uninterrupted one, bit for bit on a CPU: the order of the data and
the sampled captions depend on (seed, epoch), dropout on (seed, step), and the rest is in the checkpoint.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from vl_alignment.models.errors import ConfigurationError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.epoch_loop import EpochLoop, Progress, TrainingSummary
from vl_alignment.training.interruption import InterruptionGuard
from vl_alignment.training.objectives import Objective
from vl_alignment.training.optimisation import average_of, build_accelerator, learning_rate_factor
from vl_alignment.training.runs import RunDirectory

__all__ = ["train"]


TEXT_ENCODER = "text_model"
"""What models call the module that is their text encoder, one of transformers."""


@dataclass
class TrainingState(Progress):
    """Where training with one loss stands."""

    loss_sum: float = 0.0  # since the last line of the learning curve
    loss_count: int = 0
    epoch_loss_sum: float = 0.0  # of this epoch
    best_epoch_loss: float | None = None
    plateaus: int = 0  # epochs whose training loss did not fall


def train(
    model: nn.Module,
    objective: Objective,
    settings: TrainingSettings,
    run: RunDirectory,
    *,
    accelerator: Accelerator | None = None,
) -> TrainingSummary:
    """Train a model, going on from the run's newest checkpoint where there is one.

    Afterwards `run.model` holds the weights with the highest `objective.selection_metric` in validation.

    Args:
        model: Has `save_pretrained`; changed in place, and left with the last weights, not the best.
        objective: The task.
        settings: Everything that is not the model's own.
        run: Where checkpoints, weights and the learning curve go.
        accelerator: Made from the settings if not given.

    Raises:
        ConfigurationError: The output folder is not writable, settings contradict each other or the run's earlier ones.
        NonFiniteLossError: The loss or its gradient is not finite.
        TrainingInterrupted: After SIGINT or SIGTERM, when the checkpoint is written.
    """
    run.check_writable()
    objective.check_model(model)
    accelerator = accelerator if accelerator is not None else build_accelerator(settings, run)
    accelerator.gradient_accumulation_steps = settings.gradient_accumulation_steps
    with InterruptionGuard() as interruption:
        try:
            return _Loop(model, objective, settings, run, accelerator, interruption).run_all()
        finally:
            accelerator.free_memory()


class _Loop(EpochLoop):
    state: TrainingState

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        settings: TrainingSettings,
        run: RunDirectory,
        accelerator: Accelerator,
        interruption: InterruptionGuard,
    ) -> None:
        super().__init__(objective, settings, run, accelerator, interruption, TrainingState())
        self.objective = objective
        groups = _parameter_groups(model, settings)
        self.learning_rates = [group.setdefault("lr", settings.learning_rate) for group in groups]
        optimizer = torch.optim.Adam(groups)
        # Copied before Accelerate wraps the model: the average is evaluated and saved as a model of its own.
        self.average = average_of(model, settings)
        if self.average is not None:
            self.average.to(accelerator.device)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def evaluated_model(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module

    def to_training_mode(self) -> None:
        self.model.train()

    def step(self, batches: Iterator[dict[str, Any]]) -> None:
        """One step of the optimiser, over as many batches as its gradient is accumulated of."""
        state, group = self.state, self.settings.gradient_accumulation_steps
        self.seed_step()
        factor = learning_rate_factor(self.settings, state.epoch, state.step, state.plateaus)
        for parameters, rate in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            parameters["lr"] = rate * factor
        losses = []
        for _ in range(group):
            batch, identifiers = self.next_batch(batches)
            with self.accelerator.accumulate(self.model):
                loss = self.objective.loss(self.model, batch, state.epoch)
                losses.append(self._shared_loss(loss, identifiers))
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    # Measured without clipping too: weights that are not finite must not get into a checkpoint.
                    longest = self.settings.gradient_clipping or math.inf
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), longest)
                    # float16's loss scaling skips such a step and lowers the scale by itself.
                    if self.settings.precision != "fp16" and norm is not None and not math.isfinite(float(norm)):
                        raise self.not_finite("gradient", identifiers)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        self.last_loss = sum(losses) / group
        state.loss_sum += self.last_loss
        state.loss_count += 1
        state.epoch_loss_sum += self.last_loss
        self.count_step()

    def _shared_loss(self, loss: torch.Tensor, identifiers: list[str]) -> float:
        own = loss.item()
        (mean,) = self.shared_means([own])
        if not math.isfinite(mean):
            raise self.not_finite("loss", identifiers, math.isfinite(own))
        return mean

    def after_epoch(self, steps: int) -> None:
        """Count the epochs whose mean training loss did not fall, for the learning rate."""
        state = self.state
        loss, state.epoch_loss_sum = state.epoch_loss_sum / steps, 0.0
        if state.best_epoch_loss is None or loss < state.best_epoch_loss:
            state.best_epoch_loss = loss
        elif self.settings.plateau_factor is not None:
            state.plateaus += 1

    def log_losses(self) -> None:
        state = self.state
        self.log({"loss": state.loss_sum / state.loss_count, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        state.loss_sum, state.loss_count = 0.0, 0


def _parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Return the parameters to train; those of a text encoder by themselves where their learning rate is another."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if settings.text_encoder_factor == 1.0:
        return [{"params": [*named.values()]}]
    encoder = {name for name in named if TEXT_ENCODER in name.split(".")}
    if not encoder:
        raise ConfigurationError(
            f"text_encoder_factor={settings.text_encoder_factor}: the model has no text encoder of its own to train."
        )
    rate = settings.learning_rate * settings.text_encoder_factor
    return [
        {"params": [parameter for name, parameter in named.items() if name not in encoder]},
        {"params": [named[name] for name in named if name in encoder], "lr": rate},
    ]

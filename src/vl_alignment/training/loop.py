"""The one training loop of all tasks.

    objective.train_dataset(epoch) --> batches (order from seed and epoch) --> objective.loss --> Adam (--> average)
             every `evaluate_every` epochs: objective.evaluate --> best weights to `model/`
             between steps: checkpoint, learning curve (`history.jsonl`), trackers, a wish to stop

An interrupted run that is started again equals an uninterrupted one, bit for bit on a CPU: the order of the data and
the sampled captions depend on (seed, epoch), dropout on (seed, step), and the rest is in the checkpoint.
"""

import json
import logging
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from vl_alignment.models.errors import ConfigurationError, VlAlignmentError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.batches import EpochBatches, batch_loader
from vl_alignment.training.checkpoints import Checkpoints
from vl_alignment.training.interruption import InterruptionGuard, TrainingInterrupted
from vl_alignment.training.objectives import Objective
from vl_alignment.training.runs import RunDirectory

__all__ = ["NonFiniteLossError", "TrainingSummary", "build_accelerator", "learning_rate_factor", "train"]

logger = logging.getLogger(__name__)

# Settings that may differ between the sessions of one run, since the weights do not depend on them.
FREE_SETTINGS = {
    "epochs",
    "device",
    "num_workers",
    "trackers",
    "log_every_steps",
    "checkpoint_every_steps",
    "evaluation_batch_size",
}


TEXT_ENCODER = "text_model"
"""What models call the module that is their text encoder, one of transformers."""


class NonFiniteLossError(VlAlignmentError):
    """The loss or its gradient became NaN or infinite; the last good checkpoint is kept."""


@dataclass
class TrainingState:
    """Where training stands; saved with every checkpoint."""

    epoch: int = 0
    batches_done: int = 0  # of this epoch
    step: int = 0
    examples: int = 0
    seconds: float = 0.0  # all of training, over all sessions
    step_seconds: float = 0.0  # without validation and checkpoints
    loss_sum: float = 0.0  # since the last line of the learning curve
    loss_count: int = 0
    epoch_loss_sum: float = 0.0  # of this epoch
    best_epoch_loss: float | None = None
    plateaus: int = 0  # epochs whose training loss did not fall
    best_metric: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class TrainingSummary:
    """What training did, over all its sessions."""

    steps: int
    epochs: int
    seconds: float
    examples_per_second: float
    device: str
    precision: str
    best_metric: float | None
    best_epoch: int | None
    best_step: int | None


def build_accelerator(settings: TrainingSettings, run: RunDirectory | None = None) -> Accelerator:
    """Return the Accelerator that the settings ask for.

    Raises:
        ConfigurationError: This machine has not what the settings ask for.
    """
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


class _Loop:
    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        settings: TrainingSettings,
        run: RunDirectory,
        accelerator: Accelerator,
        interruption: InterruptionGuard,
    ) -> None:
        self.objective, self.settings, self.run = objective, settings, run
        self.accelerator, self.interruption = accelerator, interruption
        self.state = TrainingState()
        self._batches(len(objective.train_dataset(0)))  # too few examples are found out before anything is written
        groups = _parameter_groups(model, settings)
        self.learning_rates = [group.setdefault("lr", settings.learning_rate) for group in groups]
        optimizer = torch.optim.Adam(groups)
        # Copied before Accelerate wraps the model: the average is evaluated and saved as a model of its own.
        self.average = _average_of(model, settings)
        if self.average is not None:
            self.average.to(accelerator.device)
            accelerator.register_for_checkpointing(self.average)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.checkpoints = Checkpoints(run.checkpoints)
        self._saved: tuple[int, int] | None = None
        self._clock = time.monotonic()

    def run_all(self) -> TrainingSummary:
        self._resume()
        self._start_trackers()
        quiet = not self.accelerator.is_main_process
        # A log file should not get a line every tenth of a second.
        pause = 0.5 if sys.stderr.isatty() else 60.0
        with tqdm(initial=self.state.step, desc=self.run.run_id, disable=quiet, mininterval=pause) as bar:
            while self.state.epoch < self.settings.epochs:
                self._epoch(bar)
        if self.accelerator.is_main_process:
            self.checkpoints.prune(1)
        if self.settings.trackers:
            self.accelerator.end_training()
        return self._summary()

    def _epoch(self, bar: Any) -> None:
        state, group = self.state, self.settings.gradient_accumulation_steps
        examples = self.objective.train_dataset(state.epoch)
        order = self._batches(len(examples), state.epoch, start=state.batches_done)
        steps, done = order.total // group, state.batches_done // group
        # Epochs may differ in length (short questions first): what is known of the later ones is this one.
        bar.total = state.step - done + steps * (self.settings.epochs - state.epoch)
        batches = iter(batch_loader(examples, order, self.objective.collate, self.settings.num_workers))
        self.model.train()
        for _ in range(done, steps):
            started = time.monotonic()
            self._step(batches, group)
            state.step_seconds += time.monotonic() - started
            if state.step % self.settings.log_every_steps == 0:
                self._log_loss()
            bar.set_postfix(loss=f"{self.last_loss:.4g}", best=state.best_metric, refresh=False)
            bar.update()
            self._stop_if_asked()
            if state.step % self.settings.checkpoint_every_steps == 0:
                self._save()
        self._look_for_plateau(steps)
        finished = state.epoch + 1
        if finished % self.settings.evaluate_every == 0 or finished == self.settings.epochs:
            self._validate(finished)
        state.epoch, state.batches_done = finished, 0
        self._save()
        self.stop_requested = self._shared_mean(loss=0.0)[1] > 0
        self._stop_if_asked()

    def _step(self, batches: Any, group: int) -> None:
        """One step of the optimiser, over `group` batches."""
        state = self.state
        torch.manual_seed(_step_seed(self.settings.seed, state.step, self.accelerator.process_index))
        factor = learning_rate_factor(self.settings, state.epoch, state.step, state.plateaus)
        for parameters, rate in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            parameters["lr"] = rate * factor
        losses = []
        for _ in range(group):
            batch = send_to_device(next(batches), self.accelerator.device)
            identifiers = batch.pop("ids", None)
            with self.accelerator.accumulate(self.model):
                loss = self.objective.loss(self.model, batch, state.epoch)
                losses.append(self._shared_loss(loss, identifiers))
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients and self.settings.gradient_clipping is not None:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clipping)
                    # float16's loss scaling skips such a step and lowers the scale by itself.
                    if self.settings.precision != "fp16" and norm is not None and not math.isfinite(float(norm)):
                        raise self._not_finite("gradient", identifiers)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        self.last_loss = sum(losses) / group
        state.loss_sum += self.last_loss
        state.loss_count += 1
        state.epoch_loss_sum += self.last_loss
        state.step += 1
        state.batches_done += group
        state.examples += group * self.batch_size

    def _shared_mean(self, loss: float) -> tuple[float, float]:
        """Return means over the processes: of the loss, and of the wish to stop, so that none waits for another."""
        values = torch.tensor([loss, float(self.interruption.requested)], device=self.accelerator.device)
        mean, stop = self.accelerator.reduce(values, "mean").tolist()
        return mean, stop

    def _shared_loss(self, loss: torch.Tensor, identifiers: Any) -> float:
        mean, stop = self._shared_mean(loss.item())
        if not math.isfinite(mean):
            raise self._not_finite("loss", identifiers)
        self.stop_requested = stop > 0
        return mean

    def _not_finite(self, what: str, identifiers: Any) -> NonFiniteLossError:
        names = "" if identifiers is None else f" The batch holds {_shortened(list(identifiers))}."
        return NonFiniteLossError(
            f"The {what} is not finite at step {self.state.step + 1} of epoch {self.state.epoch + 1}.{names} "
            "Lower the learning rate or check these records; the last good checkpoint is kept."
        )

    def _look_for_plateau(self, steps: int) -> None:
        """Count the epochs, of so many steps, whose mean training loss did not fall, for the learning rate."""
        state = self.state
        loss, state.epoch_loss_sum = state.epoch_loss_sum / steps, 0.0
        if state.best_epoch_loss is None or loss < state.best_epoch_loss:
            state.best_epoch_loss = loss
        elif self.settings.plateau_factor is not None:
            state.plateaus += 1

    def _validate(self, finished: int) -> None:
        state = self.state
        model = self.accelerator.unwrap_model(self.model) if self.average is None else self.average.module
        evaluation = self.objective.evaluate(model, "validation", self.accelerator, final=False)
        self.model.train()
        value = evaluation.metrics[self.objective.selection_metric]
        if state.best_metric is None or value > state.best_metric:
            state.best_metric, state.best_epoch, state.best_step = value, finished, state.step
            if self.accelerator.is_main_process:
                self.run.save_model(model, self.objective.processor)
        self._log({"validation": evaluation.metrics})
        logger.info("epoch %d: %s %.4g", finished, self.objective.selection_metric, value)

    def _stop_if_asked(self) -> None:
        if not self.stop_requested:
            return
        self._save()
        raise TrainingInterrupted(
            f"Stopped after step {self.state.step}; run the same command again to go on from there."
        )

    def _save(self) -> None:
        if self._saved == (self.state.step, self.state.epoch):
            return
        self._tick()
        state = {
            "progress": asdict(self.state),
            "settings": self.settings.to_dict(),
        }
        history = (self.run.history,) if self.run.history.exists() else ()
        self.checkpoints.save(self.accelerator, self.state.epoch, self.state.step, state, history)
        self._saved = (self.state.step, self.state.epoch)

    def _resume(self) -> None:
        self.stop_requested = False
        loaded = self.checkpoints.load_newest(self.accelerator)
        if loaded is None:
            if self.accelerator.is_main_process:
                self.run.history.unlink(missing_ok=True)
            return
        state, folder = loaded
        self._check_same_settings(state["settings"])
        self.state = TrainingState(**state["progress"])
        self.accelerator.step = 0
        if self.accelerator.is_main_process:
            history = folder / self.run.history.name
            if history.exists():
                shutil.copyfile(history, self.run.history)
            else:
                self.run.history.unlink(missing_ok=True)
        self._saved = (self.state.step, self.state.epoch)
        logger.info("going on from step %d", self.state.step)

    def _check_same_settings(self, earlier: dict[str, Any]) -> None:
        now = self.settings.to_dict()
        changed = sorted(k for k in now if k not in FREE_SETTINGS and k in earlier and now[k] != earlier[k])
        if changed:
            differences = ", ".join(f"{name} {earlier[name]!r} -> {now[name]!r}" for name in changed)
            raise ConfigurationError(
                f"{self.run.run_id} was started with other settings ({differences}); "
                "use another output folder or the earlier settings."
            )

    def _log_loss(self) -> None:
        state = self.state
        self._log({"loss": state.loss_sum / state.loss_count, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        state.loss_sum, state.loss_count = 0.0, 0

    def _log(self, values: dict[str, Any]) -> None:
        self._tick()
        row = {
            "step": self.state.step,
            "epoch": self.state.epoch + 1,
            "seconds": round(self.state.seconds, 1),
            **values,
        }
        if self.accelerator.is_main_process:
            with self.run.history.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        if self.settings.trackers:
            flat = {k: v for k, v in values.items() if not isinstance(v, dict)}
            flat |= {f"{k}/{name}": v for k, d in values.items() if isinstance(d, dict) for name, v in d.items()}
            self.accelerator.log(flat, step=self.state.step)

    def _start_trackers(self) -> None:
        if self.settings.trackers:
            config = {k: str(v) if isinstance(v, list) else v for k, v in self.settings.to_dict().items()}
            self.accelerator.init_trackers("vl-alignment", config=config)

    def _batches(self, size: int, epoch: int = 0, start: int = 0) -> EpochBatches:
        batches = EpochBatches(
            size,
            self.settings.batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            group=self.settings.gradient_accumulation_steps,
            start=start,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        self.batch_size = batches.batch_size
        return batches

    def _tick(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now

    def _summary(self) -> TrainingSummary:
        self._tick()
        state = self.state
        return TrainingSummary(
            steps=state.step,
            epochs=state.epoch,
            seconds=state.seconds,
            examples_per_second=state.examples / max(state.step_seconds, 1e-9),
            device=self.accelerator.device.type,
            precision=self.settings.precision,
            best_metric=state.best_metric,
            best_epoch=state.best_epoch,
            best_step=state.best_step,
        )


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


def _average_of(model: nn.Module, settings: TrainingSettings) -> AveragedModel | None:
    """Return the moving average of the weights that the settings ask for; its buffers are the model's own."""
    if settings.ema_decay is None:
        return None
    decay = settings.ema_decay

    def update(averages: Any, weights: Any, updates: Any) -> None:
        # Early on a fixed decay would hold on to the random start (Polyak averaging as in TensorFlow).
        now = min(decay, (1.0 + float(updates)) / (10.0 + float(updates)))
        torch._foreach_lerp_(averages, weights, 1.0 - now)

    return AveragedModel(model, multi_avg_fn=update)


def _step_seed(seed: int, step: int, process_index: int) -> int:
    """Return a seed for the dropout of one step, so that it is the same for every function and after a resume."""
    return (seed * 1_000_003 + step * 7_919 + process_index) % 2**63


def _shortened(names: list[Any], limit: int = 16) -> str:
    listed = ", ".join(str(name) for name in names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")

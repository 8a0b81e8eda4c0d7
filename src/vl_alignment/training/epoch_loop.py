"""What every training loop does around its steps: epochs, checkpoints, the learning curve, a wish to stop, resuming."""

import json
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from vl_alignment.data.atomic_files import cannot_write, synchronize, whole_file
from vl_alignment.data.processes import joined_blocks, on_main_process
from vl_alignment.models.errors import CheckpointError, ConfigurationError, VlAlignmentError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.batches import EpochBatches, batch_loader
from vl_alignment.training.checkpoints import Checkpoints
from vl_alignment.training.interruption import InterruptionGuard, TrainingInterrupted
from vl_alignment.training.objectives import Task
from vl_alignment.training.optimisation import step_seed
from vl_alignment.training.runs import RunDirectory

__all__ = ["FREE_SETTINGS", "EpochLoop", "NonFiniteLossError", "Progress", "TrainingSummary"]

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
    "sample_every_steps",
    "samples_per_caption",
}


class NonFiniteLossError(VlAlignmentError):
    """A loss or its gradient became NaN or infinite; the last good checkpoint is kept."""


@dataclass
class Progress:
    """Where training stands; saved with every checkpoint."""

    epoch: int = 0
    batches_done: int = 0  # of this epoch
    step: int = 0
    examples: int = 0
    seconds: float = 0.0  # all of training, over all sessions
    step_seconds: float = 0.0  # without validation and checkpoints
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


class EpochLoop(ABC):
    """A training loop; those that inherit it make the networks and optimisers and say what one step does.

    Args:
        task: Gives the examples and measures the model.
        settings: Of training.
        run: Where everything goes.
        accelerator: Whose processes train together.
        interruption: Whose wish to stop is obeyed between two steps.
        state: Of a run that starts anew.

    Attributes:
        last_loss: Of the last step, for the progress bar.
        average: Of the weights; a loop that keeps one sets it, and it is saved with every checkpoint.
        stop_requested: Whether any process is to stop; `step` sets it.
    """

    last_loss: float

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        run: RunDirectory,
        accelerator: Accelerator,
        interruption: InterruptionGuard,
        state: Progress,
    ) -> None:
        self.task, self.settings, self.run, self.state = task, settings, run, state
        self.accelerator, self.interruption = accelerator, interruption
        self.stop_requested = False
        self.average: AveragedModel | None = None
        self.checkpoints = Checkpoints(run.checkpoints)
        self._batches(len(task.train_dataset(0)))  # too few examples are found out before anything is written
        self._saved: tuple[int, int] | None = None
        self._clock = time.monotonic()

    @abstractmethod
    def evaluated_model(self) -> nn.Module:
        """Return the model that is evaluated and kept, not wrapped for several processes."""

    @abstractmethod
    def to_training_mode(self) -> None:
        """Undo what an evaluation did to the mode of the networks."""

    @abstractmethod
    def step(self, batches: Iterator[dict[str, Any]]) -> None:
        """Take batches for one step of the optimisers and make it, ending with `count_step`."""

    @abstractmethod
    def log_losses(self) -> None:
        """Write a line of the learning curve."""

    def after_step(self) -> None:  # noqa: B027 - not every loop has something to do then
        """Do what is due now and then, before the checkpoint."""

    def after_epoch(self, steps: int) -> None:  # noqa: B027 - nor here
        """Look back at an epoch of so many steps, before validation."""

    def run_all(self) -> TrainingSummary:
        """Train from where the run stands to its end."""
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
        examples = self.task.train_dataset(state.epoch)
        order = self._batches(len(examples), state.epoch, start=state.batches_done)
        steps, done = order.total // group, state.batches_done // group
        # Epochs may differ in length (short questions first): what is known of the later ones is this one.
        bar.total = state.step - done + steps * (self.settings.epochs - state.epoch)
        batches = iter(batch_loader(examples, order, self.task.collate, self.settings.num_workers))
        self.to_training_mode()
        for _ in range(done, steps):
            started = time.monotonic()
            self.step(batches)
            state.step_seconds += time.monotonic() - started
            if state.step % self.settings.log_every_steps == 0:
                self.log_losses()
            bar.set_postfix(loss=f"{self.last_loss:.4g}", best=state.best_metric, refresh=False)
            bar.update()
            self.after_step()
            self._stop_if_asked()
            if state.step % self.settings.checkpoint_every_steps == 0:
                self._save()
        self._save()  # before what may take longer than a cluster waits for a process to end
        self.after_epoch(steps)
        finished = state.epoch + 1
        if finished % self.settings.evaluate_every == 0 or finished == self.settings.epochs:
            self._validate(finished)
        state.epoch, state.batches_done = finished, 0
        self._save()
        self.shared_means([])
        self._stop_if_asked()

    def next_batch(self, batches: Iterator[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """Return a batch on the device, and the names of its examples."""
        batch = send_to_device(next(batches), self.accelerator.device)
        return batch, list(batch.pop("ids", ()))

    def seed_step(self) -> None:
        """Make the random numbers of the coming step follow from the seed and its number."""
        torch.manual_seed(step_seed(self.settings.seed, self.state.step, self.accelerator.process_index))

    def shared_means(self, values: list[float]) -> list[float]:
        """Return means over the processes, and share the wish to stop, so that none waits for another."""
        own = torch.tensor([*values, float(self.interruption.requested)], device=self.accelerator.device)
        *means, stop = self.accelerator.reduce(own, "mean").tolist()
        self.stop_requested = stop > 0
        return means

    def not_finite(self, what: str, identifiers: list[str], finite: bool = False) -> NonFiniteLossError:
        """Return the error that says that this is not finite in the coming step; all processes ask for it together.

        Args:
            what: The loss or gradient.
            identifiers: Of this process's batch.
            finite: Whether it is finite on this process: its batch is then not at fault.
        """
        batches = joined_blocks([[] if finite else identifiers], self.accelerator)
        identifiers = [name for batch in batches for name in batch]
        names = f" The batch holds {_shortened(identifiers)}." if identifiers else ""
        return NonFiniteLossError(
            f"The {what} is not finite at step {self.state.step + 1} of epoch {self.state.epoch + 1}.{names} "
            "Lower the learning rate or check these records; the last good checkpoint is kept."
        )

    def count_step(self) -> None:
        """Note that a step of the optimisers is done."""
        group = self.settings.gradient_accumulation_steps
        self.state.step += 1
        self.state.batches_done += group
        self.state.examples += group * self.batch_size

    def _validate(self, finished: int) -> None:
        state, model = self.state, self.evaluated_model()
        evaluation = self.task.evaluate(model, "validation", self.accelerator, final=False)
        self.to_training_mode()
        value = evaluation.metrics[self.task.selection_metric]
        if state.best_metric is None or value > state.best_metric:
            state.best_metric, state.best_epoch, state.best_step = value, finished, state.step
            on_main_process(self.accelerator, lambda: self.run.save_model(model, self.task.processor))
        self.log({"validation": evaluation.metrics})
        logger.info("epoch %d: %s %.4g", finished, self.task.selection_metric, value)

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
        on_main_process(self.accelerator, self._synchronize_history)
        state = {"progress": asdict(self.state), "settings": self.settings.to_dict()}
        history = (self.run.history,) if self.run.history.exists() else ()
        self.checkpoints.save(self.accelerator, self.state.epoch, self.state.step, state, history, self.average)
        self._saved = (self.state.step, self.state.epoch)

    def _synchronize_history(self) -> None:
        try:
            if self.run.history.exists():
                synchronize(self.run.history)
        except OSError as error:
            raise cannot_write(self.run.history, error, CheckpointError) from error

    def _resume(self) -> None:
        loaded = self.checkpoints.load_newest(self.accelerator, self.average)
        if loaded is None:
            on_main_process(self.accelerator, lambda: self._restore_history(None))
            return
        state, folder = loaded
        self._check_same_settings(state["settings"])
        self.state = type(self.state)(**state["progress"])
        self.accelerator.step = 0
        on_main_process(self.accelerator, lambda: self._restore_history(folder / self.run.history.name))
        self._saved = (self.state.step, self.state.epoch)
        logger.info("going on from step %d", self.state.step)

    def _restore_history(self, saved: Path | None) -> None:
        """Make the learning curve what it was at a checkpoint; none where none was saved."""
        if saved is not None and saved.exists():
            with whole_file(self.run.history, CheckpointError) as file:
                file.write(saved.read_bytes())
            return
        try:
            self.run.history.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.run.history, error, CheckpointError) from error

    def _check_same_settings(self, earlier: dict[str, Any]) -> None:
        now = self.settings.to_dict()
        changed = sorted(k for k in now if k not in FREE_SETTINGS and k in earlier and now[k] != earlier[k])
        if changed:
            differences = ", ".join(f"{name} {earlier[name]!r} -> {now[name]!r}" for name in changed)
            raise ConfigurationError(
                f"{self.run.run_id} was started with other settings ({differences}); "
                "use another output folder or the earlier settings."
            )

    def log(self, values: dict[str, Any]) -> None:
        """Write a line of the learning curve, and tell the trackers."""
        self._tick()
        row = {
            "step": self.state.step,
            "epoch": self.state.epoch + 1,
            "seconds": round(self.state.seconds, 1),
            **values,
        }
        on_main_process(self.accelerator, lambda: self._append_to_history(row))
        if self.settings.trackers:
            flat = {k: v for k, v in values.items() if not isinstance(v, dict)}
            flat |= {f"{k}/{name}": v for k, d in values.items() if isinstance(d, dict) for name, v in d.items()}
            self.accelerator.log(flat, step=self.state.step)

    def _append_to_history(self, row: dict[str, Any]) -> None:
        try:
            with self.run.history.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise cannot_write(self.run.history, error, CheckpointError) from error

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


def _shortened(names: list[str], limit: int = 16) -> str:
    listed = ", ".join(str(name) for name in names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")

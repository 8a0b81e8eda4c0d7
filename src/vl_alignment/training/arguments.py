"""What a training run is told: every number that is not the model's own."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from vl_alignment.models.errors import ConfigurationError

__all__ = ["TrainingSettings", "as_tuple", "check_integer", "check_positive"]

PRECISIONS = ("no", "bf16", "fp16")
DEVICES = ("auto", "cpu")
TRACKERS = tuple(sorted(LOGGER_TYPE_TO_CLASS))
EPOCH_CAPTIONS = ("one", "all")


@dataclass(kw_only=True)
class TrainingSettings:
    """Settings of one training run; the defaults are the paper's for SCAN on Flickr30k.

    Args:
        epochs: Passes over the training data.
        batch_size: Examples in a batch over all processes together.
        learning_rate: Adam's, before warm-up and decay.
        decay_epochs: Numbers of finished epochs after which the learning rate is multiplied by `decay_factor`.
        decay_steps: The same, in finished optimiser steps (M4C: 14,000 and 19,000).
        decay_factor: See `decay_epochs`.
        plateau_factor: What the learning rate is multiplied by, for good, after every epoch whose mean training loss is
            not below that of the best epoch before it (MAC: 0.5); None leaves it alone.
        warmup_steps: Optimiser steps in which the learning rate rises linearly to its full value.
        warmup_factor: The share of the full value from which it rises (M4C: 0.2).
        text_encoder_factor: What the learning rate of a model's text encoder is multiplied by (M4C, whose encoder is
            pre-trained: 0.1).
        gradient_clipping: Largest norm of all gradients together; None does not clip.
        ema_decay: Evaluate and keep an exponential moving average of the weights, with this decay a step (MAC: 0.999);
            None keeps the weights themselves.
        gradient_accumulation_steps: Batches whose gradients are averaged for one optimiser step.
        precision: "no" (float32), "bf16" or "fp16" autocast.
        device: "auto" takes an accelerator where there is one; "cpu" never does.
        seed: Of initial weights, order of the data, sampled captions and dropout.
        epoch_captions: "one" samples one caption an image an epoch; "all" goes through every caption, as the paper.
        all_negatives_epochs: Epochs at the beginning whose loss sums over all negatives instead of the hardest.
        gather_negatives: Whether the negatives of retrieval come from the whole batch, embeddings gathered over the
            processes with their gradients, or from each process's own share of it; with one process the same.
        questions_per_image: Questions about one picture that make one example, so that the picture is looked at once
            for all of them; `batch_size` counts such examples.
        short_questions_epochs: Epochs at the beginning that ask about each picture only the questions with the shortest
            programs; they have fewer steps than the others.
        short_questions_share: The share of each picture's questions that are asked then.
        first_question_types: Families of questions that answering by reading asks in these epochs, in place of the
            shortest: a model learns sooner what the words of a question point at when few families ask for it.
        evaluate_every: Epochs between validations; the last epoch is always validated.
        validation_captions: Captions an image in validation; None takes all.
        evaluation_batch_size: Images, and captions, embedded together when evaluating.
        checkpoint_every_steps: Optimiser steps between checkpoints; one is also written after every validation.
        log_every_steps: Optimiser steps between lines of the learning curve.
        trackers: Names of Accelerate's trackers ("tensorboard", "wandb", ...).
        num_workers: Processes that prepare batches; 0 prepares them in the training process.

    Raises:
        ConfigurationError: A value is out of range.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 2e-4
    decay_epochs: tuple[int, ...] = (15,)
    decay_steps: tuple[int, ...] = ()
    decay_factor: float = 0.1
    plateau_factor: float | None = None
    warmup_steps: int = 0
    warmup_factor: float = 0.0
    text_encoder_factor: float = 1.0
    gradient_clipping: float | None = 2.0
    ema_decay: float | None = None
    gradient_accumulation_steps: int = 1
    precision: str = "no"
    device: str = "auto"
    seed: int = 0
    epoch_captions: str = "one"
    all_negatives_epochs: int = 0
    gather_negatives: bool = True
    questions_per_image: int = 1
    short_questions_epochs: int = 0
    short_questions_share: float = 0.5
    first_question_types: tuple[str, ...] = ()
    evaluate_every: int = 1
    validation_captions: int | None = None
    evaluation_batch_size: int = 256
    checkpoint_every_steps: int = 500
    log_every_steps: int = 10
    trackers: tuple[str, ...] = ()
    num_workers: int = 0

    def __post_init__(self) -> None:
        self.trackers = as_tuple("trackers", self.trackers)
        self.decay_epochs = as_tuple("decay_epochs", self.decay_epochs)
        self.decay_steps = as_tuple("decay_steps", self.decay_steps)
        self.first_question_types = as_tuple("first_question_types", self.first_question_types)
        if not isinstance(self.gather_negatives, bool):
            raise ConfigurationError(f"gather_negatives={self.gather_negatives!r} must be true or false.")
        for name in _COUNTS:
            check_integer(name, getattr(self, name), smallest=1)
        for name in _COUNTS_FROM_ZERO:
            check_integer(name, getattr(self, name), smallest=0)
        if self.validation_captions is not None:
            check_integer("validation_captions", self.validation_captions, smallest=1)
        for name in ("decay_epochs", "decay_steps"):
            values = getattr(self, name)
            for value in values:
                check_integer(name, value, smallest=1)
            if list(values) != sorted(set(values)):
                raise ConfigurationError(f"{name}={values} must rise from one number to the next.")
        for name in ("learning_rate", "decay_factor", "text_encoder_factor"):
            check_positive(name, getattr(self, name))
        if self.warmup_factor != 0:
            check_positive("warmup_factor", self.warmup_factor, below=1.0)
        check_positive("short_questions_share", self.short_questions_share, below=1.0)
        if self.gradient_clipping is not None:
            check_positive("gradient_clipping", self.gradient_clipping)
        for name in ("plateau_factor", "ema_decay"):
            if (value := getattr(self, name)) is not None:
                check_positive(name, value, below=1.0)
        for tracker in self.trackers:
            _check_choice("trackers", tracker, TRACKERS)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("device", self.device, DEVICES)
        _check_choice("epoch_captions", self.epoch_captions, EPOCH_CAPTIONS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingSettings":
        """Build settings from a mapping, such as one row of the presets or a run.json.

        Raises:
            ConfigurationError: A key is no setting, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigurationError(f"Unknown training settings {unknown}; known are {sorted(known)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a mapping that JSON can hold and `from_dict` takes back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


_COUNTS = (
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "questions_per_image",
    "evaluate_every",
    "evaluation_batch_size",
    "checkpoint_every_steps",
    "log_every_steps",
)
_COUNTS_FROM_ZERO = ("warmup_steps", "seed", "all_negatives_epochs", "short_questions_epochs", "num_workers")


def as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    """Return a list's values.

    Raises:
        ConfigurationError: The setting `name` is no list.
    """
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ConfigurationError(f"{name}={value!r} must be a list.")
    return tuple(value)


def check_integer(name: str, value: Any, *, smallest: int) -> None:
    """Raise `ConfigurationError` where the setting `name` is no whole number of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigurationError(f"{name}={value!r} must be a whole number of at least {smallest}.")


def check_positive(name: str, value: Any, *, below: float = math.inf) -> None:
    """Raise `ConfigurationError` where the setting `name` is no number above 0 and below `below`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < below):
        limit = "" if below == math.inf else f" below {below:g}"
        raise ConfigurationError(f"{name}={value!r} must be a positive number{limit}.")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name}={value!r} must be one of {list(choices)}.")

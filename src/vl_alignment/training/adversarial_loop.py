"""The training loop of a generator against discriminators: AttnGAN's, after its DAMSM.

    task.train_dataset(epoch) --> batches --> model draws each caption's picture once, at every stage
        --> each discriminator learns from real and drawn pictures (Adam each)
        --> generator learns from the new discriminators, DAMSM and the divergence of its condition (Adam --> average)
             every `evaluate_every` epochs: task.evaluate(average) --> best weights to `model/`
             every `sample_every_steps`: grids of pictures of the same captions from the same noise to `samples/`

An interrupted run that is started again equals an uninterrupted one, bit for bit on a CPU: the order of the data
depends on (seed, epoch), the noise on (seed, step), and the rest is in the checkpoint.

Several processes take slices of the same batches and the same noise and average their gradients. Batch normalisation,
the unfitting captions and DAMSM's losses are those of each process's own slice.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from vl_alignment.data.processes import on_main_process
from vl_alignment.models.discriminators_attngan import conditioning_divergence
from vl_alignment.models.errors import ConfigurationError
from vl_alignment.models.modeling_attngan import (
    AttnGanDiscriminators,
    AttnGanForTextToImageGeneration,
    AttnGanOutput,
)
from vl_alignment.models.modeling_damsm import DamsmModel, DamsmTexts
from vl_alignment.training.adversarial_settings import AdversarialSettings
from vl_alignment.training.epoch_loop import EpochLoop, Progress, TrainingSummary
from vl_alignment.training.interruption import InterruptionGuard
from vl_alignment.training.objectives import Task
from vl_alignment.training.optimisation import average_of, build_accelerator, learning_rate_factor, step_seed
from vl_alignment.training.runs import RunDirectory
from vl_alignment.training.sample_grids import write_sample_grid

__all__ = ["AdversarialSummary", "AdversarialTask", "train_adversarial"]

logger = logging.getLogger(__name__)

WINNING_WINDOW = 200
"""Steps over which a discriminator's loss is averaged to tell whether it wins outright."""

WINNING_LOSS = 0.1
"""Below this mean it does: one that learns nothing has 1.39, and an even game is not far from that."""


class AdversarialTask(Task, Protocol):
    """A task without a loss of its own: pictures with captions, and how drawn pictures are measured.

    Batches hold `input_ids` and `attention_mask` [B, L], `stage_images`, one [B, 3, S, S] in [-1, 1] a stage, the
    smallest first, "ids", and `class_ids` [B] where classes are known.

    Attributes:
        sample_captions: Of the progress pictures; none are drawn where it is empty.
    """

    sample_captions: Sequence[str]


@dataclass(frozen=True)
class AdversarialSummary(TrainingSummary):
    """What adversarial training did, over all its sessions.

    Attributes:
        winners: Discriminators that won outright for long, and the step at which that was seen first.
    """

    winners: dict[str, int]


@dataclass
class AdversarialState(Progress):
    """Where adversarial training stands."""

    loss_sums: dict[str, float] = field(default_factory=dict)  # since the last line of the learning curve
    loss_count: int = 0
    window_sums: dict[str, float] = field(default_factory=dict)  # of the discriminators, in the current window
    window_count: int = 0
    winners: dict[str, int] = field(default_factory=dict)


def train_adversarial(
    model: AttnGanForTextToImageGeneration,
    discriminators: AttnGanDiscriminators,
    damsm: DamsmModel | None,
    task: AdversarialTask,
    settings: AdversarialSettings,
    run: RunDirectory,
    *,
    accelerator: Accelerator | None = None,
) -> AdversarialSummary:
    """Train a generator, going on from the run's newest checkpoint where there is one.

    Afterwards `run.model` holds the average of the generator's weights with the highest `task.selection_metric` in
    validation.

    Args:
        model: Changed in place, and left with the last weights, neither averaged nor the best.
        discriminators: Of the same configuration; changed in place.
        damsm: Whose text encoder the model has; stays as it is. None where `settings.matching_weight` is 0.
        task: Pictures and captions.
        settings: Everything that is not the models' own.
        run: Where checkpoints, weights, the learning curve and sample pictures go.
        accelerator: Made from the settings if not given.

    Raises:
        ConfigurationError: The models do not belong together, the output folder is not writable, or settings
            contradict the run's earlier ones.
        NonFiniteLossError: A loss or gradient is not finite; the message names it.
        TrainingInterrupted: After SIGINT or SIGTERM, when the checkpoint is written.
    """
    run.check_writable()
    task.check_model(model)
    _check_models(model, discriminators, damsm, settings)
    accelerator = accelerator if accelerator is not None else build_accelerator(settings, run)
    accelerator.gradient_accumulation_steps = 1
    with InterruptionGuard() as interruption:
        try:
            loop = _AdversarialLoop(model, discriminators, damsm, task, settings, run, accelerator, interruption)
            return AdversarialSummary(**asdict(loop.run_all()), winners=loop.state.winners)
        finally:
            accelerator.free_memory()


class _AdversarialLoop(EpochLoop):
    settings: AdversarialSettings
    state: AdversarialState

    def __init__(
        self,
        model: AttnGanForTextToImageGeneration,
        discriminators: AttnGanDiscriminators,
        damsm: DamsmModel | None,
        task: AdversarialTask,
        settings: AdversarialSettings,
        run: RunDirectory,
        accelerator: Accelerator,
        interruption: InterruptionGuard,
    ) -> None:
        super().__init__(task, settings, run, accelerator, interruption, AdversarialState())
        self.sample_captions = task.sample_captions
        self.damsm = None if damsm is None else damsm.to(accelerator.device).eval().requires_grad_(False)
        self.average = average_of(model, settings)
        if self.average is not None:
            self.average.to(accelerator.device)
        # Not wrapped for several processes: a wrapper sees one forward and one backward a step, and here the
        # discriminators have three. Gradients are averaged below.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        self.discriminators = accelerator.prepare_model(discriminators, evaluation_mode=True)
        self._share_weights()
        self.generator_weights = [*self.model.generator.parameters()]
        self.stages = dict(zip(model.config.stage_sizes, self.discriminators.stages, strict=True))
        self.optimizer = self._adam(self.generator_weights, settings.learning_rate)
        self.stage_optimizers = {
            size: self._adam(stage.parameters(), settings.discriminator_learning_rate)
            for size, stage in self.stages.items()
        }

    def evaluated_model(self) -> nn.Module:
        return self.model if self.average is None else self.average.module

    def to_training_mode(self) -> None:
        self.model.train()
        self.discriminators.train()

    def run_all(self) -> TrainingSummary:
        on_main_process(self.accelerator, self._draw_first_samples)
        return super().run_all()

    def step(self, batches: Iterator[dict[str, Any]]) -> None:
        """One step of every optimiser."""
        self._set_learning_rates()
        batch, identifiers = self.next_batch(batches)
        with self.accelerator.autocast():
            words, sentences, mask = self.model.encode_texts(batch["input_ids"], batch["attention_mask"])
            drawing = self.model.draw(words, sentences, mask, *self._noise(len(words)))
        texts = DamsmTexts(words, sentences, mask)
        losses, norms = self._train_discriminators(batch["stage_images"], drawing, sentences)
        generator_losses, norms["generator"] = self._train_generator(drawing, texts, batch.get("class_ids"))
        losses |= generator_losses
        means = self._checked(losses, norms, identifiers)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self._note(means)
        self.count_step()

    def _train_discriminators(
        self, real: Sequence[Tensor], drawing: AttnGanOutput, sentences: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step of every stage's discriminator; the losses, and the norms of the gradients."""
        losses, norms = {}, {}
        drawn: Any = drawing.stage_images
        for (size, stage), real_images, drawn_images in zip(self.stages.items(), real, drawn, strict=True):
            name = f"discriminator_{size}"
            with self.accelerator.autocast():
                losses[name] = stage.discriminator_loss(real_images, drawn_images, sentences)
            norms[name] = self._learn(losses[name], stage.parameters(), self.stage_optimizers[size])
        return losses, norms

    def _train_generator(
        self, drawing: AttnGanOutput, texts: DamsmTexts, class_ids: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the generator; its losses, each without its weight, their sum, and the norm of the gradient."""
        settings, images = self.settings, drawing.stage_images
        self.discriminators.requires_grad_(False)  # they only pass the gradient on
        with self.accelerator.autocast():
            fooling = self.discriminators.generator_losses(images, texts.sentences)
            losses = {f"generator_{size}": loss for size, loss in zip(self.stages, fooling, strict=True)}
            losses["divergence"] = conditioning_divergence(drawing.mean, drawing.log_variance)  # type: ignore[arg-type]
            total = sum(fooling) + settings.divergence_weight * losses["divergence"]
            if self.damsm is not None and settings.matching_weight:
                drawn = self.damsm.encode_images(pixel_values=drawing.images)
                by_words, by_sentences = self.damsm.matching_losses(drawn, texts, class_ids)
                losses |= {"word_matching": sum(by_words), "sentence_matching": sum(by_sentences)}
                total = total + settings.matching_weight * (losses["word_matching"] + losses["sentence_matching"])
        norm = self._learn(total, self.generator_weights, self.optimizer)
        self.discriminators.requires_grad_(True)
        self._share_statistics()
        return {**losses, "generator": total}, norm

    def _learn(self, loss: Tensor, weights: Iterable[nn.Parameter], optimizer: Any) -> Tensor:
        """One step of one optimiser; the norm of the gradient."""
        weights = [*weights]
        self.accelerator.backward(loss)
        self._share([weight.grad for weight in weights if weight.grad is not None])
        longest = math.inf if self.settings.gradient_clipping is None else self.settings.gradient_clipping
        norm = self.accelerator.clip_grad_norm_(weights, longest)
        optimizer.step()
        optimizer.zero_grad()
        return torch.as_tensor(norm, device=self.accelerator.device)

    def _checked(self, losses: dict[str, Tensor], norms: dict[str, Tensor], identifiers: list[str]) -> dict[str, float]:
        """The losses as means over the processes.

        Raises:
            NonFiniteLossError: For the first that is not finite, in the order of the computation.
        """
        names = [*losses, *norms]
        values = torch.stack([value.detach().float() for value in (*losses.values(), *norms.values())]).tolist()
        means = self.shared_means(values)
        for name, mean, own in zip(names[: len(losses)], means, values, strict=False):
            if not math.isfinite(mean):
                raise self.not_finite(f"loss {name!r}", identifiers, math.isfinite(own))
        for name, norm in zip(norms, means[len(losses) :], strict=True):
            # float16's loss scaling skips such a step and lowers the scale by itself.
            if self.settings.precision != "fp16" and not math.isfinite(norm):
                raise self.not_finite(f"gradient of {name!r}", identifiers)
        return dict(zip(losses, means, strict=False))

    def _note(self, losses: dict[str, float]) -> None:
        """Add up the losses, and look whether a discriminator has won."""
        state = self.state
        self.last_loss = losses["generator"]
        for name, loss in losses.items():
            state.loss_sums[name] = state.loss_sums.get(name, 0.0) + loss
            if name.startswith("discriminator"):
                state.window_sums[name] = state.window_sums.get(name, 0.0) + loss
        state.loss_count += 1
        state.window_count += 1
        if state.window_count < WINNING_WINDOW:
            return
        for name, loss in state.window_sums.items():
            if loss / state.window_count < WINNING_LOSS and name not in state.winners:
                state.winners[name] = state.step + 1
                logger.warning(
                    "%s wins outright: its mean loss over %d steps up to step %d is %.3g, and the generator learns "
                    "little from it. Lower discriminator_learning_rate or discriminator_size, or raise the "
                    "generator's learning rate.",
                    name, state.window_count, state.step + 1, loss / state.window_count,
                )  # fmt: skip
        state.window_sums, state.window_count = {}, 0

    def log_losses(self) -> None:
        state = self.state
        means = {name: total / state.loss_count for name, total in state.loss_sums.items()}
        rates = {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        self.log({"loss": means.pop("generator"), **rates, "losses": means})
        state.loss_sums, state.loss_count = {}, 0

    def after_step(self) -> None:
        if self.state.step % self.settings.sample_every_steps == 0:
            on_main_process(self.accelerator, self._draw_samples)

    def _draw_first_samples(self) -> None:
        if not any(self.run.checkpoints.glob("epoch-*")):
            self._draw_samples()

    def _draw_samples(self) -> None:
        if not self.sample_captions:
            return
        model: Any = self.evaluated_model()
        write_sample_grid(
            model,
            self.task.processor,
            self.sample_captions,
            self.run.path / "samples" / f"step-{self.state.step:08d}.png",
            columns=self.settings.samples_per_caption,
            seed=self.settings.seed,
        )

    def _noise(self, captions: int) -> tuple[Tensor, Tensor]:
        """This process's share of the noise of the whole batch, and of that of its conditions."""
        settings, accelerator, config = self.settings, self.accelerator, self.model.config
        # On the CPU and for the whole batch, so that neither the device nor the number of processes changes it.
        generator = torch.Generator().manual_seed(step_seed(settings.seed, self.state.step, 0))
        sizes = (config.noise_size, config.conditioning_size)
        noise = torch.randn(captions * accelerator.num_processes, sum(sizes), generator=generator)
        share = noise[captions * accelerator.process_index :][:captions].to(accelerator.device)
        own, conditioning = share.split(sizes, dim=1)
        return own, conditioning

    def _set_learning_rates(self) -> None:
        settings, state = self.settings, self.state
        factor = learning_rate_factor(settings, state.epoch, state.step)
        for optimizer in (self.optimizer, *self.stage_optimizers.values()):
            for group in optimizer.param_groups:
                base = settings.learning_rate if optimizer is self.optimizer else settings.discriminator_learning_rate
                group["lr"] = base * factor

    def _adam(self, weights: Iterable[nn.Parameter], rate: float) -> Any:
        first, second = self.settings.betas
        return self.accelerator.prepare_optimizer(torch.optim.Adam(weights, lr=rate, betas=(first, second)))

    def _share(self, values: Sequence[Tensor]) -> None:
        """Average tensors over the processes, in place and all at once."""
        if self.accelerator.num_processes == 1:
            return
        mean: Any = self.accelerator.reduce(torch.cat([value.flatten() for value in values]), "mean")
        for value, part in zip(values, mean.split([value.numel() for value in values]), strict=True):
            value.copy_(part.view_as(value))

    def _share_statistics(self) -> None:
        """Average what the generator's batch normalisation remembers: the process that saves it saw a share."""
        self._share([buffer for buffer in self.model.generator.buffers() if buffer.is_floating_point()])

    def _share_weights(self) -> None:
        """Start all processes from the weights of the first one."""
        if self.accelerator.num_processes > 1:
            for network in (self.model, self.discriminators):
                for tensor in network.state_dict().values():
                    tensor.copy_(broadcast(tensor))


def _check_models(
    model: AttnGanForTextToImageGeneration,
    discriminators: AttnGanDiscriminators,
    damsm: DamsmModel | None,
    settings: AdversarialSettings,
) -> None:
    """Refuse models that do not belong together."""
    sizes, judged = model.config.stage_sizes, discriminators.config.stage_sizes
    if sizes != judged:
        raise ConfigurationError(f"The generator draws pictures of {sizes} pixels, the discriminators judge {judged}.")
    if damsm is None:
        if settings.matching_weight:
            raise ConfigurationError(
                f"matching_weight={settings.matching_weight} needs a DAMSM; train one first, or set it to 0."
            )
        return
    own, trained = model.text_encoder.state_dict(), damsm.text_encoder.state_dict()
    same = own.keys() == trained.keys() and all(
        own[name].shape == trained[name].shape and torch.equal(own[name].cpu(), trained[name].cpu()) for name in own
    )
    if not same:
        raise ConfigurationError(
            "The model's text encoder is not that of the DAMSM it is to be trained with; "
            "make the model by AttnGanForTextToImageGeneration.from_damsm(damsm, ...)."
        )

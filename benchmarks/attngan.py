"""Time, memory and exactness of AttnGAN's attention and training step, beside straightforward code.

    python benchmarks/attngan.py --output benchmarks/results/attngan-cpu.json

On the CPU the steps are those of blocks, 16, 32 and 64 pixels; on CUDA the published ones, 64, 128 and 256 pixels with
Inception-v3. All ratios are between medians of the same run, whose repeats take turns, so that a machine that slows
down slows all.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measuring import (
    Figure,
    Measurements,
    benchmark_parser,
    parsed,
    print_resident_bytes,
    report,
    resident_bytes_of,
    run_all,
    say,
)
from straightforward_attngan import (
    straightforward_attention,
    straightforward_drawing,
    straightforward_sentence_losses,
    straightforward_word_losses,
)
from torch import Tensor
from transformers import ResNetConfig

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.attention_attngan import WordAttention
from vl_alignment.models.configuration_attngan import AttnGanConfig
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.discriminators_attngan import conditioning_divergence
from vl_alignment.models.modeling_attngan import AttnGanDiscriminators, AttnGanForTextToImageGeneration
from vl_alignment.models.modeling_damsm import DamsmModel, DamsmTexts

FUNCTIONS = ("dot", "scaled_dot", "general_key", "activated_general_key")
IMPLEMENTATIONS = ("ours", "straightforward")
PARTS = ("drawing", "discriminators", "generator", "whole")
MATCHING_WEIGHT = 5.0
SHORTEST_CAPTION = 6
VOCABULARY = 100


@dataclass(frozen=True)
class Sizes:
    """How much is measured: attention at `side` x `side`, and steps of pictures of `image_size`."""

    attention_batch: int = 8
    side: int = 128
    words: int = 18
    hidden_size: int = 256
    image_size: int = 64
    batch: int = 16
    generator_size: int = 16
    discriminator_size: int = 16
    inception: bool = False


FULL = {"cpu": Sizes(), "cuda": Sizes(20, 128, 18, 256, 256, 20, 32, 64, True)}
QUICK = Sizes(2, 8, 5, 16, 32, 4, 4, 4)


def captions_mask(batch: int, words: int) -> Tensor:
    """Captions of random lengths, the first of the full length."""
    lengths = torch.randint(min(SHORTEST_CAPTION, words), words + 1, (batch,))
    lengths[0] = words
    return torch.arange(words) < lengths[:, None]


class AttentionProblem:
    """One attention module with random sub-regions and words, whose gradients are asked for as well."""

    def __init__(self, sizes: Sizes, device: str, function: str) -> None:
        torch.manual_seed(0)
        config = AttnGanConfig(
            hidden_size=sizes.hidden_size, generator_size=sizes.generator_size, alignment_function=function
        )
        self.attention = WordAttention(config).to(device)
        batch, side = sizes.attention_batch, sizes.side
        features = torch.randn(batch, sizes.generator_size, side, side)
        words = torch.randn(batch, sizes.words, sizes.hidden_size)
        self.inputs = [tensor.to(device).requires_grad_() for tensor in (features, words)]
        self.mask = captions_mask(batch, sizes.words).to(device)

    def context(self, implementation: str) -> Tensor:
        """The context [B, d, H, W]."""
        attend = self.attention if implementation == "ours" else straightforward_attention_of(self.attention)
        return attend(*self.inputs, self.mask)[0]

    def gradients(self, implementation: str) -> list[Tensor]:
        """Of the mean square of the context, for each parameter and input."""
        sources = [*self.attention.parameters(), *self.inputs]
        found = torch.autograd.grad(self.context(implementation).square().mean(), sources, allow_unused=True)
        return [torch.zeros(()) if gradient is None else gradient for gradient in found]

    def call(self, implementation: str, mode: str) -> Callable[[], object]:
        """What is timed: the context without gradients, or context and gradients."""
        if mode == "forward":
            return torch.no_grad()(lambda: self.context(implementation))
        return lambda: self.gradients(implementation)


def straightforward_attention_of(attention: WordAttention) -> Callable[..., tuple[Tensor, Tensor]]:
    """The straightforward attention with a module's layers."""
    return lambda *inputs: straightforward_attention(attention, *inputs)


class StepProblem:
    """Generator, discriminators and DAMSM with starting values, their optimisers, and a random batch."""

    def __init__(self, sizes: Sizes, device: str, function: str = "dot") -> None:
        torch.manual_seed(0)
        vision: Any = ResNetConfig(embedding_size=32, hidden_sizes=[64, 128], depths=[1, 2], layer_type="basic")
        text = {"vocab_size": VOCABULARY, "hidden_size": sizes.hidden_size}
        self.damsm = DamsmModel(DamsmConfig(**text, vision_config=None if sizes.inception else vision))
        self.damsm = self.damsm.to(device).eval().requires_grad_(False)
        self.model = AttnGanForTextToImageGeneration.from_damsm(
            self.damsm,
            image_size=sizes.image_size,
            generator_size=sizes.generator_size,
            discriminator_size=sizes.discriminator_size,
            num_residual_blocks=2 if sizes.inception else 1,
            alignment_function=function,
        )
        self.model = self.model.to(device).train()
        self.discriminators = AttnGanDiscriminators(self.model.config).to(device).train()
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.model.generator, *self.discriminators.stages)
        ]
        self._draw_batch(sizes, device)

    def _draw_batch(self, sizes: Sizes, device: str) -> None:
        config, batch = self.model.config, sizes.batch
        self.mask = captions_mask(batch, sizes.words).to(device)
        self.ids = torch.randint(4, VOCABULARY, self.mask.shape, device=device).masked_fill(~self.mask, 0)
        self.noise = torch.randn(batch, config.noise_size, device=device)
        self.further = torch.randn(batch, config.conditioning_size, device=device)
        self.real = [torch.rand(batch, 3, side, side, device=device) * 2 - 1 for side in config.stage_sizes]

    def step(self, implementation: str, parts: tuple[str, ...] = ("discriminators", "generator")) -> list[Tensor]:
        """Draw and make a step of the named parts; the losses."""
        words, sentences, mask = self.model.encode_texts(self.ids, self.mask)
        if implementation == "ours":
            drawing = self.model.draw(words, sentences, mask, self.noise, self.further)
            images, mean, log_variance = drawing.stage_images, drawing.mean, drawing.log_variance
        else:
            images, mean, log_variance = straightforward_drawing(
                self.model.generator, words, sentences, mask, self.noise, self.further
            )
        losses: list[Tensor] = []
        if "discriminators" in parts:
            losses += self._teach_discriminators(images, sentences)
        if "generator" in parts:
            divergence = conditioning_divergence(mean, log_variance)
            losses.append(self._teach_generator(implementation, images, DamsmTexts(words, sentences, mask), divergence))
        return losses

    def _teach_discriminators(self, images: Any, sentences: Tensor) -> list[Tensor]:
        losses = []
        stages = zip(self.discriminators.stages, self.optimizers[1:], self.real, images, strict=True)
        for stage, optimizer, real, drawn in stages:
            loss = stage.discriminator_loss(real, drawn, sentences)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses

    def _teach_generator(self, implementation: str, images: Any, texts: DamsmTexts, divergence: Tensor) -> Tensor:
        """Straightforwardly the discriminators' weights get gradients too, that nobody asks for."""
        self.discriminators.requires_grad_(implementation == "straightforward")
        loss = sum(self.discriminators.generator_losses(images, texts.sentences)) + divergence
        seen = self.damsm.encode_images(pixel_values=images[-1])
        if implementation == "ours":
            by_words, by_sentences = self.damsm.matching_losses(seen, texts)
        else:
            alignment = self.damsm.matching.alignment
            by_words = straightforward_word_losses(seen.regions, texts.words, texts.mask, alignment)
            by_sentences = straightforward_sentence_losses(seen.codes, texts.sentences)
        loss = loss + MATCHING_WEIGHT * sum((*by_words, *by_sentences))
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()
        self.discriminators.requires_grad_(True)
        return loss.detach()

    def call(self, implementation: str, part: str) -> Callable[[], object]:
        """What is timed."""
        if part == "drawing":
            return torch.no_grad()(lambda: self.step(implementation, ()))
        return lambda: self.step(implementation, ("discriminators", "generator") if part == "whole" else (part,))


class Benchmark(Measurements):
    """The measurements; each adds its figures."""

    def __init__(self, device: str, precision: str, quick: bool, repeats: int) -> None:
        super().__init__(device, precision, repeats)
        self.quick, self.sizes = quick, QUICK if quick else FULL[device]

    def attention_times(self) -> None:
        """The straightforward attention's time over ours."""
        sizes = self.sizes
        setting = f"{sizes.side} x {sizes.side}, {sizes.words} words, batch {sizes.attention_batch}"
        for mode, function in itertools.product(("forward", "training"), FUNCTIONS):
            problem = AttentionProblem(sizes, self.device, function)
            calls = {name: problem.call(name, mode) for name in IMPLEMENTATIONS}
            times = self.medians(f"attention, {mode}, {function}", calls)
            reference = f"one caption after the other: {times['straightforward']:.3f} s; {setting}"
            ratio = times["straightforward"] / times["ours"]
            self.figures[f"attention_{mode}_straightforward_over_{function}"] = Figure(ratio, "x", reference)

    def attention_memory(self) -> None:
        """Peak memory of an attention module beyond its inputs, as a share of that which keeps every score."""
        for mode, function in itertools.product(("forward", "training"), ("dot", "activated_general_key")):
            extra = {name: self._extra_bytes(function, mode, name) for name in IMPLEMENTATIONS}
            way = "allocated on the device" if self.device == "cuda" else "resident in a process of its own"
            plain, ours = extra["straightforward"], extra["ours"]
            reference = f"straightforward peak {way}: {plain / 1e6:.0f} MB; ours {ours / 1e6:.0f} MB"
            limit = 1.0 if function == "dot" else None
            self.figures[f"attention_memory_{mode}_{function}_over_straightforward"] = Figure(
                ours / max(plain, 1), "x", reference, limit
            )
            say(f"attention's memory, {mode}, {function}: {reference}")

    def _extra_bytes(self, function: str, mode: str, implementation: str) -> int:
        if self.device == "cuda":
            return self.allocated_by(AttentionProblem(self.sizes, self.device, function).call(implementation, mode))
        quick = ["--quick"] if self.quick else []
        arguments = ["--memory-of", function, mode, implementation, "--precision", self.precision, *quick]
        return resident_bytes_of(__file__, *arguments)

    def print_memory(self, function: str, mode: str, implementation: str) -> None:
        small = AttentionProblem(QUICK, self.device, function).call(implementation, mode)
        with self.autocast():
            print_resident_bytes(small, AttentionProblem(self.sizes, self.device, function).call(implementation, mode))

    def steps(self) -> None:
        """The straightforward step's time over ours, and of its parts."""
        sizes = self.sizes
        setting = (
            f"{sizes.image_size} px, GF {sizes.generator_size}, DF {sizes.discriminator_size}, {sizes.batch} pairs"
        )
        problem = StepProblem(sizes, self.device)
        for part in PARTS:
            calls = {name: problem.call(name, part) for name in IMPLEMENTATIONS}
            times = self.medians(f"step, {part}", calls)
            ratio = times["straightforward"] / times["ours"]
            reference = f"straightforward: {times['straightforward']:.3f} s"
            limit = 1.0 if part in ("generator", "whole") else None
            self.figures[f"step_{part}_straightforward_over_ours"] = Figure(ratio, "x", reference, limit, at_least=True)
            self.figures[f"step_{part}_seconds"] = Figure(times["ours"], "s", setting)
            self.figures[f"step_{part}_over_products"] = self.over_products(calls["ours"], times["ours"])

    def exactness(self) -> None:
        """Largest differences to the straightforward code: of attention under all functions, and of a step's losses."""
        contexts, gradients = {"": 0.0}, {"": 0.0}
        for function in ALIGNMENT_FUNCTIONS:
            problem = AttentionProblem(QUICK, self.device, function)
            with self.autocast():
                ours, found = problem.context("ours"), problem.gradients("ours")
            contexts[function] = float((ours - problem.context("straightforward")).detach().abs().max())
            expected = problem.gradients("straightforward")
            gradients[function] = max(
                float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)
            )
            say(f"difference, {function}: {contexts[function]:.1e}, gradients {gradients[function]:.1e}")
        limit = 1e-5 if self.precision == "fp32" else None
        for title, differences in (("difference", contexts), ("gradient_difference", gradients)):
            where = max(differences, key=lambda name: (differences[name] != differences[name], differences[name]))
            reference = f"straightforward attention in fp32, largest for {where}"
            self.figures[f"largest_attention_{title}"] = Figure(differences[where], "", reference, limit)
        losses = {name: StepProblem(QUICK, self.device).step(name) for name in IMPLEMENTATIONS}
        pairs = zip(*losses.values(), strict=True)
        largest = max(float((one - other).abs() / other.abs()) for one, other in pairs)
        self.figures["largest_loss_difference"] = Figure(largest, "", "relative, of a first step in fp32", 1e-4)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory-of", nargs=3, metavar=("FUNCTION", "MODE", "IMPLEMENTATION"), help=argparse.SUPPRESS)
    return parsed(parser)


def main() -> None:
    arguments = _arguments()
    benchmark = Benchmark(arguments.device, arguments.precision, arguments.quick, arguments.repeats)
    if arguments.memory_of:
        return benchmark.print_memory(*arguments.memory_of)
    run_all([benchmark.exactness, benchmark.attention_memory, benchmark.attention_times, benchmark.steps])
    report(benchmark.figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

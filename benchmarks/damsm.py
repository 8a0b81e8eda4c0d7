"""Time, memory and exactness of DAMSM's losses, beside a straightforward loop over captions after the published code.

    python benchmarks/damsm.py --output benchmarks/results/damsm-cpu.json

All ratios are between medians of the same run, whose repeats take turns, so that a machine that slows down slows all.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

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
from straightforward_attngan import straightforward_sentence_losses, straightforward_word_losses
from torch import Tensor

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.matching_damsm import WordRegionMatching, matching_losses, sentence_similarity

# How many times as long as ours the loop must take.
FORWARD_TARGET, TRAINING_TARGET = 6.0, 3.5
# The published function, one that transforms the key, and one with an activation.
FUNCTIONS = ("dot", "general_key", "activated_general_key")
IMPLEMENTATIONS = ("batched", "loop")
MODES = ("forward", "training")
SHORTEST_CAPTION = 6


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch: int = 48
    words: int = 18
    regions: int = 289
    hidden_size: int = 256


FULL = Sizes()
QUICK = Sizes(4, 8, 9, 16)
# Functions that keep d numbers a score do not fit a full batch; all are held equal to the loop on a small one.
EXACT = Sizes(8, 18, 49, 64)


class Problem:
    """Random words, regions, sentences and pictures' vectors of a batch, whose gradients are asked for as well."""

    def __init__(self, sizes: Sizes, device: str, function: str) -> None:
        torch.manual_seed(0)
        # The matching reads neither the text encoder's nor the vision network's fields.
        config = DamsmConfig(hidden_size=sizes.hidden_size, alignment_function=function)
        self.matching = WordRegionMatching(config).to(device)
        self.gammas = (config.gamma1, config.gamma2, config.gamma3)
        lengths = torch.randint(min(SHORTEST_CAPTION, sizes.words), sizes.words + 1, (sizes.batch,))
        lengths[0] = sizes.words
        self.mask = (torch.arange(sizes.words) < lengths[:, None]).to(device)
        shapes = [(sizes.words,), (sizes.regions,), (), ()]
        self.inputs = [
            torch.randn(sizes.batch, *shape, sizes.hidden_size).to(device).requires_grad_() for shape in shapes
        ]

    def losses(self, implementation: str) -> tuple[Tensor, ...]:
        """Four losses: by words and by sentences, of captions and of pictures."""
        words, regions, sentences, codes = self.inputs
        if implementation == "loop":
            by_words = straightforward_word_losses(regions, words, self.mask, self.matching.alignment, self.gammas)
            return (*by_words, *straightforward_sentence_losses(codes, sentences, self.gammas[2]))
        word_logits = self.gammas[2] * self.matching(regions, words, self.mask)
        sentence_logits = self.gammas[2] * sentence_similarity(codes, sentences)
        return (*matching_losses(word_logits), *matching_losses(sentence_logits))

    def gradients(self, implementation: str) -> list[Tensor]:
        """Of the sum of the losses, for each parameter and input."""
        sources = [*self.matching.parameters(), *self.inputs]
        found = torch.autograd.grad(sum(self.losses(implementation)), sources, allow_unused=True)  # type: ignore[arg-type]
        return [gradient for gradient in found if gradient is not None]

    def products(self) -> Tensor:
        """The two products that no exact way avoids, of all words with all regions: scores, and attended regions."""
        words, regions, *_ = self.inputs
        packed = words[self.mask]
        return (torch.matmul(packed, regions.mT) @ regions).sum()

    def call(self, implementation: str, mode: str) -> Callable[[], object]:
        """What is timed: the losses without gradients, or losses and gradients; of the products, the same."""
        if implementation == "products":
            if mode == "forward":
                return torch.no_grad()(self.products)
            return lambda: torch.autograd.grad(self.products(), self.inputs[:2])
        if mode == "forward":
            return torch.no_grad()(lambda: self.losses(implementation))
        return lambda: self.gradients(implementation)


class Benchmark(Measurements):
    """The measurements; each adds its figures."""

    def __init__(self, device: str, precision: str, quick: bool, repeats: int) -> None:
        super().__init__(device, precision, repeats)
        self.quick, self.sizes = quick, QUICK if quick else FULL

    def times(self) -> None:
        """The loop's time over ours."""
        sizes = self.sizes
        setting = f"batch {sizes.batch}, {sizes.words} words, {sizes.regions} regions, d = {sizes.hidden_size}"
        for mode, target in zip(MODES, (FORWARD_TARGET, TRAINING_TARGET), strict=True):
            for function in FUNCTIONS:
                problem = Problem(sizes, self.device, function)
                floor = ("products",) if function == "dot" else ()
                calls = {name: problem.call(name, mode) for name in (*IMPLEMENTATIONS, *floor)}
                times = self.medians(f"{mode}, {function}", calls)
                limit = target if function == "dot" else None
                reference = f"the loop: {times['loop']:.3f} s; {setting}"
                ratio = times["loop"] / times["batched"]
                self.figures[f"{mode}_loop_over_{function}"] = Figure(ratio, "x", reference, limit, at_least=True)
                if floor:  # as many times faster than the loop as an exact computation can be
                    ratio, reference = times["loop"] / times["products"], f"{reference}; nothing but the two products"
                    self.figures[f"{mode}_loop_over_products"] = Figure(ratio, "x", reference)

    def memory(self) -> None:
        """Peak memory beyond the inputs, as a share of the loop's."""
        for mode in MODES:
            extra = {name: self._extra_bytes(mode, name) for name in IMPLEMENTATIONS}
            way = "allocated on the device" if self.device == "cuda" else "resident in a process of its own"
            reference = f"the loop's peak {way}: {extra['loop'] / 1e6:.0f} MB; ours {extra['batched'] / 1e6:.0f} MB"
            self.figures[f"memory_{mode}_over_loop"] = Figure(extra["batched"] / max(extra["loop"], 1), "x", reference)
            say(f"memory, {mode}: {reference}")

    def _extra_bytes(self, mode: str, implementation: str) -> int:
        if self.device == "cuda":
            return self.allocated_by(Problem(self.sizes, self.device, "dot").call(implementation, mode))
        quick = ["--quick"] if self.quick else []
        arguments = ["--memory-of", mode, implementation, "--precision", self.precision, *quick]
        return resident_bytes_of(__file__, *arguments)

    def print_memory(self, mode: str, implementation: str) -> None:
        small = Problem(QUICK, self.device, "dot").call(implementation, mode)
        with self.autocast():
            print_resident_bytes(small, Problem(self.sizes, self.device, "dot").call(implementation, mode))

    def exactness(self) -> None:
        """Largest differences to the loop, of all functions of the table."""
        losses, gradients = {"": 0.0}, {"": 0.0}
        for function in ALIGNMENT_FUNCTIONS:
            problem = Problem(QUICK if self.quick else EXACT, self.device, function)
            with self.autocast():
                ours, found = problem.losses("batched"), problem.gradients("batched")
            losses[function] = _largest(ours, problem.losses("loop"))
            gradients[function] = _largest(found, problem.gradients("loop"))
            say(f"difference to the loop, {function}: {losses[function]:.1e}, gradients {gradients[function]:.1e}")
        limit = 1e-5 if self.precision == "fp32" else None
        for title, differences in (("difference", losses), ("gradient_difference", gradients)):
            where = max(differences, key=lambda name: (differences[name] != differences[name], differences[name]))
            reference = f"the loop in fp32, a batch of {EXACT.batch}, largest for {where}"
            self.figures[f"largest_{title}_to_loop"] = Figure(differences[where], "", reference, limit)


def _largest(ours: object, expected: object) -> float:
    """The largest difference, as a share of the largest number where that is above 1."""
    pairs = zip(ours, expected, strict=True)  # type: ignore[call-overload]
    return max(float((one - other).abs().max() / other.abs().max().clamp_min(1.0)) for one, other in pairs)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory-of", nargs=2, metavar=("MODE", "IMPLEMENTATION"), help=argparse.SUPPRESS)
    return parsed(parser)


def main() -> None:
    arguments = _arguments()
    benchmark = Benchmark(arguments.device, arguments.precision, arguments.quick, arguments.repeats)
    if arguments.memory_of:
        return benchmark.print_memory(*arguments.memory_of)
    run_all([benchmark.exactness, benchmark.memory, benchmark.times])
    report(benchmark.figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

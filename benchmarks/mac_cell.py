"""Time, memory and exactness of MAC's two cells, beside a straightforward loop after the published code.

    python benchmarks/mac_cell.py --output benchmarks/results/mac-cell-cpu.json

All ratios are between medians of the same run, whose repeats take turns, so that a machine that slows down slows all.
"""

import argparse
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
from straightforward_mac import straightforward_reasoning
from torch import Tensor

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.modeling_mac import MacModel
from vl_alignment.models.reasoning_mac import MacCell

CELLS = ("released", "pytorch")
# How many times as long as ours the loop must take: the arithmetic of the released cell allows 1.85.
EVALUATION_TARGETS = {"released": 1.5, "pytorch": 5.0}
TRAINING_TARGETS = {"released": 1.6, "pytorch": 5.0}
# Functions of which one transforms the key, and of which two leave the pytorch cell's read unit nothing to contract.
OTHER_FUNCTIONS = ("general_key", "activated_general_key", "additive")
SHORTEST_QUESTION, LONGEST_QUESTION = 8, 30
IMPLEMENTATIONS = ("cell", "loop")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    hidden_size: int = 512
    grid_size: int = 14
    batch: int = 16
    steps: int = 12


FULL = Sizes()
QUICK = Sizes(32, 4, 4, 3)


class Problem:
    """A cell with the model's starting values and random inputs, whose gradients are asked for as well."""

    def __init__(self, sizes: Sizes, device: str, cell: str, function: str = "dot", **fields: Any) -> None:
        torch.manual_seed(0)
        fields = {"vocab_size": 10, "feature_size": 8, "stem_layers": 1, **fields}
        config = MacConfig(
            cell=cell,
            alignment_function=function,
            alignment_units="read_and_control",
            hidden_size=sizes.hidden_size,
            grid_size=sizes.grid_size,
            num_steps=sizes.steps,
            **fields,
        )
        self.cell: MacCell = MacModel(config).cell.to(device).eval()
        cells, batch = sizes.grid_size**2, sizes.batch
        lengths = torch.randint(SHORTEST_QUESTION, LONGEST_QUESTION + 1, (batch,))
        mask = torch.arange(LONGEST_QUESTION) < lengths[:, None]
        words = torch.randn(batch, LONGEST_QUESTION, sizes.hidden_size) * 0.3
        question = torch.randn(batch, config.question_size) * 0.3
        knowledge = torch.randn(batch, cells, sizes.hidden_size) * 0.5
        self.inputs = [tensor.to(device).requires_grad_() for tensor in (words, question, knowledge)]
        self.mask = mask.to(device)

    def memory(self, implementation: str) -> Tensor:
        """The last memory by the package's cell or by the loop."""
        if implementation == "cell":
            return self.cell(*self.inputs, self.mask).memory
        return straightforward_reasoning(self.cell, *self.inputs, self.mask)

    def gradients(self, implementation: str) -> dict[str, Tensor]:
        """Of the mean square of the memory, for each parameter and input."""
        sources = dict(self.cell.named_parameters()) | dict(
            zip(("words", "question", "knowledge"), self.inputs, strict=True)
        )
        loss = self.memory(implementation).square().mean()
        found = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
        return {name: gradient for name, gradient in zip(sources, found, strict=True) if gradient is not None}

    def call(self, implementation: str, mode: str) -> Callable[[], object]:
        """What is timed: the memory without gradients, or memory and gradients with or without dropout."""
        self.cell.train(mode == "training_with_dropout")
        if mode == "evaluation":
            return torch.no_grad()(lambda: self.memory(implementation))
        return lambda: self.gradients(implementation)


class Benchmark(Measurements):
    """The measurements; each adds its figures."""

    def __init__(self, device: str, precision: str, sizes: Sizes, repeats: int) -> None:
        super().__init__(device, precision, repeats)
        self.sizes = sizes

    @property
    def setting(self) -> str:
        sizes = self.sizes
        return (
            f"d = {sizes.hidden_size}, {sizes.grid_size} x {sizes.grid_size}, batch {sizes.batch}, {sizes.steps} steps"
        )

    def problem(self, cell: str, function: str = "dot", **fields: Any) -> Problem:
        return Problem(self.sizes, self.device, cell, function, **fields)

    def evaluation(self) -> None:
        """The loop's time over ours, without gradients."""
        for cell in CELLS:
            for function in ("dot", *OTHER_FUNCTIONS):
                self._loop_over_ours("evaluation", cell, function, EVALUATION_TARGETS)

    def training(self) -> None:
        """The same forward and backward; also with the dropout of the published code, per step in the loop."""
        for cell in CELLS:
            for function in ("dot", *OTHER_FUNCTIONS):
                self._loop_over_ours("training", cell, function, TRAINING_TARGETS)
            self._loop_over_ours("training_with_dropout", cell, "dot", {})

    def _loop_over_ours(self, mode: str, cell: str, function: str, targets: dict[str, float]) -> None:
        problem = self.problem(cell, function)
        calls = {name: problem.call(name, mode) for name in IMPLEMENTATIONS}
        times = self.medians(f"{mode}, {cell}, {function}", calls)
        limit = targets.get(cell) if function == "dot" else None
        drawn = " that drops out anew at each step" if mode == "training_with_dropout" and cell == "released" else ""
        self.figures[f"{mode}_{cell}_loop_over_{function}"] = Figure(
            times["loop"] / times["cell"], "x", f"the loop{drawn}: {times['loop']:.3f} s", limit, at_least=True
        )
        if function == "dot":
            self.figures[f"{mode}_{cell}_seconds"] = Figure(times["cell"], "s", f"time of {function}, {self.setting}")
            self.figures[f"{mode}_{cell}_over_products"] = self.over_products(calls["cell"], times["cell"])

    def dropout_per_step(self) -> None:
        """What the released cell pays for masks drawn anew at each step."""
        problems = {
            "one mask": self.problem("released"),
            "per step": self.problem("released", dropout_per_step=True),
        }
        calls = {name: problem.call("cell", "training_with_dropout") for name, problem in problems.items()}
        times = self.medians("dropout", calls)
        self.figures["training_dropout_per_step_over_one_mask"] = Figure(
            times["per step"] / times["one mask"], "x", f"one mask for all steps: {times['one mask']:.3f} s"
        )

    def memory(self) -> None:
        """Peak memory beyond the inputs, as a share of the loop's."""
        for cell in CELLS:
            for mode in ("evaluation", "training"):
                extra = {name: self._extra_bytes(cell, mode, name) for name in IMPLEMENTATIONS}
                way = "allocated on the device" if self.device == "cuda" else "resident in a process of its own"
                reference = f"the loop's peak {way}: {extra['loop'] / 1e6:.0f} MB; ours {extra['cell'] / 1e6:.0f} MB"
                self.figures[f"memory_{mode}_{cell}_over_loop"] = Figure(
                    extra["cell"] / max(extra["loop"], 1), "x", reference, 1.0
                )
                say(f"memory, {mode}, {cell}: {reference}")

    def _extra_bytes(self, cell: str, mode: str, implementation: str) -> int:
        if self.device == "cuda":
            return self.allocated_by(self.problem(cell).call(implementation, mode))
        quick = ["--quick"] if self.sizes == QUICK else []
        arguments = ["--memory-of", cell, mode, implementation, "--precision", self.precision, *quick]
        return resident_bytes_of(__file__, *arguments)

    def print_memory(self, cell: str, mode: str, implementation: str) -> None:
        small = Problem(QUICK, self.device, cell).call(implementation, mode)
        with self.autocast():
            print_resident_bytes(small, self.problem(cell).call(implementation, mode))

    def exactness(self) -> None:
        """Largest differences to the loop, of all functions of the table in both cells."""
        memories, gradients = {"": 0.0}, {"": 0.0}
        for cell in CELLS:
            for function in ALIGNMENT_FUNCTIONS:
                problem, name = self.problem(cell, function), f"{function}, {cell}"
                with self.autocast():
                    ours, found = problem.memory("cell"), problem.gradients("cell")
                memories[name] = float((ours - problem.memory("loop")).detach().abs().max())
                expected = problem.gradients("loop")
                gradients[name] = max(float((found[key] - expected[key]).abs().max()) for key in expected)
                say(f"difference to the loop, {name}: {memories[name]:.1e}, gradients {gradients[name]:.1e}")
        limit = 1e-5 if self.precision == "fp32" else None
        for title, differences in (("difference", memories), ("gradient_difference", gradients)):
            where = max(differences, key=lambda name: (differences[name] != differences[name], differences[name]))
            reference = f"the loop in fp32, {self.setting}, largest for {where}"
            self.figures[f"largest_{title}_to_loop"] = Figure(differences[where], "", reference, limit)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory-of", nargs=3, metavar=("CELL", "MODE", "IMPLEMENTATION"), help=argparse.SUPPRESS)
    return parsed(parser)


def main() -> None:
    arguments = _arguments()
    benchmark = Benchmark(arguments.device, arguments.precision, QUICK if arguments.quick else FULL, arguments.repeats)
    if arguments.memory_of:
        return benchmark.print_memory(*arguments.memory_of)
    run_all(
        [benchmark.exactness, benchmark.memory, benchmark.evaluation, benchmark.training, benchmark.dropout_per_step]
    )
    report(benchmark.figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

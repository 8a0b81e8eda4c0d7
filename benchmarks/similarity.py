"""Time, memory and exactness of SCAN's all-pairs similarity, beside one matrix product and a plain loop.

    python benchmarks/similarity.py --output benchmarks/results/similarity-cpu.json

All ratios are between medians of the same run, whose repeats take turns, so that a machine that slows down slows all.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
from straightforward_scan import straightforward_similarity
from torch import Tensor

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.similarity_scan import StackedCrossAttention

SIZE = 1024
REGIONS = 36
SHORTEST_CAPTION, LONGEST_CAPTION = 8, 20
HEADLINE_FUNCTIONS = ("dot", "general_key", "general_query")
PUBLISHED_FUNCTIONS = tuple(name for name, row in ALIGNMENT_FUNCTIONS.items() if row.published)
# (queries, keys) of one block of the plain product; the fastest is taken. None is all of them.
PRODUCT_BLOCKS = [(1024, 1008), (2048, 2016), (None, 1008), (None, 4032), (1024, None)]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    pictures: int = 1000
    captions: int = 1000
    captions_of_others: int = 250  # for the functions that are not in the headline
    captions_of_loop: int = 100
    training_batch: int = 128
    memory_captions: int = 5000
    exactness: int = 50


FULL = Sizes()
QUICK = Sizes(100, 100, 50, 10, 16, 200, 10)


@dataclass
class Problem:
    """Random unit vectors: pictures of 36 regions and captions of 8 to 20 words."""

    regions: Tensor  # [I, R, d]
    words: Tensor  # [C, L, d], zero at padding
    mask: Tensor  # [C, L]

    @staticmethod
    def random(pictures: int, captions: int, device: str, seed: int = 0) -> "Problem":
        generator = torch.Generator().manual_seed(seed)
        regions = torch.randn(pictures, REGIONS, SIZE, generator=generator)
        words = torch.randn(captions, LONGEST_CAPTION, SIZE, generator=generator)
        lengths = torch.randint(SHORTEST_CAPTION, LONGEST_CAPTION + 1, (captions,), generator=generator)
        mask = torch.arange(LONGEST_CAPTION) < lengths[:, None]
        for vectors in (regions, words):  # in place, so that what is made here hides no memory of what is measured
            vectors.div_(torch.linalg.vector_norm(vectors, dim=-1, keepdim=True))
        words.mul_(mask.unsqueeze(-1))
        return Problem(regions.to(device), words.to(device), mask.to(device))

    def first_captions(self, number: int) -> "Problem":
        return Problem(self.regions, self.words[:number], self.mask[:number])

    @property
    def queries(self) -> Tensor:
        """The words of all captions, [N, d]."""
        return self.words[self.mask]


class Benchmark(Measurements):
    """The measurements; each adds its figures."""

    def __init__(self, device: str, precision: str, sizes: Sizes, repeats: int) -> None:
        super().__init__(device, precision, repeats)
        self.sizes = sizes

    def cross_attention(self, name: str) -> StackedCrossAttention:
        torch.manual_seed(0)
        config = ScanConfig(vocab_size=10, hidden_size=SIZE, alignment_function=name)
        return StackedCrossAttention(config).to(self.device)

    @torch.no_grad()
    def forward(self) -> None:
        """Every published function beside the one product; `dot` also beside the loop."""
        sizes = self.sizes
        problem = Problem.random(sizes.pictures, sizes.captions, self.device)
        block = self._fastest_product(problem)
        times = self._forward_times(problem, HEADLINE_FUNCTIONS, block)
        others = tuple(name for name in PUBLISHED_FUNCTIONS if name not in HEADLINE_FUNCTIONS)
        fewer = problem.first_captions(sizes.captions_of_others)
        times_of_others = self._forward_times(fewer, ("dot", *others), block)
        for name in PUBLISHED_FUNCTIONS:
            measured, captions = (times, sizes.captions) if name in times else (times_of_others, len(fewer.words))
            pairs = f"{sizes.pictures} pictures x {captions} captions"
            reference = f"one product [I*R, d] x [d, words] of {pairs}: {measured['product']:.3f} s"
            limit = 1.7 if name == "dot" else None
            ratio = measured[name] / measured["product"]
            self.figures[f"forward_{name}_over_product"] = Figure(ratio, "x", reference, limit)
            if ALIGNMENT_FUNCTIONS[name].transforms is not None:
                reference = f"dot on {pairs}: {measured['dot']:.3f} s"
                self.figures[f"forward_{name}_over_dot"] = Figure(measured[name] / measured["dot"], "x", reference, 1.3)
        self._forward_loop(problem, times["dot"])

    def _forward_times(
        self, problem: Problem, names: tuple[str, ...], block: tuple[int | None, int | None]
    ) -> dict[str, float]:
        queries = problem.queries
        calls: dict[str, Callable[[], object]] = {"product": lambda: _product(problem.regions, queries, block)}
        for name in names:
            calls[name] = _similarity_of(self.cross_attention(name), problem)
        return self.medians(f"forward, {len(problem.words)} captions", calls)

    def _fastest_product(self, problem: Problem) -> tuple[int | None, int | None]:
        """The blocks in which the plain product is fastest, tried on a part of the captions."""
        queries = problem.first_captions(self.sizes.captions_of_others).queries
        calls = {
            str(block): (lambda block=block: _product(problem.regions, queries, block)) for block in PRODUCT_BLOCKS
        }
        times = self.medians("blocks of the product", calls)
        return min(PRODUCT_BLOCKS, key=lambda block: times[str(block)])

    def _forward_loop(self, problem: Problem, ours: float) -> None:
        part = problem.first_captions(self.sizes.captions_of_loop)
        alignment = self.cross_attention("dot").alignment
        loop = self.medians(
            "loop",
            {"loop": lambda: straightforward_similarity(part.regions, part.words, part.mask, alignment)},
        )["loop"]
        # Time follows the words, of which the part may hold fewer or more than its share.
        scale = len(problem.queries) / len(part.queries)
        reference = (
            f"dot by the plain loop on {len(part.words)} of {len(problem.words)} captions, {loop:.3f} s, "
            f"times {scale:.2f} for all their words"
        )
        self.figures["forward_loop_over_dot"] = Figure(loop * scale / ours, "x", reference, 13.0, at_least=True)
        self.figures["forward_dot_seconds"] = Figure(ours, "s", "time of dot for all pairs")

    def training(self) -> None:
        """Forward and backward on one batch, beside the loop."""
        batch = self.sizes.training_batch
        problem = Problem.random(batch, batch, self.device, seed=1)
        problem.regions.requires_grad_()
        problem.words.requires_grad_()
        for name in HEADLINE_FUNCTIONS:
            cross_attention = self.cross_attention(name)
            alignment = cross_attention.alignment
            inputs = [problem.regions, problem.words, *alignment.parameters()]
            loop = lambda alignment=alignment: straightforward_similarity(  # noqa: E731
                problem.regions, problem.words, problem.mask, alignment
            )
            times = self.medians(
                f"training, {name}",
                {
                    "similarity": _with_gradient(_similarity_of(cross_attention, problem), inputs),
                    "loop": _with_gradient(loop, inputs),
                },
            )
            reference = f"{name} by the plain loop on {batch} x {batch}: {times['loop']:.3f} s"
            ratio = times["loop"] / times["similarity"]
            self.figures[f"training_loop_over_{name}"] = Figure(ratio, "x", reference, 10.0, at_least=True)

    def memory(self) -> None:
        """Peak memory beyond the inputs, 1,000 pictures x 5,000 captions."""
        for name in HEADLINE_FUNCTIONS:
            extra = self._memory_on_device(name) if self.device == "cuda" else _memory_in_new_process(self, name)
            way = "allocated on the device" if self.device == "cuda" else "resident in a process of its own"
            reference = f"peak {way}, {self.sizes.pictures} pictures x {self.sizes.memory_captions} captions"
            self.figures[f"memory_{name}"] = Figure(extra / 1e9, "GB", reference, 1.0)
            say(f"memory, {name}: {extra / 1e9:.3f} GB")

    @torch.no_grad()
    def _memory_on_device(self, name: str) -> int:
        problem = Problem.random(self.sizes.pictures, self.sizes.memory_captions, self.device)
        call = _similarity_of(self.cross_attention(name), problem)
        return self.allocated_by(call)

    @torch.no_grad()
    def exactness(self) -> None:
        """Largest difference to the loop in float32, of all functions of the table."""
        problem = Problem.random(self.sizes.exactness, self.sizes.exactness, self.device, seed=2)
        largest, where = 0.0, ""
        for name in ALIGNMENT_FUNCTIONS:
            cross_attention = self.cross_attention(name)
            with self.autocast():
                ours = _similarity_of(cross_attention, problem)()
            theirs = straightforward_similarity(problem.regions, problem.words, problem.mask, cross_attention.alignment)
            difference = float((ours - theirs).abs().max())
            say(f"difference to the loop, {name}: {difference:.1e}")
            if not difference <= largest:  # a NaN counts as the largest
                largest, where = difference, name
        reference = f"the plain loop in fp32, {self.sizes.exactness} x {self.sizes.exactness}, largest for {where}"
        limit = 1e-5 if self.precision == "fp32" else None
        self.figures["largest_difference_to_loop"] = Figure(largest, "", reference, limit)


def _similarity_of(cross_attention: StackedCrossAttention, problem: Problem) -> Callable[[], Tensor]:
    return lambda: cross_attention(problem.regions, problem.words, None, problem.mask)


def _with_gradient(call: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    return lambda: torch.autograd.grad(call().square().sum(), inputs)


def _product(regions: Tensor, queries: Tensor, block: tuple[int | None, int | None]) -> None:
    """The one matrix product [N, d] x [d, I*R], the inputs cast once under autocast; blocks are not kept."""
    keys = regions.flatten(0, 1)
    if torch.is_autocast_enabled(keys.device.type):
        dtype = torch.get_autocast_dtype(keys.device.type)
        keys, queries = keys.to(dtype), queries.to(dtype)
    for some_queries in queries.split(block[0] or len(queries)):
        for some_keys in keys.split(block[1] or len(keys)):
            F.linear(some_queries, some_keys)


def _memory_in_new_process(benchmark: Benchmark, name: str) -> int:
    """Extra bytes, as measured by `_print_memory` where nothing ran before."""
    sizes = [str(benchmark.sizes.pictures), str(benchmark.sizes.memory_captions)]
    return resident_bytes_of(__file__, "--memory-of", name, *sizes, "--precision", benchmark.precision)


@torch.no_grad()
def _print_memory(benchmark: Benchmark, name: str, pictures: int, captions: int) -> None:
    problem = Problem.random(pictures, captions, benchmark.device)
    small = Problem(problem.regions[:2], problem.words[:2], problem.mask[:2])
    cross_attention = benchmark.cross_attention(name)
    with benchmark.autocast():
        print_resident_bytes(_similarity_of(cross_attention, small), _similarity_of(cross_attention, problem))


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory-of", nargs=3, metavar=("FUNCTION", "PICTURES", "CAPTIONS"), help=argparse.SUPPRESS)
    return parsed(parser)


def main() -> None:
    arguments = _arguments()
    benchmark = Benchmark(arguments.device, arguments.precision, QUICK if arguments.quick else FULL, arguments.repeats)
    if arguments.memory_of:
        name, pictures, captions = arguments.memory_of
        return _print_memory(benchmark, name, int(pictures), int(captions))
    run_all([benchmark.exactness, benchmark.memory, benchmark.training, benchmark.forward])
    report(benchmark.figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

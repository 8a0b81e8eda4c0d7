"""Time and exactness of M4C's decoding and training, beside a straightforward transformer after the published code.

    python benchmarks/m4c.py --output benchmarks/results/m4c-cpu.json

All ratios are between medians of the same run, whose repeats take turns, so that a machine that slows down slows all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from measuring import Figure, Measurements, benchmark_parser, parsed, report, run_all, say
from straightforward_m4c import straightforward_answers, straightforward_logits
from torch import Tensor
from transformers import BertConfig

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.embedding_m4c import M4CEntities
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering

FUNCTIONS = ("dot", "scaled_dot", "general_key", "activated_general_key")
DROPOUTS = ("object_dropout", "ocr_dropout", "hidden_dropout", "attention_dropout")
IMPLEMENTATIONS = ("model", "straightforward")
DECODING_TARGET, TRAINING_TARGET = 6.0, 1.0


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch: int = 8
    words: int = 20
    objects: int = 100
    ocr_tokens: int = 50
    steps: int = 12
    vocabulary: int = 5000
    hidden_size: int = 768
    layers: int = 4
    heads: int = 12

    @property
    def entities(self) -> int:
        return self.words + self.objects + self.ocr_tokens


FULL = Sizes()
QUICK = Sizes(2, 3, 5, 4, 3, 30, 32, 2, 4)


class Problem:
    """A model with starting values, and random entities, fed words and labels from a fixed seed.

    The text encoder and the embedding of pictures are not measured: they are the same on both sides, and one is small.
    """

    def __init__(self, sizes: Sizes, device: str, function: str, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        config = M4CConfig(
            text_config=BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8),
            alignment_function=function,
            feature_size=8,
            hidden_size=sizes.hidden_size,
            pointer_size=sizes.hidden_size,
            intermediate_size=4 * sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_decoding_steps=sizes.steps,
            num_labels=sizes.vocabulary,
            **dict.fromkeys(DROPOUTS, dropout),
        )
        self.steps = sizes.steps
        self.model = M4CForQuestionAnswering(config).to(device).eval()
        lengths = (sizes.words, sizes.objects, sizes.ocr_tokens)
        there = [torch.arange(most) < torch.randint(1 + most // 2, most + 1, (sizes.batch, 1)) for most in lengths]
        states = torch.randn(sizes.batch, sizes.entities, sizes.hidden_size)
        self.entities = M4CEntities(states.to(device), torch.cat(there, dim=1).to(device), sizes.ocr_tokens)
        self.entities.states.requires_grad_()
        answers = sizes.vocabulary + 1  # the first token is there in every picture
        self.previous_ids = torch.randint(answers, (sizes.batch, sizes.steps)).to(device)
        labels = torch.zeros(sizes.batch, sizes.steps, sizes.vocabulary + sizes.ocr_tokens)
        labels.scatter_(2, torch.randint(answers, (sizes.batch, sizes.steps, 2)), 1.0)
        self.labels = labels.to(device)

    @torch.no_grad()
    def answers(self, implementation: str) -> Tensor:
        """The best word of every step."""
        if implementation == "model":
            return self.model.decode(self.entities, stop_at_end=False).sequences
        return straightforward_answers(self.model, self.entities, self.steps)

    def logits(self, implementation: str) -> Tensor:
        if implementation == "model":
            return self.model.answer(self.entities, self.previous_ids).logits
        return straightforward_logits(self.model, self.entities, self.previous_ids)

    def gradients(self, implementation: str) -> dict[str, Tensor]:
        """Of the mean cross-entropy of a step, for each parameter of the transformer and its heads."""
        model = self.model
        parts = {"transformer": model.model.transformer, "pointer": model.pointer, "classifier": model.classifier}
        parts["previous"] = model.model.previous_embedding
        sources = {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}
        sources["entities"] = self.entities.states
        of_words = F.binary_cross_entropy_with_logits(self.logits(implementation), self.labels, reduction="none")
        loss = of_words.sum(dim=-1).mean()
        return dict(zip(sources, torch.autograd.grad(loss, list(sources.values())), strict=True))

    def training_step(self, implementation: str) -> Callable[[], object]:
        self.model.train()
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
            f"batch {sizes.batch}, {sizes.entities} entities, {sizes.steps} steps, "
            f"{sizes.layers} layers of {sizes.hidden_size}"
        )

    def problem(self, function: str, dropout: float = 0.0) -> Problem:
        return Problem(self.sizes, self.device, function, dropout)

    def exactness(self) -> None:
        """Largest differences to the straightforward transformer, and whether the answers are equal."""
        scores, gradients, equal = {"": 0.0}, {"": 0.0}, []
        for function in FUNCTIONS if self.sizes == FULL else ALIGNMENT_FUNCTIONS:
            problem = self.problem(function)
            with self.autocast():
                ours, found = problem.logits("model"), problem.gradients("model")
                equal.append(bool((problem.answers("model") == problem.answers("straightforward")).all()))
            expected, slopes = problem.logits("straightforward"), problem.gradients("straightforward")
            there = expected > -5000  # padding lies at -10,000, where float32 is no finer than 0.001
            scores[function] = float((ours - expected).detach()[there].abs().max())
            gradients[function] = max(float((found[name] - slopes[name]).abs().max()) for name in slopes)
            say(f"{function}: scores {scores[function]:.1e}, gradients {gradients[function]:.1e}, equal {equal[-1]}")
        exact = self.precision == "fp32"
        for title, differences in (("score", scores), ("gradient", gradients)):
            where = max(differences, key=lambda name: (differences[name] != differences[name], differences[name]))
            reference = f"the straightforward transformer in fp32, {self.setting}, largest for {where}"
            self.figures[f"largest_{title}_difference"] = Figure(
                differences[where], "", reference, 1e-4 if exact else None
            )
        self.figures["functions_with_equal_answers"] = Figure(
            sum(equal) / len(equal),
            "",
            f"greedy answers of all {self.sizes.steps} steps",
            1.0 if exact else None,
            at_least=True,
        )

    def decoding(self) -> None:
        """How many times as long as ours encoding everything at every step takes."""
        for function in FUNCTIONS:
            problem = self.problem(function)
            calls = {name: partial(problem.answers, name) for name in IMPLEMENTATIONS}
            times = self.medians(f"decoding, {function}", calls)
            self.figures[f"decoding_full_encoding_over_{function}"] = Figure(
                times["straightforward"] / times["model"],
                "x",
                f"full encoding at every step: {times['straightforward']:.3f} s",
                DECODING_TARGET,
                at_least=True,
            )
            self.figures[f"decoding_{function}_seconds"] = Figure(times["model"], "s", self.setting)
            self.figures[f"decoding_{function}_over_products"] = self.over_products(calls["model"], times["model"])

    def training(self) -> None:
        """The same of one pass forward and backward, without dropout and with the published one."""
        for dropout, title in ((0.0, "training"), (0.1, "training_with_dropout")):
            for function in FUNCTIONS:
                problem = self.problem(function, dropout)
                calls = {name: problem.training_step(name) for name in IMPLEMENTATIONS}
                times = self.medians(f"{title}, {function}", calls)
                self.figures[f"{title}_straightforward_over_{function}"] = Figure(
                    times["straightforward"] / times["model"],
                    "x",
                    f"explicit scores, all positions: {times['straightforward']:.3f} s",
                    TRAINING_TARGET,
                    at_least=True,
                )
                self.figures[f"{title}_{function}_over_products"] = self.over_products(calls["model"], times["model"])


def main() -> None:
    arguments = parsed(benchmark_parser(__doc__))
    benchmark = Benchmark(arguments.device, arguments.precision, QUICK if arguments.quick else FULL, arguments.repeats)
    run_all([benchmark.exactness, benchmark.decoding, benchmark.training])
    report(benchmark.figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

"""The share of a training step that computes, and does not wait for the next batch.

python benchmarks/data_loading.py --output benchmarks/results/data-loading.json

SCAN is trained for one epoch by the loop that every run uses, whose waiting for batches is timed: on blocks, as the
preset `blocks` trains, and on memory-mapped features of 36 x 2048 random numbers a picture with the preset of Flickr8k.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figure, Measurements, benchmark_parser, parsed, report, say
from PIL import Image

from vl_alignment.data.blocks import load_blocks
from vl_alignment.data.features import extract_regions
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.epoch_loop import EpochLoop
from vl_alignment.training.preparation import prepare_study
from vl_alignment.training.presets import get_preset
from vl_alignment.training.retrieval import train_retrieval_run

REGIONS, FEATURES = 36, 2048
LEAST_BUSY = 90.0
ONE_EPOCH = {"epochs": 1, "evaluate_every": 1, "decay_epochs": [], "all_negatives_epochs": 1}


class RandomRegions:
    """Stands for an extractor: random numbers of the right shape, the same for every batch."""

    name, version = "random", "1"
    feature_size, regions = FEATURES, REGIONS

    def __call__(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.random.default_rng(0).random((len(images), REGIONS, FEATURES), dtype=np.float32)
        return numbers, np.tile(np.array([0, 0, 1, 1], np.float32), (len(images), REGIONS, 1))


class Waiting:
    """Times how long the training loop waits for its batches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "Waiting":
        self.original = EpochLoop.next_batch

        def timed(loop: EpochLoop, batches: Any) -> Any:
            begin = time.perf_counter()
            try:
                return self.original(loop, batches)
            finally:
                self.seconds += time.perf_counter() - begin

        EpochLoop.next_batch = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        EpochLoop.next_batch = self.original  # type: ignore[method-assign]


def busy_share(train: Callable[[], dict[str, Any]], examples: int) -> float:
    """Percent of the time of all steps that passes with computing."""
    with Waiting() as waiting:
        training = train()["training"]
    return 100 * (1 - waiting.seconds * training["examples_per_second"] / examples)


def main() -> None:
    arguments = parsed(benchmark_parser(__doc__))
    size = 64 if arguments.quick else 1024
    sizes = {"train": size, "validation": 16, "test": 16}
    precision = "no" if arguments.precision == "fp32" else arguments.precision
    device = {"device": "auto" if arguments.device == "cuda" else "cpu", "precision": precision}
    measurements = Measurements(arguments.device, arguments.precision, arguments.repeats)
    shares: dict[str, list[float]] = {"blocks": [], "memory_mapped": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        study = prepare_study("blocks", output=folder, sizes=sizes, settings={**ONE_EPOCH, **device})
        data = load_blocks(**sizes)
        store = extract_regions(data, RandomRegions(), folder / "store", progress=False)
        preset = get_preset("flickr8k")
        fields = {**preset["model"], "feature_size": FEATURES, "alignment_function": "dot"}
        settings = TrainingSettings(**{**preset["settings"], **ONE_EPOCH, **device})

        def train_on_features(output: Path) -> dict[str, Any]:
            options: dict[str, Any] = {"settings": settings, "model_fields": fields, "region_store": store}
            return train_retrieval_run(data, dataset_name="random", output=output, minimum_count=1, **options)

        for repeat in range(arguments.repeats):
            output = folder / f"runs-{repeat}"
            shares["blocks"].append(busy_share(lambda output=output: study.run_cell(output, "dot", 0), size))
            shares["memory_mapped"].append(busy_share(lambda output=output: train_on_features(output), size))
            say(f"{repeat + 1} of {arguments.repeats}")
    beside = {
        "blocks": "training time not spent waiting for batches; the preset blocks, its regions stored",
        "memory_mapped": f"the same; {REGIONS} x {FEATURES} float16 a picture, memory-mapped, preset flickr8k",
    }
    for name, measured in shares.items():
        share = statistics.median(measured)
        measurements.figures[f"busy_share_{name}"] = Figure(share, "%", beside[name], LEAST_BUSY, at_least=True)
    report(measurements.figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

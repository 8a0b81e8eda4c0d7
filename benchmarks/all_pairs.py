"""All pairs of COCO's test set, 5,000 pictures x 25,000 captions: time beside the matrix products alone, and memory.

    python benchmarks/all_pairs.py --threads 1 --output benchmarks/results/all-pairs-cpu.json
    python benchmarks/all_pairs.py --threads 1 --whole outputs/all-pairs

The first measures a slice, two shards: 1,024 captions against 1,800 pictures, in turns with the products, extrapolated.
Memory is that of a process that goes through all pairs, ranks included, with all shards but the slice's on disk.
The second scores everything; it keeps its shards in that folder, and goes on from there when it is run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import Figure, benchmark_parser, parsed, report, resident_bytes, say
from torch import Tensor

from vl_alignment.metrics.retrieval import retrieval_metrics
from vl_alignment.models.configuration_scan import ScanConfig
from vl_alignment.models.similarity_scan import StackedCrossAttention
from vl_alignment.training.all_pairs import CAPTIONS_PER_SHARD, IMAGES_PER_SHARD, score_all_pairs
from vl_alignment.training.score_shards import ScoreShards

PICTURES, REGIONS, CAPTIONS_PER_PICTURE, SIZE = 5000, 36, 5, 1024
SHORTEST_CAPTION, LONGEST_CAPTION = 8, 16  # words, 12 on average
SLICE = 2  # shards whose time is measured
FUNCTIONS = ("dot", "general_key")
# (queries, keys) of one block of the plain product; the fastest is taken.
PRODUCT_BLOCKS = [(1024, 1008), (2048, 2016), (4096, 4032)]


class Synthetic:
    """Unit vectors of COCO's numbers and the published sizes; every caption's words come from a seed of their own."""

    def __init__(self, pictures: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.regions = torch.randn(pictures, REGIONS, SIZE, generator=generator)
        for some in self.regions.split(100):  # in place: what is made here hides no memory of what is measured
            some.div_(torch.linalg.vector_norm(some, dim=-1, keepdim=True))
        random = np.random.default_rng(1)
        self.lengths = random.integers(SHORTEST_CAPTION, LONGEST_CAPTION + 1, size=pictures * CAPTIONS_PER_PICTURE)
        self.owner = np.arange(len(self.lengths)) // CAPTIONS_PER_PICTURE

    def words(self, captions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Words [n, L, d] of captions, zero at padding, and their mask [n, L]."""
        lengths = torch.from_numpy(self.lengths[captions])
        words = torch.zeros(len(captions), int(lengths.max()), SIZE)
        for place, caption in enumerate(captions):
            length = int(self.lengths[caption])
            drawn = torch.randn(length, SIZE, generator=torch.Generator().manual_seed(int(caption)))
            words[place, :length] = drawn / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)
        return words, torch.arange(words.shape[1]) < lengths[:, None]


class Scorer:
    """What `score_all_pairs` takes for a model."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        config = ScanConfig(vocab_size=10, hidden_size=SIZE, alignment_function=name)
        self.cross_attention = StackedCrossAttention(config)

    def similarity(self, regions: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        return self.cross_attention(regions, words, None, word_mask)


def products(regions: Tensor, queries: Tensor, number: int, block: tuple[int, int]) -> None:
    """So many products [N, d] x [d, I*R], in blocks whose results are not kept."""
    keys = regions.flatten(0, 1)
    for _ in range(number):
        for some_queries in queries.split(block[0]):
            for some_keys in keys.split(block[1]):
                torch.nn.functional.linear(some_queries, some_keys)


def processor_seconds(call: Callable[[], object]) -> float:
    """Time of the processor, which other programs on a busy machine change less than the clock's."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


@torch.no_grad()
def measure_time(figures: dict[str, Figure], data: Synthetic, repeats: int) -> None:
    """Score a slice shard by shard, each in turn with the products that it cannot do without."""
    # Captions of average length.
    columns = np.argsort(data.lengths, kind="stable")[len(data.lengths) // 2 :][:CAPTIONS_PER_SHARD]
    words, mask = data.words(columns)
    queries = words[mask]
    shards = data.regions.split(IMAGES_PER_SHARD)[:SLICE]
    pictures = sum(map(len, shards))
    scale = data.lengths.sum() / len(queries) * len(data.regions) / pictures
    some = queries[:4096]
    block = min(PRODUCT_BLOCKS, key=lambda block: processor_seconds(lambda: products(shards[0][:300], some, 1, block)))
    for name in FUNCTIONS:
        scorer = Scorer(name)
        number = 1 if scorer.cross_attention.alignment.scores_give_inner_products else 2
        scorer.similarity(shards[0][:2], words[:2], mask[:2])
        ours, floor = [], []
        for turn, regions in enumerate(shards * repeats, start=1):
            floor.append(processor_seconds(lambda: products(regions, queries, number, block)))  # noqa: B023
            ours.append(processor_seconds(lambda: scorer.similarity(regions, words, mask)))  # noqa: B023
            say(f"{name}, {turn} of {len(shards) * repeats}: {ours[-1]:.1f} s, {ours[-1] / floor[-1]:.2f}")
        ratio = statistics.median(own / least for own, least in zip(ours, floor, strict=True))
        operations = 2.0 * number * len(queries) * pictures * REGIONS * SIZE
        least = sum(floor) / repeats
        reference = (
            f"{number} product{'s' * (number > 1)} of the regions of {pictures} pictures with the words of "
            f"{len(columns)} captions: {least:.0f} s of the processor, {operations / least / 1e9:.0f} GFLOPS"
        )
        figures[f"time_{name}_over_products"] = Figure(ratio, "x", reference, 1.7)
        slice_seconds = sum(ours) / repeats
        reference = (
            f"of the processor, extrapolated from {slice_seconds:.0f} s by words and pictures, times {scale:.1f}"
        )
        figures[f"time_{name}_whole"] = Figure(slice_seconds * scale / 3600, "h", reference)


def measure_memory(figures: dict[str, Figure], pictures: int) -> None:
    """Peak of a process that goes through all pairs and ranks them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--memory-in", folder, str(pictures), "--threads"]
        command.append(str(torch.get_num_threads()))
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    pairs = f"{pictures} x {pictures * CAPTIONS_PER_PICTURE}"
    reference = f"largest resident memory of a process that scores and ranks {pairs}, everything counted; "
    reference += f"all but one of {found['shards']} shards were on disk, the other with {FUNCTIONS[-1]}"
    figures["memory"] = Figure(found["bytes"] / 1e9, "GB", reference, 3.0)
    figures["ranks"] = Figure(found["ranks"], "s", f"of the processor, the metrics of {pairs} scores")


def print_memory(folder: Path, pictures: int) -> None:
    data = Synthetic(pictures)
    shards = ScoreShards(folder, {})
    total = 0
    random = np.random.default_rng(2)
    computed = CAPTIONS_PER_SHARD * max(0, len(data.lengths) // CAPTIONS_PER_SHARD - 1)  # the longest of a whole shard
    for start in range(0, len(data.lengths), CAPTIONS_PER_SHARD):
        columns = min(CAPTIONS_PER_SHARD, len(data.lengths) - start)
        for image in range(0, pictures, IMAGES_PER_SHARD):
            rows = min(IMAGES_PER_SHARD, pictures - image)
            total += 1
            if image or start != computed:
                shards.get(image, start, (rows, columns), lambda: random.random((rows, columns)))  # noqa: B023
    similarity = score_all_pairs(Scorer(FUNCTIONS[-1]), data.regions, data.words, data.lengths, shards=shards)
    ranks = processor_seconds(lambda: retrieval_metrics(similarity, data.owner))
    print(json.dumps({"bytes": resident_bytes("VmHWM"), "shards": total, "ranks": ranks}))


def score_whole(folder: Path, pictures: int) -> None:
    """Score and rank everything; what is in the folder is not scored again."""
    data = Synthetic(pictures)
    shards = ScoreShards(folder, {"benchmark": "all_pairs", "pictures": pictures, "function": FUNCTIONS[0]})
    begin = time.process_time()
    similarity = score_all_pairs(Scorer(FUNCTIONS[0]), data.regions, data.words, data.lengths, shards=shards)
    print(
        f"{time.process_time() - begin:.0f} s of the processor in this process, {resident_bytes('VmHWM') / 1e9:.2f} GB"
    )
    print(json.dumps(retrieval_metrics(similarity, data.owner), indent=1))


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--whole", type=Path, metavar="FOLDER", help="score all pairs, keeping the shards here")
    parser.add_argument("--memory-in", nargs=2, metavar=("FOLDER", "PICTURES"), help=argparse.SUPPRESS)
    arguments = parsed(parser)
    if (arguments.device, arguments.precision) != ("cpu", "fp32"):
        parser.error("measures processor time in fp32 alone; leave out --device and --precision")
    return arguments


def main() -> None:
    arguments = _arguments()
    pictures = 200 if arguments.quick else PICTURES
    if arguments.memory_in:
        folder, number = arguments.memory_in
        return print_memory(Path(folder), int(number))
    if arguments.whole:
        return score_whole(arguments.whole, pictures)
    figures: dict[str, Figure] = {}
    measure_memory(figures, pictures)
    measure_time(figures, Synthetic(pictures), arguments.repeats)
    report(figures, __file__, arguments.output)


if __name__ == "__main__":
    main()

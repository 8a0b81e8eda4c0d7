r"""Searching with ScanIndex: how long a shortlist must be, and what a query costs as the collection grows.

    python benchmarks/scan_index.py RUN --regions STORE --data-dir data/flickr8k --folder outputs/scan-index \
        --threads 1 --output benchmarks/results/scan-index-cpu.json

RUN is a SCAN trained on photographs, STORE their regions, a grid. The collection is all of the store's pictures, and
beyond them collages: the left columns of the grid are those of one photograph, the right ones of another, cut at a
random column. Queries are people's captions of the test split.

Up to 100,000 pictures everything is measured on an index in --folder, which is built once and kept. Beyond, pictures'
mean vectors are searched as they are, but their regions are not stored: re-ranking reads those of the first 100,000.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from measuring import Figure, benchmark_parser, parsed, report, say
from torch import Tensor

from vl_alignment.data.region_store import RegionStore
from vl_alignment.search import shortlist
from vl_alignment.search.collection import Collection, pooled
from vl_alignment.search.pictures import PictureEncoder
from vl_alignment.search.scan_index import SHORTLIST, ScanIndex
from vl_alignment.training.evaluation import load_split

PICTURES, LARGEST = 100_000, 1_000_000
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
SHORTLISTS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
QUERIES, TIMED_QUERIES, TOP = 25, 10, 10
SCORED_TOGETHER = 2048


class Collages:
    """Photographs of a store, then collages of two; a `PictureSource` without picture files.

    SCAN embeds every region by itself, so that collages of embeddings are embeddings of collages.
    """

    def __init__(self, store: RegionStore, model: Any, number: int) -> None:
        self._side = round(store.regions**0.5)
        with torch.no_grad():
            self.embeddings = torch.cat(
                [
                    model.encode_images(region_features=torch.from_numpy(store.features(ids).astype(np.float32)))
                    for ids in np.array_split(store.image_ids, 32)
                ]
            )  # [photographs, R, d]
        random = np.random.default_rng(0)
        photographs = len(store)
        collages = max(0, number - photographs)
        self._parts = random.integers(photographs, size=(collages, 2))
        self._columns = random.integers(1, self._side, size=collages)
        names = [f"photograph-{image_id}" for image_id in store.image_ids]
        names += [f"collage-{row:06d}" for row in range(collages)]
        self.records = [{"id": name} for name in names[:number]]

    def encode(self, encoder: PictureEncoder, rows: Sequence[int]) -> tuple[list[int], Tensor]:
        return list(rows), torch.stack([self.embedded(row) for row in rows])

    def embedded(self, row: int) -> Tensor:
        """Region embeddings [R, d] of a picture."""
        photographs = len(self.embeddings)
        if row < photographs:
            return self.embeddings[row]
        left, right = self._parts[row - photographs].tolist()
        is_left = torch.arange(self._side) < int(self._columns[row - photographs])
        is_left = is_left.repeat(self._side)[:, None]  # [R, 1], regions lie row by row
        return torch.where(is_left, self.embeddings[left], self.embeddings[right])

    def means(self, rows: np.ndarray) -> np.ndarray:
        """Mean vectors [n, d] of collages, at unit length, from the sums of the photographs' columns."""
        grid = self.embeddings.view(len(self.embeddings), self._side, self._side, -1).sum(dim=1)  # [n, columns, d]
        cut = torch.nn.functional.pad(grid.cumsum(dim=1), (0, 0, 1, 0)).numpy()  # [n, columns + 1, d]
        collages = rows - len(self.embeddings)
        (left, right), columns = self._parts[collages].T, self._columns[collages]
        sums = cut[left, columns] + cut[right, -1] - cut[right, columns]
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)


class Benchmark:
    """The measurements; each adds its figures and points of its curve."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.pictures, self.largest = (9_000, 12_000) if arguments.quick else (PICTURES, LARGEST)
        self.queries = 10 if arguments.quick else QUERIES
        self.repeats, self.folder = arguments.repeats, arguments.folder
        self.figures: dict[str, Figure] = {}
        self.curves: dict[str, list[dict[str, Any]]] = {}
        loaded = load_split(
            arguments.model, arguments.preset, data_dir=arguments.data_dir, regions=arguments.regions, split="test"
        )
        self.source = Collages(RegionStore.open(arguments.regions), loaded.model, self.largest)
        self.index = ScanIndex.create(
            arguments.folder / "index", loaded.model, loaded.processor, dtype="float16", extractor=arguments.extractor
        )
        captions = [texts[0] for texts in loaded.part["test"]["captions"]]
        chosen = np.random.default_rng(1).choice(len(captions), self.queries, replace=False)
        self.texts = [captions[row] for row in sorted(chosen)]
        with torch.no_grad():
            self.words = [self.index._words([text])[0][0] for text in self.texts]
        self.means = [pooled(words).numpy() for words in self.words]

    def build(self) -> None:
        """Fill the index with what it lacks."""
        self.source.records, everything = self.source.records[: self.pictures], self.source.records
        begin = time.process_time()
        added = self.index.add_pictures(self.source, batch_size=256)
        if added:
            rate = added / (time.process_time() - begin)
            reference = "from stored features, of the processor: embeddings, files, inverted lists"
            self.figures["pictures_indexed_per_second"] = Figure(rate, "1/s", reference)
        self.source.records = everything
        self.collection = self.index._collections["pictures"]
        stored = sum(path.stat().st_size for path in self.index.folder.iterdir() if path.is_file())
        reference = f"all files, {self.pictures} pictures of {self.source._side**2} regions of {self.collection.width}"
        self.figures["bytes_per_picture"] = Figure(stored / len(self.collection), "B", f"{reference} in float16")

    @torch.no_grad()
    def recall(self) -> None:
        """How much of the exact top ten the shortlists hold, with all mean vectors compared and with inverted lists."""
        best = [np.empty(0)] * self.queries
        rows = [np.empty(0, dtype=np.int64)] * self.queries
        lengths = torch.tensor([len(words) for words in self.words])
        words = torch.nn.utils.rnn.pad_sequence(self.words, batch_first=True)
        mask = torch.arange(words.shape[1]) < lengths[:, None]
        for start in range(0, len(self.collection), SCORED_TOGETHER):
            some = np.arange(start, min(start + SCORED_TOGETHER, len(self.collection)))
            regions, _ = self.collection.gather(some)
            scores = self.index.model.similarity(regions, words, word_mask=mask).numpy()  # [pictures, queries]
            for query in range(self.queries):
                both = np.concatenate([best[query], scores[:, query]])
                numbers = np.concatenate([rows[query], some])
                kept = np.argsort(-both, kind="stable")[:TOP]
                best[query], rows[query] = both[kept], numbers[kept]
            if start // SCORED_TOGETHER % 10 == 0:
                say(f"exact scores: {start + len(some)} of {len(self.collection)}")
        for name, lists in [("compared", None), ("lists", self.index._lists["pictures"])]:
            if lists is None and name == "lists":
                continue
            found = [shortlist.nearest(self.collection, lists, mean, max(SHORTLISTS)) for mean in self.means]
            for size in SHORTLISTS:
                recall = 100 * np.mean(
                    [len(np.intersect1d(f[:size], own)) / TOP for f, own in zip(found, rows, strict=True)]
                )
                first = 100 * np.mean([own[0] in f[:size] for f, own in zip(found, rows, strict=True)])
                self.curves.setdefault(f"recall_{name}", []).append(
                    {"shortlist": size, "recall": recall, "first": first}
                )
                how = "all mean vectors compared" if name == "compared" else "inverted lists, as the index has them"
                reference = f"of the exact top {TOP} of {len(self.collection)} pictures, {self.queries} captions; {how}"
                self.figures[f"recall_{name}_{size}"] = Figure(recall, "%", reference)

    def cost(self) -> None:
        """What a query takes as the collection grows."""
        for size in [size for size in SIZES if size <= self.largest]:
            measured = size <= len(self.collection)
            collection = self._prefix(size) if measured else self._means_only(size)
            self._add_cost("compared", collection, None, measured)
            size = len(collection)
            if shortlist.wants_lists(size, 0) or (self.pictures < PICTURES and size >= 1_000):
                path = self.folder / f"lists-{size}.faiss"
                if not path.exists():
                    shortlist.build_lists(collection, path)
                lists = shortlist.open_lists(path, self.collection.width, size)
                self._add_cost("lists", collection, lists, measured)

    def _prefix(self, size: int) -> Collection:
        """The first pictures of the index, as if there were no others; whole shards."""
        shards, items = [], 0
        for shard in self.collection.shards:
            if items and items + shard[0] > size * 1.03:
                break
            shards.append(shard)
            items += shard[0]
        return Collection(self.index.folder, "pictures", self.collection.width, "float16", shards)

    def _means_only(self, size: int) -> Any:
        """A collection of mean vectors, without regions."""
        path = self.folder / "means.npy"
        if not path.exists():
            means = np.lib.format.open_memmap(
                self.folder / "means.part", mode="w+", dtype=np.float32, shape=(self.largest, self.collection.width)
            )
            for start, block in self.collection.pooled_blocks():
                means[start : start + len(block)] = block
            means[len(self.collection) :] = self.source.means(np.arange(len(self.collection), self.largest))
            means.flush()
            (self.folder / "means.part").rename(path)
        return Means(np.load(path, mmap_mode="r")[:size])

    def _add_cost(self, name: str, collection: Any, lists: Any, measured: bool) -> None:
        size = len(collection)
        queries = self.means[:TIMED_QUERIES]

        def search() -> None:
            for mean in queries:
                shortlist.nearest(collection, lists, mean, SHORTLIST)

        def rerank() -> None:
            for number, words in enumerate(self.words[:TIMED_QUERIES]):
                rows = found[number] % len(self.collection)
                with torch.no_grad():
                    self.index._score(words, "pictures", *self.collection.gather(rows))

        found = [shortlist.nearest(collection, lists, mean, SHORTLIST) for mean in queries]
        shortlisting, reranking = (self._median(call) / len(queries) for call in (search, rerank))
        point = {
            "pictures": size,
            "shortlist_ms": 1e3 * shortlisting,
            "rerank_ms": 1e3 * reranking,
            "measured": measured,
        }
        self.curves.setdefault(f"cost_{name}", []).append(point)
        say(json.dumps(point))
        how = "all mean vectors compared" if name == "compared" else "inverted lists"
        note = "" if measured else "; mean vectors alone are there, re-ranking reads regions of the first pictures"
        self.figures[f"query_{name}_{size}"] = Figure(
            1e3 * (shortlisting + reranking),
            "ms",
            f"of the processor, {how}: shortlist of {SHORTLIST} {1e3 * shortlisting:.2f} ms, "
            f"exact scores {1e3 * reranking:.1f} ms{note}",
        )

    def _median(self, call: Callable[[], None]) -> float:
        taken = []
        for _ in range(self.repeats + 1):
            begin = time.process_time()
            call()
            taken.append(time.process_time() - begin)
        return statistics.median(taken[1:])


class Means:
    """What `nearest` and `build_lists` need of a collection: mean vectors in blocks."""

    def __init__(self, means: np.ndarray) -> None:
        self._means, self.width = means, means.shape[1]

    def __len__(self) -> int:
        return len(self._means)

    def pooled_blocks(self, first: int = 0) -> Any:
        for start in range(first, len(self), 1024):
            yield start, np.asarray(self._means[start : start + 1024])


def plot(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw recall beside cost."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    labels = {"compared": "all mean vectors compared", "lists": "inverted lists"}
    for name, label in labels.items():
        if points := curves.get(f"recall_{name}"):
            left.plot([p["shortlist"] for p in points], [p["recall"] for p in points], "o-", label=label, markersize=4)
        if points := curves.get(f"cost_{name}"):
            total = [p["shortlist_ms"] + p["rerank_ms"] for p in points]
            [line] = right.plot([p["pictures"] for p in points], total, "o-", label=f"query, {label}", markersize=4)
            hollow = [(p["pictures"], t) for p, t in zip(points, total, strict=True) if not p["measured"]]
            right.plot(
                *zip(*hollow, strict=True), "o", color=line.get_color(), markerfacecolor="white"
            ) if hollow else None
    if points := curves.get("cost_compared"):
        right.plot(
            [p["pictures"] for p in points], [p["rerank_ms"] for p in points], ":", color="grey", label="exact scores"
        )
    left.set(xscale="log", xlabel="pictures in the shortlist", ylabel="exact top 10 in it, %", ylim=(0, 102))
    right.set(
        xscale="log", yscale="log", xlabel="pictures in the collection (hollow: simulated)", ylabel="ms of one core"
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("model", type=Path, metavar="RUN", help="run folder of a trained SCAN")
    parser.add_argument("--regions", type=Path, required=True, metavar="STORE", help="its pictures' region store")
    parser.add_argument("--preset", default="flickr8k", help="whose captions are the queries (%(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of the preset's data set")
    parser.add_argument("--extractor", help="of the index; what the model records by default")
    parser.add_argument("--folder", type=Path, required=True, help="where the index is kept")
    return parsed(parser)


def main() -> None:
    arguments = _arguments()
    if (arguments.model / "model").is_dir():
        arguments.model = arguments.model / "model"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(arguments)
    try:
        for measure in (benchmark.build, benchmark.recall, benchmark.cost):
            begin = time.process_time()
            measure()
            say(f"{measure.__name__}: {time.process_time() - begin:.0f} s of the processor")
    finally:  # what was measured before an interruption is worth having
        report(benchmark.figures, __file__, arguments.output)
        if arguments.output:
            plot(benchmark.curves, arguments.output.with_suffix(".svg"))


if __name__ == "__main__":
    main()

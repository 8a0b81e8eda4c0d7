"""Groups of test pictures and captions, and what retrieval reaches in each: the paper's Figures 1 and 2.

Pictures by COCO's supercategories, or by shape and color of the blocks in them; captions by how many nouns they have,
and pictures by the most nouns that a caption of theirs has.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.retrieval import DIRECTIONS
from ..models.errors import ResultsError
from ..training.runs import RunDirectory
from .layout import Column, Row, Table, display_name, ordered
from .nouns import NounTagger
from .outcomes import ItemOutcomes
from .statistics import Estimate, Result, estimate, row_key

__all__ = [
    "DIRECTION_TITLES",
    "QUERIES",
    "RECALL_LEVEL",
    "StrataRecalls",
    "Strata",
    "Stratum",
    "noun_strata",
    "picture_strata",
    "strata_recalls",
]

RECALL_LEVEL = 1
SENTENCES, IMAGES = DIRECTIONS
DIRECTION_TITLES = {SENTENCES: "Sentence retrieval", IMAGES: "Image retrieval"}
QUERIES = {SENTENCES: "pictures", IMAGES: "captions"}
# A count that fewer have is joined with its neighbour: an interval of so few says nothing.
FEWEST, FEWEST_SHARE = 10, 0.02


@dataclass(frozen=True)
class Stratum:
    """One group of the queries of a direction.

    Attributes:
        name: Of the group.
        queries: Their ids: of pictures for sentence retrieval, of captions (`picture#number`) for image retrieval.
        pictures: Of each query.
    """

    name: str
    queries: tuple[str, ...]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Strata:
    """One way to group the test set.

    Attributes:
        key: A name for files.
        title: What the groups are by.
        note: How they were found.
        groups: {direction: strata}, for the directions whose queries are grouped.
        ordinal: Whether the strata are numbers in ascending order.
    """

    key: str
    title: str
    note: str
    groups: Mapping[str, tuple[Stratum, ...]]
    ordinal: bool = False


@dataclass(frozen=True)
class StrataRecalls:
    """What each function reaches in each group.

    Attributes:
        strata: The groups.
        recalls: {direction: {row key: an estimate a stratum}}: the mean over seeds, and an interval over pictures.
        seeds: {row key: how many}.
    """

    strata: Strata
    recalls: Mapping[str, Mapping[str, tuple[Estimate, ...]]]
    seeds: Mapping[str, int]

    @property
    def rows(self) -> list[str]:
        """The row keys in the order of tables."""
        return ordered(self.seeds)

    def table(self) -> Table:
        """Lay the recalls out, a column a stratum; the last rows say how many queries and pictures it has."""
        columns, sizes, pictures = [], [], []
        for direction, groups in self.strata.groups.items():
            title = f"{DIRECTION_TITLES[direction]}, R@{RECALL_LEVEL}"
            columns += [Column(f"{direction}_{group.name}", group.name, title) for group in groups]
            sizes += [f"{len(group.queries):,}" for group in groups]
            pictures += [f"{len(set(group.pictures)):,}" for group in groups]
        rows = [
            Row(name, display_name(name), tuple(cell for found in self.recalls.values() for cell in found[name]))
            for name in self.rows
        ]
        rows.append(Row("queries", "Queries", tuple(sizes), control=True))
        rows.append(Row("pictures", "Pictures", tuple(pictures), control=True))
        return Table(f"{self.caption} {self.strata.note}", tuple(columns), tuple(rows))

    @property
    def caption(self) -> str:
        """What the numbers are."""
        seeds = sorted(set(self.seeds.values()))
        of = " to ".join(map(str, seeds[:: max(1, len(seeds) - 1)]))
        return (
            f"R@{RECALL_LEVEL} by {self.strata.title}, percent: mean over {of} seed{'s' * (seeds[-1] > 1)} ± half the "
            "95% interval over test pictures, for these trained models."
        )


def picture_strata(test: Any) -> list[Strata]:
    """Group pictures by what is known to be in them; a picture is in the group of everything that it has.

    Args:
        test: Records with `image_id`, `captions`, and `scene` (JSON of the built-in world) or `categories` (COCO's).

    Returns:
        By supercategory, or by shape and by color, the most frequent first; none where the records tell of no objects.
    """
    names = test.column_names
    if "categories" in names and any(test["categories"]):
        found = [{category["supercategory"] for category in categories} for categories in test["categories"]]
        return [_by_content(test, found, "supercategory", "COCO supercategory")]
    if "scene" in names:
        objects = [json.loads(scene)["objects"] for scene in test["scene"]]
        return [
            _by_content(test, [{thing[key] for thing in things} for things in objects], key, f"{key} of the objects")
            for key in ("shape", "color")
        ]
    return []


def _by_content(test: Any, found: Sequence[Iterable[str]], key: str, title: str) -> Strata:
    shares = Counter(name for names in found for name in names)
    order = sorted(shares, key=lambda name: (-shares[name], name))
    groups: dict[str, list[Stratum]] = {direction: [] for direction in DIRECTIONS}
    pairs = list(zip(test["image_id"], test["captions"], strict=True))
    for name in order:
        chosen = [pair for pair, names in zip(pairs, found, strict=True) if name in names]
        title_of = f"{name} ({100 * len(chosen) / len(pairs):.0f} %)"
        pictures = tuple(str(image) for image, _ in chosen)
        captions = [(f"{image}#{n}", str(image)) for image, texts in chosen for n in range(len(texts))]
        groups[SENTENCES].append(Stratum(title_of, pictures, pictures))
        groups[IMAGES].append(_stratum(title_of, captions))
    note = "A picture is in the group of everything that it has, the most frequent first; in brackets its share."
    return Strata(key, title, note, {direction: tuple(members) for direction, members in groups.items()})


def noun_strata(test: Any, tagger: NounTagger) -> list[Strata]:
    """Group captions by their nouns, and pictures by the most nouns that a caption of theirs has.

    Counts that few queries have are joined at both ends.

    Args:
        test: Records with `image_id` and `captions`.
        tagger: Finds the nouns.
    """
    captions: list[tuple[tuple[str, str], int]] = []
    pictures: list[tuple[tuple[str, str], int]] = []
    for image, texts in zip(map(str, test["image_id"]), test["captions"], strict=True):
        counts = [len(nouns) for nouns in tagger(texts)]
        captions += [((f"{image}#{number}", image), count) for number, count in enumerate(counts)]
        pictures.append(((image, image), max(counts)))
    note = f"Nouns: {tagger.description}."
    most = f"A picture counts with that of its captions which has the most nouns. {note}"
    by_caption = {IMAGES: _by_count(captions)}
    by_picture = {SENTENCES: _by_count(pictures)}
    return [
        Strata("caption-nouns", "number of nouns in the caption", note, by_caption, ordinal=True),
        Strata("picture-nouns", "the most nouns in one caption", most, by_picture, ordinal=True),
    ]


def _by_count(counted: Sequence[tuple[tuple[str, str], int]]) -> tuple[Stratum, ...]:
    counts = np.array([count for _, count in counted])
    fewest = max(FEWEST_SHARE * len(counts), min(FEWEST, 0.1 * len(counts)))
    values = np.unique(counts)
    lows = [value for value in values if np.sum(counts <= value) >= fewest]
    highs = [value for value in values if np.sum(counts >= value) >= fewest]
    low, high = int(lows[0]), int(highs[-1])
    groups = []
    for value in (number for number in values.tolist() if low <= number <= high):
        chosen = [pair for pair, count in counted if min(max(count, low), high) == value]
        name = str(value)
        if value == low > values[0]:
            name = f"≤ {value}"
        elif value == high < values[-1]:
            name = f"≥ {value}"
        groups.append(_stratum(name, chosen))
    return tuple(groups)


def _stratum(name: str, pairs: Sequence[tuple[str, str]]) -> Stratum:
    return Stratum(name, tuple(query for query, _ in pairs), tuple(picture for _, picture in pairs))


def strata_recalls(output: Path | str, results: Sequence[Result], strata: Sequence[Strata]) -> list[StrataRecalls]:
    """Measure the runs of a folder in every group, from their predictions.

    Runs without predictions are left out, and with a warning those whose predictions are of other test items or cannot
    be read. Where no run is left there is nothing.
    """
    hits: dict[str, list[dict[str, dict[str, float]]]] = {}
    needed = {
        direction: {query for way in strata for group in way.groups.get(direction, ()) for query in group.queries}
        for direction in DIRECTIONS
    }
    for result in results:
        path = RunDirectory(Path(output) / str(result.get("run_id"))).predictions
        if path.exists():
            try:
                hits.setdefault(row_key(result), []).append(_read_hits(path, needed))
            except ResultsError as error:
                warnings.warn(f"{error} The run is left out of the breakdowns.", stacklevel=2)
    hits = {name: runs for name, runs in hits.items() if runs}
    if not hits:
        return []
    measured = []
    for way in strata:
        recalls = {
            direction: {
                name: tuple(_recall(group, [run[direction] for run in runs]) for group in groups)
                for name, runs in hits.items()
            }
            for direction, groups in way.groups.items()
        }
        measured.append(StrataRecalls(way, recalls, {name: len(runs) for name, runs in hits.items()}))
    return measured


def _read_hits(path: Path, needed: Mapping[str, set[str]]) -> dict[str, dict[str, float]]:
    """Read {direction: {query: 100 where it was right, else 0}}."""
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(path, columns=["item_id", "direction", "rank"]).to_pydict()
        rows = list(zip(columns["item_id"], columns["direction"], columns["rank"], strict=True))
    except KeyError as error:
        raise ResultsError(f"The predictions do not say {error}; another version wrote them.", path=path) from error
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        raise ResultsError(f"The predictions cannot be read ({error}).", path=path) from error
    hits: dict[str, dict[str, float]] = {direction: {} for direction in DIRECTIONS}
    for item, direction, rank in rows:
        hits[direction][item] = 100.0 * (rank < RECALL_LEVEL)
    missing = sum(len(queries - hits[direction].keys()) for direction, queries in needed.items())
    if missing:
        raise ResultsError(f"The predictions lack {missing:,} queries of the test set.", path=path)
    return hits


def _recall(group: Stratum, runs: Sequence[Mapping[str, float]]) -> Estimate:
    scores = np.mean([[run[query] for query in group.queries] for run in runs], axis=0)
    contributions = ItemOutcomes.of_parts([(group.pictures, scores)]).contributions()
    found = estimate(contributions)
    # Where all pictures score alike, as where none is found, they do not tell how much others would differ.
    half = found.half_interval or None
    return replace(found, half_interval=half, count=len(runs))

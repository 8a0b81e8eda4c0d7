"""From what a model looked at, and what its score depends on, to one number an item for every metric.

    Look (attention, true mask) --look_scores--> pointing game, mass, IoU --+
                                                                            +--> mean, interval, controls
    Probe (attention, score) ----probe_scores--> rank correlation, curves --+

Two controls stand beside each: uniform attention (of curves: places in random order), and the attention that belongs to
another picture.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..metrics.grounding import (
    area_under_curve,
    attention_density,
    attention_iou,
    attention_mass,
    inside_shares,
    normalised_entropy,
    place_areas,
    pointing_game,
    rank_correlation,
)
from .attention import AlignmentMap
from .grounding_truth import MASK_SIDE

__all__ = [
    "CONTROLS",
    "Change",
    "Gathered",
    "ItemScores",
    "Look",
    "Probe",
    "bootstrap_interval",
    "change_scores",
    "entropy_scores",
    "look_scores",
    "probe_scores",
    "spatial_attention",
    "summarise_scores",
]

CONTROLS = ("uniform", "shuffled")
OWN = "mean"
CURVE_STEPS = 10
RESAMPLES = 10_000
BLOCK = 500


@dataclass(frozen=True)
class Look:
    """Attention over the places of a picture, and where it ought to be.

    Attributes:
        image_id: Of the picture.
        kind: What is asked of it: a prefix of its metrics' names, "" for the task's first question.
        weights: [K, P]: alternatives, as of K reasoning steps, of which the one with the largest mass inside counts.
        rectangles: [P, 4] in [0, 1].
        truth: Mask [S, S].
    """

    image_id: str
    kind: str
    weights: np.ndarray
    rectangles: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Probe:
    """Attention over P places, and the model's score with only some of them.

    Attributes:
        image_id: Of the picture, or of the caption that one is drawn of.
        weights: [P].
        score: Takes which places are kept, bool [V, P]; gives the scores [V], the other places occluded.
    """

    image_id: str
    weights: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Change:
    """Where the words of a caption are attended to, and where the drawn picture changes without them.

    Attributes:
        image_id: Of the caption's picture.
        weights: [L, P], a row a word.
        effects: [L, P], the mean change of each place when the word is occluded.
    """

    image_id: str
    weights: np.ndarray
    effects: np.ndarray


@dataclass
class Gathered:
    """What is gathered from one model on one data set; the attention maps are there for their entropy."""

    looks: list[Look] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    maps: list[tuple[str, AlignmentMap]] = field(default_factory=list)


@dataclass
class ItemScores:
    """The values of one metric, NaN where one is not defined.

    Attributes:
        pictures: Of each item.
        values: {"mean": the model's own, "uniform": ..., "shuffled": ...}, one number an item each.
    """

    pictures: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, picture: str, **values: float) -> None:
        """Add an item; controls that are not given are not defined for it."""
        self.pictures.append(picture)
        for name in (OWN, *CONTROLS):
            self.values[name].append(float(values.get(name, np.nan)))


def spatial_attention(alignment: AlignmentMap) -> tuple[np.ndarray, np.ndarray]:
    """Give the attention of words or steps over places [Q, P], and the places' rectangles [P, 4].

    Where places look at words (SCAN's i2t), a word has what the places give to it, rescaled to sum to one.
    """
    if alignment.keys.is_spatial:
        return alignment.weights, alignment.keys.rectangles()
    given = alignment.weights.T
    sums = given.sum(axis=1, keepdims=True)
    shares = np.where(sums > 0, given / np.where(sums > 0, sums, 1), 1 / given.shape[1])
    return shares, alignment.queries.rectangles()


def look_scores(looks: Sequence[Look], *, threshold: float = 0.5, seed: int = 0) -> dict[str, ItemScores]:
    """Score looks by the truth: {"pointing_game", "attention_mass", "attention_iou"}, with the looks' prefixes.

    Args:
        looks: Of one model; those that no place of theirs could score on are left out.
        threshold: Of `attention_iou`.
        seed: Of the drawing of other pictures' attention.
    """
    scores: dict[str, ItemScores] = defaultdict(ItemScores)
    areas: dict[bytes, np.ndarray] = {}
    others = _others([(look.image_id, f"{look.kind} {look.weights.shape}") for look in looks], seed)
    for look, other in zip(looks, others, strict=True):
        key = look.rectangles.tobytes()
        if key not in areas:
            if len(areas) > 1:  # of boxes, which differ from picture to picture
                areas.clear()
            areas[key] = place_areas(look.rectangles, MASK_SIDE, MASK_SIDE)
        inside = inside_shares(look.truth[None], areas[key])
        if inside.max() <= 0:
            continue
        attentions = {OWN: look.weights, "uniform": np.full((1, len(look.rectangles)), 1 / len(look.rectangles))}
        if other is not None:
            attentions["shuffled"] = looks[other].weights
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for name, weights in attentions.items():
            masses = attention_mass(weights, np.repeat(inside, len(weights), axis=0))
            best = weights[masses.argmax()][None]
            found["attention_mass"][name] = float(masses.max())
            found["pointing_game"][name] = float(pointing_game(best, inside)[0])
            density = attention_density(best, areas[key])
            found["attention_iou"][name] = float(attention_iou(density, look.truth[None], threshold)[0])
        for metric, values in found.items():
            scores[look.kind + metric].add(look.image_id, **values)
    return dict(scores)


def probe_scores(probes: Sequence[Probe], *, seed: int = 0) -> dict[str, ItemScores]:
    """Score attention by what the model's own score depends on: no truth is needed.

    "rank_correlation" is that of attention with the fall of the score when a place is occluded; "deletion_auc" and
    "insertion_auc" are the curves' mean heights in the unit of the score; "faithfulness" is insertion less deletion:
    nothing on average for places in random order.

    Args:
        probes: Of one model.
        seed: Of random orders, and of the drawing of other pictures' attention.
    """
    names = ("rank_correlation", "deletion_auc", "insertion_auc", "faithfulness")
    scores = {name: ItemScores() for name in names}
    others = _others([(probe.image_id, str(probe.weights.shape)) for probe in probes], seed)
    draw = np.random.default_rng([seed, 1])
    for probe, other in tqdm(zip(probes, others, strict=True), "probing", len(probes), leave=False, disable=None):
        count = len(probe.weights)
        orders = {OWN: np.argsort(-probe.weights, kind="stable"), "uniform": draw.permutation(count)}
        if count < 2:
            continue
        correlated = {OWN: probe.weights}
        if other is not None:
            correlated["shuffled"] = probes[other].weights
            orders["shuffled"] = np.argsort(-probes[other].weights, kind="stable")
        steps = np.unique(np.linspace(0, count, CURVE_STEPS + 1).round().astype(int))
        ranks = {name: np.argsort(order) for name, order in orders.items()}
        deleted = [rank >= step for rank in ranks.values() for step in steps]
        inserted = [rank < step for rank in ranks.values() for step in steps]
        measured = probe.score(np.concatenate([~np.eye(count, dtype=bool), deleted, inserted]))
        effects, curves = measured[:count], measured[count:].reshape(2, len(orders), len(steps))
        # What is left of the score with everything kept: the first point of a deletion curve.
        effects = curves[0, 0, 0] - effects
        heights = area_under_curve(curves.reshape(-1, len(steps)), steps / count).reshape(2, len(orders))
        areas = dict(zip(orders, heights.T, strict=True))
        scores["rank_correlation"].add(
            probe.image_id, **{name: rank_correlation(w[None], effects[None])[0] for name, w in correlated.items()}
        )
        scores["deletion_auc"].add(probe.image_id, **{name: area[0] for name, area in areas.items()})
        scores["insertion_auc"].add(probe.image_id, **{name: area[1] for name, area in areas.items()})
        scores["faithfulness"].add(probe.image_id, **{name: area[1] - area[0] for name, area in areas.items()})
    return scores


def change_scores(changes: Sequence[Change], *, seed: int = 0) -> dict[str, ItemScores]:
    """Say whether pictures change where a word was attended to: {"place_correlation"}, the mean over a caption's words.

    Args:
        changes: Of one model.
        seed: Of the drawing of other pictures' attention.
    """
    scores = ItemScores()
    others = _others([(change.image_id, str(change.weights.shape[1])) for change in changes], seed)
    for change, other in zip(changes, others, strict=True):
        attentions = {OWN: change.weights}
        if other is not None:
            attentions["shuffled"] = np.resize(changes[other].weights, change.weights.shape)  # whole rows, in turn
        found = {name: rank_correlation(weights, change.effects) for name, weights in attentions.items()}
        known = {name: values[np.isfinite(values)] for name, values in found.items()}
        scores.add(change.image_id, **{name: values.mean() for name, values in known.items() if len(values)})
    return {"place_correlation": scores}


def entropy_scores(maps: Sequence[tuple[str, AlignmentMap]]) -> dict[str, ItemScores]:
    """Mean entropy of the queries of each map, over that of uniform attention: {"entropy"}."""
    scores = ItemScores()
    for image_id, alignment in maps:
        scores.add(image_id, mean=normalised_entropy(alignment.weights).mean(), uniform=1.0)
    return {"entropy": scores}


def summarise_scores(
    scores: Mapping[str, ItemScores], *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Give for every metric its mean, interval, numbers of items and pictures, and the controls' means.

    Items of one picture are drawn together, for they are not independent. A mean of nothing is None.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name, items in scores.items():
        values = np.asarray(items.values[OWN])
        known = np.isfinite(values)
        if not known.any():
            continue
        pictures = [picture for picture, there in zip(items.pictures, known, strict=True) if there]
        low, high = bootstrap_interval(values[known], pictures, resamples, seed, confidence)
        controls = {}
        for control in CONTROLS:
            there = np.asarray(items.values[control])[known]
            controls[control] = float(np.nanmean(there)) if np.isfinite(there).any() else None
        counts = {"items": len(pictures), "pictures": len(set(pictures))}
        summary[name] = {OWN: float(values[known].mean()), "low": low, "high": high, **counts, **controls}
    return summary


def bootstrap_interval(
    values: np.ndarray, pictures: Sequence[str], resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval of a mean over items whose pictures are drawn anew; none for a single picture."""
    _, place = np.unique(np.asarray(pictures), return_inverse=True)
    sums, counts = np.bincount(place, weights=values), np.bincount(place)
    if len(sums) < 2:
        return None, None
    draw = np.random.default_rng(seed)
    equal = np.full(len(sums), 1 / len(sums))
    means = []
    for start in range(0, resamples, BLOCK):
        times = draw.multinomial(len(sums), equal, size=min(BLOCK, resamples - start))
        means.append((times @ sums) / (times @ counts))
    low, high = np.quantile(np.concatenate(means), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _others(items: Sequence[tuple[str, str]], seed: int) -> list[int | None]:
    """Choose for each (picture, sort) an item of the same sort and another picture; None where there is none."""
    order = np.random.default_rng(seed).permutation(len(items))
    sorts: dict[str, list[int]] = defaultdict(list)
    for item in order:
        sorts[items[item][1]].append(int(item))
    chosen: list[int | None] = [None] * len(items)
    for members in sorts.values():
        for place, item in enumerate(members):
            following = (members[(place + step) % len(members)] for step in range(1, len(members)))
            chosen[item] = next((other for other in following if items[other][0] != items[item][0]), None)
    return chosen

"""Ranks of the functions over seeds, on the test items at hand, with critical differences.

Friedman's test says whether the functions' ranks differ at all, Nemenyi's critical difference which ones (Demsar 2006).
Ranks need no assumption about the size of differences. What other test items would change is not in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from ..models.errors import ResultsError
from .layout import Column, Row, Table, display_name, ordered
from .statistics import Result, values_of
from .tasks import Task, task_of

__all__ = ["Ranking", "rank_blocks", "rank_functions", "rank_table"]

Block = Mapping[str, float]


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over blocks, 1 being the best.

    Attributes:
        mean_ranks: {row key: mean rank}, the best first.
        blocks: How many there are.
        p_value: Of Friedman's test that all functions are alike; approximate for few blocks.
        critical_difference: Mean ranks that are less apart are not told apart.
    """

    mean_ranks: dict[str, float]
    blocks: int
    p_value: float
    critical_difference: float

    @property
    def like_the_best(self) -> list[str]:
        """The functions that are not told apart from the one with the best mean rank, itself among them."""
        best = min(self.mean_ranks.values())
        return [name for name, rank in self.mean_ranks.items() if rank - best < self.critical_difference]

    @property
    def separates(self) -> bool:
        """Whether any two mean ranks are far enough apart."""
        return len(self.like_the_best) < len(self.mean_ranks)


def rank_blocks(results: Sequence[Result]) -> list[dict[str, float]]:
    """The task's metric of all functions, a block a seed that all of them have.

    Runs in the released layout are left out: they are another program of a function, not another function, and would
    make every rank and the critical difference larger.
    """
    right = [result for result in results if not result["released_layout"]]
    values = values_of(right, task_of(results).metric) if right else {}
    shared = sorted(set.intersection(*(set(seeds) for seeds in values.values()))) if values else []
    return [{name: seeds[seed] for name, seeds in values.items()} for seed in shared]


def rank_functions(blocks: Sequence[Block], confidence: float = 0.95) -> Ranking | None:
    """Rank the functions within each block; equal values share their ranks.

    Args:
        blocks: {row key: value} each, higher being better, all of the same functions.
        confidence: Of the critical difference.

    Returns:
        None for fewer than three functions or two blocks, of which ranks say nothing.

    Raises:
        ResultsError: The blocks hold different functions.
    """
    names = ordered(blocks[0]) if blocks else []
    if any(set(block) != set(names) for block in blocks):
        raise ResultsError("the blocks rank different functions; leave out those that some of them lack")
    number, count = len(blocks), len(names)
    if number < 2 or count < 3:
        return None
    values = np.array([[block[name] for name in names] for block in blocks])
    means = rankdata(-values, axis=1).mean(axis=0)
    alike = bool((values == values[:, :1]).all())  # the statistic divides by the spread of the ranks
    p_value = 1.0 if alike else float(friedmanchisquare(*values.T).pvalue)
    quantile = float(studentized_range.ppf(confidence, count, np.inf)) / sqrt(2)
    order = np.argsort(means, kind="stable")
    ranks = {names[place]: float(means[place]) for place in order}
    return Ranking(ranks, number, p_value, quantile * sqrt(count * (count + 1) / (6 * number)))


def rank_table(ranking: Ranking, task: Task) -> Table:
    """Lay out mean ranks, the best first."""
    columns = (
        Column("mean_rank", "Mean rank", lower_is_better=True, decimals=2),
        Column("like_the_best", "Told apart from the best"),
    )
    like = ranking.like_the_best
    rows = tuple(
        Row(name, display_name(name), (rank, "no" if name in like else "yes"))
        for name, rank in ranking.mean_ranks.items()
    )
    caption = (
        f"Ranks by {task.metric_name} over {ranking.blocks} seeds on these test {task.items}, 1 being the best. "
        f"Friedman: p = {ranking.p_value:.3f}; mean ranks have to be {ranking.critical_difference:.2f} apart (Nemenyi)."
    )
    return Table(caption, columns, rows, mark_best=False)

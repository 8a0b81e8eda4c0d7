"""Which alignment functions can express the same alignments at all, by the configuration of a model.

Two functions of one class are two names of one function in other coordinates: a gap between their results comes from
initialisation and optimisation, or is a fault. `equivalences` checks every class on weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..models.alignment import ALIGNMENT_FUNCTIONS, AlignmentSpecification
from ..models.errors import ConfigurationError

__all__ = ["FunctionClass", "configurable_functions", "function_classes"]


@dataclass(frozen=True)
class FunctionClass:
    """Functions that can express the same alignments, so that a gap between them needs another explanation.

    Attributes:
        functions: Their names; the others are compared with the first that was run, and folded into the first of all.
        reason: Why, to stand between “although” and a comma.
    """

    functions: tuple[str, ...]
    reason: str


def configurable_functions(config: Any) -> list[str]:
    """Name the alignment functions that a model of this configuration can have: not all were released."""
    released = (
        *(name for name, row in ALIGNMENT_FUNCTIONS.items() if row.published),
        *config.released_beyond_the_paper,
    )
    return [name for name in ALIGNMENT_FUNCTIONS if not config.released_layout or name in released]


def function_classes(config: Any) -> list[FunctionClass]:
    """Find the classes of more than one function under a configuration, after training (dropout can tell them apart).

    Args:
        config: Of a SCAN, MAC, M4C or AttnGAN.

    Raises:
        ConfigurationError: If it is of another model.
    """
    if config.model_type not in _RULES:
        raise ConfigurationError(f"a model of type {config.model_type!r} has no alignment function to compare")
    known = configurable_functions(config)
    rules = _RULES[config.model_type](config)
    classes = [FunctionClass(tuple(name for name in names if name in known), reason) for names, reason in rules]
    return [one for one in classes if len(one.functions) > 1]


Classes: TypeAlias = list[tuple[Sequence[str], str]]


def _named(fits: Callable[[AlignmentSpecification], bool], normalized: bool = False) -> list[str]:
    """The functions that are an inner product of maps of both sides, linear or brought to unit length, that fit."""
    return [
        name
        for name, row in ALIGNMENT_FUNCTIONS.items()
        if row.module is None and not row.activated and row.normalized == normalized and fits(row)
    ]


def _scan(config: Any) -> Classes:
    """Statements 1, 2, 3 and 6: nothing linear is free to take up W, but norms take up a scale."""
    normalization = config.score_normalization
    unit = config.normalize_regions and config.normalize_words
    fixed = _named(lambda row: row.transforms is None and not row.scaled)
    reasons = []
    if unit:
        fixed += _named(lambda row: row.transforms is None and not row.scaled, normalized=True)
        reasons.append("the embeddings have unit length")
    if normalization in ("l2norm", "clipped_l2norm"):
        fixed += _named(lambda row: row.transforms is None and row.scaled)
        reasons.append("the norm of the scores takes up any scale")
    # As released, the functions that transform the key or add a bias mix up words and regions, each in its own way.
    linear = [] if config.released_layout else _named(lambda row: row.transforms is not None and not row.bias)[::-1]
    reason = "W of the one is W transposed of the other: both can express the same alignments"
    # A bias adds a constant to all keys of a query, or to all queries of a key; a softmax over them does not see it.
    unseen = {"no_norm": "key", "softmax": "query"}.get(normalization)
    if linear and unseen is not None:
        linear += _named(lambda row: row.bias and row.transforms == unseen)
        reason += f" (and under score_normalization={normalization!r} a softmax does not see the bias)"
    return [(linear, reason), (fixed, f"in SCAN {' and '.join(reasons)}")] if reasons else [(linear, reason)]


def _mac(config: Any) -> Classes:
    """Statement 5: by the read unit, since in the control unit all functions without activation are one class."""
    if config.cell == "pytorch":
        names = _named(lambda row: not (row.transforms == "query" and row.bias))
        reason = (
            "in the PyTorch cell of MAC they are one function in other coordinates, because nothing but linear layers "
            "stands between the knowledge base and the score: they can take up the scale, W and the key's b"
        )
    else:
        # A map of the query does not fold: no linear layer stands before the control state, and an ELU follows.
        names = _named(lambda row: row.transforms != "query")
        reason = (
            "in MAC's read unit they are one function in other coordinates, because the linear layer before the key "
            "can take up the scale, W and b"
        )
    return [(names, reason)]


def _m4c(config: Any) -> Classes:
    """Statement 4: every query and key is a free affine projection of the same states."""
    reason = (
        "in M4C they are one function in other coordinates, because the projections of queries and keys can take up "
        "the scale, W and b"
    )
    return [(_named(lambda row: True), reason)]


def _attngan(config: Any) -> Classes:
    """Statements 2 and 4; a bias of the query's side is a prior over words, which stays."""
    reason = (
        "in AttnGAN they are one function in other coordinates as long as W can be inverted, because the projection of "
        "the words can take up the scale and W, and the softmax over words does not see the bias"
    )
    return [(_named(lambda row: not (row.transforms == "query" and row.bias)), reason)]


_RULES: dict[str, Callable[[Any], Classes]] = {"scan": _scan, "mac": _mac, "m4c": _m4c, "attngan": _attngan}

"""How good a result is: recall at K and ranks for retrieval.

`RetrievalRecall` is imported on first use, because `evaluate` takes seconds to import.
"""

from typing import TYPE_CHECKING, Any

from .retrieval import RetrievalRanks, chance_metrics, retrieval_metrics, retrieval_ranks

if TYPE_CHECKING:
    from .recall import RetrievalRecall

__all__ = ["RetrievalRanks", "RetrievalRecall", "chance_metrics", "retrieval_metrics", "retrieval_ranks"]


def __getattr__(name: str) -> Any:
    """Import the `evaluate.Metric` when it is asked for."""
    if name == "RetrievalRecall":
        from .recall import RetrievalRecall

        return RetrievalRecall
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The study: statistics over seeds, tables, findings, attention on pictures, and the report.

Names are imported on first use: plots and pages need libraries that a table does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import (
        AlignmentMap,
        MapSide,
        ReadingMaps,
        ReasoningMaps,
        attngan_alignment_maps,
        m4c_alignment_maps,
        mac_alignment_maps,
        scan_alignment_map,
        scan_alignment_maps,
    )
    from .differences import difference_table, paired_comparisons, smallest_detectable_difference
    from .drawing import alignment_png, draw_alignment
    from .drawing_answers import draw_reading, reading_png
    from .drawing_stages import draw_stages, stages_png
    from .drawing_steps import draw_reasoning, reasoning_png
    from .equivalences import equivalences_page
    from .grounding import evaluate_grounding
    from .grounding_report import grounding_markdown
    from .latex import latex_table
    from .nouns import register_noun_tagger
    from .ranking import rank_functions
    from .report import write_report
    from .resampling import load_outcomes
    from .statistics import Estimate, estimate, paired_differences, summarise
    from .strata_report import measure_strata
    from .tables import (
        breakdown_table,
        paper_tables,
        published_comparison,
        published_table,
        results_table,
        runs_csv,
    )

_MODULES = {
    "AlignmentMap": "attention",
    "Estimate": "statistics",
    "MapSide": "attention",
    "ReadingMaps": "attention",
    "ReasoningMaps": "attention",
    "alignment_png": "drawing",
    "attngan_alignment_maps": "attention",
    "breakdown_table": "tables",
    "difference_table": "differences",
    "draw_alignment": "drawing",
    "draw_reading": "drawing_answers",
    "draw_reasoning": "drawing_steps",
    "draw_stages": "drawing_stages",
    "equivalences_page": "equivalences",
    "estimate": "statistics",
    "evaluate_grounding": "grounding",
    "grounding_markdown": "grounding_report",
    "latex_table": "latex",
    "load_outcomes": "resampling",
    "m4c_alignment_maps": "attention",
    "mac_alignment_maps": "attention",
    "measure_strata": "strata_report",
    "paired_comparisons": "differences",
    "paired_differences": "statistics",
    "paper_tables": "tables",
    "published_comparison": "tables",
    "published_table": "tables",
    "rank_functions": "ranking",
    "reading_png": "drawing_answers",
    "reasoning_png": "drawing_steps",
    "register_noun_tagger": "nouns",
    "results_table": "tables",
    "runs_csv": "tables",
    "scan_alignment_map": "attention",
    "scan_alignment_maps": "attention",
    "smallest_detectable_difference": "differences",
    "stages_png": "drawing_stages",
    "summarise": "statistics",
    "write_report": "report",
}

__all__ = [
    "AlignmentMap",
    "Estimate",
    "MapSide",
    "ReadingMaps",
    "ReasoningMaps",
    "alignment_png",
    "attngan_alignment_maps",
    "breakdown_table",
    "difference_table",
    "draw_alignment",
    "draw_reading",
    "draw_reasoning",
    "draw_stages",
    "equivalences_page",
    "estimate",
    "evaluate_grounding",
    "grounding_markdown",
    "latex_table",
    "load_outcomes",
    "m4c_alignment_maps",
    "mac_alignment_maps",
    "measure_strata",
    "paired_comparisons",
    "paired_differences",
    "paper_tables",
    "published_comparison",
    "published_table",
    "rank_functions",
    "reading_png",
    "reasoning_png",
    "register_noun_tagger",
    "results_table",
    "runs_csv",
    "scan_alignment_map",
    "scan_alignment_maps",
    "smallest_detectable_difference",
    "stages_png",
    "summarise",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is asked for."""
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

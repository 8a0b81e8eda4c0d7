"""The command `grounding`: how interpretable the attention of trained models is, in numbers."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["GROUNDING_SUMMARY", "add_grounding_options", "grounding"]

GROUNDING_SUMMARY = (
    "Measure where trained models look, on the true objects or not, and whether their scores depend on it: by "
    "alignment function, and beside how well they do. Each run keeps its numbers in grounding.json: run it again to go "
    "on."
)


def add_grounding_options(parser: Any) -> None:
    """Add the options of the command."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, or of several")
    parser.add_argument("--preset", help="whose data set to take (by the model, one that is built in)")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the data set; with --preset coco that of its annotations and pictures"
    )
    parser.add_argument("--regions", type=Path, help="region store; without it models see pixels")
    parser.add_argument("--split", help="(the one that results are measured on; of coco for instance val2017)")
    parser.add_argument("--limit", type=int, default=200, help="pictures at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of resampling and controls (%(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="share of the largest attention that counts for IoU (%(default)s)"
    )
    parser.add_argument(
        "--occlusion", choices=["mean", "zero"], default="mean", help="what occluded places become (%(default)s)"
    )
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for all numbers and correlations")


def grounding(parsed: argparse.Namespace) -> None:
    """Measure runs, print tables as Markdown."""
    from .analysis.grounding import GroundingSettings, ground_run, run_folders
    from .analysis.grounding_report import grounding_markdown, grounding_summary
    from .training.runs import write_json

    settings = GroundingSettings(
        limit=parsed.limit, seed=parsed.seed, threshold=parsed.threshold, occlusion=parsed.occlusion
    )
    given = {name: getattr(parsed, name) for name in ("preset", "data_dir", "regions", "split", "device")}
    measured = [
        ground_run(folder, settings, announce=lambda line: print(line, file=sys.stderr), **given)
        for folder in run_folders(parsed.runs)
    ]
    if parsed.output is not None:
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(parsed.output, {"settings": asdict(settings), "runs": measured, **grounding_summary(measured)})
    print(grounding_markdown(measured))

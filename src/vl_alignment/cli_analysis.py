"""The commands that analyse: their options, and what they call and print."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from .cli_types import AddCommand, config_field

__all__ = ["ANALYSIS_COMMANDS", "add_analysis_commands"]

STUDY_EXAMPLE = Path(__file__).parent / "analysis" / "study_example.yaml"


def add_analysis_commands(add: AddCommand) -> None:
    """Add all of them."""
    _add_study(add)
    _add_equivalences(add)
    _add_grounding(add)


def _add_study(add: AddCommand) -> None:
    parser = add(
        "study",
        "Run a study of several tasks, functions, seeds and layouts, several runs at a time, to tables and reports. "
        "A run that fails does not stop the rest. Run it again to go on.",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = STUDY_EXAMPLE.read_text(encoding="utf-8")
    parser.add_argument("plan", type=Path, metavar="STUDY.yaml", help="what to run; see below")
    parser.add_argument("--output", type=Path, help="folder of the study, in place of the file's")
    parser.add_argument("--processes", type=int, help="runs at a time, in place of the file's")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="work on these alone; others may work on the rest")
    parser.add_argument("--dry-run", action="store_true", help="check everything, load the data, and print the plan")


def _add_equivalences(add: AddCommand) -> None:
    parser = add(
        "equivalences",
        "Say which alignment functions can differ at all in a model, with folded or transposed weights as proof.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="MODEL_OR_PRESET", help="folder of a model or of a run, owner/name, or a preset"
    )
    parser.add_argument(
        "--config",
        type=config_field,
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="fields in place of the presets', as JSON: direction=i2t, score_normalization=softmax",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Markdown file (standard output)")


def _add_grounding(add: AddCommand) -> None:
    parser = add(
        "grounding",
        "Measure where trained models look, on the true objects or not, and whether their scores depend on it: by "
        "alignment function, and beside how well they do. Each run keeps its numbers in grounding.json: run it again "
        "to go on.",
    )
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


def _study(parsed: argparse.Namespace) -> None:
    from .analysis.study import finished_cells, run_study
    from .analysis.study_checks import changed_runs
    from .analysis.study_plan import read_plan
    from .models.errors import ResultsError

    whole = read_plan(parsed.plan, output=parsed.output)
    plan = whole.only(parsed.parts) if parsed.parts else whole
    if parsed.processes is not None:
        whole = replace(whole, processes=parsed.processes)
    if parsed.dry_run:
        finished = finished_cells(plan)
        for part in plan.parts:
            study = part.load()
            sizes = ", ".join(f"{size} {name}" for name, size in study.sizes.items())
            print(f"{part.name}: {part.preset}, {study.task}; {sizes} pictures")
            for line in changed_runs(plan.output / part.name, part):
                print(f"warning: {line}")
        for cell in plan.cells:
            print(f"{'is done' if cell in finished else 'would train'}: {cell.title}")
        return
    summary = run_study(whole, only=parsed.parts)
    if (plan.output / "report.html").exists():
        print(f"report: {plan.output / 'report.html'}")
    if summary.failed:
        failed = "; ".join(f"{title}: {error}" for title, error in summary.failed.items())
        raise ResultsError(f"{summary.done} of {len(plan.cells)} runs are done. Not done: {failed}", path=plan.output)


def _equivalences(parsed: argparse.Namespace) -> None:
    from .analysis.equivalences import equivalences_page

    page = equivalences_page(parsed.models, parsed.output, fields=dict(parsed.config))
    print(page if parsed.output is None else f"equivalences: {parsed.output}")


def _grounding(parsed: argparse.Namespace) -> None:
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


ANALYSIS_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "equivalences": _equivalences,
    "grounding": _grounding,
    "study": _study,
}

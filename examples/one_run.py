"""What the examples share: one run of any task from its arguments to its metrics, on one process or several."""

import argparse
import logging
import sys
from collections.abc import Callable

from vl_alignment.cli_parser import DATA_OPTIONS, split_size
from vl_alignment.models.errors import VlAlignmentError
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.optimisation import build_accelerator
from vl_alignment.training.preparation import prepare_study, preset_settings
from vl_alignment.training.presets import PRESETS

SETTINGS = ("epochs", "batch_size", "questions_per_image", "matching_weight", "precision", "device")


def run_parser(description: str, *, task: str, preset: str, alignment_function: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments of a run of a task; the last two are defaults, None where there is none."""
    presets = sorted(name for name, row in PRESETS.items() if row["task"] == task)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=presets, default=preset)
    if alignment_function is not None:
        parser.add_argument("--alignment-function", default=alignment_function)
    parser.add_argument("--output", required=True, help="folder of all runs")
    parser.add_argument("--data-dir", help="where the data set lies; blocks needs none")
    if task != "text-to-image":
        parser.add_argument("--regions", help="folder of a region store")
    parser.add_argument("--sizes", nargs="+", type=split_size, metavar="SPLIT=N", help="use so many images of a split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"])
    parser.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="leave accelerators alone")
    return parser


def train(arguments: argparse.Namespace) -> None:
    """Prepare the data, train one run or take its finished one, and print its metrics once."""
    given = {name: value for name in SETTINGS if (value := getattr(arguments, name, None)) is not None}
    accelerator = build_accelerator(preset_settings(arguments.preset, given))
    study = prepare_study(
        arguments.preset,
        output=arguments.output,
        data_dir=arguments.data_dir,
        regions=getattr(arguments, "regions", None),
        sizes=dict(arguments.sizes or ()),
        settings=given,
        options={name: value for name in DATA_OPTIONS if (value := getattr(arguments, name, None)) is not None},
        accelerator=accelerator,
    )
    result = study.run_cell(arguments.output, arguments.alignment_function, arguments.seed, accelerator=accelerator)
    accelerator.print({name: round(value, 1) for name, value in result["metrics"].items()})


def main(parser: argparse.ArgumentParser, train: Callable[[argparse.Namespace], None] = train) -> int:
    """Train as the command line says; return the exit status: 2 for wrong input, 130 when interrupted after saving."""
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    try:
        train(arguments)
    except VlAlignmentError as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingInterrupted as interruption:
        print(interruption, file=sys.stderr)
        return 130
    return 0

"""Train SCAN with one alignment function and evaluate it, on one process or several.

On the built-in data (its small region encoder is trained first, once):

    accelerate launch examples/train_scan.py --preset blocks --alignment-function general_key --output outputs

On precomputed regions (see `vl-alignment extract-features`), two GPUs:

    accelerate launch --multi_gpu --num_processes 2 examples/train_scan.py --preset flickr8k \
        --data-dir data/flickr8k --regions data/flickr8k-regions --alignment-function general_key --output outputs

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes.
"""

import argparse
import logging
import sys

from vl_alignment.models.errors import VlAlignmentError
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.loop import build_accelerator
from vl_alignment.training.preparation import prepare_retrieval, run_study_cell
from vl_alignment.training.presets import PRESETS, get_preset


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="blocks")
    parser.add_argument("--alignment-function", default="general_key")
    parser.add_argument("--output", required=True, help="folder of all runs")
    parser.add_argument("--data-dir", help="where the data set lies; blocks needs none")
    parser.add_argument("--regions", help="folder of a region store")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"])
    parser.add_argument("--cpu", action="store_true", help="leave accelerators alone")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    given = {
        name: getattr(arguments, name)
        for name in ("epochs", "batch_size", "precision")
        if getattr(arguments, name) is not None
    }
    if arguments.cpu:
        given["device"] = "cpu"
    try:
        settings = TrainingSettings.from_dict({**get_preset(arguments.preset)["settings"], **given})
        accelerator = build_accelerator(settings)
        study = prepare_retrieval(
            arguments.preset,
            output=arguments.output,
            data_dir=arguments.data_dir,
            regions=arguments.regions,
            settings=given,
            accelerator=accelerator,
        )
        result = run_study_cell(
            study, arguments.output, arguments.alignment_function, arguments.seed, accelerator=accelerator
        )
    except VlAlignmentError as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingInterrupted as interruption:
        print(interruption, file=sys.stderr)
        return 130
    accelerator.print({name: round(value, 1) for name, value in result["metrics"].items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train SCAN with one alignment function and evaluate it, on one process or several.

On the built-in data, from pixels:

    accelerate launch examples/train_scan.py --preset blocks --alignment-function general_key --output outputs

On precomputed regions (see `vl-alignment extract-features`), two GPUs:

    accelerate launch --multi_gpu --num_processes 2 examples/train_scan.py --preset flickr8k \
        --data-dir data/flickr8k --regions data/flickr8k-regions --alignment-function general_key --output outputs

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes.
"""

import argparse
import logging
import sys

from vl_alignment.data.features import RegionStore
from vl_alignment.data.retrieval import load_retrieval_dataset
from vl_alignment.models.errors import VlAlignmentError
from vl_alignment.models.processing_scan import ScanImageProcessorPil
from vl_alignment.training.arguments import TrainingSettings
from vl_alignment.training.interruption import TrainingInterrupted
from vl_alignment.training.presets import PRESETS, get_preset
from vl_alignment.training.retrieval import train_retrieval_run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="blocks")
    parser.add_argument("--alignment-function", default="general_key")
    parser.add_argument("--output", required=True, help="folder of all runs")
    parser.add_argument("--data-dir", help="where the data set lies; blocks needs none")
    parser.add_argument("--regions", help="folder of a region store; without it the model sees pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"])
    parser.add_argument("--device", choices=["auto", "cpu"])
    return parser.parse_args()


def pixel_processor(size: int) -> ScanImageProcessorPil:
    return ScanImageProcessorPil(size={"height": size, "width": size})


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    preset = get_preset(arguments.preset)
    given = {
        name: getattr(arguments, name)
        for name in ("seed", "epochs", "batch_size", "precision", "device")
        if getattr(arguments, name) is not None
    }
    try:
        result = train_retrieval_run(
            load_retrieval_dataset(preset["data"]["name"], arguments.data_dir),
            dataset_name=preset["data"]["name"],
            output=arguments.output,
            settings=TrainingSettings.from_dict({**preset["settings"], **given}),
            model_fields={**preset["model"], "alignment_function": arguments.alignment_function},
            region_store=RegionStore.open(arguments.regions) if arguments.regions else None,
            image_processor=None if arguments.regions else pixel_processor(preset["data"].get("image_size", 224)),
            minimum_count=preset["data"]["minimum_count"],
            folds=preset["data"]["folds"],
        )
    except VlAlignmentError as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingInterrupted as interruption:
        print(interruption, file=sys.stderr)
        return 130
    print({name: round(value, 1) for name, value in result["metrics"].items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

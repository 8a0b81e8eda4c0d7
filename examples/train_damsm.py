"""Train DAMSM, which AttnGAN trains against, and measure its R-precision, on one process or several.

On the built-in data, from pixels:

    accelerate launch examples/train_damsm.py --preset blocks-t2i --output outputs

On CUB, with Inception-v3's weights (torchvision's file):

    accelerate launch examples/train_damsm.py --preset cub --data-dir data/cub \
        --image-encoder inception_v3_google-0cc3c7bd.pth --output outputs

On pictures and captions of your own, a folder or a data set of the Hub:

    accelerate launch examples/train_damsm.py --preset blocks-t2i --dataset folder --data-dir mine --output outputs

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes.
`compare` and train_attngan.py train their DAMSM by themselves; this shows how, and how good one is.
"""

import argparse
import sys

import one_run

from vl_alignment.cli_parser import DATA_OPTIONS, add_damsm_options
from vl_alignment.training.damsm import train_damsm_run
from vl_alignment.training.optimisation import build_accelerator
from vl_alignment.training.preparation import load_study
from vl_alignment.training.text_to_image_study import damsm_arguments

SETTINGS = ("epochs", "batch_size", "precision", "device", "seed")


def build_parser() -> argparse.ArgumentParser:
    parser = one_run.run_parser(__doc__, task="text-to-image", preset="blocks-t2i", alignment_function=None)
    add_damsm_options(parser)
    return parser


def train(arguments: argparse.Namespace) -> None:
    """Train one DAMSM or take its finished run, and print its R-precision once."""
    study = load_study(
        arguments.preset,
        data_dir=arguments.data_dir,
        sizes=dict(arguments.sizes or ()),
        options={name: value for name in DATA_OPTIONS if (value := getattr(arguments, name, None)) is not None},
    )
    given = {name: value for name in SETTINGS if (value := getattr(arguments, name, None)) is not None}
    run = damsm_arguments(study.options, study.model_fields)
    settings = type(run["settings"]).from_dict({**run["settings"].to_dict(), **given})
    accelerator = build_accelerator(settings)
    result = train_damsm_run(
        study.data,
        dataset_name=study.name,
        output=arguments.output,
        accelerator=accelerator,
        **{**run, "settings": settings},
    )
    accelerator.print({name: round(value, 1) for name, value in {**result["metrics"], **result["bounds"]}.items()})


def main(parser: argparse.ArgumentParser) -> int:
    """Train as the command line says; see `one_run.main`."""
    return one_run.main(parser, train)


if __name__ == "__main__":
    sys.exit(main(build_parser()))

"""Train AttnGAN with one alignment function and measure its pictures, on one process or several.

On the built-in data (its DAMSM and what judges pictures are trained first, once):

    accelerate launch examples/train_attngan.py --preset blocks-t2i --alignment-function dot --output outputs

On CUB, two GPUs, with Inception-v3's weights for DAMSM and those of FID's network:

    accelerate launch --multi_gpu --num_processes 2 examples/train_attngan.py --preset cub --data-dir data/cub \
        --image-encoder inception_v3_google-0cc3c7bd.pth --feature-network pt_inception-2015-12-05-6726825d.pth \
        --alignment-function dot --output outputs

Without a GPU, two processes: torchrun --nproc_per_node 2 examples/train_attngan.py --cpu ...

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes. Grids
of sample pictures appear in the run's folder `samples` as training goes on. Afterwards a picture of your own caption:

    vl-alignment predict outputs/attngan-blocks-dot-seed0 --text "a red ball on the left of a small blue cube"

The training itself stands in one_run.py.
"""

import argparse
import sys

from one_run import main, run_parser

from vl_alignment.cli_parser import add_picture_options


def build_parser() -> argparse.ArgumentParser:
    parser = run_parser(__doc__, task="text-to-image", preset="blocks-t2i", alignment_function="dot")
    add_picture_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main(build_parser()))

"""Train MAC with one alignment function on questions about pictures and evaluate it, on one process or several.

On the built-in data (its small region encoder is trained first, once):

    accelerate launch examples/train_mac.py --preset blocks-vqa --alignment-function scaled_dot --output outputs

On CLEVR, two GPUs, after its features were extracted as the paper's:

    vl-alignment extract-features --preset clevr --data-dir data/CLEVR_v1.0 --backbone microsoft/resnet-101 \
        --stage stage3 --image-size 224 --output data/clevr-features
    accelerate launch --multi_gpu --num_processes 2 examples/train_mac.py --preset clevr \
        --data-dir data/CLEVR_v1.0 --regions data/clevr-features --alignment-function scaled_dot --output outputs

Without a GPU, two processes: torchrun --nproc_per_node 2 examples/train_mac.py --cpu ...

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes and
counts pictures, each with `--questions-per-image` questions. The training itself stands in one_run.py.
"""

import argparse
import sys

from one_run import main, run_parser


def build_parser() -> argparse.ArgumentParser:
    parser = run_parser(__doc__, task="question-answering", preset="blocks-vqa", alignment_function="scaled_dot")
    parser.add_argument("--questions-per-image", type=int, help="asked about a picture that is looked at once")
    return parser


if __name__ == "__main__":
    sys.exit(main(build_parser()))

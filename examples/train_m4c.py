"""Train M4C with one alignment function to answer by reading and evaluate it, on one process or several.

On the built-in data (its small region encoder is trained first, once):

    accelerate launch examples/train_m4c.py --preset blocks-text --alignment-function scaled_dot --output outputs

On TextVQA, two GPUs, with the answer vocabulary of its training questions and FastText's vectors:

    vl-alignment extract-features --preset textvqa --data-dir data/textvqa --backbone microsoft/resnet-101 \
        --stage stage4 --image-size 448 --output data/textvqa-features
    vl-alignment build-vocabulary --dataset textvqa --data-dir data/textvqa --output data/textvqa-answers.txt
    accelerate launch --multi_gpu --num_processes 2 examples/train_m4c.py --preset textvqa \
        --data-dir data/textvqa --regions data/textvqa-features --answer-vocabulary data/textvqa-answers.txt \
        --fasttext data/wiki.en.bin --alignment-function scaled_dot --output outputs

Without a GPU, two processes: torchrun --nproc_per_node 2 examples/train_m4c.py --cpu ...

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes and
counts pictures, each with `--questions-per-image` questions. The training itself stands in one_run.py.
"""

import argparse
import sys

from one_run import main, run_parser

from vl_alignment.cli_parser import add_text_options


def build_parser() -> argparse.ArgumentParser:
    parser = run_parser(__doc__, task="text-question-answering", preset="blocks-text", alignment_function="scaled_dot")
    parser.add_argument("--questions-per-image", type=int, help="asked about a picture that is looked at once")
    add_text_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main(build_parser()))

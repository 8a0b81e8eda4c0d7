"""Train SCAN with one alignment function and evaluate it, on one process or several.

On the built-in data (its small region encoder is trained first, once):

    accelerate launch examples/train_scan.py --preset blocks --alignment-function general_key --output outputs

On precomputed regions (see `vl-alignment extract-features`), two GPUs:

    accelerate launch --multi_gpu --num_processes 2 examples/train_scan.py --preset flickr8k \
        --data-dir data/flickr8k --regions data/flickr8k-regions --alignment-function general_key --output outputs

Interrupt it and run the same command again: it goes on where it stopped. The batch size is that of all processes.
The training itself stands in one_run.py.
"""

import argparse
import sys

from one_run import main, run_parser


def build_parser() -> argparse.ArgumentParser:
    return run_parser(__doc__, task="retrieval", preset="blocks", alignment_function="general_key")


if __name__ == "__main__":
    sys.exit(main(build_parser()))

"""`python -m vl_alignment.data.blocks FOLDER`: make the blocks world and write it ready to push."""

import argparse
import sys
from dataclasses import fields

from vl_alignment.data.blocks.builder import BlocksConfig, load_blocks
from vl_alignment.data.blocks.export import export_blocks
from vl_alignment.models.errors import VlAlignmentError

_SETTINGS = ("train", "validation", "test", "seed", "image_size", "minimum_objects", "maximum_objects")


def main(arguments: list[str] | None = None) -> int:
    """Export as told by the command line; returns the exit status."""
    defaults = {field.name: field.default for field in fields(BlocksConfig)}
    parser = argparse.ArgumentParser(prog="python -m vl_alignment.data.blocks", description=__doc__)
    parser.add_argument("folder", help="where to write data/*.parquet and README.md")
    for name in _SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name], metavar="N")
    parser.add_argument("--cache-dir", help="where the made data set is kept")
    settings = vars(parser.parse_args(arguments))
    folder = settings.pop("folder")
    try:
        content_hash = export_blocks(load_blocks(**settings), folder)
    except VlAlignmentError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder}: content hash {content_hash}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

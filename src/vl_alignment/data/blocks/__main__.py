"""`python -m vl_alignment.data.blocks FOLDER`: make the blocks world and write it ready to push.

With `--clevr`, pictures, scenes and questions in CLEVR's own layout instead.
"""

import argparse
import sys
from dataclasses import fields

from vl_alignment.data.blocks.builder import BlocksConfig, load_blocks
from vl_alignment.data.blocks.clevr_export import export_clevr
from vl_alignment.data.blocks.export import export_blocks
from vl_alignment.data.blocks.question_builder import BlocksQuestionsConfig, load_blocks_questions
from vl_alignment.models.errors import VlAlignmentError

_SETTINGS = ("train", "validation", "test", "seed", "image_size", "minimum_objects", "maximum_objects")
_QUESTION_SETTINGS = ("questions_per_image", "maximum_hops")


def main(arguments: list[str] | None = None) -> int:
    """Export as told by the command line; returns the exit status."""
    defaults = {
        field.name: field.default for config in (BlocksConfig, BlocksQuestionsConfig) for field in fields(config)
    }
    parser = argparse.ArgumentParser(prog="python -m vl_alignment.data.blocks", description=__doc__)
    parser.add_argument("folder", help="where to write data/*.parquet and README.md")
    for name in _SETTINGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name], metavar="N")
    parser.add_argument("--cache-dir", help="where the made data set is kept")
    parser.add_argument("--clevr", action="store_true", help="write images/, scenes/ and questions/ as CLEVR has them")
    for name in _QUESTION_SETTINGS:
        text = "of the questions that --clevr writes"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name], metavar="N", help=text)
    settings = vars(parser.parse_args(arguments))
    folder, clevr = settings.pop("folder"), settings.pop("clevr")
    asking = {name: settings.pop(name) for name in _QUESTION_SETTINGS}
    try:
        if clevr:
            scenes = {name: value for name, value in settings.items() if name != "image_size"}
            questions = load_blocks_questions(**scenes, **asking)
            export_clevr(load_blocks(**settings), questions, folder)
            print(f"{folder}: {sum(map(len, questions.values()))} questions in CLEVR's layout")
        else:
            print(f"{folder}: content hash {export_blocks(load_blocks(**settings), folder)}")
    except VlAlignmentError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

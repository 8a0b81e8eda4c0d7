"""The commands that search: their options, and what they call and print."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cli_types import AddCommand

__all__ = ["SEARCH_COMMANDS", "add_search_commands"]


def add_search_commands(add: AddCommand, add_sizes: Callable[[Any], None]) -> None:
    """Add all of them; `add_sizes` adds the option that cuts splits of data sets."""
    _add_index(add, add_sizes)
    _add_search(add)


def _add_index(add: AddCommand, add_sizes: Callable[[Any], None]) -> None:
    parser = add(
        "index",
        "Embed pictures, and captions if there are any, with a trained SCAN, so that `search` finds them. What is in "
        "the index stays: run it again to go on after an interruption, or with more pictures to add them.",
    )
    parser.add_argument("model", type=Path, help="folder of a model, or of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="INDEX", help="folder of the index")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", type=Path, metavar="FOLDER", help="pictures, in folders below it too")
    source.add_argument("--preset", help="index a split of this preset's data set, with its captions")
    parser.add_argument("--split", help="of the preset (the one that its results are measured on)")
    parser.add_argument("--data-dir", type=Path, help="folder of the preset's data set")
    parser.add_argument("--regions", type=Path, help="region store of the preset's pictures")
    add_sizes(parser)
    parser.add_argument("--captions", type=Path, metavar="FILE", help="captions to be found by picture, one a line")
    parser.add_argument("--extractor", help="how to make regions, for a model without a backbone (what it records)")
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16"],
        default="float32",
        help="of the embeddings (%(default)s: the model's scores; float16 takes half the space)",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="pictures embedded together (%(default)s)")


def _add_search(add: AddCommand) -> None:
    parser = add("search", "Find the pictures of an index by text or by picture, or its captions by picture.")
    parser.add_argument("index", type=Path, help="folder of the index")
    parser.add_argument("text", nargs="?", help="what is to be in the picture")
    parser.add_argument("--image", type=Path, metavar="FILE", help="search by this picture in place of a text")
    parser.add_argument("--captions", action="store_true", help="find captions for the picture")
    parser.add_argument("--top", type=int, default=10, help="how many to print (%(default)s)")
    parser.add_argument(
        "--shortlist",
        type=int,
        default=200,
        help="how many of the nearest by mean vector the model scores exactly (%(default)s)",
    )
    parser.add_argument("--page", type=Path, metavar="HTML", help="write a page that shows the pictures")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _index(parsed: argparse.Namespace) -> None:
    """Fill an index."""
    from .models.errors import ConfigurationError
    from .search.building import build_index
    from .training.runs import model_folder

    if parsed.images is None and parsed.preset is None and parsed.captions is None:
        raise ConfigurationError("give pictures with --images or --preset, or captions with --captions")
    if parsed.preset is None and any((parsed.split, parsed.data_dir, parsed.regions, parsed.sizes)):
        raise ConfigurationError("--split, --sizes, --data-dir and --regions go with --preset")
    if parsed.batch_size < 1:
        raise ConfigurationError("--batch-size must be at least 1")
    report = build_index(
        model_folder(parsed.model),
        parsed.output,
        images=parsed.images,
        preset=parsed.preset,
        split=parsed.split,
        data_dir=parsed.data_dir,
        regions=parsed.regions,
        sizes=dict(parsed.sizes) if parsed.sizes else None,
        captions=parsed.captions,
        extractor=parsed.extractor,
        dtype=parsed.dtype,
        batch_size=parsed.batch_size,
    )
    if report.unreadable:
        print(f"{len(report.unreadable)} pictures cannot be read and were left out, see above")
    index = report.index
    print(
        f"{len(index)} pictures ({report.pictures} new), {index.captions} captions ({report.captions} new): "
        f"{parsed.output}"
    )


def _search(parsed: argparse.Namespace) -> None:
    """Search an index."""
    from .analysis.prediction import read_picture
    from .models.errors import ConfigurationError
    from .search.page import search_page
    from .search.scan_index import ScanIndex

    if (parsed.text is None) == (parsed.image is None):
        raise ConfigurationError('give a text ("a red cube") or a picture (--image FILE)')
    if parsed.captions and parsed.image is None:
        raise ConfigurationError("--captions: captions are found by picture; give one with --image")
    query = parsed.text if parsed.image is None else read_picture(parsed.image)
    index = ScanIndex.open(parsed.index)
    if parsed.text is not None and (unknown := index.unknown_words(parsed.text)):
        print(f"vl-alignment: unknown words, read as <unk>: {', '.join(unknown)}", file=sys.stderr)
    among: Any = "captions" if parsed.captions else "pictures"
    matches = index.search(query, among=among, top=parsed.top, shortlist=parsed.shortlist)
    if parsed.page is not None:
        search_page(matches, query, parsed.page)
    if parsed.json:
        print(json.dumps([{**match.record, "score": match.score} for match in matches], indent=2, ensure_ascii=False))
        return
    for rank, match in enumerate(matches, start=1):
        print(f"{rank:>4}  {match.score:+.4f}  {match.record.get('text', match.id)}")
    if parsed.page is not None:
        print(f"page: {parsed.page}")


SEARCH_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {"index": _index, "search": _search}

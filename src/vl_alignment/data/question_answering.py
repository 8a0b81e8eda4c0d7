"""The question-answering data sets by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.named_data import call_reader, check_name, check_size, check_splits, data_folder
from vl_alignment.data.question_records import QUESTION_FEATURES, QuestionData, align_questions

__all__ = [
    "QUESTION_FEATURES",
    "QuestionData",
    "align_questions",
    "load_question_dataset",
    "question_dataset_names",
]

BLOCKS_SPLITS = ("train", "validation", "test")


# Options that only one of the two tables of blocks has.
PICTURE_OPTIONS = ("image_size",)
QUESTION_OPTIONS = ("questions_per_image", "maximum_hops")


def _load_blocks(**options: Any) -> QuestionData:
    """Make the built-in world and questions about it."""
    from vl_alignment.data.blocks import load_blocks
    from vl_alignment.data.blocks.question_builder import load_blocks_questions

    # The questions come from the scenes alone, and their settings are checked before any picture is drawn.
    questions = load_blocks_questions(**{name: value for name, value in options.items() if name not in PICTURE_OPTIONS})
    images = load_blocks(**{name: value for name, value in options.items() if name not in QUESTION_OPTIONS})
    for split in questions:
        questions[split] = align_questions(questions[split], images[split])
    return QuestionData(images.remove_columns("captions"), questions)


def _load_clevr(folder: Path, **options: Any) -> QuestionData:
    from vl_alignment.data.clevr import load_clevr

    return load_clevr(folder, **options)


# Name -> reader of a folder. "blocks" needs no folder and stands apart.
_READERS: dict[str, Callable[..., QuestionData]] = {"clevr": _load_clevr}


def question_dataset_names() -> list[str]:
    """Return the names that `load_question_dataset` knows."""
    return ["blocks", *_READERS]


def load_question_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    sizes: Mapping[str, int] | None = None,
    **options: Any,
) -> QuestionData:
    """Load a question-answering data set by name.

    Args:
        name: One of `question_dataset_names()`.
        data_dir: Its folder; default: $VL_ALIGNMENT_DATA/{name}. The built-in blocks need none.
        cache_dir: Where what was made or read is kept; by default `$VL_ALIGNMENT_CACHE/datasets`, else the cache of
            `datasets`.
        sizes: Images a split: the scenes that blocks makes, the first images of the others with their questions.
        options: Of the reader: `load_clevr`'s; for blocks those of `load_blocks` and `load_blocks_questions`.

    Raises:
        ConfigurationError: The name is unknown, or an option does not exist.
        DataError: The folder is missing, its content is wrong, or a split named in `sizes` does not exist.
    """
    check_name(name, question_dataset_names())
    if name == "blocks":
        check_splits(sizes or {}, BLOCKS_SPLITS)
        return call_reader(name, lambda: _load_blocks(cache_dir=cache_dir, **(sizes or {}), **options))
    folder = data_folder(name, data_dir)
    data = call_reader(name, lambda: _READERS[name](folder, cache_dir=cache_dir, **options))
    images = datasets.DatasetDict(data.images)
    for split, size in (sizes or {}).items():
        check_splits([split], images)
        check_size(name, images, split, size)
        images[split] = images[split].select(range(size))
    return data.with_images(images)

"""The data sets of questions that are answered by reading, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.named_data import call_reader, check_name, check_size, check_splits, data_folder
from vl_alignment.data.question_records import QuestionData

__all__ = ["load_text_question_dataset", "text_question_dataset_names"]

BLOCKS = "blocks-text"
BLOCKS_SPLITS = ("train", "validation", "test")


def _load_blocks(**options: Any) -> QuestionData:
    """Make the built-in world with printed words and questions about them."""
    from vl_alignment.data.blocks.text_builder import load_blocks_text

    return load_blocks_text(**options)


def _load_textvqa(folder: Path, **options: Any) -> QuestionData:
    from vl_alignment.data.textvqa import load_textvqa

    return load_textvqa(folder, **options)


def _load_stvqa(folder: Path, **options: Any) -> QuestionData:
    from vl_alignment.data.textvqa import load_stvqa

    return load_stvqa(folder, **options)


# Name -> reader of a folder. "blocks-text" needs no folder and stands apart.
_READERS: dict[str, Callable[..., QuestionData]] = {"textvqa": _load_textvqa, "stvqa": _load_stvqa}


def text_question_dataset_names() -> list[str]:
    """Return the names that `load_text_question_dataset` knows."""
    return [BLOCKS, *_READERS]


def load_text_question_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    sizes: Mapping[str, int] | None = None,
    **options: Any,
) -> QuestionData:
    """Load a data set of questions that are answered by reading, by name.

    Args:
        name: One of `text_question_dataset_names()`.
        data_dir: Its folder; default: $VL_ALIGNMENT_DATA/{name}. The built-in blocks need none.
        cache_dir: Where blocks are kept; by default `$VL_ALIGNMENT_CACHE/datasets`, else the cache of `datasets`. The
            others are read anew each time.
        sizes: Images a split: the scenes that blocks makes, the first images of the others with their questions.
        options: Of the reader: `load_blocks_text`'s, `load_textvqa`'s or `load_stvqa`'s.

    Returns:
        Questions with the columns of `TEXT_QUESTION_FEATURES` and images with those of `TEXT_FEATURES` (ST-VQA's text
        has yet to be read).

    Raises:
        ConfigurationError: The name is unknown, or an option does not exist.
        DataError: The folder is missing, its content is wrong, or a split named in `sizes` does not exist.
    """
    check_name(name, text_question_dataset_names())
    if name == BLOCKS:
        check_splits(sizes or {}, BLOCKS_SPLITS)
        return call_reader(name, lambda: _load_blocks(cache_dir=cache_dir, **(sizes or {}), **options))
    folder = data_folder(name, data_dir)
    data = call_reader(name, lambda: _READERS[name](folder, **options))
    images = datasets.DatasetDict(data.images)
    for split, size in (sizes or {}).items():
        check_splits([split], images)
        check_size(name, images, split, size)
        images[split] = images[split].select(range(size))
    return data.with_images(images)

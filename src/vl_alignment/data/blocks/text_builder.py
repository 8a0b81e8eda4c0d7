"""The blocks world with printed words as question-answering data: made on first use and cached.

data = load_blocks_text(train=2000, validation=200, test=200, ocr="corrupted", character_error_rate=0.05)

Pictures, questions and what a reader finds in the pictures are three tables made from the same scenes, so that neither
other questions nor another reader draw a picture again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub.utils import WeakFileLock

from vl_alignment.data.blocks.builder import (
    AskedScenesConfig,
    ScenesBuilder,
    ScenesConfig,
    numbered_questions,
    picture_record,
    prepare_scenes,
)
from vl_alignment.data.blocks.human_answers import human_answers
from vl_alignment.data.blocks.scene import Scene, scene_generator
from vl_alignment.data.blocks.text_noise import check_character_error_rate, corrupted_tokens, true_tokens
from vl_alignment.data.blocks.text_questions import MOST_HOPS, check_text_question_settings, make_text_questions
from vl_alignment.data.blocks.text_rendering import check_text_image_size, render_text_scene
from vl_alignment.data.blocks.text_scene import make_text_scene
from vl_alignment.data.named_data import select_split
from vl_alignment.data.question_records import QuestionData, align_questions
from vl_alignment.data.text_question_records import TEXT_FEATURES, TEXT_QUESTION_FEATURES
from vl_alignment.data.text_recognition import TextReader, TextStore, build_text_reader, read_texts
from vl_alignment.models.errors import ConfigurationError

__all__ = [
    "OCR_SOURCES",
    "TEXT_VERSION",
    "BlocksTextBuilder",
    "BlocksTextQuestionsBuilder",
    "BlocksTextTokensBuilder",
    "load_blocks_text",
]

TEXT_VERSION = "1.0.0"
"""Raise this whenever words, a picture, a question, an answer or a token of some seed changes."""

OCR_SOURCES = ("true", "corrupted", "read")

_DESCRIPTION = "Rendered scenes of blocks with words on objects and signs, and questions that are answered by reading."
_ANSWER_STREAM = 5
_MAXIMUM_OBJECTS = 6  # fewer than without words, so that labels have room


@dataclass
class BlocksTextConfig(ScenesConfig):
    """What to draw: the fields of `ScenesConfig` and the pictures.

    Args:
        image_size: Side of the pictures in pixels.
    """

    maximum_objects: int = _MAXIMUM_OBJECTS
    image_size: int = 256

    @property
    def details(self) -> str:
        """The size of the pictures, and the version of the scenes."""
        return f"{self.image_size}px-{self.scene_version}"

    def check(self) -> None:
        """Raise `ConfigurationError` for settings that cannot be made, before anything is."""
        super().check()
        check_text_image_size(self.image_size)


@dataclass
class BlocksTextQuestionsConfig(AskedScenesConfig):
    """What to ask: the fields of `AskedScenesConfig`; a chain has 0 to 2 relations."""

    maximum_objects: int = _MAXIMUM_OBJECTS
    questions_per_image: int = 6
    maximum_hops: int = MOST_HOPS

    def check(self) -> None:
        """Raise `ConfigurationError` for settings that cannot be made, before anything is."""
        super().check()
        check_text_question_settings(self.questions_per_image, self.maximum_hops)


@dataclass
class BlocksTextTokensConfig(ScenesConfig):
    """What a reader finds: the fields of `ScenesConfig` and the reader's mistakes.

    Args:
        character_error_rate: Expected mistakes a letter; None for the truth.
    """

    maximum_objects: int = _MAXIMUM_OBJECTS
    character_error_rate: float | None = None

    @property
    def details(self) -> str:
        """The mistakes, and the version of the scenes."""
        mistakes = "true" if self.character_error_rate is None else f"{self.character_error_rate:g}errors"
        return f"{mistakes}-{self.scene_version}"

    def check(self) -> None:
        """Raise `ConfigurationError` for settings that cannot be made, before anything is."""
        super().check()
        if self.character_error_rate is not None:
            check_character_error_rate(self.character_error_rate)


class BlocksTextBuilder(ScenesBuilder):
    """Draws the pictures; takes the fields of `BlocksTextConfig` as keywords."""

    BUILDER_CONFIG_CLASS = BlocksTextConfig
    config: BlocksTextConfig
    VERSION = datasets.Version(TEXT_VERSION)
    folder_name = "blocks_text"
    description = _DESCRIPTION
    features = datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "image": datasets.Image(),
            "scene": datasets.Value("string"),
            "masks": datasets.Image(),
        }
    )

    def make_records(self, scene: Scene) -> list[tuple[str, dict[str, Any]]]:
        """One record a scene, the pictures as PNG, the labels in the scene's JSON."""
        text_scene = make_text_scene(scene)
        drawn = render_text_scene(text_scene, self.config.image_size)
        return [(scene.image_id, picture_record(scene.image_id, *drawn, scene=text_scene.to_json()))]


class BlocksTextQuestionsBuilder(ScenesBuilder):
    """Asks and answers; takes the fields of `BlocksTextQuestionsConfig` as keywords. No picture is drawn."""

    BUILDER_CONFIG_CLASS = BlocksTextQuestionsConfig
    config: BlocksTextQuestionsConfig
    VERSION = datasets.Version(TEXT_VERSION)
    folder_name = "blocks_text_questions"
    description = _DESCRIPTION
    features = TEXT_QUESTION_FEATURES

    def make_records(self, scene: Scene) -> list[tuple[str, dict[str, Any]]]:
        """One record a question."""
        text_scene = make_text_scene(scene)
        config = self.config
        draw = scene_generator(scene.seed, scene.split, scene.index, stream=_ANSWER_STREAM).random
        questions = make_text_questions(text_scene, config.questions_per_image, maximum_hops=config.maximum_hops)
        columns = (
            {
                "question": question.question,
                "answers": human_answers(question, text_scene, draw),
                "question_type": question.question_type,
                "hops": question.hops,
            }
            for question in questions
        )
        return numbered_questions(scene, columns)


class BlocksTextTokensBuilder(ScenesBuilder):
    """Says what a reader finds; takes the fields of `BlocksTextTokensConfig` as keywords. No picture is drawn."""

    BUILDER_CONFIG_CLASS = BlocksTextTokensConfig
    config: BlocksTextTokensConfig
    VERSION = datasets.Version(TEXT_VERSION)
    folder_name = "blocks_text_tokens"
    description = _DESCRIPTION
    features = TEXT_FEATURES

    def make_records(self, scene: Scene) -> list[tuple[str, dict[str, Any]]]:
        """One record a scene."""
        text_scene, rate = make_text_scene(scene), self.config.character_error_rate
        found = true_tokens(text_scene) if rate is None else corrupted_tokens(text_scene, rate)
        return [(scene.image_id, dict(zip(TEXT_FEATURES, found, strict=True)))]


def load_blocks_text(
    *,
    train: int = 2000,
    validation: int = 200,
    test: int = 200,
    seed: int = 0,
    image_size: int = 256,
    questions_per_image: int = 6,
    maximum_hops: int = MOST_HOPS,
    ocr: str = "true",
    character_error_rate: float = 0.05,
    reader: TextReader | str | None = None,
    read_splits: Sequence[str] | None = None,
    minimum_objects: int = 3,
    maximum_objects: int = 6,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> QuestionData:
    """Make the blocks world with printed words, or take it from the cache.

    The words of the validation and test pictures occur in no training picture.

    Args:
        train: Scenes of the training split; a split of none is left out.
        validation: Scenes of the validation split.
        test: Scenes of the test split.
        seed: Seed of all scenes.
        image_size: Side of the pictures in pixels, an even number from 192 to 512.
        questions_per_image: Questions about each scene.
        maximum_hops: The most relations that a question follows, 0 to 2.
        ocr: Whose tokens the pictures get: "true" the words as they are printed; "corrupted" those with mistakes;
            "read" what `reader` finds.
        character_error_rate: Of "corrupted", the expected mistakes a letter.
        reader: Of "read", or its name; what it found before under the same name and version is taken from the cache.
        read_splits: The splits whose pictures the reader reads, the others having no text; all where None.
        minimum_objects: Fewest objects of a scene.
        maximum_objects: Most objects of a scene.
        cache_dir: Where to keep it; by default `$VL_ALIGNMENT_CACHE/datasets`, else the cache of `datasets`.
        num_proc: Processes that make it; the reader runs in this one.

    Returns:
        Images with the columns image_id, image, scene (JSON, with the labels), masks and those of `TEXT_FEATURES`, and
        questions with those of `TEXT_QUESTION_FEATURES`.

    Raises:
        ConfigurationError: A setting is out of range, `ocr` is unknown, or a reader is missing, unknown or not used.
    """
    if ocr not in OCR_SOURCES:
        raise ConfigurationError(f"ocr={ocr!r}: the choices are {', '.join(OCR_SOURCES)}.")
    if (reader is None) == (ocr == "read"):
        raise ConfigurationError(f'ocr={ocr!r} with reader={reader!r}: "read" needs a reader, and only that uses it.')
    if reader is None and read_splits is not None:
        raise ConfigurationError(f"read_splits={list(read_splits)}: there is no reader that would read them.")
    if ocr == "corrupted":
        check_character_error_rate(character_error_rate)
    if isinstance(reader, str):
        reader = build_text_reader(reader)
    prepare = partial(
        prepare_scenes,
        cache_dir=cache_dir,
        num_proc=num_proc,
        train=train,
        validation=validation,
        test=test,
        seed=seed,
        minimum_objects=minimum_objects,
        maximum_objects=maximum_objects,
    )
    # The questions come first: their settings are checked before any picture is drawn.
    questions = prepare(BlocksTextQuestionsBuilder, questions_per_image=questions_per_image, maximum_hops=maximum_hops)
    images = prepare(BlocksTextBuilder, image_size=image_size)
    if reader is None:
        rate = character_error_rate if ocr == "corrupted" else None
        tokens = prepare(BlocksTextTokensBuilder, character_error_rate=rate)
        for split, table in images.items():
            images[split] = datasets.concatenate_datasets([table, tokens[split]], axis=1)
    else:
        wanted = images if read_splits is None else {split: select_split(images, split) for split in read_splits}
        store = _read(datasets.DatasetDict(wanted), reader)
        for split, table in wanted.items():
            images[split] = store.add_to(table)
    for split, table in images.items():
        questions[split] = align_questions(questions[split], table)
    return QuestionData(images, questions)


def _read(images: datasets.DatasetDict, reader: TextReader) -> TextStore:
    """What the reader finds in every picture, kept beside the pictures in the cache."""
    folder = Path(next(iter(images.values())).cache_files[0]["filename"]).parent
    version = datasets.fingerprint.Hasher.hash(reader.version)
    path = folder / f"text-{reader.name}-{version}.jsonl"
    # Two programs that want the same text read it once.
    with WeakFileLock(path.with_name(path.name + ".lock")):
        return read_texts(images, reader, path)

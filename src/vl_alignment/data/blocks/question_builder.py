"""Questions about the blocks world as a `datasets` builder, made on first use and cached; no picture is drawn for it.

questions = load_blocks_questions(train=2000, questions_per_image=10)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from vl_alignment.data.blocks.builder import AskedScenesConfig, ScenesBuilder, numbered_questions, prepare_scenes
from vl_alignment.data.blocks.questions import check_maximum_hops, make_questions
from vl_alignment.data.blocks.scene import Scene
from vl_alignment.data.question_records import QUESTION_FEATURES
from vl_alignment.models.errors import ConfigurationError

__all__ = ["QUESTION_VERSION", "BlocksQuestionsBuilder", "BlocksQuestionsConfig", "load_blocks_questions"]

QUESTION_VERSION = "1.0.0"
"""Raise this whenever a question about some scene changes: caches of older versions are then left."""


@dataclass
class BlocksQuestionsConfig(AskedScenesConfig):
    """What to ask: the fields of `AskedScenesConfig`; a chain has 0 to 3 relations or samenesses."""

    def check(self) -> None:
        """Raise `ConfigurationError` for settings that cannot be made, before anything is."""
        super().check()
        check_maximum_hops(self.maximum_hops)
        if self.questions_per_image < 1:
            raise ConfigurationError(f"questions_per_image={self.questions_per_image}: ask at least one.")


class BlocksQuestionsBuilder(ScenesBuilder):
    """Makes questions about the blocks world; takes the fields of `BlocksQuestionsConfig` as keywords."""

    BUILDER_CONFIG_CLASS = BlocksQuestionsConfig
    VERSION = datasets.Version(QUESTION_VERSION)
    config: BlocksQuestionsConfig
    folder_name = "blocks_questions"
    description = "Questions about rendered scenes of blocks, balls, cylinders and cones, with programs and answers."
    features = QUESTION_FEATURES

    def make_records(self, scene: Scene) -> list[tuple[str, dict[str, Any]]]:
        """One record a question."""
        questions = make_questions(scene, self.config.questions_per_image, maximum_hops=self.config.maximum_hops)
        columns = (
            {
                "question": question.question,
                "answer": question.answer,
                "question_type": question.question_type,
                "program": json.dumps(question.program, separators=(",", ":")),
                "program_depth": question.depth,
                "question_family_index": question.family_index,
            }
            for question in questions
        )
        return numbered_questions(scene, columns)


def load_blocks_questions(
    *,
    train: int = 2000,
    validation: int = 200,
    test: int = 200,
    seed: int = 0,
    questions_per_image: int = 10,
    maximum_hops: int = 3,
    cache_dir: str | Path | None = None,
    minimum_objects: int = 3,
    maximum_objects: int = 10,
    num_proc: int | None = None,
) -> datasets.DatasetDict:
    """Ask about the blocks world, or take the questions from the cache.

    Args:
        train: Scenes of the training split; a split of none is left out.
        validation: Scenes of the validation split.
        test: Scenes of the test split.
        seed: Seed of the scenes, which also fixes the questions.
        questions_per_image: Questions about each scene.
        maximum_hops: The most relations or samenesses on one chain, 0 to 3.
        cache_dir: Where to keep it; by default `$VL_ALIGNMENT_CACHE/datasets`, else the cache of `datasets`.
        minimum_objects: Fewest objects of a scene.
        maximum_objects: Most objects of a scene.
        num_proc: Processes that make it.

    Returns:
        A `DatasetDict` with the columns of `QUESTION_FEATURES`, the questions in the order of the scenes that
        `load_blocks` draws for the same settings.

    Raises:
        ConfigurationError: A setting is out of range, or a scene is too small for that many questions.
    """
    return prepare_scenes(
        BlocksQuestionsBuilder,
        cache_dir=cache_dir,
        num_proc=num_proc,
        train=train,
        validation=validation,
        test=test,
        seed=seed,
        questions_per_image=questions_per_image,
        maximum_hops=maximum_hops,
        minimum_objects=minimum_objects,
        maximum_objects=maximum_objects,
    )

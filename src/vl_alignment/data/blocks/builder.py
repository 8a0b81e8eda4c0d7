"""The blocks world as a `datasets` builder: train, validation and test, made on first use and cached.

dataset = load_blocks(train=2000, image_size=96)
stream = BlocksBuilder(train=10**6).as_streaming_dataset("train")
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from vl_alignment.data.blocks.captions import make_captions, make_descriptions
from vl_alignment.data.blocks.rendering import check_image_size, render_scene
from vl_alignment.data.blocks.scene import SPLITS, Scene, check_scene_settings, make_scene
from vl_alignment.data.blocks.statements import MOST_NAMED
from vl_alignment.data.named_data import dataset_cache
from vl_alignment.models.errors import ConfigurationError

__all__ = [
    "CONTENT_VERSION",
    "AskedScenesConfig",
    "BlocksBuilder",
    "BlocksConfig",
    "ScenesBuilder",
    "ScenesConfig",
    "load_blocks",
    "make_record",
    "numbered_questions",
    "picture_record",
    "prepare_scenes",
]

CONTENT_VERSION = "1.0.0"
"""Raise this whenever a scene, a picture or a caption of some seed changes: caches of older versions are then left."""

_CHUNK = 250
_FASTEST_COMPRESSION = 1


@dataclass
class ScenesConfig(datasets.BuilderConfig):
    """Which scenes to make something of.

    Args:
        train: Scenes of the training split; a split of none is left out.
        validation: Scenes of the validation split.
        test: Scenes of the test split.
        seed: Seed of all scenes.
        minimum_objects: Fewest objects of a scene.
        maximum_objects: Most objects of a scene.
    """

    train: int = 2000
    validation: int = 200
    test: int = 200
    seed: int = 0
    minimum_objects: int = 3
    maximum_objects: int = 10

    @property
    def fewest_objects(self) -> int:
        """The least that `minimum_objects` can be: something is left that captions and questions do not name."""
        return 2

    @property
    def sizes(self) -> dict[str, int]:
        """Scenes by split."""
        return {split: getattr(self, split) for split in SPLITS}

    @property
    def details(self) -> str:
        """The settings besides those of the scenes, for the folder's name in the cache."""
        raise NotImplementedError

    @property
    def scene_version(self) -> str:
        """The version of the scenes, for the folders of what is made of them under a version of its own."""
        return f"scenes{CONTENT_VERSION}"

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """The folder's name in the cache: every setting, given or by default, so that no two configs share one."""
        counts = "-".join(f"{split}{size}" for split, size in self.sizes.items())
        objects = f"{self.minimum_objects}to{self.maximum_objects}objects"
        identifier = f"{self.name}-{counts}-seed{self.seed}-{self.details}-{objects}"
        if custom_features is not None:
            identifier += f"-{datasets.fingerprint.Hasher.hash(custom_features)}"
        return identifier

    def check(self) -> None:
        """Raise `ConfigurationError` for settings that cannot be made, before anything is."""
        check_scene_settings(self.seed, self.minimum_objects, self.maximum_objects, fewest=self.fewest_objects)
        if min(self.sizes.values()) < 0 or not any(self.sizes.values()):
            raise ConfigurationError(f"The splits' sizes are {self.sizes}: need at least one scene and none negative.")

    def make_scene(self, split: str, index: int) -> Scene:
        """One of the scenes."""
        return make_scene(
            self.seed, split, index, minimum_objects=self.minimum_objects, maximum_objects=self.maximum_objects
        )


@dataclass
class AskedScenesConfig(ScenesConfig):
    """What to ask: the fields of `ScenesConfig` and the questions.

    Args:
        questions_per_image: Questions about each scene.
        maximum_hops: The most relations on one chain.
    """

    questions_per_image: int = 10
    maximum_hops: int = 3

    @property
    def details(self) -> str:
        """The questions, and the version of the scenes that they are about."""
        return f"{self.questions_per_image}questions-{self.maximum_hops}hops-{self.scene_version}"


@dataclass
class BlocksConfig(ScenesConfig):
    """What to make: the fields of `ScenesConfig` and the pictures.

    Args:
        image_size: Side of the pictures in pixels.
        descriptions: Whether captions name all objects of their scene, one to three, instead of some of them.
    """

    image_size: int = 96
    descriptions: bool = False

    @property
    def details(self) -> str:
        """The size of the pictures, and what their captions are."""
        return f"{self.image_size}px" + ("-descriptions" if self.descriptions else "")

    @property
    def fewest_objects(self) -> int:
        """The least that `minimum_objects` can be."""
        return 1 if self.descriptions else super().fewest_objects

    def check(self) -> None:
        """Raise `ConfigurationError` for settings that cannot be made, before anything is."""
        super().check()
        check_image_size(self.image_size)
        if self.descriptions and self.maximum_objects > MOST_NAMED:
            raise ConfigurationError(
                f"maximum_objects={self.maximum_objects}: descriptions name all objects of a scene, {MOST_NAMED} at "
                f"most; lower it, or leave descriptions out."
            )


class ScenesBuilder(datasets.GeneratorBasedBuilder):
    """Makes records of scenes, the same ones whatever the splits' sizes; takes the fields of its config as keywords.

    Attributes:
        folder_name: Its name in the cache.
        description: What the records are.
        features: Their columns.
    """

    config: ScenesConfig
    folder_name: str
    description: str
    features: datasets.Features

    def __init__(self, *args: Any, dataset_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, dataset_name=dataset_name or self.folder_name, **kwargs)
        self.config.check()

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=self.description, features=self.features, license="apache-2.0")

    def make_records(self, scene: Scene) -> list[tuple[str, dict[str, Any]]]:
        """The records of one scene and their ids."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # A list is what datasets divides among processes and among the workers of a streaming loader.
        return [
            datasets.SplitGenerator(
                name=split,
                gen_kwargs={
                    "split": split,
                    "chunks": [(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK)],
                },
            )
            for split, size in self.config.sizes.items()
            if size
        ]

    def _generate_examples(self, split: str, chunks: list[tuple[int, int]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for start, stop in chunks:
            for index in range(start, stop):
                yield from self.make_records(self.config.make_scene(split, index))


class BlocksBuilder(ScenesBuilder):
    """Makes the blocks world; takes the fields of `BlocksConfig` as keywords.

    Use `download_and_prepare()` and `as_dataset()`, `as_streaming_dataset(split)`, or `load_blocks`.
    """

    BUILDER_CONFIG_CLASS = BlocksConfig
    config: BlocksConfig
    VERSION = datasets.Version(CONTENT_VERSION)
    folder_name = "blocks"
    description = (
        "Rendered scenes of blocks, balls, cylinders and cones with five captions each, boxes, masks, relations."
    )
    features = datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "image": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
            "scene": datasets.Value("string"),
            "masks": datasets.Image(),
        }
    )

    def make_records(self, scene: Scene) -> list[tuple[str, dict[str, Any]]]:
        """One record a scene."""
        return [(scene.image_id, make_record(scene, self.config.image_size, descriptions=self.config.descriptions))]


def make_record(scene: Scene, image_size: int, *, descriptions: bool = False) -> dict[str, Any]:
    """One record, the pictures as PNG: image_id, image, captions, scene (JSON), masks (0 background, i object i)."""
    captions = [caption.text for caption in (make_descriptions if descriptions else make_captions)(scene)]
    return picture_record(scene.image_id, *render_scene(scene, image_size), captions=captions, scene=scene.to_json())


def picture_record(image_id: str, picture: np.ndarray, masks: np.ndarray, **columns: Any) -> dict[str, Any]:
    """The record of a picture [S, S, 3] and its masks [S, S], both uint8 and kept as PNG, with further columns."""
    return {
        "image_id": image_id,
        "image": {"bytes": _png(picture), "path": f"{image_id}.png"},
        "masks": {"bytes": _png(masks), "path": f"{image_id}-masks.png"},
        **columns,
    }


def numbered_questions(scene: Scene, columns: Iterable[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The records of questions about a scene, numbered in their order, with their further columns."""
    records = []
    for number, further in enumerate(columns):
        question_id = f"{scene.image_id}#{number}"
        records.append((question_id, {"question_id": question_id, "image_id": scene.image_id, **further}))
    return records


def load_blocks(
    *,
    train: int = 2000,
    validation: int = 200,
    test: int = 200,
    seed: int = 0,
    image_size: int = 96,
    cache_dir: str | Path | None = None,
    minimum_objects: int = 3,
    maximum_objects: int = 10,
    descriptions: bool = False,
    num_proc: int | None = None,
) -> datasets.DatasetDict:
    """Make the blocks world, or take it from the cache.

    Args:
        train: Scenes of the training split; a split of none is left out.
        validation: Scenes of the validation split.
        test: Scenes of the test split.
        seed: Seed of all scenes.
        image_size: Side of the pictures in pixels, 32 to 256.
        cache_dir: Where to keep it; by default `$VL_ALIGNMENT_CACHE/datasets`, else the cache of `datasets`.
        minimum_objects: Fewest objects of a scene.
        maximum_objects: Most objects of a scene.
        descriptions: Whether captions name all objects of their scene, one to three, instead of some of them.
        num_proc: Processes that make it.

    Returns:
        A `DatasetDict` with columns image_id, image, captions, scene and masks.

    Raises:
        ConfigurationError: A setting is out of range.
    """
    return prepare_scenes(
        BlocksBuilder,
        cache_dir=cache_dir,
        num_proc=num_proc,
        train=train,
        validation=validation,
        test=test,
        seed=seed,
        image_size=image_size,
        minimum_objects=minimum_objects,
        maximum_objects=maximum_objects,
        descriptions=descriptions,
    )


def prepare_scenes(
    builder_class: type[ScenesBuilder], *, cache_dir: str | Path | None, num_proc: int | None, **settings: Any
) -> datasets.DatasetDict:
    """Run a builder, or take what it made before from the cache."""
    folder = dataset_cache(cache_dir)
    builder = builder_class(cache_dir=None if folder is None else str(folder), **settings)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset()


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_FASTEST_COMPRESSION)
    return buffer.getvalue()

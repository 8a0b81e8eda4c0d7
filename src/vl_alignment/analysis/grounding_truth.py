"""Where what is named, asked or read really is: true masks beside captions, programs and questions.

On blocks the scene says it exactly; a phrase that fits other objects than those it means is left out, for looking at
these would not be wrong. On COCO a noun stands for all outlines of its category.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..data.blocks.programs import program_objects
from ..data.blocks.scene import Scene
from ..data.blocks.spoken_attributes import noun_phrases
from ..data.blocks.statements import matching_objects
from ..data.blocks.text_scene import Label, TextScene
from ..data.coco_segments import CocoSegments, category_nouns
from ..metrics.grounding import place_areas

__all__ = [
    "MASK_SIDE",
    "NamedPlace",
    "ReadPlace",
    "caption_places",
    "coco_places",
    "object_masks",
    "question_places",
    "read_place",
]

MASK_SIDE = 96
"""Masks are compared on squares of so many pixels a side."""

_NAMED_IN_THE_QUESTION = ("color_of_word", "shape_of_word")


@dataclass(frozen=True)
class NamedPlace:
    """Some letters of a sentence, and the mask [S, S] of what they name."""

    start: int
    end: int
    mask: np.ndarray


@dataclass(frozen=True)
class ReadPlace:
    """What a question about printed words turns on.

    Attributes:
        words: Mask [S, S] of the printed words.
        bearer: Mask [S, S] of what they are on: the object and its plate, or the sign.
    """

    words: np.ndarray
    bearer: np.ndarray


def object_masks(record: Mapping[str, Any], count: int) -> np.ndarray:
    """Read the mask of each of `count` objects from a picture's record: bool [count, S, S]."""
    index = np.asarray(record["masks"].resize((MASK_SIDE, MASK_SIDE), Image.Resampling.NEAREST))
    return index[None] == np.arange(1, count + 1)[:, None, None]


def caption_places(caption: str, record: Mapping[str, Any]) -> list[NamedPlace]:
    """Find what each noun phrase of a caption names in its scene of blocks, where just that fits the words."""
    scene = Scene.from_json(record["scene"])
    masks = object_masks(record, len(scene.objects))
    named = [(phrase, matching_objects(scene, phrase.attributes)) for phrase in noun_phrases(caption)]
    return [
        NamedPlace(phrase.start, phrase.end, _together(masks, objects))
        for phrase, objects in named
        if len(objects) == phrase.count
    ]


def coco_places(caption: str, image_id: str, segments: CocoSegments) -> list[NamedPlace]:
    """Find what each noun of a caption names in a photograph of COCO, where it is outlined."""
    places = [
        NamedPlace(start, end, segments.mask(image_id, category, MASK_SIDE))
        for start, end, category in category_nouns(caption)
    ]
    return [place for place in places if place.mask.any()]


def question_places(program: str, record: Mapping[str, Any]) -> list[np.ndarray]:
    """Give the mask [S, S] of the objects of each stage of a question's program (JSON) that has some."""
    if not program:
        return []
    scene = Scene.from_json(record["scene"])
    masks = object_masks(record, len(scene.objects))
    return [_together(masks, stage) for stage in program_objects(json.loads(program), scene) if stage]


def read_place(question: Mapping[str, Any], record: Mapping[str, Any]) -> ReadPlace | None:
    """Find the printed words that a question asks for, or asks about.

    Args:
        question: Its text, `answers` and `question_type`.
        record: Of the picture, with `scene` and `masks`.

    Returns:
        None where the words are not there once, or the question is about several things.
    """
    text_scene = TextScene.from_json(record["scene"])
    label = _label(question, text_scene.labels)
    if label is None:
        return None
    plate = _inked(label.box)
    if label.bearer is not None:
        plate |= object_masks(record, len(text_scene.scene.objects))[label.bearer]
    return ReadPlace(np.any([_inked(word.box) for word in label.words], axis=0), plate)


def _together(masks: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """[n, S, S] -> the mask [S, S] of some of the objects."""
    return np.asarray(masks[list(numbers)].any(axis=0))


def _label(question: Mapping[str, Any], labels: tuple[Label, ...]) -> Label | None:
    kind = question["question_type"]
    if kind.startswith("read_"):
        right = Counter(question["answers"]).most_common(1)[0][0].lower()
        found = [label for label in labels if label.text.lower() == right]
    elif kind in _NAMED_IN_THE_QUESTION:
        asked = question["question"].lower()
        found = [label for label in labels if re.search(rf"\b{re.escape(label.text.lower())}\b", asked)]
    else:
        return None
    return found[0] if len(found) == 1 else None


def _inked(box: tuple[float, float, float, float]) -> np.ndarray:
    """Every pixel that a box touches, so that the box itself lies wholly inside: bool [S, S]."""
    return place_areas(np.asarray([box]), MASK_SIDE, MASK_SIDE)[0] > 0

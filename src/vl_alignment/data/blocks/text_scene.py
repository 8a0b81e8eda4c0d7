"""Words in scenes of the blocks world: labels on objects, and a sign that stands apart.

make_text_scene(make_scene(0, "train", 12, maximum_objects=6)).labels[0].text

A scene with words depends on the scene alone. Nothing is measured in pixels: labels and words have boxes as fractions
of the picture, whatever its size. The JSON is that of the scene with `labels` added, so that whoever reads scenes reads
this too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vl_alignment.data.blocks.geometry import half_width, project
from vl_alignment.data.blocks.lettering import FONTS, STYLES, arrange_words
from vl_alignment.data.blocks.phrases import Draw, choose
from vl_alignment.data.blocks.printed_words import draw_word
from vl_alignment.data.blocks.scene import Scene, SceneObject, scene_generator
from vl_alignment.models.errors import DataError

__all__ = ["Foot", "Label", "PrintedWord", "TextScene", "make_text_scene"]

Box = tuple[float, float, float, float]

_STREAM = 3
_SIGN_SHARE = 0.5
_LABEL_SHARE = 0.85  # of the objects, where there is room
_FEWEST_LABELS = 2  # different ones, the sign counted
_SCENE_TRIES = 30
_TWO_WORDS_SHARE = 0.25
_REPEATED_SHARE = 0.15  # scenes in which two objects may bear the same words
_SIZES = (0.080, 0.074, 0.068, 0.062)  # of the font, from the largest; the last has capitals of 14 pixels of 320
_SIGN_SIZES = (0.088, 0.080, 0.072)
_OVERHANG = 1.2  # a label is at most so much wider than its object, unless it is of the smallest size
_BORDER = 0.008
_GAP = 0.012
_COVERED = 0.2  # a label covers at most this share of another object's box,
_COVERED_BEARER = 0.6  # at most this share of its own object's,
_ASIDE = 0.35  # and lies with at most this share of itself on others
_POST = 0.055
_SIGN_TRIES = 60
_WORD_TRIES = 200


@dataclass(frozen=True)
class PrintedWord:
    """A word as it is printed.

    Args:
        text: In the letters of the print, upper or lower case.
        box: Extent of its ink (x0, y0, x1, y1) as fractions of the picture.
    """

    text: str
    box: Box


@dataclass(frozen=True)
class Foot:
    """Where a sign meets the ground.

    Args:
        x: To the right, in world units.
        y: Away from the viewer, in world units.
        row: The same place in the picture, as a fraction of its height.
    """

    x: float
    y: float
    row: float


@dataclass(frozen=True)
class Label:
    """Words on a plate.

    Args:
        words: From left to right, or from top to bottom.
        box: Extent of the plate as fractions of the picture.
        font: One of `lettering.FONTS`.
        size: Of the font, as a fraction of the picture.
        style: One of `lettering.STYLES`.
        bearer: The object that it is on, numbered from 0; None for a sign.
        foot: Of a sign; None for the label of an object.
    """

    words: tuple[PrintedWord, ...]
    box: Box
    font: str
    size: float
    style: str
    bearer: int | None
    foot: Foot | None = None

    @property
    def text(self) -> str:
        """All words, as they are printed."""
        return " ".join(word.text for word in self.words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "words": [{"text": word.text, "box": list(word.box)} for word in self.words],
            "box": list(self.box),
            "font": self.font,
            "size": self.size,
            "style": self.style,
            "bearer": self.bearer,
            "foot": None if self.foot is None else [self.foot.x, self.foot.y, self.foot.row],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Label":
        """The inverse of `to_dict`."""
        words = tuple(PrintedWord(word["text"], tuple(word["box"])) for word in values["words"])
        foot = None if values["foot"] is None else Foot(*values["foot"])
        plate = tuple(values["box"])
        if len(plate) != 4 or any(len(word.box) != 4 for word in words):
            raise ValueError("a box has four numbers")
        return cls(words, plate, values["font"], values["size"], values["style"], values["bearer"], foot)


@dataclass(frozen=True)
class TextScene:
    """A scene and what is written in it.

    Args:
        scene: The objects.
        labels: In reading order: from top to bottom, and from left to right where they begin at one height.
    """

    scene: Scene
    labels: tuple[Label, ...]

    @cached_property
    def standing(self) -> Scene:
        """The scene with the sign as its last object, if there is one: so that it too is left or right of others.

        What that object looks like means nothing; only its place does.
        """
        signs = tuple(_sign_object(label) for label in self.labels if label.foot is not None)
        return replace(self.scene, objects=self.scene.objects + signs)

    @cached_property
    def borne(self) -> Mapping[int, Label]:
        """The label of each thing that has one, by its number in `standing`."""
        sign = len(self.scene.objects)
        labels = {sign if label.bearer is None else label.bearer: label for label in self.labels}
        return dict(sorted(labels.items()))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {**self.scene.to_dict(), "labels": [label.to_dict() for label in self.labels]}, separators=(",", ":")
        )

    @classmethod
    def from_json(cls, text: str) -> "TextScene":
        """The inverse of `to_json`.

        Raises:
            DataError: The text is no scene, or its labels are missing or damaged.
        """
        scene = Scene.from_json(text)
        try:
            return cls(scene, tuple(Label.from_dict(label) for label in json.loads(text)["labels"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"The labels of scene {scene.image_id} are missing or damaged ({type(error).__name__}: {error})."
            ) from error


def make_text_scene(scene: Scene) -> TextScene:
    """Put words into a scene: a sign into half of them where there is room, labels on most objects.

    Every word is wholly visible; no label covers another one, or more than a little of another object. A validation or
    test scene shows only words that no training scene does; see `printed_words`.
    """
    draw = scene_generator(scene.seed, scene.split, scene.index, stream=_STREAM).random
    for _ in range(_SCENE_TRIES):
        labels = _place_all(scene, draw)
        if len({label.text.lower() for label in labels}) >= _FEWEST_LABELS:
            break
    return TextScene(scene, tuple(sorted(labels, key=lambda label: (label.box[1], label.box[0]))))


def _place_all(scene: Scene, draw: Draw) -> list[Label]:
    texts = _draw_texts(scene.split, draw)
    labels: list[Label] = []
    if draw() < _SIGN_SHARE:
        sign = _place_sign(scene, next(texts), draw)
        labels.extend([sign] if sign else [])
    # The label that another object bears as well.
    repeated: tuple[str, ...] | None = () if draw() < _REPEATED_SHARE else None
    for number in sorted(range(len(scene.objects)), key=lambda _: draw()):
        if draw() >= _LABEL_SHARE:
            continue
        text = next(texts)
        if repeated == () and labels:
            repeated = text = tuple(word.text for word in labels[-1].words)
        label = _place_label(scene, number, text, labels, draw)
        if label is None and len(text) > 1:
            # Where two words find no room, one of them may.
            label = _place_label(scene, number, text[:1], labels, draw)
        labels.extend([label] if label else [])
    return labels


def _draw_texts(split: str, draw: Draw) -> Iterator[tuple[str, ...]]:
    """Labels of one or two words in one kind of letters; no word comes twice."""
    used: set[str] = set()
    for _ in range(_WORD_TRIES):
        count = 2 if draw() < _TWO_WORDS_SHARE else 1
        words = tuple(draw_word(split, draw) for _ in range(count))
        print_as = choose((str.upper, str.upper, str.lower, str.capitalize), draw)
        if len({*words} - used) == count:
            used.update(words)
            yield tuple(map(print_as, words))


def _place_sign(scene: Scene, text: tuple[str, ...], draw: Draw) -> Label | None:
    """A sign on the ground that neither hides an object nor is hidden, or None where there is no room."""
    font, style = choose(FONTS, draw), choose(tuple(STYLES), draw)
    for attempt in range(_SIGN_TRIES):
        size = _SIGN_SIZES[attempt * len(_SIGN_SIZES) // _SIGN_TRIES]
        plate = arrange_words(text, font, size, stacked=attempt % 2 == 0)
        y = round(-3.8 + 9.6 * draw(), 3)
        x = round((2.0 * draw() - 1.0) * half_width(y, 0.0), 3)
        column, row, _ = project((x, y, 0.0))
        corner = (column - plate.width / 2.0, row - _POST - plate.height)
        whole = (*corner, column + plate.width / 2.0, row)
        if _inside(whole) and not any(_overlap(whole, item.box, gap=_GAP) for item in scene.objects):
            return _label(text, corner, font, size, style, plate, foot=Foot(x, y, round(row, 4)))
    return None


def _place_label(scene: Scene, number: int, text: tuple[str, ...], others: list[Label], draw: Draw) -> Label | None:
    """A label on an object, as large as there is room for, or None where there is none."""
    font, style = choose(FONTS, draw), choose(tuple(STYLES), draw)
    x0, y0, x1, y1 = scene.objects[number].box
    boxes = [item.box for place, item in enumerate(scene.objects) if place != number]
    for size in _SIZES:
        plate = arrange_words(text, font, size, stacked=True)
        if plate.width > _OVERHANG * (x1 - x0) and size != _SIZES[-1]:
            continue
        for down in (0.6, 0.5, 0.7, 0.8, 0.4):
            for right in (0.5, 0.4, 0.6):
                left = x0 + right * (x1 - x0) - plate.width / 2.0
                left = min(max(left, _BORDER), 1.0 - _BORDER - plate.width)
                corner = (left, y0 + down * (y1 - y0) - plate.height / 2.0)
                box = (*corner, corner[0] + plate.width, corner[1] + plate.height)
                free = _inside(box) and not any(_overlap(box, _extent(other), gap=_GAP) for other in others)
                if free and _lies_on_its_own(box, (x0, y0, x1, y1), boxes):
                    return _label(text, corner, font, size, style, plate, bearer=number)
    return None


def _label(
    text: tuple[str, ...],
    corner: tuple[float, float],
    font: str,
    size: float,
    style: str,
    plate: Any,
    bearer: int | None = None,
    foot: Foot | None = None,
) -> Label:
    def moved(box: Box) -> Box:
        x0, y0, x1, y1 = (round(value + corner[place % 2], 4) for place, value in enumerate(box))
        return x0, y0, x1, y1

    words = tuple(PrintedWord(word, moved(box)) for word, box in zip(text, plate.boxes, strict=True))
    return Label(words, moved((0.0, 0.0, plate.width, plate.height)), font, size, style, bearer, foot)


def _sign_object(label: Label) -> SceneObject:
    assert label.foot is not None
    column, row, depth = project((label.foot.x, label.foot.y, 0.0))
    return SceneObject(
        shape="cube",
        color="gray",
        material="rubber",
        size="small",
        coordinates=(label.foot.x, label.foot.y, 0.0),
        rotation=0.0,
        pixel_coordinates=(round(column, 4), round(row, 4), round(depth, 3)),
        box=_extent(label),
    )


def _extent(label: Label) -> Box:
    """The plate's box, of a sign with its posts."""
    x0, y0, x1, y1 = label.box
    return (x0, y0, x1, y1 if label.foot is None else label.foot.row)


def _inside(box: Box) -> bool:
    return min(box) >= _BORDER and max(box) <= 1.0 - _BORDER


def _shared_area(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _overlap(one: Box, other: Box, *, gap: float) -> bool:
    return _shared_area((one[0] - gap, one[1] - gap, one[2] + gap, one[3] + gap), other) > 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _lies_on_its_own(box: Box, bearer: Box, others: list[Box]) -> bool:
    """Whether a label leaves enough of its bearer to be seen, and the other objects nearly free."""
    shared = [_shared_area(box, other) for other in others]
    return (
        _shared_area(box, bearer) <= _COVERED_BEARER * _area(bearer)
        and sum(shared) <= _ASIDE * _area(box)
        and all(area <= _COVERED * _area(other) for area, other in zip(shared, others, strict=True))
    )

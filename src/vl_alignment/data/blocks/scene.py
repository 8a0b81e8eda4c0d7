"""Scenes of the blocks world: what stands where, and what that makes true.

A scene depends only on (seed, split, index) and the two object limits, so that any one can be made alone, in any
process. It knows nothing of pixels' colours and nothing of language; `rendering` and `captions` take it from here.

The JSON follows CLEVR where CLEVR has a name (`objects[].{shape, color, material, size, 3d_coords, pixel_coords,
rotation}`, `relationships`, `directions`, `split`, `image_index`). Two differences: pixel coordinates are fractions of
the picture, since a scene has no image size, and every object has a `box`. Readers ignore keys that they do not know.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from vl_alignment.data.blocks.geometry import SHAPES, Solid, cast_index, cast_solid, half_width, project
from vl_alignment.models.errors import ConfigurationError, DataError

__all__ = ["COLORS", "MATERIALS", "RELATIONS", "SHAPES", "SIZES", "SPLITS", "Scene", "SceneObject", "make_scene"]

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
SPLITS = ("train", "validation", "test")
RELATIONS = ("left", "right", "front", "behind")
ATTRIBUTES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "color": COLORS, "material": MATERIALS, "size": SIZES}

SCHEMA_VERSION = 1
MAXIMUM_OBJECTS = 12
RELATION_MARGIN = 0.45
"""Two objects are left/right or front/behind of each other only if their centres differ by this much, world units."""
PICTURE_MARGIN = 0.02
"""Left and right must also hold in the picture, by this fraction of its width: perspective can reverse close calls."""
VISIBLE_FRACTION = 0.45
"""At least this much of each object's outline is not hidden by others."""
VISIBLE_AREA = 0.004
"""Each object shows at least this fraction of the picture (37 pixels of 96 x 96)."""

_DIRECTIONS = {"left": (-1.0, 0.0, 0.0), "right": (1.0, 0.0, 0.0), "front": (0.0, -1.0, 0.0), "behind": (0.0, 1.0, 0.0)}
_RADII = {"small": 0.46, "large": 0.8}
_CUBE_FACTOR = 0.82  # so that a cube looks as big as the sphere of the same size
_NEAREST, _FARTHEST = -4.2, 6.75
_GAP = 0.16
_VISIBILITY_RESOLUTION = 192
_PLACEMENT_TRIES = 40
_SCENE_TRIES = 60


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        material: One of `MATERIALS`.
        size: One of `SIZES`.
        coordinates: Centre (x right, y away, z up) in world units.
        rotation: Turn about the vertical in degrees.
        pixel_coordinates: Projection of the centre: x, y as fractions of the picture, and the depth.
        box: Visible extent (x0, y0, x1, y1) as fractions of the picture.
    """

    shape: str
    color: str
    material: str
    size: str
    coordinates: tuple[float, float, float]
    rotation: float
    pixel_coordinates: tuple[float, float, float]
    box: tuple[float, float, float, float]

    @property
    def solid(self) -> Solid:
        """The geometric body."""
        return _solid(self.shape, self.size, self.coordinates[0], self.coordinates[1], self.rotation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under CLEVR's names."""
        return {
            "shape": self.shape,
            "color": self.color,
            "material": self.material,
            "size": self.size,
            "3d_coords": list(self.coordinates),
            "rotation": self.rotation,
            "pixel_coords": list(self.pixel_coordinates),
            "box": list(self.box),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SceneObject":
        """The inverse of `to_dict`; raises `DataError` for an attribute value that the world does not have."""
        for attribute, choices in ATTRIBUTES.items():
            if values[attribute] not in choices:
                raise DataError(f"Unknown {attribute} {values[attribute]!r}; the choices are {', '.join(choices)}.")
        x, y, z = (float(value) for value in values["3d_coords"])
        column, row, depth = (float(value) for value in values["pixel_coords"])
        x0, y0, x1, y1 = (float(value) for value in values["box"])
        return cls(
            shape=values["shape"],
            color=values["color"],
            material=values["material"],
            size=values["size"],
            coordinates=(x, y, z),
            rotation=float(values["rotation"]),
            pixel_coordinates=(column, row, depth),
            box=(x0, y0, x1, y1),
        )


@dataclass(frozen=True)
class Scene:
    """One scene: where it comes from and its objects.

    Args:
        seed: Seed of the data set.
        split: One of `SPLITS`.
        index: Number within the split.
        objects: The objects; object i of an index mask is `objects[i - 1]`.
    """

    seed: int
    split: str
    index: int
    objects: tuple[SceneObject, ...]

    @property
    def image_id(self) -> str:
        """For instance `blocks-test-000012`."""
        return f"blocks-{self.split}-{self.index:06d}"

    @cached_property
    def relationships(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """`relationships["left"][i]`: the objects that stand left of object i, as in CLEVR (numbered from 0)."""
        numbers = range(len(self.objects))
        return {
            relation: tuple(tuple(j for j in numbers if j != i and self.holds(j, relation, i)) for i in numbers)
            for relation in RELATIONS
        }

    def holds(self, first: int, relation: str, second: int) -> bool:
        """Whether object `first` stands in the relation to object `second`, beyond the margins."""
        one, other = self.objects[first], self.objects[second]
        if relation == "right":
            return self.holds(second, "left", first)
        if relation == "behind":
            return self.holds(second, "front", first)
        if relation == "front":
            return one.coordinates[1] < other.coordinates[1] - RELATION_MARGIN
        if relation == "left":
            in_world = one.coordinates[0] < other.coordinates[0] - RELATION_MARGIN
            return in_world and one.pixel_coordinates[0] < other.pixel_coordinates[0] - PICTURE_MARGIN
        raise ConfigurationError(f"Unknown relation {relation!r}; the choices are {', '.join(RELATIONS)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values under CLEVR's names."""
        return {
            "schema_version": SCHEMA_VERSION,
            "seed": self.seed,
            "split": self.split,
            "image_index": self.index,
            "objects": [item.to_dict() for item in self.objects],
            "relationships": {name: [list(others) for others in rows] for name, rows in self.relationships.items()},
            "directions": {name: list(direction) for name, direction in _DIRECTIONS.items()},
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Scene":
        """The inverse of `to_json`; unknown keys are ignored, relations are derived again.

        Raises:
            DataError: The text is not JSON, lacks a key, or was written by a newer version.
        """
        try:
            values = json.loads(text)
            if values["schema_version"] > SCHEMA_VERSION:
                raise DataError(
                    f"The scene has schema version {values['schema_version']}, but this version of vl-alignment reads "
                    f"up to {SCHEMA_VERSION}; update the package."
                )
            return cls(
                seed=int(values["seed"]),
                split=values["split"],
                index=int(values["image_index"]),
                objects=tuple(SceneObject.from_dict(item) for item in values["objects"]),
            )
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"This is not a scene of the blocks world ({type(error).__name__}: {error}).") from error


def make_scene(seed: int, split: str, index: int, *, minimum_objects: int = 3, maximum_objects: int = 10) -> Scene:
    """Make one scene.

    Args:
        seed: Seed of the data set, not negative.
        split: One of `SPLITS`; each draws from a stream of its own.
        index: Number within the split, not negative.
        minimum_objects: Fewest objects, at least 1.
        maximum_objects: Most objects, at most 12.

    Returns:
        The scene; the number of objects is uniform between the limits. Objects do not touch, stand wholly inside the
        picture, and each keeps a minimum visible area.

    Raises:
        ConfigurationError: A limit, split, seed or index is out of range.
    """
    check_scene_settings(seed, minimum_objects, maximum_objects)
    if index < 0:
        raise ConfigurationError(f"A scene's index is not negative, but {index} was given.")
    draw = scene_generator(seed, split, index, stream=0)
    count = minimum_objects + int(draw.random() * (maximum_objects - minimum_objects + 1))
    for attempt in range(_SCENE_TRIES):
        # Crowded scenes of large objects may not fit; the last tries use small ones so that every index has a scene.
        drafts = _place(draw, count, sizes=SIZES if attempt < _SCENE_TRIES // 2 else ("small",))
        objects = _visible_objects(drafts) if drafts else None
        if objects is not None:
            return Scene(seed=seed, split=split, index=index, objects=objects)
    raise ConfigurationError(f"No room for {count} objects in scene {index} of {split}; lower maximum_objects.")


def check_scene_settings(seed: int, minimum_objects: int, maximum_objects: int, *, fewest: int = 1) -> None:
    """Raise `ConfigurationError` unless the settings can make scenes."""
    if seed < 0:
        raise ConfigurationError(f"The seed of the blocks world is not negative, but {seed} was given.")
    if not fewest <= minimum_objects <= maximum_objects <= MAXIMUM_OBJECTS:
        raise ConfigurationError(
            f"minimum_objects={minimum_objects}, maximum_objects={maximum_objects}: need {fewest} <= minimum <= "
            f"maximum <= {MAXIMUM_OBJECTS}."
        )


def scene_generator(seed: int, split: str, index: int, *, stream: int) -> np.random.Generator:
    """The random numbers of one purpose of one scene: stream 0 is the scene itself, 1 its captions."""
    if split not in SPLITS:
        raise ConfigurationError(f"Unknown split {split!r}; the choices are {', '.join(SPLITS)}.")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, SPLITS.index(split), index, stream])))


@dataclass(frozen=True)
class _Draft:
    shape: str
    color: str
    material: str
    size: str
    solid: Solid


def _solid(shape: str, size: str, x: float, y: float, rotation: float) -> Solid:
    radius = _RADII[size] * (_CUBE_FACTOR if shape == "cube" else 1.0)
    return Solid(shape=shape, x=x, y=y, radius=radius, rotation=rotation)


def _place(draw: np.random.Generator, count: int, sizes: tuple[str, ...]) -> list[_Draft] | None:
    """Place objects one after the other where they touch no other; None if one finds no room."""
    placed: list[_Draft] = []
    for _ in range(count):
        shape, color, material, size = (
            choices[int(draw.random() * len(choices))] for choices in (SHAPES, COLORS, MATERIALS, sizes)
        )
        body = _solid(shape, size, 0.0, 0.0, rotation=round(90.0 * draw.random(), 1))
        for _ in range(_PLACEMENT_TRIES):
            # Near objects keep their base in the picture, far ones their top; a unit of height covers 4/3 of distance.
            nearest, farthest = _NEAREST + body.footprint, _FARTHEST - body.height * 4.0 / 3.0 - body.footprint
            y = round(nearest + (farthest - nearest) * draw.random(), 3)
            reach = half_width(y - body.footprint, body.height) - body.footprint - 0.02
            solid = replace(body, x=round((2.0 * draw.random() - 1.0) * reach, 3), y=y)
            if all(_apart(solid, other.solid) for other in placed):
                placed.append(_Draft(shape, color, material, size, solid))
                break
        else:
            return None
    return placed


def _apart(one: Solid, other: Solid) -> bool:
    distance = one.footprint + other.footprint + _GAP
    dx, dy = one.x - other.x, one.y - other.y
    return dx * dx + dy * dy >= distance * distance


def _visible_objects(drafts: list[_Draft]) -> tuple[SceneObject, ...] | None:
    """The drafts with their boxes, or None if one of them is too much hidden or touches the picture's border."""
    size = _VISIBILITY_RESOLUTION
    index, alone = cast_index([draft.solid for draft in drafts], size)
    visible = np.bincount(index.ravel(), minlength=len(drafts) + 1)[1:].tolist()
    if any(
        seen < VISIBLE_FRACTION * total or seen < VISIBLE_AREA * size * size
        for seen, total in zip(visible, alone, strict=True)
    ):
        return None
    objects = []
    for number, draft in enumerate(drafts, start=1):
        solid = draft.solid
        window, _ = cast_solid(solid, size)
        shown = index[window.slices] == number
        rows, columns = np.flatnonzero(shown.any(axis=1)) + window.top, np.flatnonzero(shown.any(axis=0)) + window.left
        centre = (solid.x, solid.y, round(solid.height / 2.0, 3))
        x, y, depth = project(centre)
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        if min(edges) == 0 or max(edges) == size:
            return None
        x0, y0, x1, y1 = (round(int(edge) / size, 4) for edge in edges)
        objects.append(
            SceneObject(
                shape=draft.shape,
                color=draft.color,
                material=draft.material,
                size=draft.size,
                coordinates=centre,
                rotation=solid.rotation,
                pixel_coordinates=(round(x, 4), round(y, 4), round(depth, 3)),
                box=(x0, y0, x1, y1),
            )
        )
    return tuple(objects)

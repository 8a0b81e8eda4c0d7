"""What a program can ask of a scene: attributes and relations of numbered objects, sets of objects as bit masks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vl_alignment.data.blocks.scene import ATTRIBUTES, Scene
from vl_alignment.models.errors import DataError

__all__ = ["SceneGraph", "compute_relations", "mask_numbers", "scene_graph"]

_OPPOSITES = (("left", "right"), ("front", "behind"), ("above", "below"))
_NOT_OF_THE_FLOOR = ("above", "below")
CLEVR_MARGIN = 0.2
"""By how much CLEVR asks one object to be further in a direction than another, in world units."""


@dataclass(frozen=True)
class SceneGraph:
    """A scene as programs see it. Bit i of a mask stands for object i.

    Args:
        count: How many objects there are.
        values: `values["color"][i]`: the color of object i.
        having: `having["color"]["red"]`: mask of the red objects.
        related: `related["left"][i]`: mask of the objects that stand left of object i.
    """

    count: int
    values: Mapping[str, tuple[str, ...]]
    having: Mapping[str, Mapping[str, int]]
    related: Mapping[str, tuple[int, ...]]

    @property
    def everything(self) -> int:
        """Mask of all objects."""
        return (1 << self.count) - 1


def mask_numbers(mask: int) -> Iterator[int]:
    """The numbers of the objects in a mask, in rising order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def scene_graph(scene: Scene | SceneGraph | Mapping[str, Any]) -> SceneGraph:
    """The graph of a scene.

    Args:
        scene: A scene of blocks, what its `to_dict` gives, or a scene of CLEVR's published files. Where stored
            relations are missing, they are computed from coordinates and directions.

    Returns:
        The graph.

    Raises:
        DataError: The scene lacks objects, attributes or relations, or its relations contradict each other.
    """
    if isinstance(scene, SceneGraph):
        return scene
    if isinstance(scene, Scene):
        # What the scene derives from its own coordinates cannot contradict itself.
        values = {name: tuple(getattr(item, name) for item in scene.objects) for name in ATTRIBUTES}
        count, relations = len(scene.objects), scene.relationships
    else:
        try:
            objects = scene["objects"]
            values = {name: tuple(item[name] for item in objects) for name in ATTRIBUTES}
            stored = scene["relationships"] if "relationships" in scene else compute_relations(scene)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"This is no scene ({type(error).__name__}: {error}); it needs objects with {', '.join(ATTRIBUTES)}, "
                "and relationships or coordinates and directions.",
                record=_record(scene),
            ) from error
        count = len(objects)
        check_relations(stored, count, record=_record(scene))
        relations = {name: tuple(map(tuple, rows)) for name, rows in stored.items()}
    having: dict[str, dict[str, int]] = {}
    for name, column in values.items():
        masks: dict[str, int] = {}
        for number, value in enumerate(column):
            masks[value] = masks.get(value, 0) | 1 << number
        having[name] = masks
    related = {name: tuple(sum(1 << other for other in row) for row in rows) for name, rows in relations.items()}
    return SceneGraph(count=count, values=values, having=having, related=related)


def compute_relations(scene: Mapping[str, Any], *, margin: float = CLEVR_MARGIN) -> dict[str, list[list[int]]]:
    """Relations by CLEVR's rule: how far the way from one object to another leads in a direction.

    Args:
        scene: A scene with `objects[].3d_coords` and `directions`, as CLEVR's generator writes it.
        margin: The way must be longer than this.

    Returns:
        `relations["left"][i]`: the numbers of the objects that stand left of object i, for each direction but above
        and below.

    Raises:
        DataError: The scene has no coordinates or no directions.
    """
    try:
        points = [tuple(map(float, item["3d_coords"])) for item in scene["objects"]]
        directions = {name: tuple(map(float, vector)) for name, vector in scene["directions"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"Relations need '3d_coords' of every object and 'directions' ({type(error).__name__}: {error}).",
            record=_record(scene),
        ) from error
    return {
        name: [
            [
                other
                for other, there in enumerate(points)
                if other != number
                and sum((b - a) * part for a, b, part in zip(here, there, vector, strict=True)) > margin
            ]
            for number, here in enumerate(points)
        ]
        for name, vector in directions.items()
        if name not in _NOT_OF_THE_FLOOR
    }


def check_relations(relations: Mapping[str, Any], count: int, *, record: object = None) -> None:
    """Raise `DataError` where relations between `count` objects are incomplete or contradict each other."""

    def contradiction(message: str) -> DataError:
        return DataError(f"The scene's relations contradict each other: {message}.", record=record)

    sets = {name: _checked_rows(name, rows, count, record) for name, rows in relations.items()}
    for name, rows in sets.items():
        for number, row in enumerate(rows):
            for other in row:
                if number in rows[other]:
                    raise contradiction(f"object {other} is {name} of object {number} and the other way round")
        if _has_circle(rows):
            raise contradiction(f"going from object to object by {name!r} leads back to where it began")
    for one, opposite in _OPPOSITES:
        if one in sets and opposite in sets:
            for number in range(count):
                for other in range(count):
                    if (other in sets[one][number]) != (number in sets[opposite][other]):
                        raise contradiction(
                            f"object {other} being {one} of object {number} does not agree with object {number} being "
                            f"{opposite} of object {other}"
                        )


def _checked_rows(name: str, rows: Any, count: int, record: object) -> list[set[int]]:
    if len(rows) != count:
        raise DataError(f"Relation {name!r} has {len(rows)} rows for {count} objects.", record=record)
    for number, row in enumerate(rows):
        for other in row:
            if isinstance(other, bool) or not isinstance(other, int) or not 0 <= other < count:
                raise DataError(
                    f"Relation {name!r} of object {number} names object {other!r}; there are objects 0 to {count - 1}.",
                    record=record,
                )
    return [set(row) for row in rows]


def _has_circle(rows: list[set[int]]) -> bool:
    left = set(range(len(rows)))
    while left:
        ends = {number for number in left if not rows[number] & left}
        if not ends:
            return True
        left -= ends
    return False


def _record(scene: Mapping[str, Any]) -> object:
    if not isinstance(scene, Mapping):
        return None
    return scene.get("image_filename", scene.get("image_index"))

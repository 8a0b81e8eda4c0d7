"""The camera, the light and the four solids of the blocks world, as closed-form ray casting.

Everything here uses only additions, multiplications, divisions and square roots, which IEEE 754 rounds in one way on
every machine: that is what makes a picture byte-identical for a seed (a vectorised sine or power is not).

World coordinates: x to the right, y away from the viewer, z up; the ground is z = 0. Picture coordinates are fractions
in [0, 1] of the width and the height, from the upper left corner.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vl_alignment.models.errors import ConfigurationError

__all__ = [
    "LIGHT",
    "SHAPES",
    "Solid",
    "Window",
    "camera_rays",
    "cast_index",
    "cast_solid",
    "ground_distance",
    "half_width",
    "project",
    "surface_normals",
    "window_of",
]

SHAPES = ("cube", "sphere", "cylinder", "cone")

# The view direction (0, 0.8, -0.6) and the direction towards the light (-0.48, -0.36, 0.8) are exact unit vectors.
FORWARD = (0.0, 0.8, -0.6)
UPWARD = (0.0, 0.6, 0.8)
LIGHT = (-0.48, -0.36, 0.8)
EYE = (0.0, -15.7, 12.0)
HALF_VIEW = 0.172
"""Tangent of half the field of view."""

BEVEL = 0.16
"""Width of the softened edges of cubes and cylinders, as a fraction of the half extent."""

FloatArray = np.ndarray


@dataclass(frozen=True)
class Solid:
    """One upright solid that stands on the ground.

    Args:
        shape: One of `SHAPES`.
        x: Centre of the base, to the right.
        y: Centre of the base, away from the viewer.
        radius: Half the width (of a cube: half the side).
        rotation: Turn about the vertical, in degrees; matters for cubes only.
    """

    shape: str
    x: float
    y: float
    radius: float
    rotation: float = 0.0

    @property
    def height(self) -> float:
        """Height of the top above the ground."""
        return 2.0 * self.radius * (1.15 if self.shape == "cone" else 1.0)

    @property
    def footprint(self) -> float:
        """Radius of the smallest circle about the base."""
        return self.radius * (math.sqrt(2.0) if self.shape == "cube" else 1.0)

    @property
    def axis(self) -> tuple[float, float]:
        """Direction of a cube's first side, rounded so that no mathematics library's last digit can matter."""
        angle = math.radians(self.rotation)
        return round(math.cos(angle), 6), round(math.sin(angle), 6)


@dataclass(frozen=True)
class Window:
    """A rectangle of picture samples: rows [top, bottom) and columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into a picture of samples."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def project(point: tuple[float, float, float]) -> tuple[float, float, float]:
    """World point -> (x, y) as fractions of the picture and the depth along the view direction."""
    dx, dy, dz = point[0] - EYE[0], point[1] - EYE[1], point[2] - EYE[2]
    depth = dy * FORWARD[1] + dz * FORWARD[2]
    upward = dy * UPWARD[1] + dz * UPWARD[2]
    scale = depth * HALF_VIEW
    return 0.5 + 0.5 * dx / scale, 0.5 - 0.5 * upward / scale, depth


def half_width(y: float, z: float) -> float:
    """Half the width that the picture shows at distance y and height z."""
    return HALF_VIEW * ((y - EYE[1]) * FORWARD[1] + (z - EYE[2]) * FORWARD[2])


@lru_cache(maxsize=16)
def camera_rays(resolution: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Ray directions of a square picture: x [1, S], y [S, 1] and z [S, 1], all of depth one.

    The camera has no roll, so x depends on the column only and y, z on the row only.
    """
    if resolution < 1:
        raise ConfigurationError(f"A picture of {resolution} samples has no rays; ask for at least one.")
    centres = (2.0 * np.arange(resolution, dtype=np.float64) + 1.0) / resolution - 1.0
    upward = -centres[:, None] * HALF_VIEW
    rays = (centres[None, :] * HALF_VIEW, FORWARD[1] + upward * UPWARD[1], FORWARD[2] + upward * UPWARD[2])
    for ray in rays:
        ray.setflags(write=False)
    return rays


def window_of(points: list[tuple[float, float, float]], resolution: int) -> Window:
    """The rectangle of samples that holds the projections of all points, clipped to the picture."""
    projected = [project(point) for point in points]
    columns = [x * resolution for x, _, _ in projected]
    rows = [y * resolution for _, y, _ in projected]
    return Window(
        top=min(max(math.floor(min(rows)), 0), resolution),
        bottom=max(min(math.ceil(max(rows)), resolution), 0),
        left=min(max(math.floor(min(columns)), 0), resolution),
        right=max(min(math.ceil(max(columns)), resolution), 0),
    )


def _corners(solid: Solid) -> list[tuple[float, float, float]]:
    reach = solid.footprint
    return [
        (solid.x + a * reach, solid.y + b * reach, z) for a in (-1, 1) for b in (-1, 1) for z in (0.0, solid.height)
    ]


@lru_cache(maxsize=64)
def cast_solid(solid: Solid, resolution: int) -> tuple[Window, FloatArray]:
    """Depth at which each ray of the solid's window meets it.

    Remembered for a while, since making a scene and drawing it ask the same; hence the depths are read-only.

    Args:
        solid: What to look at.
        resolution: Samples along a side of the picture.

    Returns:
        The window and depths [rows, columns], infinite where the ray misses.
    """
    window = window_of(_corners(solid), resolution)
    ray_x, ray_y, ray_z = camera_rays(resolution)
    dx, dy, dz = ray_x[:, window.left : window.right], ray_y[window.slices[0]], ray_z[window.slices[0]]
    ox, oy, oz = EYE[0] - solid.x, EYE[1] - solid.y, EYE[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = _CASTS[solid.shape](solid, (ox, oy, oz), (dx, dy, dz))
    depth.setflags(write=False)
    return window, depth


def _cast_cube(solid: Solid, origin: tuple[float, float, float], ray: tuple[FloatArray, ...]) -> FloatArray:
    half = solid.radius
    cosine, sine = solid.axis
    # All rays point downwards: they enter through the top and leave through the bottom.
    near = (solid.height - origin[2]) / ray[2]
    far = -origin[2] / ray[2]
    for along_x, along_y in ((cosine, sine), (-sine, cosine)):
        start = along_x * origin[0] + along_y * origin[1]
        direction = along_x * ray[0] + along_y * ray[1]
        first, second = (-half - start) / direction, (half - start) / direction
        near = np.maximum(near, np.minimum(first, second))
        far = np.minimum(far, np.maximum(first, second))
    return np.where(near < far, near, np.inf)


def _cast_sphere(solid: Solid, origin: tuple[float, float, float], ray: tuple[FloatArray, ...]) -> FloatArray:
    oz = origin[2] - solid.radius
    squared = ray[0] * ray[0] + (ray[1] * ray[1] + ray[2] * ray[2])
    along = ray[0] * origin[0] + (ray[1] * origin[1] + ray[2] * oz)
    excess = origin[0] * origin[0] + origin[1] * origin[1] + oz * oz - solid.radius * solid.radius
    discriminant = along * along - squared * excess
    return np.where(discriminant > 0.0, (-along - np.sqrt(np.maximum(discriminant, 0.0))) / squared, np.inf)


def _cast_cylinder(solid: Solid, origin: tuple[float, float, float], ray: tuple[FloatArray, ...]) -> FloatArray:
    squared = ray[0] * ray[0] + ray[1] * ray[1]
    along = ray[0] * origin[0] + ray[1] * origin[1]
    excess = origin[0] * origin[0] + origin[1] * origin[1] - solid.radius * solid.radius
    discriminant = along * along - squared * excess
    root = np.sqrt(np.maximum(discriminant, 0.0))
    near = np.maximum((-along - root) / squared, (solid.height - origin[2]) / ray[2])
    far = np.minimum((root - along) / squared, -origin[2] / ray[2])
    return np.where((discriminant > 0.0) & (near < far), near, np.inf)


def _cast_cone(solid: Solid, origin: tuple[float, float, float], ray: tuple[FloatArray, ...]) -> FloatArray:
    slope = solid.radius * solid.radius / (solid.height * solid.height)
    oz = origin[2] - solid.height
    squared = ray[0] * ray[0] + (ray[1] * ray[1] - slope * ray[2] * ray[2])
    along = ray[0] * origin[0] + (ray[1] * origin[1] - slope * oz * ray[2])
    excess = origin[0] * origin[0] + origin[1] * origin[1] - slope * oz * oz
    discriminant = along * along - squared * excess
    near = (-along - np.sqrt(np.maximum(discriminant, 0.0))) / squared
    z = origin[2] + near * ray[2]
    # The quadratic describes a double cone: keep the part between the ground and the tip.
    return np.where((discriminant > 0.0) & (z >= 0.0) & (z <= solid.height), near, np.inf)


_CASTS = {"cube": _cast_cube, "sphere": _cast_sphere, "cylinder": _cast_cylinder, "cone": _cast_cone}


def surface_normals(
    solid: Solid, x: FloatArray, y: FloatArray, z: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit normals at surface points, with the edges of cubes and cylinders softened.

    Args:
        solid: The solid.
        x: Offsets of the points from the solid's centre, any shape; `y` alike.
        y: See `x`.
        z: Heights of the points above the ground.

    Returns:
        The three components, each of the shape of `x`.
    """
    radius = solid.radius
    if solid.shape == "sphere":
        return x / radius, y / radius, (z - radius) / radius
    if solid.shape == "cone":
        distance = np.sqrt(x * x + y * y) + 1e-9
        slant = math.sqrt(solid.height * solid.height + radius * radius)
        outward = solid.height / slant / distance
        return x * outward, y * outward, np.full_like(x, radius / slant)
    upward = _edge_weight((z - radius) / radius)
    if solid.shape == "cube":
        cosine, sine = solid.axis
        first = _edge_weight((cosine * x + sine * y) / radius)
        second = _edge_weight((cosine * y - sine * x) / radius)
        normal_x, normal_y = cosine * first - sine * second, sine * first + cosine * second
    else:
        distance = np.sqrt(x * x + y * y) + 1e-9
        outward = _edge_weight(distance / radius) / distance
        normal_x, normal_y = x * outward, y * outward
    length = np.sqrt(normal_x * normal_x + normal_y * normal_y + upward * upward) + 1e-9
    return normal_x / length, normal_y / length, upward / length


def _edge_weight(position: FloatArray) -> FloatArray:
    """How much a face at +-1 contributes to the normal at a position in [-1, 1]: zero inside, the sign at the face."""
    return np.minimum(np.maximum(position - (1.0 - BEVEL), 0.0) + np.minimum(position + (1.0 - BEVEL), 0.0), BEVEL)


def ground_distance(solid: Solid, x: FloatArray, y: FloatArray) -> FloatArray:
    """Signed distance of ground points from the shadow that the light casts of the solid, about, in world units.

    Args:
        solid: What casts the shadow.
        x: Ground points relative to the centre of the base, any shape; `y` alike.
        y: See `x`.

    Returns:
        Negative inside the shadow, zero on its outline, of the shape of `x`.
    """
    shift_x, shift_y = -LIGHT[0] / LIGHT[2] * solid.height, -LIGHT[1] / LIGHT[2] * solid.height
    if solid.shape == "sphere":
        # Distance of the centre from the line that leaves the ground point towards the light.
        along = -(x * LIGHT[0] + y * LIGHT[1]) + solid.radius * LIGHT[2]
        squared = x * x + y * y + solid.radius * solid.radius - along * along
        return np.sqrt(np.maximum(squared, 0.0)) - solid.radius
    if solid.shape == "cube":
        # A square swept along a segment is the intersection of three strips.
        x, y = x - 0.5 * shift_x, y - 0.5 * shift_y
        cosine, sine = solid.axis
        length = math.sqrt(shift_x * shift_x + shift_y * shift_y)
        strips = []
        for a, b in ((cosine, sine), (-sine, cosine), (-shift_y / length, shift_x / length)):
            half = solid.radius * (abs(a * cosine + b * sine) + abs(b * cosine - a * sine))
            half += 0.5 * abs(a * shift_x + b * shift_y)
            strips.append(np.abs(a * x + b * y) - half)
        return np.maximum(np.maximum(strips[0], strips[1]), strips[2])
    # A disc swept along a segment: of constant radius for the cylinder, shrinking to a point for the cone.
    along = (x * shift_x + y * shift_y) / (shift_x * shift_x + shift_y * shift_y)
    along = np.minimum(np.maximum(along, 0.0), 1.0)
    offset_x, offset_y = x - along * shift_x, y - along * shift_y
    reach = solid.radius * (1.0 - along) if solid.shape == "cone" else solid.radius
    return np.sqrt(offset_x * offset_x + offset_y * offset_y) - reach


def cast_index(solids: list[Solid], resolution: int) -> tuple[np.ndarray, list[int]]:
    """Which solid each ray meets first.

    Returns:
        An index picture uint8 [S, S] (0 ground, i the i-th solid) and, for each solid, how many rays would meet it if
        it stood alone.
    """
    index = np.zeros((resolution, resolution), dtype=np.uint8)
    nearest = np.full((resolution, resolution), np.inf)
    alone = []
    for number, solid in enumerate(solids, start=1):
        window, depth = cast_solid(solid, resolution)
        closer = depth < nearest[window.slices]
        np.copyto(nearest[window.slices], depth, where=closer)
        index[window.slices][closer] = number
        alone.append(int(np.count_nonzero(depth < np.inf)))
    return index, alone

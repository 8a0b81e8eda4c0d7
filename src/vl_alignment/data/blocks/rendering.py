"""From a scene to its picture and index mask: NumPy ray casting with shading, soft shadows and reflections.

Colours are computed in linear light and written with a gamma of two, a square root: see `geometry` for why no other
function appears. Objects are sampled four times a pixel; the ground, which is smooth, once.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vl_alignment.data.blocks.geometry import (
    EYE,
    LIGHT,
    Solid,
    Window,
    camera_rays,
    cast_solid,
    ground_distance,
    surface_normals,
    window_of,
)
from vl_alignment.data.blocks.scene import Scene, SceneObject
from vl_alignment.models.errors import ConfigurationError

__all__ = ["IMAGE_SIZES", "render_scene"]

IMAGE_SIZES = (32, 256)
"""Smallest and largest side of a picture, in pixels."""

SUPERSAMPLING = 2

PALETTE = {
    "gray": (128, 132, 138),
    "red": (206, 44, 44),
    "blue": (42, 84, 222),
    "green": (36, 142, 48),
    "brown": (140, 82, 36),
    "purple": (138, 48, 196),
    "cyan": (36, 200, 208),
    "yellow": (246, 212, 40),
}

FloatArray = np.ndarray

_SKY = (1.0, 1.02, 1.06)
_GROUND = (0.60, 0.585, 0.565)
_SHADOW_DEPTH = 0.62
_PENUMBRA = 0.10


def render_scene(scene: Scene, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Args:
        scene: What to draw.
        image_size: Side S of the picture in pixels, 32 to 256.

    Returns:
        The picture, RGB uint8 [S, S, 3], and the index mask, uint8 [S, S]: 0 is background, i the visible pixels of
        `scene.objects[i - 1]`. Both are the same bytes in every process.

    Raises:
        ConfigurationError: The size is out of range.
    """
    check_image_size(image_size)
    samples = image_size * SUPERSAMPLING
    nearest = np.full((samples, samples), np.inf, dtype=np.float64)
    index = np.zeros((samples, samples), dtype=np.uint8)
    color = np.zeros((3, samples, samples), dtype=np.float32)
    solids = [item.solid for item in scene.objects]
    for number, (item, solid) in enumerate(zip(scene.objects, solids, strict=True), start=1):
        window, depth = cast_solid(solid, samples)
        closer = depth < nearest[window.slices]
        casters = [other for other in solids if other is not solid and _may_shade(other, solid)]
        shaded = _shade(item, solid, window, depth, closer, samples, casters)
        index[window.slices][closer] = number
        nearest[window.slices][closer] = depth[closer]
        for channel, values in zip(color, shaded, strict=True):
            channel[window.slices][closer] = values
    corners = [index[row::SUPERSAMPLING, column::SUPERSAMPLING] for row in (0, 1) for column in (0, 1)]
    covered = sum((corner > 0).astype(np.float32) for corner in corners) * np.float32(0.25)
    picture = _ground(solids, image_size) * (np.float32(1.0) - covered)
    rows = color[:, 0::2] + color[:, 1::2]
    picture += (rows[:, :, 0::2] + rows[:, :, 1::2]) * np.float32(0.25)
    return _encode(picture), _majority(corners)


def check_image_size(image_size: int) -> None:
    """Raise `ConfigurationError` unless pictures of this side can be drawn."""
    if not IMAGE_SIZES[0] <= image_size <= IMAGE_SIZES[1]:
        raise ConfigurationError(
            f"image_size={image_size}: pictures of the blocks world have {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]} pixels a "
            "side."
        )


def _encode(picture: FloatArray) -> np.ndarray:
    """Linear light [3, S, S] -> gamma-coded uint8 [S, S, 3]."""
    # A soft shoulder keeps highlights from clipping to flat white.
    picture = picture * (np.float32(1.0) + np.float32(0.16) * picture) / (np.float32(0.24) * picture + np.float32(0.95))
    coded = np.sqrt(np.minimum(np.maximum(picture, np.float32(0.0)), np.float32(1.0))) * np.float32(255.0)
    return np.ascontiguousarray((coded + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0))


def _majority(corners: Sequence[np.ndarray]) -> np.ndarray:
    """The index that most of a pixel's four samples show; on a tie of two and two, an object before the ground."""
    low, lower, higher, high = np.sort(np.stack(corners), axis=0)
    return np.where(higher == high, high, np.where(lower == higher, lower, low))


def _smooth(value: FloatArray, start: float, stop: float) -> FloatArray:
    """Smooth step: 0 below `start`, 1 above `stop`."""
    value = np.minimum(np.maximum((value - start) * (1.0 / (stop - start)), 0.0), 1.0)
    return value * value * (3.0 - 2.0 * value)


class _GroundPlane(NamedTuple):
    x: FloatArray  # [S, S]
    y: FloatArray  # [S, 1]
    color: FloatArray  # [3, S, S], unshadowed


@lru_cache(maxsize=8)
def _ground_plane(image_size: int) -> _GroundPlane:
    """Where each pixel's ray meets the ground, and the light that it finds there."""
    ray_x, ray_y, ray_z = camera_rays(image_size)
    depth = -EYE[2] / ray_z
    x, y = EYE[0] + depth * ray_x, EYE[1] + depth * ray_y
    # A pool of light, a little to the left, that falls off into a cooler, brighter distance.
    distance = (x + 0.8) * (x + 0.8) * 0.022 + (y + 0.4) * (y + 0.4) * 0.012
    pool = 0.52 + 0.48 / (1.0 + distance * distance)
    haze = _smooth(y, 2.0, 9.5)
    color = np.stack([tone * pool + (0.10 * sky - 0.06) * haze for tone, sky in zip(_GROUND, _SKY, strict=True)])
    return _GroundPlane(x, y, color.astype(np.float32))


def _ground(solids: Sequence[Solid], image_size: int) -> FloatArray:
    """Light [3, S, S] from the ground, with the solids' shadows."""
    plane = _ground_plane(image_size)
    key = np.ones((image_size, image_size), dtype=np.float32)
    for solid in solids:
        shift_x, shift_y = _shadow_shift(solid)
        reach = solid.footprint + 3.0 * _PENUMBRA + 0.1
        corners = [
            (solid.x + along * shift_x + a * reach, solid.y + along * shift_y + b * reach, 0.0)
            for along in (0.0, 1.0)
            for a in (-1.0, 1.0)
            for b in (-1.0, 1.0)
        ]
        window = window_of(corners, image_size)
        x = plane.x[window.slices] - solid.x
        y = plane.y[window.slices[0]] - solid.y
        light = 1.0 - _SHADOW_DEPTH * _shadow(solid, x, y)
        # Where the object touches the ground no light comes from the sky either.
        contact = np.sqrt(x * x + y * y) - solid.radius * (0.55 if solid.shape == "sphere" else 1.0)
        light *= 0.62 + 0.38 * _smooth(contact, -0.25, 0.45)
        key[window.slices] *= light.astype(np.float32)
    return plane.color * key


def _shadow_shift(solid: Solid) -> tuple[float, float]:
    return -LIGHT[0] / LIGHT[2] * solid.height, -LIGHT[1] / LIGHT[2] * solid.height


def _shadow(solid: Solid, x: FloatArray, y: FloatArray) -> FloatArray:
    """How much of the light a solid keeps from ground points (relative to its base): 0 none, 1 all of it."""
    shift_x, shift_y = _shadow_shift(solid)
    # The penumbra widens with the distance from the base.
    along = (x * shift_x + y * shift_y) / (shift_x * shift_x + shift_y * shift_y)
    width = _PENUMBRA * (0.5 + 1.5 * np.minimum(np.maximum(along, 0.0), 1.5))
    return 1.0 - _smooth(ground_distance(solid, x, y) / width, -1.0, 1.0)


def _may_shade(caster: Solid, receiver: Solid) -> bool:
    """Whether the caster stands on the light's side of the receiver and near enough to darken it."""
    dx, dy = receiver.x - caster.x, receiver.y - caster.y
    shift_x, shift_y = _shadow_shift(caster)
    length = math.sqrt(shift_x * shift_x + shift_y * shift_y)
    along, across = (dx * shift_x + dy * shift_y) / length, abs(dx * shift_y - dy * shift_x) / length
    reach = caster.footprint + receiver.footprint + 2.0 * _PENUMBRA
    return along > 0.0 and across < reach and along < length + reach


def _shade(
    item: SceneObject,
    solid: Solid,
    window: Window,
    depth: FloatArray,
    visible: np.ndarray,
    samples: int,
    casters: Sequence[Solid],
) -> list[FloatArray]:
    """Light that the n visible samples of an object's window send to the eye: three channels [n]."""
    ray_x, ray_y, ray_z = camera_rays(samples)
    shape = depth.shape
    rays = [
        np.broadcast_to(ray, shape)[visible]
        for ray in (ray_x[:, window.left : window.right], ray_y[window.slices[0]], ray_z[window.slices[0]])
    ]
    hit = depth[visible]
    x, y, z = EYE[0] + hit * rays[0], EYE[1] + hit * rays[1], hit * rays[2] + EYE[2]
    normal = surface_normals(solid, x - solid.x, y - solid.y, z)
    length = np.sqrt(rays[0] * rays[0] + rays[1] * rays[1] + rays[2] * rays[2])
    view = [ray / length for ray in rays]
    facing = -(view[0] * normal[0] + view[1] * normal[1] + view[2] * normal[2])
    lit = np.maximum(normal[0] * LIGHT[0] + normal[1] * LIGHT[1] + normal[2] * LIGHT[2], 0.0)
    shade: FloatArray = np.ones_like(x)
    if casters:
        # A point is as dark as the ground that its line to the light passes through.
        ground_x, ground_y = x - LIGHT[0] / LIGHT[2] * z, y - LIGHT[1] / LIGHT[2] * z
        for caster in casters:
            shade = shade * (1.0 - 0.85 * _shadow(caster, ground_x - caster.x, ground_y - caster.y))
    mirror = [v + 2.0 * facing * n for v, n in zip(view, normal, strict=True)]
    gloss = np.maximum(mirror[0] * LIGHT[0] + mirror[1] * LIGHT[1] + mirror[2] * LIGHT[2], 0.0)
    grazing = 1.0 - np.maximum(facing, 0.0)
    rays_of_light = _Light(
        upward=normal[2],
        lit=lit * shade,
        gloss=gloss * gloss,
        grazing=grazing * grazing * grazing,
        mirror_right=mirror[0] + 0.45 * (x - solid.x) / solid.radius,
        mirror_up=mirror[2],
        height=z / solid.height,
        open_sky=0.55 + 0.45 * _smooth(z, -0.1, 0.55),
        shade=shade,
        strips=0.25 if solid.shape == "sphere" else 1.0,
    )
    tint = [value * value / (255.0 * 255.0) for value in PALETTE[item.color]]
    return (_rubber if item.material == "rubber" else _metal)(tint, rays_of_light)


class _Light(NamedTuple):
    """What reaches n points of a surface, each [n]."""

    upward: FloatArray  # vertical component of the normal
    lit: FloatArray  # cosine to the lamp, less what is shaded
    gloss: FloatArray  # squared cosine between the lamp and the mirrored view
    grazing: FloatArray  # rises to 1 at the outline
    mirror_right: FloatArray  # where the mirrored view goes; flat faces see nearby surroundings vary across them
    mirror_up: FloatArray
    height: FloatArray  # 0 at the base, 1 at the top
    open_sky: FloatArray  # darker near the ground
    shade: FloatArray  # how much of the lamp is seen
    strips: float  # how strongly strips of studio light show: a sphere shows its material by the lamp already


def _rubber(tint: Sequence[float], light: _Light) -> list[FloatArray]:
    """Matte: light from all of the sky, a broad faint sheen."""
    diffuse = (0.36 + 0.16 * light.upward) * light.open_sky + 0.88 * light.lit
    sheen = 0.05 * (light.gloss * light.gloss) * light.shade + 0.04 * light.grazing * light.open_sky
    return [value * diffuse + sheen for value in tint]


def _metal(tint: Sequence[float], light: _Light) -> list[FloatArray]:
    """Polished: reflects the floor, a bright horizon, strips of studio light and the sky in its own colour.

    The lamp itself is reflected in white.
    """
    right, up = light.mirror_right, light.mirror_up
    horizon = _smooth(up, -0.22, 0.10) * (1.0 - 0.72 * _smooth(up, 0.12, 0.62))
    strips = _smooth(right, -0.72, -0.50) * (1.0 - _smooth(right, -0.34, -0.12))
    strips = strips + 0.6 * _smooth(right, 0.42, 0.55) * (1.0 - _smooth(right, 0.62, 0.80))
    strips = strips * light.strips
    floor = 0.34 * (1.0 - light.height)
    surroundings = (0.13 + floor + 0.95 * horizon + 0.30 * _smooth(up, 0.45, 1.0)) * light.open_sky
    gloss = light.gloss * light.gloss
    halo = gloss * gloss
    lamp = halo * halo
    lamp = lamp * lamp
    white = (0.18 * halo + 1.6 * _smooth(lamp, 0.08, 0.7)) * light.shade + 0.24 * light.grazing * light.open_sky
    colored = surroundings + 0.30 * light.lit + 0.95 * strips
    white = white + 0.12 * strips
    return [value * colored + white for value in tint]

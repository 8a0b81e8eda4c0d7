"""Attribute labels on a grid of cells: what a region encoder can be trained to see, made from a scene and its mask."""

import numpy as np

from vl_alignment.data.blocks.scene import ATTRIBUTES, Scene
from vl_alignment.models.errors import ConfigurationError

__all__ = ["cell_attributes", "cell_objects", "center_attributes"]


def cell_objects(mask: np.ndarray, grid: int, *, minimum_share: float = 0.15) -> np.ndarray:
    """The object that covers most of each cell.

    Args:
        mask: Index mask [S, S]: 0 background, i object i.
        grid: Cells G along a side; cells differ by one pixel where S is no multiple of G.
        minimum_share: A cell of which no object covers this share is background.

    Returns:
        Object numbers from 1, int64 [G, G]; 0 is background.

    Raises:
        ConfigurationError: The grid is finer than the mask, or a side of the mask differs from the other.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1] or not 1 <= grid <= mask.shape[0]:
        raise ConfigurationError(f"A grid of {grid} x {grid} cells does not fit a mask of shape {mask.shape}.")
    cell_of = np.arange(mask.shape[0]) * grid // mask.shape[0]
    cells = cell_of[:, None] * grid + cell_of[None, :]
    objects = int(mask.max())
    counts = np.bincount((cells * (objects + 1) + mask).ravel(), minlength=grid * grid * (objects + 1)).reshape(
        grid, grid, objects + 1
    )
    if not objects:
        return np.zeros((grid, grid), dtype=np.int64)
    shown = counts[:, :, 1:]
    enough = shown.max(axis=2) >= minimum_share * counts.sum(axis=2)
    return np.where(enough, shown.argmax(axis=2) + 1, 0)


def cell_attributes(scene: Scene, mask: np.ndarray, grid: int, *, minimum_share: float = 0.15) -> dict[str, np.ndarray]:
    """Labels of the object that covers most of each cell.

    Args:
        scene: The scene.
        mask: Its index mask [S, S].
        grid: Cells G along a side.
        minimum_share: A cell of which no object covers this share is background.

    Returns:
        For each of shape, color, material and size an int64 array [G, G]: 0 where there is nothing, else one more than
        the place of the value in `SHAPES`, `COLORS`, `MATERIALS` or `SIZES`.

    Raises:
        ConfigurationError: The grid does not fit the mask, or the mask shows objects that the scene lacks.
    """
    numbers = cell_objects(mask, grid, minimum_share=minimum_share)
    if numbers.max() > len(scene.objects):
        raise ConfigurationError(
            f"The mask shows object {numbers.max()}, but scene {scene.image_id} has {len(scene.objects)}."
        )
    return {
        name: np.array([0] + [choices.index(getattr(item, name)) + 1 for item in scene.objects])[numbers]
        for name, choices in ATTRIBUTES.items()
    }


def center_attributes(scene: Scene, grid: int) -> dict[str, np.ndarray]:
    """Labels of the object whose visible extent has its middle in each cell: every object counts once.

    Args:
        scene: The scene.
        grid: Cells G along a side.

    Returns:
        As of `cell_attributes`; where two objects share a cell, of the nearer one.
    """
    labels = {name: np.zeros((grid, grid), dtype=np.int64) for name in ATTRIBUTES}
    for item in sorted(scene.objects, key=lambda item: -item.pixel_coordinates[2]):  # the nearest last
        x0, y0, x1, y1 = item.box
        row, column = (min(int((low + high) / 2 * grid), grid - 1) for low, high in ((y0, y1), (x0, x1)))
        for name, choices in ATTRIBUTES.items():
            labels[name][row, column] = choices.index(getattr(item, name)) + 1
    return labels

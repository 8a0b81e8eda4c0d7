"""From a scene with words to its picture and index mask."""

import numpy as np
from PIL import Image

from vl_alignment.data.blocks.lettering import draw_labels
from vl_alignment.data.blocks.rendering import render_scene
from vl_alignment.data.blocks.text_scene import TextScene
from vl_alignment.models.errors import ConfigurationError

__all__ = ["TEXT_IMAGE_SIZES", "check_text_image_size", "render_text_scene"]

TEXT_IMAGE_SIZES = (192, 512)
"""Smallest and largest side of a picture with words, in pixels: below, small letters blur."""


def render_text_scene(text_scene: TextScene, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene with its words.

    The blocks are drawn at half the size and enlarged, which takes a third of the time; the words are drawn at full
    size, since they have to be read.

    Args:
        text_scene: What to draw.
        image_size: Side S of the picture in pixels, an even number from 192 to 512.

    Returns:
        The picture, RGB uint8 [S, S, 3], and the index mask, uint8 [S, S], as of `render_scene`: what is under a label
        on an object counts as that object, the sign and labels that stand out over the ground as background.

    Raises:
        ConfigurationError: The size is out of range.
    """
    check_text_image_size(image_size)
    blocks, mask = render_scene(text_scene.scene, image_size // 2)
    large = Image.fromarray(blocks).resize((image_size, image_size), Image.Resampling.BILINEAR)
    return draw_labels(np.asarray(large), text_scene.labels), mask.repeat(2, axis=0).repeat(2, axis=1)


def check_text_image_size(image_size: int) -> None:
    """Raise `ConfigurationError` unless pictures with words of this side can be drawn."""
    smallest, largest = TEXT_IMAGE_SIZES
    if not smallest <= image_size <= largest or image_size % 2:
        raise ConfigurationError(
            f"image_size={image_size}: pictures with words have an even number of pixels a side, {smallest} to "
            f"{largest}."
        )

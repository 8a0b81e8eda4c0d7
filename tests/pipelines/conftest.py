import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures():
    """Three pictures of noise."""
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]

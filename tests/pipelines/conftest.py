import numpy as np
import pytest
from PIL import Image

from vl_alignment.models import (
    AttnGanConfig,
    AttnGanForTextToImageGeneration,
    AttnGanProcessor,
    M4CConfig,
    M4CForQuestionAnswering,
    M4CProcessor,
    MacConfig,
    MacForQuestionAnswering,
    MacProcessor,
    ScanConfig,
    ScanForImageTextRetrieval,
    ScanProcessor,
    SquareImageProcessorPil,
)

PUSHED = [
    (ScanConfig, ScanForImageTextRetrieval, ScanProcessor),
    (MacConfig, MacForQuestionAnswering, MacProcessor),
    (M4CConfig, M4CForQuestionAnswering, M4CProcessor),
    (AttnGanConfig, AttnGanForTextToImageGeneration, AttnGanProcessor),
]


@pytest.fixture
def pictures():
    """Three pictures of noise."""
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture
def with_code(monkeypatch):
    """The classes as they are before a push, so that their code is saved; other tests save without it."""
    for config, model, processor in PUSHED:
        for pushed in (config, model, processor, SquareImageProcessorPil):
            monkeypatch.setattr(pushed, "_auto_class", None)
        config.register_for_auto_class()
        model.register_for_auto_class("AutoModel")
        processor.register_for_auto_class()

"""Repositories of tiny models that see pixels, as a push makes them: weights, processor, code and pipeline."""

from functools import partial

from tests.models import attngan_model, m4c_model, mac_model, scan_model
from transformers import ResNetConfig

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models import (
    AttnGanProcessor,
    HashedWordVectors,
    M4CProcessor,
    MacProcessor,
    ScanProcessor,
    SquareImageProcessorPil,
)
from vl_alignment.models.phoc import PHOC_SIZE
from vl_alignment.pipelines import PIPELINES

TEXTS = ["a dog runs", "two dogs", "a red car"]
BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")  # stride 8
TASKS = {
    "scan": "image-text-matching",
    "mac": "clevr-question-answering",
    "m4c": "text-visual-question-answering",
    "attngan": "text-to-image-attngan",
}
READ = {"ocr_tokens": ["STOP", "exit", "7up"], "ocr_boxes": [[0.1, 0.1, 0.4, 0.2], [0.5, 0.5, 1, 1], [0, 0, 0.2, 0.3]]}

_MODELS = {
    "scan": scan_model.tiny_model,
    "mac": mac_model.tiny_model,
    "m4c": partial(m4c_model.tiny_model, word_vector_size=7, phoc_size=PHOC_SIZE),
    "attngan": attngan_model.tiny_model,
}
_PROCESSORS = {
    "scan": ScanProcessor,
    "mac": MacProcessor,
    "m4c": partial(M4CProcessor, word_vectors=HashedWordVectors(7)),
    "attngan": AttnGanProcessor,
}


def tiny_pipeline(name, device="cpu", **fields):
    """A pipeline around a tiny model, with the settings that differ from the tiny configuration."""
    sees = {} if name == "attngan" else {"vision_config": BACKBONE}
    side = 24 if name in ("mac", "m4c") else 32
    image_processor = SquareImageProcessorPil(size={"height": side, "width": side})
    processor = _PROCESSORS[name](image_processor, build_word_tokenizer(TEXTS, minimum_count=1))
    pipeline_class, _ = PIPELINES[TASKS[name]]
    model = _MODELS[name](**{**sees, **fields})
    return pipeline_class(model=model, processor=processor, task=TASKS[name], device=device)

"""Alignment functions between words and image regions: SCAN, MAC, M4C and AttnGAN with one field to change.

Importing the package registers its models with transformers' Auto classes and its pipelines; everything beyond these is
imported when it is first used.
"""

import importlib
from typing import Any

from . import models, pipelines  # noqa: F401
from .models import *  # noqa: F403

__version__ = "0.1.0"

_LAZY = {
    "RegionStore": ".data.features",
    "build_spelling_tokenizer": ".data.vocabulary",
    "build_word_tokenizer": ".data.vocabulary",
    "extract_regions": ".data.features",
    "load_feature_network": ".metrics.image_features",
    "load_blocks": ".data.blocks",
    "load_question_dataset": ".data.question_answering",
    "load_retrieval_dataset": ".data.retrieval",
    "load_text_question_dataset": ".data.text_question_answering",
    "AnswerAccuracy": ".metrics",
    "AttributeAccuracy": ".metrics",
    "ImageDistribution": ".metrics",
    "RPrecision": ".metrics",
    "RetrievalRecall": ".metrics",
    "TextAnswerAccuracy": ".metrics",
    "TrainingSettings": ".training.arguments",
    "get_preset": ".training.presets",
    "prepare_study": ".training.preparation",
    "train": ".training.loop",
    "train_question_run": ".training.question_answering",
    "train_retrieval_run": ".training.retrieval",
    "train_text_question_run": ".training.text_question_answering",
    "compare": ".analysis.comparison",
    "AlignmentMap": ".analysis",
    "write_report": ".analysis",
    "ScanIndex": ".search.scan_index",
    "push_run": ".hub.push",
    "push_study": ".hub.push",
}

__all__ = ["__version__", *models.__all__, *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

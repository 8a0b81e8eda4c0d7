"""Folders of finished runs, as training writes them, of models of a few numbers that see pixels."""

from functools import partial
from pathlib import Path

from tests.analysis.synthetic import make_answer_result, make_drawing_result, make_read_answer_result, make_result
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
from vl_alignment.training.runs import RunDirectory

TEXTS = ["a dog runs", "two dogs", "is it red ?"]
BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")  # stride 8
WORD_VECTORS = 7
# Of each model: what makes it, its processor, the side of its pictures, and its results.
MODELS = {
    "scan": (partial(scan_model.tiny_model, vision_config=BACKBONE), ScanProcessor, 16, make_result),
    "mac": (partial(mac_model.tiny_model, vision_config=BACKBONE), MacProcessor, 24, make_answer_result),
    "m4c": (
        partial(m4c_model.tiny_model, vision_config=BACKBONE, word_vector_size=WORD_VECTORS, phoc_size=PHOC_SIZE),
        partial(M4CProcessor, word_vectors=HashedWordVectors(WORD_VECTORS)),
        24,
        make_read_answer_result,
    ),
    "attngan": (attngan_model.tiny_model, AttnGanProcessor, attngan_model.SIZE, make_drawing_result),
}
SETTINGS = {"epochs": 4, "batch_size": 8, "learning_rate": 0.001}


def write_run(
    output: Path, kind: str = "scan", function: str = "general_key", seed: int = 0, change=None, **fields
) -> Path:
    """Write a run below an output folder; return its folder.

    Args:
        output: Of all runs.
        kind: The type of model.
        function: Its alignment function.
        seed: By which runs are named; the weights differ by it.
        change: Called with the model before it is saved.
        fields: Of the model's configuration.
    """
    make_model, make_processor, side, make = MODELS[kind]
    result = make(function, seed)
    run = RunDirectory.named(
        output, model=kind, dataset=result["dataset"]["name"], alignment_function=function, seed=seed
    )
    model = make_model(alignment_function=function, **fields)
    next(model.parameters()).data.add_(seed)
    if change is not None:
        change(model)
    image_processor = SquareImageProcessorPil(size={"height": side, "width": side})
    processor = make_processor(image_processor, build_word_tokenizer(TEXTS, minimum_count=1))
    run.path.mkdir(parents=True)
    run.save_model(model, processor)
    shared = {name: result[name] for name in ("task", "dataset", "seed", "versions", "commit", "command")}
    run.write_run({**shared, "settings": SETTINGS, "model": model.config.to_dict(), "started": result["started"]})
    run.write_results({**result, "run_id": run.run_id})
    return run.path

"""Finished runs of models of a few numbers that see pixels and read the language of blocks."""

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
from vl_alignment.training.runs import RunDirectory

from .synthetic import make_answer_result, make_drawing_result, make_read_answer_result, make_result

TEXTS = ["a small red metal cube is left of the large blue ball .", "what is the color of the object ?"]
TOKENIZER = build_word_tokenizer(TEXTS, minimum_count=1)
BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")  # stride 8
VECTORS = 7
SIZED = {"vocab_size": len(TOKENIZER)}
M4C_FIELDS = {
    "text_config": m4c_model.tiny_text_config(max_position_embeddings=64, vocab_size=len(TOKENIZER)),
    "word_vector_size": VECTORS,
    "phoc_size": PHOC_SIZE,
}
# Of each model: what makes it, its processor, the side of its pictures, and its results.
MODELS = {
    "scan": (partial(scan_model.tiny_model, vision_config=BACKBONE, **SIZED), ScanProcessor, 32, make_result),
    "mac": (partial(mac_model.tiny_model, vision_config=BACKBONE, **SIZED), MacProcessor, 24, make_answer_result),
    "m4c": (
        partial(m4c_model.tiny_model, vision_config=BACKBONE, **M4C_FIELDS),
        partial(M4CProcessor, word_vectors=HashedWordVectors(VECTORS)),
        24,
        make_read_answer_result,
    ),
    "attngan": (partial(attngan_model.tiny_model, **SIZED), AttnGanProcessor, attngan_model.SIZE, make_drawing_result),
}


def write_run(output, kind, function="general_key", seed=0, **fields):
    """Write a finished run below a folder; return its own."""
    make_model, make_processor, side, make = MODELS[kind]
    run = RunDirectory(output / f"{kind}-blocks-{function}-seed{seed}")
    model = make_model(alignment_function=function, **fields)
    next(model.parameters()).data.add_(0.1 * seed)
    image_processor = SquareImageProcessorPil(size={"height": side, "width": side})
    run.path.mkdir(parents=True)
    run.save_model(model, make_processor(image_processor, TOKENIZER))
    run.write_results({**make(function, seed), "run_id": run.run_id})
    return run.path

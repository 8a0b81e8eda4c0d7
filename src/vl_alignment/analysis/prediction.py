"""Show pictures from files to a trained model: score captions or answer questions, and draw where the model looks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data.features import build_extractor
from ..data.picture_files import PICTURE_FORMATS
from ..models.errors import ConfigurationError, DataError
from ..models.vision import grid_boxes
from ..training.evaluation import load_model
from .attention import scan_alignment_map
from .attention_pictures import model_reasoning_png
from .drawing import alignment_png

__all__ = ["image_inputs", "predict_answers", "predict_similarity", "read_picture", "unknown_words"]

ANSWERS_SHOWN = 3


@torch.no_grad()
def predict_similarity(
    folder: str | Path,
    images: Sequence[str | Path],
    texts: Sequence[str],
    *,
    extractor: str | None = None,
    extractor_options: Mapping[str, Any] | None = None,
    attention: str | Path | None = None,
    attended: str | None = None,
) -> list[dict[str, Any]]:
    """Rank captions for each picture.

    Args:
        folder: Of a model with its processor.
        images: Picture files.
        texts: Captions.
        extractor: Makes the regions for a model without a backbone; by default the one its config records.
        extractor_options: Of that extractor.
        attention: A PNG file to draw a caption on the first picture into.
        attended: That caption; the picture's best by default.

    Returns:
        {"image", "captions": [{"text", "score"}, ...]} for each picture, the best caption first.

    Raises:
        DataError: If a picture cannot be read or a caption has no words.
        ConfigurationError: If the model is for another task, or the extractor cannot be built.
        CheckpointError: If the model cannot be loaded.
    """
    model, processor = load_model(folder, task="retrieval")
    pictures = [read_picture(Path(path)) for path in images]
    inputs, boxes = image_inputs(model, processor, pictures, extractor, extractor_options)
    output = model(**processor(text=list(texts)), **inputs, return_loss=False)
    rows: list[dict[str, Any]] = []
    for path, scores in zip(images, output.logits_per_image.tolist(), strict=True):
        ranked = sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])
        rows.append({"image": str(path), "captions": [{"text": text, "score": score} for text, score in ranked]})
    if attention is not None:
        regions = output.region_embeddings[:1]
        encoded = processor(text=[attended or rows[0]["captions"][0]["text"]])
        weights = model.model.cross_attention.attention(regions, model.encode_texts(**encoded))[0]
        side = round(regions.shape[1] ** 0.5)
        places = boxes[0] if boxes is not None else grid_boxes(side, regions.shape[1] // side).numpy()
        words = processor.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
        drawing = scan_alignment_map(weights.numpy(), words, places, pictures[0], direction=model.config.direction)
        Path(attention).write_bytes(alignment_png(drawing))
    return rows


@torch.no_grad()
def predict_answers(
    folder: str | Path,
    images: Sequence[str | Path],
    questions: Sequence[str],
    *,
    extractor: str | None = None,
    extractor_options: Mapping[str, Any] | None = None,
    attention: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Answer questions about each picture.

    Args:
        folder: Of a model with its processor.
        images: Picture files.
        questions: Asked about every picture.
        extractor: As of `predict_similarity`.
        extractor_options: Of that extractor.
        attention: A PNG file to draw the steps of the first picture's first question into.

    Returns:
        {"image", "questions": [{"question", "unknown_words", "answers": [{"answer", "probability"}, ...]}, ...]} for
        each picture: the most probable answers first, and the words that the model reads as unknown.

    Raises:
        DataError: If a picture cannot be read, a question has no words, or the regions are another grid.
        ConfigurationError: As of `predict_similarity`.
        CheckpointError: If the model cannot be loaded.
    """
    model, processor = load_model(folder, task="question-answering")
    pictures = [read_picture(Path(path)) for path in images]
    inputs, _ = image_inputs(model, processor, pictures, extractor, extractor_options)
    knowledge = model.encode_images(**inputs)
    rows: list[dict[str, Any]] = [{"image": str(path), "questions": []} for path in images]
    for question in questions:
        # One by one: the cell that attends to padding would answer otherwise beside a longer question.
        encoded = processor(text=question)
        logits = model.answer(
            knowledge, **{name: ids.expand(len(pictures), -1) for name, ids in encoded.items()}
        ).logits
        unknown = unknown_words(processor.tokenizer, question)
        for row, scores in zip(rows, logits, strict=True):
            best = _best_answers(scores, model.config.id2label)
            row["questions"].append({"question": question, "unknown_words": unknown, "answers": best})
    if attention is not None:
        drawn = model_reasoning_png(model, processor.tokenizer, knowledge[:1], questions[0], pictures[0])
        Path(attention).write_bytes(drawn)
    return rows


def read_picture(path: Path) -> Image.Image:
    """Open a picture file in RGB, as its camera held it.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            # Turned as its camera says: so do data sets, and a reader reads nothing that lies on its side.
            return ImageOps.exif_transpose(picture).convert("RGB")
    # Pillow's decoders raise any of these for damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"the picture cannot be read ({error}); give a complete image file", path=path) from error


def image_inputs(
    model: Any,
    processor: Any,
    pictures: list[Image.Image],
    extractor: str | None,
    extractor_options: Mapping[str, Any] | None,
) -> tuple[dict[str, Tensor], np.ndarray | None]:
    """Make what the model sees of pictures, and the boxes [I, R, 4] where an extractor gave them.

    Raises:
        ConfigurationError: If the extractor is missing or not wanted, or cannot be built.
    """
    if model.config.vision_config is not None:
        if extractor is not None or extractor_options:
            raise ConfigurationError("the model sees pictures through its own backbone; leave the extractor out")
        return dict(processor.image_processor(pictures, return_tensors="pt")), None
    name = extractor or model.config.region_extractor
    if name is None:
        raise ConfigurationError("the model does not record what made its regions; name it (--extractor)")
    features, boxes = build_extractor(name, **(extractor_options or {}))(pictures)
    return {"region_features": torch.from_numpy(features)}, boxes


def _best_answers(logits: Tensor, id2label: Mapping[int, str]) -> list[dict[str, Any]]:
    """Name the most probable answers of one question by its logits [A]."""
    probabilities, numbers = logits.softmax(dim=-1).topk(min(ANSWERS_SHOWN, len(logits)))
    return [
        {"answer": id2label[number], "probability": probability}
        for number, probability in zip(numbers.tolist(), probabilities.tolist(), strict=True)
    ]


def unknown_words(tokenizer: Any, question: str) -> list[str]:
    """Return the words of a question that its reader does not know."""
    encoded = tokenizer(question, return_offsets_mapping=True)
    places = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [question[start:end] for token, (start, end) in places if token == tokenizer.unk_token_id]

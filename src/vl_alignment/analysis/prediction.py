"""Score pictures from files against captions, and draw where the best caption's words look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError

from ..data.features import build_extractor
from ..models.errors import DataError
from ..models.vision import grid_boxes
from ..training.evaluation import load_retrieval_model
from .attention import scan_alignment_map
from .drawing import alignment_png

__all__ = ["predict_similarity"]


@torch.no_grad()
def predict_similarity(
    folder: str | Path,
    images: Sequence[str | Path],
    texts: Sequence[str],
    *,
    extractor: str | None = None,
    attention: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Rank captions for each picture.

    Args:
        folder: Of a model with its processor.
        images: Picture files.
        texts: Captions.
        extractor: Makes the regions for a model without a backbone; by default the one its config records.
        attention: A PNG file to draw the first picture's best caption into.

    Returns:
        {"image", "captions": [{"text", "score"}, ...]} for each picture, the best caption first.

    Raises:
        DataError: If a picture cannot be read or a caption has no words.
        CheckpointError: If the model cannot be loaded.
    """
    model, processor = load_retrieval_model(folder)
    pictures = [_read(Path(path)) for path in images]
    inputs = dict(processor(text=list(texts)))
    boxes = None
    if model.config.vision_config is not None:
        inputs.update(processor(images=pictures))
    else:
        features, boxes = build_extractor(extractor or model.config.region_extractor)(pictures)
        inputs["region_features"] = torch.from_numpy(features)
    output = model(**inputs, return_loss=False)
    rows: list[dict[str, Any]] = []
    for path, scores in zip(images, output.logits_per_image.tolist(), strict=True):
        ranked = sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])
        rows.append({"image": str(path), "captions": [{"text": text, "score": score} for text, score in ranked]})
    if attention is not None:
        regions = output.region_embeddings[:1]
        encoded = processor(text=[rows[0]["captions"][0]["text"]])
        weights = model.model.cross_attention.attention(regions, model.encode_texts(**encoded))[0]
        side = round(regions.shape[1] ** 0.5)
        places = boxes[0] if boxes is not None else grid_boxes(side, regions.shape[1] // side).numpy()
        words = processor.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
        drawing = scan_alignment_map(weights.numpy(), words, places, pictures[0], direction=model.config.direction)
        Path(attention).write_bytes(alignment_png(drawing))
    return rows


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"the picture cannot be read ({error}); give a complete image file", path=path) from error

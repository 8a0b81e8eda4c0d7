"""Answer questions about pictures from files by reading, with a trained M4C, and say where every word came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.json_text import parse_json
from ..data.text_question_records import TextColumns
from ..data.text_recognition import RecognizedText, build_text_reader
from ..models.decoding_m4c import AnswerWord
from ..models.errors import DataError
from ..models.phoc import phoc
from ..training.data_options import READER
from ..training.evaluation import load_model
from .attention_pictures import model_reading_png
from .prediction import image_inputs, read_picture, unknown_words

__all__ = ["predict_read_answers", "read_given_text"]

BOX_DIGITS = 4


@torch.no_grad()
def predict_read_answers(
    folder: str | Path,
    images: Sequence[str | Path],
    questions: Sequence[str],
    *,
    texts: Sequence[RecognizedText] | None = None,
    reader: str = READER,
    word_vectors: Any = None,
    extractor: str | None = None,
    extractor_options: Mapping[str, Any] | None = None,
    attention: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Answer questions about each picture.

    Args:
        folder: Of a model with its processor.
        images: Picture files.
        questions: Asked about every picture.
        texts: The words in each picture; by default `reader` reads them.
        reader: Name of an OCR plug-in.
        word_vectors: Those of the model's training, where they do not travel with it; see `M4CProcessor`.
        extractor: Makes the regions for a model without a backbone; by default the one its config records.
        extractor_options: Of that extractor.
        attention: A PNG file to draw into what the first picture's first answer looks at.

    Returns:
        {"image", "tokens": [{"token", "word", "box"}, ...], "questions": [{"question", "unknown_words", "answer",
        "words": [{"word", "source", and of a copied one "token", "box"}, ...]}, ...]} for each picture. The tokens are
        those that fill the model's slots, numbered by slot.

    Raises:
        DataError: If a picture cannot be read, a question has no words, or there is text of another number of pictures.
        ConfigurationError: If the model is for another task, the reader's package is missing, or the extractor or the
            word vectors are not the model's.
        CheckpointError: If the model cannot be loaded.
    """
    model, processor = load_model(folder, task="text-question-answering", word_vectors=word_vectors)
    pictures = [read_picture(Path(path)) for path in images]
    if texts is None:
        plugin = build_text_reader(reader)
        texts = [plugin.read(picture) for picture in pictures]
    if len(texts) != len(pictures):
        raise DataError(f"there is text of {len(texts)} pictures for {len(pictures)}; give one entry a picture")
    seen, _ = image_inputs(model, processor, pictures, extractor, extractor_options)
    given = ([getattr(text, name) for text in texts] for name in ("tokens", "boxes", "confidences"))
    read, tokens = processor.text_inputs(*given)
    inputs = {**seen, **read}
    encoded = processor(text=[question for _ in pictures for question in questions])
    answers = model.generate(**encoded, **inputs, ocr_tokens=tokens).answers
    unknown = {question: _unreadable_words(processor, question) for question in questions}
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(images):
        boxes = read["ocr_boxes"][number].tolist()
        slots = [
            {"token": slot, "word": word, "box": _rounded(boxes[slot])} for slot, word in enumerate(tokens[number])
        ]
        asked = [
            {
                "question": question,
                "unknown_words": unknown[question],
                "answer": answers[number * len(questions) + place].text,
                "words": [_described(word) for word in answers[number * len(questions) + place].words],
            }
            for place, question in enumerate(questions)
        ]
        rows.append({"image": str(path), "tokens": slots, "questions": asked})
    if attention is not None:
        own = {name: tensor[:1] for name, tensor in inputs.items()}
        drawn = model_reading_png(model, processor, own, tokens[0], questions[0], pictures[0])
        Path(attention).write_bytes(drawn)
    return rows


def read_given_text(path: str | Path) -> list[RecognizedText]:
    """Read the words in pictures from a JSON file that somebody else's OCR made.

    Args:
        path: A list with an object a picture, or one object: {"tokens": [text, ...], "boxes": [[x0, y0, x1, y1], ...],
            "confidences": [number, ...]}, boxes in [0, 1] of width and height, the last two optional.

    Raises:
        DataError: The file cannot be read or has another layout, or boxes or confidences cannot be used.
    """
    try:
        content = parse_json(Path(path).read_text(encoding="utf-8"))
        entries = content if isinstance(content, list) else [content]
        given = [(entry["tokens"], entry.get("boxes"), entry.get("confidences")) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f'no text of pictures can be read ({reason}); give a list of {{"tokens": [...], "boxes": [...]}}', path=path
        ) from error
    text = TextColumns()
    for number, entry in enumerate(given):
        text.add(*entry, path=path, record=str(number))
    columns = (text.columns[name] for name in ("ocr_tokens", "ocr_boxes", "ocr_confidences"))
    return [
        RecognizedText(tokens, np.asarray(boxes, dtype=np.float32).reshape(-1, 4), np.asarray(sure, dtype=np.float32))
        for tokens, boxes, sure in zip(*columns, strict=True)
    ]


def _unreadable_words(processor: Any, question: str) -> list[str]:
    """The words of a question that the model reads as unknown, and that it is not told by their spelling either."""
    unknown = unknown_words(processor.tokenizer, question)
    return [word for word in unknown if not (processor.question_spellings and phoc([word]).any())]


def _described(word: AnswerWord) -> dict[str, Any]:
    described: dict[str, Any] = {"word": word.word, "source": word.source}
    if word.token is not None and word.box is not None:
        described |= {"token": word.token, "box": _rounded(word.box)}
    return described


def _rounded(box: Sequence[float]) -> list[float]:
    """To less than a pixel of any picture."""
    return [round(edge, BOX_DIGITS) for edge in box]

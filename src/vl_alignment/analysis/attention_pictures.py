"""Attention pictures of a comparison: the same test items under every function, drawn from the models of its runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from ..models.modeling_mac import MacForQuestionAnswering
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..training.preparation import QuestionStudy, RetrievalStudy, Study
from ..training.runs import RunDirectory
from .attention import mac_alignment_maps, scan_alignment_map
from .drawing import alignment_png
from .drawing_steps import reasoning_png
from .report import Picture
from .statistics import row_key

__all__ = ["attention_pictures", "model_reasoning_png"]


def attention_pictures(study: Study, output: Path, results: Sequence[dict[str, Any]], count: int) -> list[Picture]:
    """Draw how each function's model of the first seed attends, for the first test items.

    Args:
        study: Whose regions the models see; without stored regions there are no pictures.
        output: Folder of the runs.
        results: Of the runs.
        count: Of the test items.

    Returns:
        The caption or question of each item, and a PNG of it for each row of the table.
    """
    if study.store is None:
        return []
    items = _ITEMS[study.task](study, count)
    drawn: list[tuple[str, dict[str, bytes]]] = [(text, {}) for text in items.texts]
    first_seed = min(result["seed"] for result in results)
    for result in results:
        folder = RunDirectory(output / result["run_id"]).model
        if result["seed"] != first_seed or not folder.exists():
            continue
        model = items.model_class.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for number, (_, pictures) in enumerate(drawn):
            pictures[row_key(result)] = items.draw(model, tokenizer, number)
    return [picture for picture in drawn if picture[1]]


def model_reasoning_png(
    model: Any,
    tokenizer: Any,
    knowledge: Tensor,
    question: str,
    picture: Image.Image | None,
    right_answer: str | None = None,
) -> bytes:
    """Draw where each of MAC's reasoning steps looks, for one question about one picture.

    Args:
        model: A `MacForQuestionAnswering`.
        tokenizer: Of the model.
        knowledge: Of the picture, [1, N, d]; see `encode_images`.
        question: As it was asked.
        picture: To light; None where only features exist.
        right_answer: Written beside the model's, where it is known.

    Returns:
        A PNG.
    """
    encoded = tokenizer([question], return_tensors="pt")
    output = model.answer(knowledge, encoded["input_ids"], encoded["attention_mask"], output_attentions=True)
    side = model.config.grid_size
    maps = mac_alignment_maps(
        output.question_attentions[0].numpy(),
        output.image_attentions[0].numpy(),
        tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]),
        picture,
        grid=(side, side),
    )
    return reasoning_png(
        maps,
        question=question,
        answer=model.answer_words(output.logits)[0],
        right_answer=right_answer,
        alignment_function=model.config.alignment_function,
    )


class Items(Protocol):
    """The test items of one task.

    Attributes:
        texts: What each is called.
        model_class: Of the task's models.
    """

    texts: list[str]
    model_class: Any

    def draw(self, model: Any, tokenizer: Any, number: int) -> bytes:
        """Return a PNG of the model's attention for an item."""
        ...


class _Captions:
    """The first test pictures with their first captions."""

    model_class = ScanForImageTextRetrieval

    def __init__(self, study: RetrievalStudy, count: int) -> None:
        self.study = study
        self.records = [study.data["test"][row] for row in range(min(count, len(study.data["test"])))]
        self.texts = [record["captions"][0] for record in self.records]

    @torch.no_grad()
    def draw(self, model: Any, tokenizer: Any, number: int) -> bytes:
        record = self.records[number]
        encoded = tokenizer(record["captions"][:1], return_tensors="pt")
        features = _features(self.study, record)
        attentions = model(**encoded, region_features=features, return_loss=False, output_attentions=True).attentions
        words = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
        boxes = self.study.store.boxes([record["image_id"]])[0]  # type: ignore[union-attr]
        direction = model.config.direction
        return alignment_png(
            scan_alignment_map(attentions[0].numpy(), words, boxes, _picture(record), direction=direction)
        )


class _Questions:
    """The first test pictures, each with a question of another type, in the order in which the types turn up."""

    model_class = MacForQuestionAnswering

    def __init__(self, study: QuestionStudy, count: int) -> None:
        self.study = study
        images, questions = (part[study.test_split] for part in (study.data.images, study.data.questions))
        rows: list[int] = []
        seen_images: set[str] = set()
        seen_types: list[str] = []
        columns = zip(questions["image_id"], questions["question_type"], strict=True)
        for row, (image_id, question_type) in enumerate(columns):
            rarest = min(map(seen_types.count, set(seen_types)), default=0)
            if len(rows) < count and image_id not in seen_images and seen_types.count(question_type) <= rarest:
                rows.append(row)
                seen_images.add(image_id)
                seen_types.append(question_type)
        self.questions = [questions[row] for row in rows]
        places = {image_id: place for place, image_id in enumerate(images["image_id"])}
        self.records = [images[places[question["image_id"]]] for question in self.questions]
        self.texts = [question["question"] for question in self.questions]

    @torch.no_grad()
    def draw(self, model: Any, tokenizer: Any, number: int) -> bytes:
        question, record = self.questions[number], self.records[number]
        knowledge = model.encode_images(region_features=_features(self.study, record))
        return model_reasoning_png(
            model, tokenizer, knowledge, question["question"], _picture(record), right_answer=question["answer"] or None
        )


_ITEMS: dict[str, Any] = {RetrievalStudy.task: _Captions, QuestionStudy.task: _Questions}


def _features(study: Study, record: dict[str, Any]) -> torch.Tensor:
    """Return the stored regions [1, R, d] of a record's picture."""
    features = study.store.features([record["image_id"]])  # type: ignore[union-attr]
    return torch.from_numpy(np.asarray(features, dtype=np.float32))


def _picture(record: dict[str, Any]) -> Any:
    return record["image"].convert("RGB") if record.get("image") is not None else None

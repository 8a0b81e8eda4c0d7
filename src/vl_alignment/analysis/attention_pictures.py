"""Attention pictures of a comparison: the same test items under every function, drawn from the models of its runs."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from ..metrics.text_question_answering import best_answers, text_answer_scores
from ..models.configuration_m4c import ANSWER_BEGIN, ANSWER_END, ANSWER_PADDING
from ..models.embedding_m4c import M4CEntities
from ..models.modeling_attngan import AttnGanForTextToImageGeneration
from ..models.modeling_m4c import M4CForQuestionAnswering
from ..models.modeling_mac import MacForQuestionAnswering
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..models.processing_attngan import AttnGanProcessor, pictures_of
from ..models.processing_m4c import M4CProcessor
from ..models.processing_mac import MacProcessor
from ..models.processing_scan import ScanProcessor
from ..training.runs import RunDirectory
from ..training.sample_grids import sample_grid
from ..training.studies import QuestionStudy, RetrievalStudy, Study, TextQuestionStudy
from ..training.text_to_image_study import TextToImageStudy
from .attention import (
    MapSide,
    ReadingMaps,
    attngan_alignment_maps,
    m4c_alignment_maps,
    mac_alignment_maps,
    scan_alignment_map,
)
from .drawing import alignment_png
from .drawing_answers import reading_png
from .drawing_stages import stages_png
from .drawing_steps import reasoning_png
from .report import Picture
from .statistics import row_key

__all__ = [
    "TEST_ITEMS",
    "answer_steps",
    "attention_pictures",
    "model_reading_maps",
    "model_reading_png",
    "model_reasoning_png",
    "model_stages_png",
    "sample_pictures",
]

SAMPLE_ROWS, SAMPLE_COLUMNS = 8, 8


def attention_pictures(study: Study, output: Path, results: Sequence[dict[str, Any]], count: int) -> list[Picture]:
    """Draw how each function's model of the first seed attends, for the first test items.

    Args:
        study: Whose regions the models see; without stored regions there are no pictures, unless the models draw some.
        output: Folder of the runs.
        results: Of the runs.
        count: Of the test items.

    Returns:
        The caption or question of each item, and a PNG of it for each row of the table.
    """
    if study.store is None and not study.draws:
        return []
    items = TEST_ITEMS[study.task](study, count)
    drawn: list[tuple[str, dict[str, bytes]]] = [(text, {}) for text in items.texts]
    first_seed = min(result["seed"] for result in results)
    for result in results:
        folder = RunDirectory(output / result["run_id"]).model
        if result["seed"] != first_seed or not folder.exists():
            continue
        model = items.model_class.from_pretrained(folder).eval()
        processor = items.processor_class.from_pretrained(folder)
        for number, (_, pictures) in enumerate(drawn):
            pictures[row_key(result)] = items.draw(model, processor, number)
    return [picture for picture in drawn if picture[1]]


def sample_pictures(study: Study, output: Path, results: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """Draw the same captions from the same noise with each function's model of the first seed.

    Arguments as of `attention_pictures`.

    Returns:
        A PNG for each row of the table: a row of pictures a caption, a column a noise; none where models do not draw.
    """
    if not isinstance(study, TextToImageStudy):
        return {}
    captions = [captions[0] for captions in study.data["test"][:SAMPLE_ROWS]["captions"]]
    first_seed = min(result["seed"] for result in results)
    grids = {}
    for result in results:
        folder = RunDirectory(output / result["run_id"]).model
        if result["seed"] == first_seed and folder.exists():
            model = AttnGanForTextToImageGeneration.from_pretrained(folder).eval()
            processor = AttnGanProcessor.from_pretrained(folder)
            out = io.BytesIO()
            sample_grid(model, processor, captions, columns=SAMPLE_COLUMNS, seed=0).save(out, format="png")
            grids[row_key(result)] = out.getvalue()
    return grids


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


@torch.no_grad()
def model_reading_png(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Tensor],
    ocr_tokens: Sequence[str],
    question: str,
    picture: Image.Image | None,
    people: Sequence[str] = (),
) -> bytes:
    """Draw what M4C looks at for each word of its answer to one question about one picture.

    Args:
        model: An `M4CForQuestionAnswering`.
        processor: Of the model.
        inputs: Of the picture and its text alone, as `M4CModel.encode_images` takes them.
        ocr_tokens: The words in the slots.
        question: As it was asked.
        picture: To light; None where only features exist.
        people: What people answered, where that is known.

    Returns:
        A PNG.
    """
    maps, _, found = model_reading_maps(model, processor, inputs, ocr_tokens, question, picture)
    answer = model.answer_words(found, [ocr_tokens])[0]
    judged: dict[str, Any] = {}
    if people:
        score = float(text_answer_scores([answer.text], [people])["accuracy"][0])
        judged = {"right_answer": best_answers([people])[0], "score": score}
    return reading_png(
        maps, answer, ocr_tokens, question=question, alignment_function=model.config.alignment_function, **judged
    )


@torch.no_grad()
def model_reading_maps(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Tensor],
    ocr_tokens: Sequence[str],
    question: str,
    picture: Image.Image | None = None,
) -> tuple[ReadingMaps, M4CEntities, Tensor]:
    """Answer one question about one picture by reading, and say what each word of the answer looked at.

    Arguments as of `model_reading_png`.

    Returns:
        The maps, the entities that they are over, and the answer [1, T].
    """
    entities = model.model.embed(**processor(text=question), **inputs)
    found = model.decode(entities).sequences
    output = model.answer(entities, F.pad(found[:, :-1], (1, 0), value=ANSWER_BEGIN), output_attentions=True)
    words, word_of_piece = _question_words(processor, question)
    objects = entities.first_ocr_token - len(word_of_piece)
    side = round(objects**0.5)
    boxes = {name: inputs[name][0].numpy() for name in ("region_boxes", "ocr_boxes") if name in inputs}
    maps = m4c_alignment_maps(
        [layer[0] for layer in output.attentions],
        words,
        word_of_piece,
        MapSide(boxes=boxes["region_boxes"]) if "region_boxes" in boxes else MapSide(grid=(side, side)),
        MapSide(boxes=boxes["ocr_boxes"][: len(ocr_tokens)]) if len(ocr_tokens) else None,
        picture,
        ocr_slots=entities.num_ocr_tokens,
        steps=answer_steps(found[0].tolist()),
    )
    return maps, entities, found


def model_stages_png(model: Any, processor: Any, caption: str, *, seed: int = 0) -> bytes:
    """Draw one picture of a caption, and what its places attended to at each stage, as a PNG.

    Args:
        model: An `AttnGanForTextToImageGeneration`.
        processor: Of the model.
        caption: What to draw.
        seed: Of the noise.
    """
    encoded = processor(text=caption)
    drawn = model.generate(
        input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], seed=seed, output_attentions=True
    )
    words = processor.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    maps = attngan_alignment_maps([stage[0].numpy() for stage in drawn.attentions], words, pictures_of(drawn.images)[0])
    return stages_png(maps, caption=caption, alignment_function=model.config.alignment_function)


def _question_words(processor: Any, question: str) -> tuple[list[str], list[int]]:
    """Return the words of a question that the model reads, between spaces, and that of each piece, -1 for markers."""
    encoded = processor.tokenizer(
        question, return_offsets_mapping=True, truncation=True, max_length=processor.max_question_tokens
    )
    words = [(match.start(), match.group()) for match in re.finditer(r"\S+", question)]
    starts = [start for start, _ in words]
    # A marker belongs to no word of the text; any other piece to the last word that begins before its end.
    places = [
        -1 if inside is None else int(np.searchsorted(starts, end, side="left")) - 1
        for inside, (_, end) in zip(encoded.word_ids(), encoded["offset_mapping"], strict=True)
    ]
    read = sorted(set(places) - {-1})
    return [words[place][1] for place in read], [read.index(place) if place >= 0 else -1 for place in places]


def answer_steps(sequence: Sequence[int]) -> list[int]:
    """Return the decoding steps that gave the words of an answer; its end, where it has none."""
    length = sequence.index(ANSWER_END) if ANSWER_END in sequence else len(sequence)
    steps = [step for step in range(length) if sequence[step] not in (ANSWER_PADDING, ANSWER_BEGIN)]
    return steps or [min(length, len(sequence) - 1)]


class Items(Protocol):
    """The test items of one task.

    Attributes:
        texts: What each is called.
        model_class: Of the task's models.
        processor_class: Of what makes the models' inputs.
    """

    texts: list[str]
    model_class: Any
    processor_class: Any  # what `draw` takes
    pipeline_processor: Any

    def draw(self, model: Any, processor: Any, number: int) -> bytes:
        """Return a PNG of the model's attention for an item."""
        ...


class _Captions:
    """The first test pictures with their first captions."""

    model_class, processor_class, pipeline_processor = ScanForImageTextRetrieval, AutoTokenizer, ScanProcessor

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

    model_class: Any = MacForQuestionAnswering
    processor_class: Any = AutoTokenizer
    pipeline_processor: Any = MacProcessor

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


class _ReadQuestions(_Questions):
    """The same of questions that are answered by reading."""

    model_class, processor_class, pipeline_processor = M4CForQuestionAnswering, M4CProcessor, M4CProcessor

    def draw(self, model: Any, processor: Any, number: int) -> bytes:
        question, record = self.questions[number], self.records[number]
        vectors = self.study.options.get("word_vectors")
        text, words = processor.text_inputs(
            *([record[name]] for name in ("ocr_tokens", "ocr_boxes", "ocr_confidences")),
            # A plug-in does not travel with the processor.
            word_vectors=vectors if hasattr(vectors, "vectors") else None,
        )
        inputs = {"region_features": _features(self.study, record), **text}
        return model_reading_png(
            model, processor, inputs, words[0], question["question"], _picture(record), question["answers"]
        )


class _Drawings:
    """Pictures drawn of the first test captions, all from the same noise, and what their places attended to."""

    model_class = AttnGanForTextToImageGeneration
    processor_class = pipeline_processor = AttnGanProcessor

    def __init__(self, study: TextToImageStudy, count: int) -> None:
        self.texts = [captions[0] for captions in study.data["test"][:count]["captions"]]

    def draw(self, model: Any, processor: Any, number: int) -> bytes:
        return model_stages_png(model, processor, self.texts[number])


# By the name of the task: the test items whose attention is drawn.
TEST_ITEMS: dict[str, Any] = {
    RetrievalStudy.task: _Captions,
    QuestionStudy.task: _Questions,
    TextQuestionStudy.task: _ReadQuestions,
    TextToImageStudy.task: _Drawings,
}


def _features(study: Study, record: dict[str, Any]) -> torch.Tensor:
    """Return the stored regions [1, R, d] of a record's picture."""
    features = study.store.features([record["image_id"]])  # type: ignore[union-attr]
    return torch.from_numpy(np.asarray(features, dtype=np.float32))


def _picture(record: dict[str, Any]) -> Any:
    return record["image"].convert("RGB") if record.get("image") is not None else None

"""Pipelines "clevr-question-answering" (MAC) and "text-visual-question-answering" (M4C): questions about pictures.

The file travels to the Hub beside the weights, with the one that it imports: of the package they need nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .packaged_pipeline import PackagedPipeline, grid_shape, opened_picture

__all__ = ["VisualQuestionAnsweringPipeline"]

_BOX_DIGITS = 4  # less than a pixel of any picture


class VisualQuestionAnsweringPipeline(PackagedPipeline):
    """Answers questions about pictures, and shows where the model looks.

    MAC chooses among the answers that it knows. M4C reads: its answers are also copied from the text in the picture,
    which is given as OCR tokens, or by something that reads them.

    Args:
        args: As of `transformers.pipeline`.
        kwargs: As of `transformers.pipeline`, where `device` says where the model runs; and `text_reader`, see
            `__call__`.

    Raises:
        ValueError: If the model is neither MAC nor M4C, or sees given features alone.

    Example:
        >>> ask = pipeline("clevr-question-answering", model="...", trust_remote_code=True)  # doctest: +SKIP
        >>> ask("scene.png", "what color is the small cube?", top_k=1)  # doctest: +SKIP
        [{'answer': 'red', 'score': 0.97}]
    """

    tasks = {"mac": "clevr-question-answering", "m4c": "text-visual-question-answering"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reads = self.model.config.model_type == "m4c"

    def __call__(  # type: ignore[override]
        self, image: Any = None, question: Any = None, ocr_tokens: Any = None, ocr_boxes: Any = None, **kwargs: Any
    ) -> Any:
        """Answer questions.

        Args:
            image: A picture (PIL, a path, bytes, a data URL, base64 or a URL), or a list of them. Without `question`: a
                dict {"image", "question"} and for M4C "ocr_tokens" and "ocr_boxes", or a list, data set or generator of
                such dicts.
            question: One about all pictures, or a list: one about each picture, or several about a single one.
            ocr_tokens: For M4C the words in the picture, [] where there are none; of several pictures a list of each.
            ocr_boxes: Where they are, [x0, y0, x1, y1] in [0, 1] of width and height.
            kwargs: `top_k`, answers at most, 5 by default; `output_attentions`; `text_reader` for M4C, which takes a
                picture (PIL) and returns {"tokens", "boxes"} and, if it likes, "confidences", or an object that has
                these; and those of any pipeline.

        Returns:
            Of a single picture and question a list of {"answer", "score"}, the best first; of several a list of such
            lists. A score is the answer's probability. M4C's first answer is that of its greedy search, which is what
            evaluation counts; the others come from beams. They have "sources": for each word {"word", "source"}, which
            is "vocabulary" or "ocr", then with "token", its number, and "box".
            With attentions the first answer has "attention": "words", the question's tokens; "grid", the (rows,
            columns) that the picture's regions are in reading order; and nested lists with a row for each of MAC's
            steps, or for each word of M4C's answer: "question" over the words, "image" over the regions and of M4C
            "ocr" over the tokens, which are listed under "ocr_tokens".

        Raises:
            ValueError: If pictures and questions do not fit, a picture cannot be read, a question has no words, or M4C
                is not given the text in a picture.
        """
        if question is None:
            if image is None or (isinstance(image, Sequence) and not len(image)):
                raise ValueError("give an image and a question, or dicts with both")
            return super().__call__(image, **kwargs)
        return super().__call__(_paired(image, question, ocr_tokens, ocr_boxes), **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self, top_k: int | None = None, output_attentions: bool | None = None, text_reader: Any = None
    ) -> tuple[dict, dict, dict]:
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k is {top_k!r}; it must be a number of at least 1")
        forward = {"top_k": top_k, "output_attentions": output_attentions}
        given = {name: value for name, value in forward.items() if value is not None}
        return {} if text_reader is None else {"text_reader": text_reader}, given, {}

    def preprocess(self, inputs: Any, text_reader: Any = None) -> dict[str, Any]:  # type: ignore[override]
        """{"image", "question"} and the text in the picture -> the model's inputs of one question."""
        if not isinstance(inputs, Mapping) or not {"image", "question"} <= set(inputs):
            raise ValueError('give an image and a question, or dicts {"image": ..., "question": ...}')
        if not isinstance(inputs["question"], str):
            raise ValueError(f"a question must be a string, not {inputs['question']!r:.200}")
        picture = opened_picture(inputs["image"])
        text = self._text_in(picture, inputs, text_reader)
        encoded = self.processor(text=inputs["question"], images=[picture], **text)
        # A tuple tells the tokens of one picture from the list that a batch makes of several.
        return {**encoded, "ocr_tokens": tuple(encoded.ocr_tokens[0])} if self.reads else dict(encoded)

    def _text_in(self, picture: Image.Image, inputs: Mapping[str, Any], text_reader: Any) -> dict[str, Any]:
        """The text in a picture, as M4C's processor takes it; nothing for MAC."""
        tokens = inputs.get("ocr_tokens")
        if not self.reads:
            if tokens is not None or text_reader is not None:
                raise ValueError("MAC reads no text in pictures; leave ocr_tokens and text_reader out, or use an M4C")
            return {}
        if tokens is None and text_reader is None:
            raise ValueError(
                "M4C reads the text in the picture, which has to be given: ocr_tokens and ocr_boxes ([] for a picture "
                "without text), or a text_reader (with the vl_alignment package: build_text_reader().read)"
            )
        if tokens is None:
            found = text_reader(picture)
            parts = ("tokens", "boxes", "confidences")
            read = found if isinstance(found, Mapping) else {part: getattr(found, part, None) for part in parts}
            given = {f"ocr_{part}": read.get(part) for part in parts}
        else:
            given = {"ocr_tokens": tokens, "ocr_boxes": inputs.get("ocr_boxes")}
        if not isinstance(given["ocr_tokens"], (list, tuple)):
            raise ValueError(f"ocr_tokens must be a list of words, not {given['ocr_tokens']!r:.200}")
        # The processor takes those of several pictures.
        return {name: None if values is None else [values] for name, values in given.items()}

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, Any], top_k: int = 5, output_attentions: bool = False
    ) -> dict[str, Any]:
        inputs = dict(model_inputs)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        inputs["attention_mask"] = inputs["attention_mask"].bool()
        return {"found": (self._read if self.reads else self._reason)(inputs, top_k, output_attentions)}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """The answers of one question, the best first."""
        found = model_outputs["found"]
        found = found[0] if isinstance(found, list) else found  # a list unless a batch was taken apart
        return found["answers"]

    def _reason(self, inputs: dict[str, Any], top_k: int, output_attentions: bool) -> list[dict[str, Any]]:
        """MAC's answers to each question."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        knowledge = self.model.encode_images(pixel_values=inputs["pixel_values"])
        lengths, names = mask.sum(dim=1), self.model.config.id2label
        found: list[dict[str, Any]] = [{} for _ in ids]
        # Questions of one length together: one of the cells attends to padding, and would answer otherwise beside it.
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().flatten()
            output = self.model.answer(
                knowledge[rows], ids[rows, :length], mask[rows, :length], output_attentions=output_attentions
            )
            scores, numbers = output.logits.softmax(dim=-1).topk(min(top_k, output.logits.shape[1]))
            for place, row in enumerate(rows.tolist()):
                answers = [
                    {"answer": names[number], "score": score}
                    for number, score in zip(numbers[place].tolist(), scores[place].tolist(), strict=True)
                ]
                if output_attentions:
                    image = output.image_attentions[place]
                    answers[0]["attention"] = {
                        "words": self.processor.tokenizer.convert_ids_to_tokens(ids[row, :length]),
                        "grid": grid_shape(image.shape[1]),
                        "question": output.question_attentions[place].tolist(),
                        "image": image.tolist(),
                    }
                found[row] = {"answers": answers}
        return found

    def _read(self, inputs: dict[str, Any], top_k: int, output_attentions: bool) -> list[dict[str, Any]]:
        """M4C's answers to each question: that of the greedy search, then others that beams have found."""
        tokens = inputs.pop("ocr_tokens")
        tokens = tokens if isinstance(tokens, list) else [tokens]
        entities = self.model.model.embed(**inputs)
        searches = [self.model.decode(entities)]
        if top_k > 1:
            beams = min(top_k, self.model.config.num_labels)
            settings = {"num_beams": beams, "length_penalty": 0.0, "num_return_sequences": beams}
            searches.append(self.model.decode(entities, **settings))
        found: list[dict[str, Any]] = [{"answers": []} for _ in tokens]
        for search in searches:
            answers = self.model.answer_words(search.sequences, tokens, inputs["ocr_boxes"])
            for number, (answer, score) in enumerate(zip(answers, search.sequences_scores.exp().tolist(), strict=True)):
                listed = found[number * len(tokens) // len(answers)]["answers"]
                if len(listed) < top_k and answer.text not in [other["answer"] for other in listed]:
                    sources = [_source(word) for word in answer.words]
                    listed.append({"answer": answer.text, "score": score, "sources": sources})
        if output_attentions:
            for row, attention in enumerate(self._reading(inputs, entities, searches[0].sequences, tokens)):
                found[row]["answers"][0]["attention"] = attention
        return found

    def _reading(
        self, inputs: dict[str, Any], entities: Any, sequences: Tensor, tokens: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """What each word of M4C's answers [B, T] looks at: the mean over layers and heads."""
        numbers = self.model.config.label2id
        fed = F.pad(sequences[:, :-1], (1, 0), value=numbers["<s>"])
        output = self.model.answer(entities, fed, output_attentions=True)
        steps = sequences.shape[1]
        weights = torch.stack([layer.float().mean(dim=1) for layer in output.attentions]).mean(dim=0)[:, -steps:]
        begin, end = inputs["input_ids"].shape[1], entities.first_ocr_token
        wordless = (numbers["<pad>"], numbers["<s>"])
        maps = []
        for row, answer in enumerate(sequences.tolist()):
            answer = answer[: answer.index(numbers["</s>"])] if numbers["</s>"] in answer else answer
            own = weights[row, [step for step, word in enumerate(answer) if word not in wordless]]
            ids, boxes = inputs["input_ids"][row][inputs["attention_mask"][row]], inputs["ocr_boxes"][row].tolist()
            maps.append(
                {
                    "words": self.processor.tokenizer.convert_ids_to_tokens(ids),
                    "grid": grid_shape(end - begin),
                    "question": own[:, : len(ids)].tolist(),
                    "image": own[:, begin:end].tolist(),
                    "ocr": own[:, end : end + len(tokens[row])].tolist(),
                    "ocr_tokens": [
                        {"token": slot, "word": word, "box": _rounded(boxes[slot])}
                        for slot, word in enumerate(tokens[row])
                    ],
                }
            )
        return maps


def _paired(image: Any, question: Any, ocr_tokens: Any, ocr_boxes: Any) -> dict[str, Any] | list[dict[str, Any]]:
    """One dict for each question about a picture; a list of them where either is a list."""
    images = list(image) if isinstance(image, (list, tuple)) else None
    questions = list(question) if isinstance(question, (list, tuple)) else None
    count = max(len(images or ()), len(questions or ())) if (images, questions) != (None, None) else 1
    text = {"ocr_tokens": ocr_tokens, "ocr_boxes": ocr_boxes}
    for name, several in (("images", images), ("questions", questions)):
        if several is not None and len(several) != count:
            raise ValueError(f"there are {len(several)} {name} for {count}; give one of each, or a single one for all")
    if count == 0:
        raise ValueError("there are no images and questions; give one at least")
    for name, values in text.items():
        if images is not None and values is not None and len(values) != count:
            raise ValueError(f"{name} of {len(values)} pictures are given for {count} pictures; give a list of each")
    items = [
        {
            "image": image if images is None else images[row],
            "question": question if questions is None else questions[row],
            **{name: values if images is None else values[row] for name, values in text.items() if values is not None},
        }
        for row in range(count)
    ]
    return items[0] if images is None and questions is None else items


def _source(word: Any) -> dict[str, Any]:
    """Where a word of M4C's answer comes from."""
    copied = {} if word.token is None else {"token": word.token, "box": _rounded(word.box)}
    return {"word": word.word, "source": word.source, **copied}


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(edge, _BOX_DIGITS) for edge in box]

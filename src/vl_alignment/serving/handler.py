"""Answers the requests of an Inference Endpoint: pictures and texts in, JSON out, for whichever model lies beside it.

The file travels to the Hub as `handler.py` and stands alone. Nothing in a request is opened: pictures are content
(base64 or a data URL), never addresses or paths. Every refusal is an answer, {"error", "kind"}.
"""

import base64
import binascii
import contextlib
import io
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import pipeline

__all__ = ["EndpointHandler"]

logger = logging.getLogger(__name__)

# What one request may hold.
MAX_REQUEST_CHARACTERS = 24_000_000  # of all its strings; a number counts as one or two
MAX_INPUTS = 16
MAX_TEXTS = 100  # for one picture
MAX_TEXT_CHARACTERS = 1_000
MAX_IMAGE_PIXELS = 4096 * 4096  # about 50 MB once it is decoded
MAX_OCR_TOKENS = 500
MAX_ANSWERS = 100
MAX_DRAWN_IMAGES = 16  # of all prompts together
MAX_ERROR_CHARACTERS = 500
# The model answers one request at a time, whatever number of threads a server has.
MAX_WAITING = 16
MAX_SECONDS = 60  # until its turn, and again until the last input of a list is begun

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # no other decoder sees what strangers send


class RequestError(ValueError):
    """A request that is refused.

    Args:
        kind: "request" (not of the form that is read), "limit" (too much of something), "busy" (too many at once: the
            same again later), "parameters", "image" or "text".
        message: What is wrong and how to mend it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class EndpointHandler:
    """Answers requests with the model in a folder.

    Args:
        path: The folder of the repository; by default the one that this file is in.

    Raises:
        ValueError: If the folder holds no model with one of this project's pipelines.

    Example:
        >>> handler = EndpointHandler("/repository")  # doctest: +SKIP
        >>> handler({"inputs": {"image": content, "question": "what color is it?"}})  # doctest: +SKIP
        [{'answer': 'red', 'score': 0.97}]
    """

    def __init__(self, path: str = "") -> None:
        folder = Path(path or Path(__file__).parent)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            tasks = list(config.get("custom_pipelines") or {})
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(f"{folder}: no config.json of a model can be read ({error})") from error
        answers: dict[str, tuple[Callable, set[str]]] = {
            "image-text-matching": (self._match, {"candidate_labels", "hypothesis_template", "output_attentions"}),
            "clevr-question-answering": (self._ask, {"top_k", "output_attentions"}),
            "text-visual-question-answering": (self._ask, {"top_k", "output_attentions"}),
            "text-to-image-attngan": (self._draw, {"num_images", "seed"}),
        }
        self.task = next((task for task in tasks if task in answers), None)
        if self.task is None:
            raise ValueError(f"{folder}: config.json names no pipeline of {', '.join(answers)}, but {tasks}")
        self._answer, self._parameters = answers[self.task]
        self.pipeline = pipeline(self.task, model=str(folder), trust_remote_code=True)
        self._places, self._turn = self.queue()

    def __call__(self, data: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """Answer one request.

        Args:
            data: {"inputs", "parameters"}, where an input is, by the model:

                - SCAN: {"image", "text": string or list} or {"image", "candidate_labels": list}, or the image alone
                  beside `parameters["candidate_labels"]`; `hypothesis_template` ("{}"), `output_attentions`;
                - MAC: {"image", "question"}; `top_k` (5), `output_attentions`;
                - M4C: the same with "ocr_tokens" and "ocr_boxes", the words in the picture;
                - AttnGAN: a caption; `num_images` (1), `seed` (0).

                Or a list of inputs. An image is base64, a data URL, bytes or a PIL image.

        Returns:
            For each input what the pipeline answers (for labels {"label", "score"}, whose scores sum to one; for a
            caption {"image": a PNG in base64} of each picture), or {"error", "kind"}, where the kind is one of
            `RequestError`, "input" (what the model refuses) or "internal". A list of inputs has a list of these, each
            of which may be an error by itself.
        """
        try:
            inputs, parameters = _request(data)
            self._check_parameters(parameters, len(inputs) if isinstance(inputs, list) else 1)
            with self._one_at_a_time():
                if not isinstance(inputs, list):
                    return self._answered(inputs, parameters)
                deadline = time.monotonic() + MAX_SECONDS
                return [self._answered(one, parameters, deadline) for one in inputs]
        except RequestError as error:
            return _refusal(error, error.kind)

    @staticmethod
    def queue() -> tuple[threading.BoundedSemaphore, threading.Lock]:
        """Return the places of a request that is answered and of those that wait, and whose turn it is."""
        return threading.BoundedSemaphore(1 + MAX_WAITING), threading.Lock()

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise RequestError("busy", f"{MAX_WAITING} requests wait already; try again later")
        try:
            if not self._turn.acquire(timeout=MAX_SECONDS):
                raise RequestError("busy", f"no turn came within {MAX_SECONDS} seconds; try again later")
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def _answered(self, one: Any, parameters: dict[str, Any], deadline: float = math.inf) -> Any:
        """The answer to one input, or why there is none."""
        try:
            if time.monotonic() > deadline:
                raise RequestError("limit", f"the inputs before took {MAX_SECONDS} seconds; send fewer at once")
            return self._answer(one, parameters)
        except RequestError as error:
            return _refusal(error, error.kind)
        except ValueError as error:  # of the pipeline or the processor, which say how to mend it
            return _refusal(error, "input")
        except Exception as error:  # whatever one input does, the next one is answered
            logger.exception("an input could not be answered")
            return _refusal(f"the model failed on this input ({type(error).__name__})", "internal")

    def _check_parameters(self, parameters: dict[str, Any], inputs: int) -> None:
        unknown = sorted(set(parameters) - self._parameters)
        if unknown:
            known = ", ".join(sorted(self._parameters))
            raise RequestError("parameters", f"there is no parameter {unknown[0]!r:.100}; there are {known}")
        for name, low, high in (("top_k", 1, MAX_ANSWERS), ("num_images", 1, MAX_DRAWN_IMAGES), ("seed", 0, 2**63 - 1)):
            value = parameters.get(name)
            if value is not None and (type(value) is not int or not low <= value <= high):
                raise RequestError("parameters", f"{name} is {value!r:.100}; it must be a number from {low} to {high}")
        if not isinstance(parameters.get("output_attentions", False), bool):
            raise RequestError("parameters", "output_attentions must be true or false")
        drawn = inputs * parameters.get("num_images", 1)
        if "num_images" in self._parameters and drawn > MAX_DRAWN_IMAGES:
            raise RequestError("limit", f"{drawn} pictures are asked for; at most {MAX_DRAWN_IMAGES} are drawn at once")

    def _match(self, one: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """SCAN: texts or labels for a picture."""
        given = _fields(one if isinstance(one, Mapping) else {"image": one}, {"image", "text", "candidate_labels"})
        labels, text = given.get("candidate_labels", parameters.get("candidate_labels")), given.get("text")
        if (labels is None) == (text is None):
            raise RequestError("text", "give either text or candidate_labels for the image")
        options = {"output_attentions": parameters.get("output_attentions", False)}
        if labels is None:
            return self.pipeline(_picture(given), _texts(text), **options)
        template = _text(parameters.get("hypothesis_template", "{}"))
        if "{}" not in template:
            raise RequestError("parameters", "hypothesis_template must hold {} where the label goes")
        label_of = {template.replace("{}", label): label for label in _texts(labels)}
        for sentence in label_of:
            _text(sentence)
        found = self.pipeline(_picture(given), list(label_of), **options)
        shares = torch.tensor([entry["score"] for entry in found]).softmax(dim=0).tolist()
        return [
            {"label": label_of[entry.pop("text")], **entry, "score": share}
            for entry, share in zip(found, shares, strict=True)
        ]

    def _ask(self, one: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """MAC and M4C: a question about a picture."""
        given = _fields(one, {"image", "question", "ocr_tokens", "ocr_boxes"})
        question, ocr = _text(given.get("question")), {}
        for name in ("ocr_tokens", "ocr_boxes"):
            if given.get(name) is not None:
                ocr[name] = _listed(given[name], name, MAX_OCR_TOKENS, least=0)
        for token in ocr.get("ocr_tokens", ()):
            _text(token)
        for box in ocr.get("ocr_boxes", ()):
            if not isinstance(box, list) or len(box) != 4 or not all(type(edge) in (int, float) for edge in box):
                raise RequestError("request", "each of ocr_boxes must be [x0, y0, x1, y1], in [0, 1]")
        return self.pipeline(_picture(given), question, **ocr, **parameters)

    def _draw(self, one: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """AttnGAN: pictures of a caption."""
        drawn = []
        for picture in self.pipeline(_text(one), **parameters):
            content = io.BytesIO()
            picture.save(content, format="PNG")
            drawn.append({"image": base64.b64encode(content.getvalue()).decode("ascii")})
        return drawn


def _request(data: Any) -> tuple[Any, dict[str, Any]]:
    """The inputs, one or a list of them, and the parameters."""
    if not isinstance(data, Mapping) or "inputs" not in data:
        raise RequestError("request", 'a request is an object {"inputs": ..., "parameters": {...}}')
    _check_size(data)
    inputs, parameters = data["inputs"], data.get("parameters")
    if not isinstance(parameters, Mapping | None):
        raise RequestError("parameters", "parameters must be an object of names and values")
    if "question" in data and not isinstance(inputs, (Mapping, list)):  # as the Hub's client asks about a picture
        inputs = {"image": inputs, "question": data["question"]}
    if isinstance(inputs, list):
        _listed(inputs, "inputs", MAX_INPUTS)
    return inputs, {name: value for name, value in (parameters or {}).items() if value is not None}


def _check_size(data: Any) -> None:
    """Refuse a request that holds too much, whatever its form."""
    size, open_values = 0, [data]
    while open_values:
        value = open_values.pop()
        size += len(value) if isinstance(value, (str, bytes, list, tuple, Mapping)) else 1
        if size > MAX_REQUEST_CHARACTERS:
            raise RequestError("limit", f"the request holds more than {MAX_REQUEST_CHARACTERS} characters; send less")
        if isinstance(value, Mapping):
            open_values.extend(value.keys())
            open_values.extend(value.values())
        elif isinstance(value, (list, tuple)):
            open_values.extend(value)


def _fields(one: Any, known: set[str]) -> Mapping[str, Any]:
    """An input with a picture, if it has no other fields than those that are read."""
    if not isinstance(one, Mapping) or "image" not in one:
        raise RequestError("request", f"an input is an object with image and, of {sorted(known)}, what is asked")
    unknown = sorted(map(str, set(one) - known))
    if unknown:
        raise RequestError("request", f"an input has no field {unknown[0]!r:.100}; there are {sorted(known)}")
    return one


def _listed(values: Any, name: str, most: int, least: int = 1) -> list[Any]:
    if not isinstance(values, list):
        raise RequestError("request", f"{name} must be a list")
    if not least <= len(values) <= most:
        raise RequestError("limit", f"there are {len(values)} {name}; give {least} to {most}")
    return values


def _texts(given: Any) -> list[str]:
    """One text or several."""
    texts = [given] if isinstance(given, str) else _listed(given, "texts", MAX_TEXTS)
    return [_text(text) for text in texts]


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise RequestError("text", f"a text is missing, or no string but {type(text).__name__}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise RequestError("limit", f"a text has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are read")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RequestError("text", "a text holds half of a character (a lone surrogate); send Unicode")
    return text


def _picture(given: Mapping[str, Any]) -> Image.Image:
    """The picture of an input in RGB, turned as its camera says; its size is checked before it is decoded."""
    image = given["image"]
    try:
        if not isinstance(image, Image.Image):
            image = Image.open(io.BytesIO(_content(image)), formats=IMAGE_FORMATS)
        pixels = image.width * image.height
        if pixels > MAX_IMAGE_PIXELS:
            size = f"{image.width} x {image.height}"
            raise RequestError("limit", f"the picture has {size} pixels; resize it to {MAX_IMAGE_PIXELS} or fewer")
        return ImageOps.exif_transpose(image).convert("RGB")
    except RequestError:
        raise
    except Image.DecompressionBombError as error:
        raise RequestError("limit", f"the picture is too large: {error}") from error
    # What Pillow's decoders raise for damaged files has no narrower base.
    except Exception as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise RequestError("image", f"the picture cannot be read ({error}); give a complete {formats}") from error


def _content(image: Any) -> bytes:
    """The bytes of a picture in base64 or in a data URL."""
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise RequestError("image", f"an image is base64 or a data URL, not {type(image).__name__}")
    if "://" in image[:20]:
        raise RequestError("image", "addresses are not opened; send the picture itself, in base64")
    if image.startswith("data:"):
        head, _, image = image.partition(",")
        if not head.startswith("data:image/") or not head.endswith(";base64"):
            raise RequestError("image", f"{head!r:.100} is no data URL of an image in base64")
    try:
        return base64.b64decode("".join(image.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = f"the image is neither base64 nor a data URL ({error}); paths are not opened"
        raise RequestError("image", reason) from error


def _refusal(error: Any, kind: str) -> dict[str, str]:
    message = str(error)
    cut = message if len(message) <= MAX_ERROR_CHARACTERS else f"{message[:MAX_ERROR_CHARACTERS]}..."
    return {"error": cut.encode("utf-8", "replace").decode("utf-8"), "kind": kind}

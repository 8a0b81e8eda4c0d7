"""Processor of M4C: pictures, questions and the text in the pictures -> the model's inputs."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image

from .errors import ConfigurationError, DataError
from .hashed_word_vectors import HashedWordVectors, WordVectors
from .phoc import PHOC_SIZE, phoc
from .processing_base import AlignmentProcessor, checked_regions

__all__ = ["AbsentWordVectors", "M4CInputs", "M4CProcessor", "TextReader"]

logger = logging.getLogger(__name__)

# A box may reach out of the picture, and is clipped; this far out it was never divided by the picture's size.
_FARTHEST = 2.0


class TextReader(Protocol):
    """What reads the text in a picture: an OCR plug-in."""

    def read(self, image: Any) -> Any:
        """Read an RGB picture (PIL); gives `tokens`, `boxes` [n, 4] in [0, 1] and `confidences` [n]."""


class M4CInputs(BatchFeature):
    """The model's inputs, and beside them the words that the model takes only by number.

    Attributes:
        ocr_tokens: The tokens of each picture that fill its slots, in the order of the slots.
    """

    ocr_tokens: list[list[str]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "ocr_tokens": self.ocr_tokens}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.ocr_tokens = state["ocr_tokens"]


class AbsentWordVectors:
    """Stands for word vectors that do not travel with a processor: their name and size are known, they are not."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def vectors(self, words: list[str]) -> Tensor:
        """Raise a `ConfigurationError` that says how to bring them."""
        raise ConfigurationError(
            f"this processor needs the word vectors {self.name!r} of size {self.size}, which do not travel with "
            "it; give them with word_vectors=... when it is loaded or called (see "
            "vl_alignment.data.word_vectors.build_word_vectors)"
        )


class M4CProcessor(AlignmentProcessor):
    """Turns questions, pictures and the text in them into M4C's inputs.

    Several questions about each picture stand together: those about the first picture first, as many about each.

    Args:
        image_processor: Of the model's vision backbone; see `AlignmentProcessor`.
        tokenizer: Of the text encoder, or a word tokenizer.
        word_vectors: Of the OCR tokens: a plug-in (`WordVectors`), of which name and size are saved with the processor;
            "hashed_ngrams", the default, which needs no file and travels; or None for a model without any.
        max_ocr_tokens: Tokens of a picture at most; more are kept by confidence.
        max_question_tokens: Pieces of a question at most, its marks included; what is longer is cut.
        spellings: Whether the tokens' PHOC are given; not to a model whose `phoc_size` is 0.
        question_spellings: Whether the PHOC of question words that the tokenizer does not know are given, to a model
            with `question_spellings`; the tokenizer is then one of the library's fast ones.

    Attributes:
        counts: What had to be mended since the processor was made: `cut_questions`, `empty_tokens` (dropped),
            `clipped_boxes`, `surplus_tokens` (over the limit, dropped); and `pictures_without_text`.

    Raises:
        ConfigurationError: If a limit is below what can be used, or `word_vectors` is nothing of the above.

    Example:
        >>> inputs = processor(text=["what is written on the sign?"], images=[picture], reader=reader)  # doctest: +SKIP
        >>> found = model.generate(**inputs, ocr_tokens=inputs.ocr_tokens)  # doctest: +SKIP
        >>> [(word.word, word.source) for word in found.answers[0].words]  # doctest: +SKIP
    """

    text_name = "question"

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        word_vectors: Any = HashedWordVectors.kind,
        max_ocr_tokens: int = 50,
        max_question_tokens: int = 20,
        spellings: bool = True,
        question_spellings: bool = False,
        **kwargs: Any,
    ) -> None:
        if max_ocr_tokens < 1 or max_question_tokens < 3:
            raise ConfigurationError(
                f"max_ocr_tokens is {max_ocr_tokens} and max_question_tokens {max_question_tokens}; they must be at "
                "least 1 and 3"
            )
        self.max_ocr_tokens, self.max_question_tokens = max_ocr_tokens, max_question_tokens
        self.spellings, self.question_spellings = spellings, question_spellings
        self.word_vectors = _word_vectors(word_vectors)
        self.counts: Counter[str] = Counter()
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, word_vectors: WordVectors | None = None, **kwargs: Any) -> Any:
        """Load a processor, and its word vectors where they do not travel with it.

        Args:
            args: As of `ProcessorMixin.from_pretrained`.
            word_vectors: The plug-in that the processor was saved with.
            kwargs: As of `ProcessorMixin.from_pretrained`.

        Raises:
            ConfigurationError: If these are other word vectors than the processor was saved with.
        """
        processor = super().from_pretrained(*args, **kwargs)
        if word_vectors is not None:
            processor.word_vectors = processor._same_word_vectors(word_vectors)
        return processor

    def to_dict(self) -> dict[str, Any]:
        """What is saved: of a plug-in of word vectors its name and size."""
        # Word vectors may be gigabytes, which the library would copy in order to leave them out.
        vectors, self.word_vectors = self.word_vectors, None
        try:
            settings = super().to_dict()
        finally:
            self.word_vectors = vectors
        if isinstance(vectors, HashedWordVectors):
            settings["word_vectors"] = vectors.to_dict()
        elif vectors is not None:
            settings["word_vectors"] = {"name": vectors.name, "size": vectors.size}
        return settings

    def __call__(  # type: ignore[override]
        self,
        text: str | list[str] | None = None,
        images: Any = None,
        region_features: Any = None,
        region_boxes: Any = None,
        ocr_tokens: Sequence[Any] | None = None,
        ocr_boxes: Any = None,
        ocr_confidences: Any = None,
        ocr_features: Any = None,
        reader: TextReader | None = None,
        word_vectors: WordVectors | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> M4CInputs:
        """Prepare questions, pictures and their text.

        Args:
            text: One question or several, as many about each picture.
            images: One picture or several (PIL, arrays, paths), for a model with a backbone; or
            region_features: Arrays [O, size] a picture, of one size; with as many cells each they may be a square grid.
            region_boxes: [O, 4] a picture, of the region features that are not a grid.
            ocr_tokens: The words in each picture, [] for a picture without text; or give a `reader`. Of a single
                picture the words as they are.
            ocr_boxes: [n, 4] a picture, [x0, y0, x1, y1] in [0, 1]; clipped to the picture.
            ocr_confidences: [n] a picture; without them the first tokens are kept.
            ocr_features: [n, size] a picture: the tokens' own region features, where they are not pooled from a grid.
            reader: Reads the words in `images`.
            word_vectors: The plug-in, where the processor was loaded without it.
            return_tensors: Kept for the habit; only "pt".
            kwargs: Passed to the image processor.

        Returns:
            input_ids and attention_mask [B, L], and question_phoc [B, L, 604] with `question_spellings`; pixel_values
            [I, 3, H, W], or region_features [I, O, size],
            region_mask [I, O] and region_boxes [I, O, 4]; of the tokens, padded to the most in a picture, ocr_mask
            [I, R], ocr_boxes [I, R, 4], ocr_word_vectors [I, R, W], ocr_phoc [I, R, 604] and ocr_features. Its
            attribute `ocr_tokens` holds the words of the slots.

        Raises:
            DataError: If nothing is given, a question has no words, a picture cannot be read, features or text are of
                another form, or pictures are given without their text.
            ConfigurationError: If word vectors are needed that are not there, or are others than the processor's.
        """
        pictures = None if images is None else [_opened(image, row) for row, image in enumerate(_listed(images))]
        result = M4CInputs()
        if text is not None or pictures is not None:
            result.update(super().__call__(text, pictures, None, return_tensors, **kwargs))
        if region_features is not None:
            result.update(self._given_regions(checked_regions(region_features), region_boxes))
        if not result:
            raise DataError("give text, images or region_features, none of them empty")
        ocr = {"ocr_boxes": ocr_boxes, "ocr_confidences": ocr_confidences, "ocr_features": ocr_features}
        number = next((len(result[name]) for name in ("pixel_values", "region_features") if name in result), None)
        if number is None:
            if ocr_tokens is not None or reader is not None:
                raise DataError("the text in pictures is given without the pictures; give images or region_features")
            return result
        if reader is not None:
            if ocr_tokens is not None or pictures is None:
                raise DataError("a reader reads the text in images: give images, and no ocr_tokens")
            read = [reader.read(_as_picture(picture)) for picture in pictures]
            ocr_tokens = [found.tokens for found in read]
            ocr.update(ocr_boxes=[found.boxes for found in read], ocr_confidences=[found.confidences for found in read])
        elif ocr_tokens is None:
            raise DataError(
                "the text in the pictures is missing: give ocr_tokens and ocr_boxes ([] for a picture without text), "
                "or a reader"
            )
        elif number == 1 and (not len(ocr_tokens) or isinstance(ocr_tokens[0], str)):
            ocr_tokens = [ocr_tokens]
            ocr = {name: None if values is None else [values] for name, values in ocr.items()}
        if len(ocr_tokens) != number:
            raise DataError(f"the text of {len(ocr_tokens)} pictures is given for {number} pictures")
        tensors, result.ocr_tokens = self.text_inputs(ocr_tokens, **ocr, word_vectors=word_vectors)
        result.update(tensors)
        return result

    def text_inputs(
        self,
        ocr_tokens: Sequence[Sequence[str]],
        ocr_boxes: Any = None,
        ocr_confidences: Any = None,
        ocr_features: Any = None,
        *,
        word_vectors: WordVectors | None = None,
    ) -> tuple[dict[str, Tensor], list[list[str]]]:
        """Make the inputs of the text in I pictures; arguments and errors as of a call.

        Returns:
            The tensors whose names begin with `ocr_`, and the words of the slots of each picture.
        """
        given = {"ocr_boxes": ocr_boxes, "ocr_confidences": ocr_confidences, "ocr_features": ocr_features}
        for name, values in given.items():
            if values is not None and len(values) != len(ocr_tokens):
                raise DataError(f"{name} of {len(values)} pictures beside the ocr_tokens of {len(ocr_tokens)}")
        words, boxes, features = [], [], []
        for row, tokens in enumerate(ocr_tokens):
            own = {name: None if values is None else values[row] for name, values in given.items()}
            kept = self._kept_tokens(tokens, own["ocr_confidences"], row)
            words.append([tokens[number].strip() for number in kept])
            boxes.append(self._kept_boxes(len(tokens), own["ocr_boxes"], kept, row))
            if ocr_features is not None:
                features.append(_rows(own["ocr_features"], len(tokens), "ocr_features", row)[kept])
        self.counts["pictures_without_text"] += sum(not tokens for tokens in words)
        lengths = torch.tensor([len(tokens) for tokens in words], dtype=torch.long)
        slots = max(1, int(lengths.max()))  # one at least, so that all inputs have their usual shapes
        result = {"ocr_mask": torch.arange(slots) < lengths.unsqueeze(1), "ocr_boxes": _padded(boxes, slots, 4)}
        flat = [word for tokens in words for word in tokens]
        vectors = self.word_vectors if word_vectors is None else self._same_word_vectors(word_vectors)
        if vectors is not None:
            rows = _vectors_of(flat, vectors).split(lengths.tolist())
            result["ocr_word_vectors"] = _padded(rows, slots, vectors.size)
        if self.spellings:
            result["ocr_phoc"] = _padded(phoc(flat).split(lengths.tolist()), slots, PHOC_SIZE)
        if ocr_features is not None:
            sizes = sorted({feature.shape[1] for feature in features if feature.shape[1]})
            if len(sizes) > 1:
                raise DataError(f"ocr_features of sizes {sizes}; all must have one")
            result["ocr_features"] = _padded(features, slots, sizes[0] if sizes else 0)
        return result, words

    def _kept_tokens(self, tokens: Sequence[str], confidences: Any, row: int) -> list[int]:
        """Numbers of a picture's tokens that fill its slots, in their order."""
        for token in tokens:
            if not isinstance(token, str):
                raise DataError(f"the OCR token {token!r} is no text", record=row)
        kept = [number for number, token in enumerate(tokens) if token.strip()]
        self._count("empty_tokens", len(tokens) - len(kept), "OCR tokens without a character are left out")
        surplus = len(kept) - self.max_ocr_tokens
        if confidences is not None:
            sure = torch.as_tensor(confidences, dtype=torch.float64)
            if sure.shape != (len(tokens),) or not torch.isfinite(sure).all():
                raise DataError(f"ocr_confidences must be {len(tokens)} finite numbers, one a token", record=row)
            kept.sort(key=lambda number: -float(sure[number]))  # stable: of equally sure ones the first
        if surplus > 0:
            how = "the first" if confidences is None else "the most confident"
            self._count("surplus_tokens", surplus, f"of more than {self.max_ocr_tokens} OCR tokens {how} are kept")
        return sorted(kept[: self.max_ocr_tokens])

    def _kept_boxes(self, number: int, given: Any, kept: list[int], row: int) -> Tensor:
        """[kept, 4] float32 within the picture."""
        if given is None:
            if number:
                raise DataError("ocr_tokens without ocr_boxes; give [x0, y0, x1, y1] in [0, 1] of each", record=row)
            return torch.zeros(0, 4)
        boxes = _rows(given, number, "ocr_boxes", row)[kept]
        if number and boxes.shape[1] != 4:
            raise DataError(f"ocr_boxes must be [x0, y0, x1, y1], not of {boxes.shape[1]} numbers", record=row)
        if not number:
            return torch.zeros(0, 4)
        if len(boxes) and (boxes - 0.5).abs().max() > _FARTHEST - 0.5:
            raise DataError(
                f"ocr_boxes up to {float(boxes.abs().max()):g}; divide them by the picture's width and height",
                record=row,
            )
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise DataError("an OCR box ends before it begins; boxes are [x0, y0, x1, y1]", record=row)
        clipped = boxes.clamp(0, 1)
        outside = int((clipped != boxes).any(dim=1).sum())
        self._count("clipped_boxes", outside, "OCR boxes that reach out of the picture are clipped")
        return clipped

    def _given_regions(self, pictures: list[Tensor], boxes: Any) -> dict[str, Tensor]:
        lengths = torch.tensor([len(features) for features in pictures])
        slots = int(lengths.max())
        if boxes is None:
            if int(lengths.min()) < slots:
                raise DataError(
                    "pictures have different numbers of regions; give their region_boxes, or cells of a grid"
                )
            return {"region_features": torch.stack(pictures)}
        if len(boxes) != len(pictures):
            raise DataError(f"region_boxes of {len(boxes)} pictures for {len(pictures)} pictures")
        places = [_rows(box, len(pictures[row]), "region_boxes", row) for row, box in enumerate(boxes)]
        return {
            "region_features": _padded(pictures, slots, pictures[0].shape[1]),
            "region_boxes": _padded(places, slots, 4),
            "region_mask": torch.arange(slots) < lengths.unsqueeze(1),
        }

    def _tokenize(self, texts: list[str]) -> dict[str, Any]:
        settings: dict[str, Any] = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        settings["return_attention_mask"] = True  # whatever the tokenizer's own files say
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_question_tokens, **settings)
        # Without limits last: a tokenizer saves those of its last call in its files.
        longer = sum(len(ids) > self.max_question_tokens for ids in self.tokenizer(texts)["input_ids"])
        self._count("cut_questions", longer, f"questions of more than {self.max_question_tokens} pieces are cut")
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        marks = torch.tensor(sorted(special), dtype=torch.long)
        words = encoded["attention_mask"].bool() & ~torch.isin(encoded["input_ids"], marks)
        wordless = (~words.any(dim=1)).nonzero().flatten().tolist()
        if wordless:
            raise DataError(f"question {texts[wordless[0]]!r} has no words; leave it out", record=wordless[0])
        result = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        if self.question_spellings:
            result["question_phoc"] = torch.zeros(*encoded["input_ids"].shape, PHOC_SIZE)
            rows, places, words_there = self.unknown_words(texts)
            result["question_phoc"][rows, places] = phoc(words_there)
        return result

    def unknown_words(self, texts: Sequence[str]) -> tuple[list[int], list[int], list[str]]:
        """Find the words that the tokenizer does not know: for each its text, its place among the pieces, and itself.

        Raises:
            ConfigurationError: If the tokenizer cannot say where its pieces stand.
        """
        if not self.tokenizer.is_fast:
            raise ConfigurationError("question_spellings need a fast tokenizer, which knows where its pieces stand")
        encoded = self.tokenizer(list(texts), return_offsets_mapping=True)
        unknown = self.tokenizer.unk_token_id
        found = [
            (row, place, texts[row][begin:end])
            for row, (ids, spans) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
            for place, (piece, (begin, end)) in enumerate(zip(ids, spans, strict=True))
            if piece == unknown and place < self.max_question_tokens - 1  # the last place is the end's
        ]
        return [row for row, _, _ in found], [place for _, place, _ in found], [word for _, _, word in found]

    def _same_word_vectors(self, given: WordVectors) -> WordVectors:
        """The given plug-in, if it is that of this processor."""
        own = self.word_vectors
        if own is None or (own.name, own.size) != (given.name, given.size):
            needed = "none" if own is None else f"{own.name!r} of size {own.size}"
            raise ConfigurationError(
                f"these are the word vectors {given.name!r} of size {given.size}, the processor was made for {needed}; "
                "if they are the same under another name, give it with name=..."
            )
        return given

    def _count(self, kind: str, number: int, message: str) -> None:
        """Count, and warn of the first: a data set would repeat it thousands of times."""
        if number and not self.counts[kind]:
            logger.warning("%s (further ones are counted in processor.counts[%r])", message, kind)
        self.counts[kind] += number


def _word_vectors(given: Any) -> WordVectors | None:
    """The plug-in that an argument or a saved setting stands for."""
    if given is None or all(hasattr(given, name) for name in ("name", "size", "vectors")):
        return given
    if given == HashedWordVectors.kind:
        return HashedWordVectors()
    if isinstance(given, dict) and {"name", "size"} <= set(given):
        hashed = {"minimum", "maximum"} <= set(given)
        return HashedWordVectors.from_dict(given) if hashed else AbsentWordVectors(given["name"], given["size"])
    raise ConfigurationError(
        f"word_vectors is {given!r}; give a plug-in with name, size and vectors, {HashedWordVectors.kind!r}, or None"
    )


def _vectors_of(words: list[str], plugin: WordVectors) -> Tensor:
    """[n, W] float32 of all words of a batch at once."""
    if not words:
        return torch.zeros(0, plugin.size)
    vectors = torch.as_tensor(plugin.vectors(words), dtype=torch.float32)
    if vectors.shape != (len(words), plugin.size) or not torch.isfinite(vectors).all():
        shape = tuple(vectors.shape)
        raise DataError(
            f"word vectors {plugin.name!r}: {shape} for {len(words)} words of size {plugin.size}, or not finite"
        )
    return vectors


def _listed(images: Any) -> list[Any]:
    """The pictures one by one: one picture, several, or an array of several."""
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4:
        return list(images)
    return [images]


def _opened(image: Any, row: int) -> Any:
    """A picture in RGB, or an array as it is; a broken file is noticed here."""
    if isinstance(image, Path):
        image = str(image)
    if not isinstance(image, str) and hasattr(image, "ndim"):
        return image
    try:
        return load_image(image)
    # What Pillow's decoders raise for damaged files; a decompression bomb's error has no narrower base.
    except Exception as error:
        raise DataError(f"the picture cannot be read ({error})", record=row) from error


def _as_picture(image: Any) -> Any:
    return to_pil_image(image).convert("RGB") if hasattr(image, "ndim") else image


def _rows(values: Any, number: int, name: str, row: int) -> Tensor:
    """[number, size] float32 and finite, of one picture."""
    try:
        rows = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} are no rows of numbers ({error})", record=row) from error
    if not number and not rows.numel():
        return rows.reshape(0, rows.shape[1] if rows.dim() == 2 else 0)
    if rows.dim() != 2 or len(rows) != number:
        raise DataError(f"{name} of shape {list(rows.shape)}; {number} rows are needed", record=row)
    if not torch.isfinite(rows).all():
        raise DataError(f"{name} are not finite", record=row)
    return rows


def _padded(rows: Sequence[Tensor], slots: int, size: int) -> Tensor:
    """Rows [n, size] of each picture -> [I, slots, size], zeros at the end."""
    result = torch.zeros(len(rows), slots, size)
    for picture, values in enumerate(rows):
        if len(values):
            result[picture, : len(values)] = values
    return result

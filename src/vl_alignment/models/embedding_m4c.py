"""M4C's entities: question words by a BERT-like encoder, objects and OCR tokens by their features and boxes."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from .configuration_m4c import M4CConfig
from .errors import CheckpointError, ConfigurationError, DataError
from .vision import grid_boxes

__all__ = [
    "M4CEntities",
    "M4CPictures",
    "ObjectEmbedding",
    "OcrEmbedding",
    "OcrInputs",
    "PictureEmbedding",
    "PreviousAnswerEmbedding",
    "QuestionEncoder",
    "UniformLinear",
    "check_boxes",
    "check_shape",
    "first_text_layers",
    "load_text_encoder",
    "pool_regions",
    "square_side",
]

_SMALLEST_SIDE = 1e-4  # of a box, in parts of the picture: a line or a point is read from the cells it lies in


@dataclass
class M4CPictures:
    """What `M4CModel.encode_images` makes of I pictures, for any number of questions.

    Attributes:
        objects: [I, O, d].
        object_mask: [I, O], true where there is an object.
        ocr_tokens: [I, R, d].
        ocr_mask: [I, R], true where there is a token.
    """

    objects: Tensor
    object_mask: Tensor
    ocr_tokens: Tensor
    ocr_mask: Tensor


@dataclass
class M4CEntities:
    """The embedded entities of B questions, as the multimodal transformer receives them: words, objects, OCR tokens.

    Attributes:
        states: [B, E, d], where E = L + O + R.
        mask: [B, E], true where there is one.
        num_ocr_tokens: R, the number of OCR slots, which come last.
    """

    states: Tensor
    mask: Tensor
    num_ocr_tokens: int

    @property
    def first_ocr_token(self) -> int:
        """L + O, the position of the first OCR slot."""
        return self.states.shape[1] - self.num_ocr_tokens

    @property
    def ocr_tokens(self) -> Tensor:
        """[B, R, d]."""
        return self.states[:, self.first_ocr_token :]

    @property
    def ocr_mask(self) -> Tensor:
        """[B, R]."""
        return self.mask[:, self.first_ocr_token :]


class UniformLinear(nn.Linear):
    """A linear layer whose weight and bias start uniformly in +-1/sqrt(in_features), as torch's own do.

    The layer of a box needs that bias: without one the layer normalisation after it could not tell a small box from a
    large one in the same direction.

    Args:
        in_features: Numbers in.
        out_features: Numbers out.
        gain: What the starting weights are multiplied by.
        offset: What is added to the starting bias.
    """

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0, offset: float = 0.0) -> None:
        super().__init__(in_features, out_features)
        self.gain, self.offset = gain, offset


# Text


def first_text_layers(text_encoder: str, num_text_layers: int = 3) -> PreTrainedConfig:
    """The configuration of the first layers of a BERT-like checkpoint, for `M4CConfig.text_config`.

    Args:
        text_encoder: A folder, or a Hub repository id.
        num_text_layers: How many of its layers are kept.

    Raises:
        CheckpointError: If there is no such checkpoint.
        ConfigurationError: If it has fewer layers.
    """
    try:
        config = AutoConfig.from_pretrained(text_encoder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:500]
        raise CheckpointError(f"no text encoder can be read there: {reason}", path=text_encoder) from error
    layers = getattr(config, "num_hidden_layers", 0)
    if not 1 <= num_text_layers <= layers:
        raise ConfigurationError(f"num_text_layers is {num_text_layers}, but {text_encoder} has {layers} layers")
    config.num_hidden_layers = num_text_layers
    return config


def load_text_encoder(text_encoder: str, config: PreTrainedConfig) -> nn.Module:
    """The first layers of a checkpoint with their weights, on the CPU; the others are left out.

    Args:
        text_encoder: A folder, or a Hub repository id.
        config: Of `first_text_layers`.

    Raises:
        CheckpointError: If the weights cannot be read, or lack some of those layers'.
    """
    settings: dict[str, Any] = {"config": config, "output_loading_info": True}
    try:
        try:
            model, info = AutoModel.from_pretrained(text_encoder, add_pooling_layer=False, **settings)
        except TypeError:  # a class without a pooler
            model, info = AutoModel.from_pretrained(text_encoder, **settings)
    except Exception as error:  # what safetensors, torch and the Hub client raise has no common base
        reason = " ".join(str(error).split())[:500]
        raise CheckpointError(f"the text encoder cannot be loaded: {reason}", path=text_encoder) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"lacks {len(missing)} tensor(s) of the text encoder, first {missing[0]}", path=text_encoder
        )
    return model


def build_text_model(text_config: PreTrainedConfig) -> nn.Module:
    """A text encoder with fresh weights, without the pooling head where there is the choice."""
    try:
        return AutoModel.from_config(text_config, add_pooling_layer=False)
    except TypeError:
        return AutoModel.from_config(text_config)


class QuestionEncoder(nn.Module):
    """Word pieces [B, L], and the spelling of some of their words [B, L, P] -> question words [B, L, d]."""

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        text_config: Any = config.text_config
        self.text_model = build_text_model(text_config)
        fits = text_config.hidden_size == config.hidden_size
        self.projection = None if fits else UniformLinear(text_config.hidden_size, config.hidden_size)
        self.spelling: nn.Linear | None = None
        if config.question_spellings:
            self.spelling = nn.Linear(config.phoc_size, config.hidden_size, bias=False)
            self.spelling_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, mask: Tensor, phoc: Tensor | None = None) -> Tensor:
        """Encode questions that are padded on the right; see `M4CModel.encode_texts`."""
        words = self.text_model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
        words = words if self.projection is None else self.projection(words)
        if self.spelling is None:
            if phoc is not None:
                raise DataError("question_phoc is given, but this model reads none (question_spellings in the config)")
            return words
        size = self.spelling.in_features
        phoc = check_shape("question_phoc", phoc, (*input_ids.shape, size), "[questions, pieces, size]")
        spelled = phoc.any(dim=-1)  # a few: the others need no product
        added = torch.zeros_like(words)
        added[spelled] = self.spelling_norm(self.spelling(F.normalize(phoc[spelled].to(words.dtype), dim=-1)))
        return words + added


# Pictures


def check_shape(name: str, tensor: Tensor | None, expected: tuple[int, ...], meaning: str) -> Tensor:
    """Return a tensor that must be there in a certain shape.

    Args:
        name: Of the input.
        tensor: The input.
        expected: Its shape.
        meaning: What the dimensions are, in words.

    Raises:
        DataError: If it is missing or has another shape.
    """
    if tensor is None:
        raise DataError(f"{name} is missing; give it as {meaning}, here {expected}")
    if tuple(tensor.shape) != expected:
        raise DataError(f"{name} is {tuple(tensor.shape)}; it must be {meaning}, here {expected}")
    return tensor


def check_boxes(name: str, boxes: Tensor, pictures: int) -> Tensor:
    """Return boxes that must be [I, n, 4] in [0, 1].

    Raises:
        DataError: If they have another shape, or are given in pixels or not finite.
    """
    if boxes.dim() != 3 or (boxes.shape[0], boxes.shape[2]) != (pictures, 4):
        raise DataError(f"{name} is {tuple(boxes.shape)}; it must be [pictures, boxes, 4], for {pictures} pictures")
    if not ((boxes > -1e-3) & (boxes < 1 + 1e-3)).all():
        raise DataError(
            f"{name} must lie in [0, 1]; divide pixels by the picture's width and height and cut the rest off"
        )
    return boxes


def square_side(cells: int) -> int:
    """The side of a square grid of so many cells.

    Raises:
        DataError: If they are none.
    """
    side = math.isqrt(cells)
    if side * side != cells:
        raise DataError(
            f"{cells} cells a picture are no square grid; resize the pictures to squares, or give the boxes"
        )
    return side


def pool_regions(grid: Tensor, boxes: Tensor) -> Tensor:
    """Mean of the cells under each box, each weighted by the area of its overlap with the box; differentiable.

    Args:
        grid: The cells of a square grid in reading order [I, N, F].
        boxes: [I, R, 4] as [x0, y0, x1, y1] in [0, 1]; what lies outside is cut off.

    Returns:
        [I, R, F].

    Raises:
        DataError: If the cells are no square grid.
    """
    side = square_side(grid.shape[1])
    lines = torch.arange(side + 1, device=grid.device) / side
    starts = boxes[..., :2].float().clamp(0, 1 - _SMALLEST_SIDE)
    ends = torch.maximum(boxes[..., 2:].float().clamp(0, 1), starts + _SMALLEST_SIDE)
    # The area of an overlap is the product of its sides: [I, R, (x, y), side].
    overlap = torch.minimum(ends.unsqueeze(-1), lines[1:]) - torch.maximum(starts.unsqueeze(-1), lines[:-1])
    overlap = overlap.clamp_min(0)
    columns, rows = (overlap / overlap.sum(dim=-1, keepdim=True)).to(grid.dtype).unbind(dim=2)
    return torch.einsum("irh,irw,ihwf->irf", rows, columns, grid.unflatten(1, (side, side)))


class BoxedEmbedding(nn.Module):
    """LN(linear(feature)) + LN(linear(box)): what objects and OCR tokens have in common."""

    def __init__(self, config: M4CConfig, feature_size: int, region_size: int, dropout: float) -> None:
        super().__init__()
        self.normalize, self.dropout = config.normalize_features, dropout
        self.detector = UniformLinear(region_size, region_size) if config.fine_tuned_detector else None
        self.box_scale = config.box_scale
        self.features = UniformLinear(feature_size, config.hidden_size)
        self.feature_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.boxes = UniformLinear(4, config.hidden_size)
        self.box_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def embed(self, parts: list[Tensor], regions: Tensor, boxes: Tensor) -> Tensor:
        """Further parts of the features [I, n, ...], of the regions [I, n, F], and boxes [I, n, 4] -> [I, n, d]."""
        dtype = self.features.weight.dtype
        regions = regions.to(dtype)
        if self.detector is not None:
            regions = F.relu(self.detector(regions))
        parts = [*(part.to(dtype) for part in parts), regions]
        if self.normalize:
            parts = [F.normalize(part, dim=-1) for part in parts]
        joined = torch.cat(parts, dim=-1)
        # Columns beyond the parts belong to zeros.
        features = F.linear(joined, self.features.weight[:, : joined.shape[-1]], self.features.bias)
        if self.box_scale != 1:
            boxes = 0.5 + self.box_scale * (boxes - 0.5)
        embedded = self.feature_norm(features) + self.box_norm(self.boxes(boxes.to(dtype)))
        return F.dropout(embedded, self.dropout, self.training)


class ObjectEmbedding(BoxedEmbedding):
    """Region features [I, O, F] and boxes [I, O, 4] -> objects [I, O, d]."""

    def __init__(self, config: M4CConfig) -> None:
        super().__init__(config, config.feature_size, config.feature_size, config.object_dropout)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Embed; the features are normalised here."""
        return self.embed([], features, boxes)


class OcrEmbedding(BoxedEmbedding):
    """Word vectors, character histograms, region features [I, R, ...] and boxes [I, R, 4] -> OCR tokens [I, R, d]."""

    def __init__(self, config: M4CConfig) -> None:
        region_size = config.ocr_feature_size or 0
        size = config.word_vector_size + config.phoc_size + region_size + config.ocr_padding_size
        super().__init__(config, size, region_size, config.ocr_dropout)

    def forward(self, word_vectors: Tensor | None, phoc: Tensor | None, features: Tensor, boxes: Tensor) -> Tensor:
        """Embed; each part is normalised here."""
        return self.embed([part for part in (word_vectors, phoc) if part is not None], features, boxes)


@dataclass
class OcrInputs:
    """What is given of the OCR tokens of I pictures, each None where it is not given.

    Attributes:
        boxes: [I, R, 4].
        mask: [I, R].
        word_vectors: [I, R, word_vector_size].
        phoc: [I, R, phoc_size].
        features: [I, R, F].
    """

    boxes: Tensor | None = None
    mask: Tensor | None = None
    word_vectors: Tensor | None = None
    phoc: Tensor | None = None
    features: Tensor | None = None


class PictureEmbedding(nn.Module):
    """Features and boxes of pictures -> their objects and OCR tokens; see `M4CModel.encode_images` for the inputs."""

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        self.sizes = {"word_vectors": config.word_vector_size, "phoc": config.phoc_size}
        self.object_side = config.object_grid_size
        self.feature_size = config.ocr_feature_size or 0
        self.objects, self.ocr_tokens = ObjectEmbedding(config), OcrEmbedding(config)

    def forward(
        self, features: Tensor, is_grid: bool, boxes: Tensor | None, mask: Tensor | None, ocr: OcrInputs
    ) -> M4CPictures:
        """Embed.

        Args:
            features: [I, N, F].
            is_grid: Whether they are the cells of a square grid, from which boxes are pooled.
            boxes: Of the objects [I, O, 4]; by default each cell is an object, or of a coarser grid where the config
                says so.
            mask: [I, O], true where there is an object.
            ocr: Of the OCR tokens.
        """
        grid, pictures = features if is_grid else None, len(features)
        if boxes is None:
            side = self.object_side or square_side(features.shape[1])
            boxes = grid_boxes(side, side).to(features.device).expand(pictures, -1, -1)
            if side * side != features.shape[1]:
                features = pool_regions(features, boxes)
        else:
            check_boxes("region_boxes", boxes, pictures)
            if grid is not None:
                features = pool_regions(grid, boxes)
            elif boxes.shape[1] != features.shape[1]:
                raise DataError(
                    f"{boxes.shape[1]} region_boxes for {features.shape[1]} region_features a picture; if the features "
                    "are a grid, give them as grid_features"
                )
        objects, object_mask = self.objects(features, boxes), _mask("region_mask", mask, features)
        if ocr.boxes is not None:
            tokens = self._embed_ocr_tokens(grid, check_boxes("ocr_boxes", ocr.boxes, pictures), ocr)
            return M4CPictures(objects, object_mask, tokens, _mask("ocr_mask", ocr.mask, tokens))
        if any(given is not None for given in (ocr.mask, ocr.word_vectors, ocr.phoc, ocr.features)):
            raise DataError("ocr_boxes are missing; give them with the tokens' other inputs")
        return M4CPictures(objects, object_mask, objects[:, :0], object_mask[:, :0])

    def _embed_ocr_tokens(self, grid: Tensor | None, boxes: Tensor, ocr: OcrInputs) -> Tensor:
        slots, meaning = tuple(boxes.shape[:2]), "[pictures, tokens, size]"
        for name, size in self.sizes.items():
            if size:
                check_shape(f"ocr_{name}", getattr(ocr, name), (*slots, size), meaning)
            elif getattr(ocr, name) is not None:
                raise DataError(f"ocr_{name} are given, but this model reads none (their size in the config is 0)")
        features = ocr.features
        if features is None and grid is not None:
            features = pool_regions(grid, boxes)
        features = check_shape("ocr_features", features, (*slots, self.feature_size), meaning)
        return self.ocr_tokens(ocr.word_vectors, ocr.phoc, features, boxes)


def _mask(name: str, mask: Tensor | None, embedded: Tensor) -> Tensor:
    """The given mask [I, n] of n entities, or one that is true everywhere."""
    if mask is None:
        return torch.ones(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
    return check_shape(name, mask, tuple(embedded.shape[:2]), "[pictures, entities]").bool()


# Decoding steps


class PreviousAnswerEmbedding(nn.Module):
    """What each decoding step is fed: the previous word, from the vocabulary or the picture, and the step's number.

    LN(row of the classifier's weight) or LN(OCR token) + LN(position + type), type 1 for OCR tokens.
    """

    def __init__(self, config: M4CConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.dropout = config.hidden_dropout
        self.answer_norm = nn.LayerNorm(size, eps=eps)
        self.ocr_norm = nn.LayerNorm(size, eps=eps)
        self.position_norm = nn.LayerNorm(size, eps=eps)
        self.positions = nn.Embedding(config.num_decoding_steps, size)
        self.types = nn.Embedding(2, size)

    def forward(self, previous_ids: Tensor, answers: Tensor, ocr_tokens: Tensor, first_step: int = 0) -> Tensor:
        """Embed, of steps `first_step` and on.

        Args:
            previous_ids: [B, T], in 0 .. V - 1 for the vocabulary, V + r for OCR token r.
            answers: The vectors of the vocabulary [V, d].
            ocr_tokens: [B, R, d], as the transformer receives them.
            first_step: The number of the first of the T steps.
        """
        copied = previous_ids >= len(answers)
        # Gathered first and normalised after: a vocabulary of thousands is not normalised for a few words.
        words = self.answer_norm(F.embedding(previous_ids.masked_fill(copied, 0), answers))
        if ocr_tokens.shape[1]:
            index = (previous_ids - len(answers)).clamp_min(0).unsqueeze(-1).expand(-1, -1, ocr_tokens.shape[-1])
            words = torch.where(copied.unsqueeze(-1), self.ocr_norm(ocr_tokens.gather(1, index)), words)
        steps = torch.arange(first_step, first_step + previous_ids.shape[1], device=previous_ids.device)
        places = self.position_norm(self.positions(steps) + self.types(copied.long()))
        return words + F.dropout(places, self.dropout, self.training)

"""M4C's published checkpoints: the study's `best_model.tar`, and MMF's `m4c`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ..data.answer_vocabulary import read_answer_vocabulary
from ..models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from ..models.errors import CheckpointError, ConfigurationError, DataError
from ..models.modeling_m4c import M4CForQuestionAnswering
from ..models.processing_m4c import AbsentWordVectors, M4CProcessor
from .published_weights import (
    Conversion,
    ConversionRequest,
    PublishedCheckpoint,
    alignment_family,
    fit_tensors,
    load_fitted,
    tensor_size,
)

__all__ = ["M4C_FUNCTIONS", "convert_m4c", "m4c_name", "m4c_tensor", "m4c_unused"]

M4C_FUNCTIONS = {
    "scaled": "scaled_dot",
    "dot": "dot",
    "general_qwk": "general_key",
    "general_kwq": "general_query",
    "biased_general_qwk": "biased_general_key",
    "biased_general_kwq": "biased_general_query",
    "activated_general_qwk": "activated_general_key",
}
"""The study's variants -> ours. What the release calls kwq transforms the query, and transposes the scores."""

_ENTITIES = (("obj", "objects"), ("ocr", "ocr_tokens"))
_PARTS = (("feat", "features", "feature_norm"), ("bbox", "boxes", "box_norm"))
_LAYERS = ("mmt.encoder.normal_layers.", "mmt.encoder.layer.")  # the study's, MMF's
# Prefixes of the published names -> ours; of several that fit the longest counts.
_PREFIXES = {
    "text_bert.": "model.question_encoder.text_model.",
    "text_bert_out_linear.": "model.question_encoder.projection.",
    **{
        f"{published}_{part}_layer_norm.": f"model.picture_embedding.{ours}.{norm}."
        for published, ours in _ENTITIES
        for part, _, norm in _PARTS
    },
    **{
        f"linear_{published}_{part}_to_mmt_in.": f"model.picture_embedding.{ours}.{linear}."
        for published, ours in _ENTITIES
        for part, linear, _ in _PARTS
    },
    # MMF trains the detector's last layer as well.
    **{
        f"{published}_faster_rcnn_fc7.{wrapper}lc.": f"model.picture_embedding.{ours}.detector."
        for published, ours in _ENTITIES
        for wrapper in ("", "module.")
    },
    "mmt.prev_pred_embeddings.ans_layer_norm.": "model.previous_embedding.answer_norm.",
    "mmt.prev_pred_embeddings.ocr_layer_norm.": "model.previous_embedding.ocr_norm.",
    "mmt.prev_pred_embeddings.emb_layer_norm.": "model.previous_embedding.position_norm.",
    "mmt.prev_pred_embeddings.position_embeddings.": "model.previous_embedding.positions.",
    "mmt.prev_pred_embeddings.token_type_embeddings.": "model.previous_embedding.types.",
    **dict.fromkeys(_LAYERS, "model.transformer.layers."),
    "ocr_ptr_net.": "pointer.",
    "classifier.": "classifier.",
    "classifier.module.": "classifier.",  # MMF's
}
# Within a layer of the transformer.
_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.self.W": "attention.alignment",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
_WORD_VECTORS, _PHOC, _PADDING = 300, 604, 50  # literals of the published code
_BERT_HEAD = 64  # what every BERT has


def m4c_name(published: str) -> str | None:
    """`mmt.encoder.normal_layers.0.attention.self.W.weight` -> the name of our parameter; None where there is none."""
    prefix = max((prefix for prefix in _PREFIXES if published.startswith(prefix)), key=len, default=None)
    if prefix is None:
        return None
    rest = published.removeprefix(prefix)
    if prefix in _LAYERS:
        number, _, rest = rest.partition(".")
        layer, _, kind = rest.rpartition(".")
        if layer not in _LAYER:
            return None
        rest = f"{number}.{_LAYER[layer]}.{kind}"
    return _PREFIXES[prefix] + rest


def m4c_tensor(published: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """A published tensor as ours is laid out.

    The published tables have room for 100 decoding steps and 5 types, of which the steps of an answer and 2 are used.
    """
    if published.startswith("mmt.prev_pred_embeddings.") and "_embeddings.weight" in published:
        return tensor[: shape[0]]
    return tensor


def m4c_unused(published: str, function: str) -> str | None:
    """Why a model of this function has no use for a published tensor; None where it has."""
    if published.endswith("position_ids"):
        return "the numbers of positions, which are counted anew"
    if ".attention.self.W." not in published:
        return None
    family = alignment_family(function)
    if family is None or (family == "general" and published.endswith(".bias")):
        return "of another alignment function"
    return None


def convert_m4c(checkpoints: Sequence[PublishedCheckpoint], request: ConversionRequest) -> Conversion:
    """Convert M4C; the heads of attention, which weights do not show, are fields where they are not 64 wide.

    `text_config` may hold some fields of the text encoder alone.

    Raises:
        CheckpointError: As of `fit_tensors`; also for layers that see where objects lie (SA-M4C).
        ConfigurationError: If the alignment function or a number of heads is missing, or a field is wrong.
        DataError: If the answer vocabulary is damaged or of another size.
    """
    (checkpoint,) = checkpoints
    given = dict(request.fields)
    text_fields = {**_text_sizes(checkpoint), **given.pop("text_config", {})}
    if "num_attention_heads" not in text_fields:
        text_fields["num_attention_heads"] = _heads(text_fields["hidden_size"], "text_config.num_attention_heads")
    fields = {**_sizes(checkpoint, given), **given, "text_config": {"model_type": "bert", **text_fields}}
    if "num_attention_heads" not in fields:
        fields["num_attention_heads"] = _heads(fields["hidden_size"], "num_attention_heads")
    answers = _answers(checkpoint, request)
    fields |= {"id2label": dict(enumerate(answers)), "label2id": {word: n for n, word in enumerate(answers)}}
    config = M4CConfig(**{**fields, **request.alignment_fields()})
    model = M4CForQuestionAnswering(config)
    fitted = fit_tensors(
        checkpoint, model, m4c_name, lambda name: m4c_unused(name, config.alignment_function), m4c_tensor
    )
    load_fitted(model, fitted)
    processor = None
    if request.tokenizer is not None:
        processor = M4CProcessor(
            tokenizer=_tokenizer(request.tokenizer, text_fields["vocab_size"]),
            word_vectors=AbsentWordVectors("fasttext:wiki.en", _WORD_VECTORS) if config.word_vector_size else None,
            spellings=config.phoc_size > 0,
        )
    return Conversion(model, {checkpoint.path: fitted}, processor)


def _text_sizes(checkpoint: PublishedCheckpoint) -> dict[str, Any]:
    """What the tensors show of the text encoder."""
    embeddings = "text_bert.embeddings"
    return {
        "vocab_size": tensor_size(checkpoint, f"{embeddings}.word_embeddings.weight", 0),
        "hidden_size": tensor_size(checkpoint, f"{embeddings}.word_embeddings.weight", 1),
        "max_position_embeddings": tensor_size(checkpoint, f"{embeddings}.position_embeddings.weight", 0),
        "type_vocab_size": tensor_size(checkpoint, f"{embeddings}.token_type_embeddings.weight", 0),
        "num_hidden_layers": _count_layers(checkpoint, "text_bert.encoder.layer."),
        "intermediate_size": tensor_size(checkpoint, "text_bert.encoder.layer.0.intermediate.dense.weight", 0),
    }


def _sizes(checkpoint: PublishedCheckpoint, given: dict[str, Any]) -> dict[str, Any]:
    """What the tensors show of the rest, where the fields given do not say otherwise."""
    layers = next((prefix for prefix in _LAYERS if _count_layers(checkpoint, prefix)), _LAYERS[0])
    fields = {
        "hidden_size": tensor_size(checkpoint, "linear_obj_feat_to_mmt_in.weight", 0),
        "feature_size": tensor_size(checkpoint, "linear_obj_feat_to_mmt_in.weight", 1),
        "num_hidden_layers": _count_layers(checkpoint, layers),
        "intermediate_size": tensor_size(checkpoint, f"{layers}0.intermediate.dense.weight", 0),
        "pointer_size": tensor_size(checkpoint, "ocr_ptr_net.query.weight", 0),
        "fine_tuned_detector": any(name.startswith("obj_faster_rcnn_fc7.") for name in checkpoint.tensors),
    }
    if f"{layers}0.attention.self.W.weight" in checkpoint.tensors:
        fields["num_attention_heads"] = fields["hidden_size"] // max(
            1, tensor_size(checkpoint, f"{layers}0.attention.self.W.weight", 0)
        )
    if not {"word_vector_size", "phoc_size", "ocr_feature_size"} & set(given):
        fields |= _ocr_sizes(checkpoint, fields["feature_size"])
    return fields


def _ocr_sizes(checkpoint: PublishedCheckpoint, feature_size: int) -> dict[str, int]:
    """The parts of an OCR token's feature: word vectors and spellings or neither, features of a region, and zeros.

    Raises:
        CheckpointError: If there is no room for these.
    """
    size = tensor_size(checkpoint, "linear_ocr_feat_to_mmt_in.weight", 1) - _PADDING
    with_words = size - _WORD_VECTORS - _PHOC
    has_words = with_words > 0 and size != feature_size
    if size < 1:
        raise CheckpointError(
            f"tensor linear_ocr_feat_to_mmt_in.weight has {size + _PADDING} columns, {_PADDING} of them for zeros; "
            "nothing is left for the features",
            path=checkpoint.path,
        )
    return {
        "word_vector_size": _WORD_VECTORS if has_words else 0,
        "phoc_size": _PHOC if has_words else 0,
        "ocr_feature_size": with_words if has_words else size,
        "ocr_padding_size": _PADDING,
    }


def _count_layers(checkpoint: PublishedCheckpoint, prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in checkpoint.tensors if name.startswith(prefix)})


def _heads(hidden_size: int, name: str) -> int:
    if hidden_size % _BERT_HEAD:
        raise ConfigurationError(
            f"{name} cannot be seen from weights, and {hidden_size} is no multiple of {_BERT_HEAD}; give it as a field "
            "of the configuration (--config)"
        )
    return hidden_size // _BERT_HEAD


def _answers(checkpoint: PublishedCheckpoint, request: ConversionRequest) -> list[str]:
    """The answer vocabulary, as it is given or numbered."""
    name = "classifier.module.weight" if "classifier.module.weight" in checkpoint.tensors else "classifier.weight"
    number = tensor_size(checkpoint, name, 0)
    if request.vocabulary is None:
        return [*SPECIAL_ANSWERS, *(f"LABEL_{n}" for n in range(len(SPECIAL_ANSWERS), number))]
    words = read_answer_vocabulary(request.vocabulary)
    if len(words) != number:
        raise DataError(
            f"the vocabulary has {len(words)} words, the checkpoint's classifier {number}; give the file that it was "
            "trained with",
            path=request.vocabulary,
        )
    return words


def _tokenizer(name: str, vocab_size: int) -> Any:
    """The text encoder's tokenizer.

    Raises:
        ConfigurationError: If there is none, or it has more pieces than the text encoder.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # what transformers and the Hub client raise has no common base
        reason = " ".join(str(error).split())[:300]
        raise ConfigurationError(f"no tokenizer can be read from {name}: {reason}") from error
    if len(tokenizer) > vocab_size:
        raise ConfigurationError(
            f"the tokenizer {name} has {len(tokenizer)} pieces, the checkpoint's text encoder {vocab_size}; give the "
            "one that it was trained with (published: google-bert/bert-base-uncased)"
        )
    return tokenizer

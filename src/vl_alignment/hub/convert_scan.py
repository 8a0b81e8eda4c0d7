"""SCAN's published checkpoints, `model_best.pth.tar`, with or without the study's attention layers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..models.configuration_scan import ScanConfig
from ..models.errors import ConfigurationError
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..models.processing_scan import ScanProcessor
from .published_vocabulary import scan_tokenizer
from .published_weights import (
    Conversion,
    ConversionRequest,
    PublishedCheckpoint,
    alignment_family,
    fit_tensors,
    load_fitted,
    tensor_size,
)

__all__ = ["SCAN_MODULES", "convert_scan", "scan_alignment_fields", "scan_fields", "scan_name", "scan_unused"]

# The study's names of functions -> ours. "activated_general_<activation>" is taken apart in `scan_alignment_fields`.
_FUNCTIONS = {
    "general_qwk": "general_key",
    "general_kwq": "general_query",
    "biased_general_qwk": "biased_general_key",
    "biased_general_kwq": "biased_general_query",
}
_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "leakyrelu": "leaky_relu"}
SCAN_MODULES = {
    "img_enc.fc.": "model.region_encoder.projection.",
    "txt_enc.embed.": "model.text_encoder.embedding.",
    "txt_enc.rnn.": "model.text_encoder.gru.",
}
# Stored options -> fields, and their values where ours are called otherwise.
_OPTIONS: dict[str, tuple[str, dict[Any, Any] | None]] = {
    "vocab_size": ("vocab_size", None),
    "img_dim": ("feature_size", None),
    "embed_size": ("hidden_size", None),
    "word_dim": ("word_embedding_size", None),
    "num_layers": ("num_hidden_layers", None),
    "bi_gru": ("bidirectional", None),
    "cross_attn": ("direction", None),
    "raw_feature_norm": ("score_normalization", None),
    "agg_func": ("pooling", {"Mean": "mean", "Sum": "sum", "Max": "max", "LogSumExp": "log_sum_exp"}),
    "lambda_softmax": ("lambda_softmax", None),
    "lambda_lse": ("lambda_lse", None),
    "no_imgnorm": ("normalize_regions", {True: False, False: True}),
    "no_txtnorm": ("normalize_words", {True: False, False: True}),
    "margin": ("margin", None),
    "max_violation": ("negatives", {True: "hardest", False: "all"}),
}


def scan_name(published: str) -> str:
    """`txt_enc.rnn.bias_hh_l0` -> the name of our parameter; the study's layers are those of one function each."""
    for theirs, ours in SCAN_MODULES.items():
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    return "model.cross_attention.alignment." + published.rpartition(".")[2]


def scan_unused(published: str, function: str) -> str | None:
    """Why a model of this function has no use for a published tensor; None where it has."""
    if not published.startswith("sim_enc."):
        return None
    if published == "sim_enc.b_activated_general":
        return "the published code never reads it"
    layer, _, kind = published.removeprefix("sim_enc.").rpartition(".")
    family = alignment_family(function)
    return None if family is not None and (layer, kind) in _layers(family) else "of another alignment function"


def _layers(family: str) -> set[tuple[str, str]]:
    kinds = ("weight",) if family == "general" else ("weight", "bias")
    return {(f"attention_{family}", kind) for kind in kinds}


def scan_alignment_fields(method: str) -> dict[str, str]:
    """The fields of the function that the study's `attention_method` names."""
    if method.startswith("activated_general_"):
        activation = method.removeprefix("activated_general_")
        fields = {"alignment_activation": _ACTIVATIONS.get(activation, activation)}
        return {"alignment_function": "activated_general_key", **fields}
    return {"alignment_function": _FUNCTIONS.get(method, method)}


def scan_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the configuration that the published training script's options state.

    Raises:
        ConfigurationError: If an option has a value that we have none for.
    """
    fields: dict[str, Any] = {}
    for option, (name, values) in _OPTIONS.items():
        if option not in options:
            continue
        value = options[option]
        if values is not None and value not in [*values]:  # a list may be asked for what is not hashable
            raise ConfigurationError(
                f"the checkpoint's option {option} is {value!r}; only {[*values]} can be converted"
            )
        fields[name] = value if values is None else values[value]
    if "attention_method" in options:
        fields |= scan_alignment_fields(str(options["attention_method"]))
    return fields


def _sizes(checkpoint: PublishedCheckpoint) -> dict[str, Any]:
    """What the tensors themselves show."""
    layers = [name for name in checkpoint.tensors if name.startswith("txt_enc.rnn.weight_ih_l")]
    return {
        "vocab_size": tensor_size(checkpoint, "txt_enc.embed.weight", 0),
        "word_embedding_size": tensor_size(checkpoint, "txt_enc.embed.weight", 1),
        "feature_size": tensor_size(checkpoint, "img_enc.fc.weight", 1),
        "hidden_size": tensor_size(checkpoint, "img_enc.fc.weight", 0),
        "num_hidden_layers": sum(not name.endswith("_reverse") for name in layers),
        "bidirectional": any(name.endswith("_reverse") for name in layers),
    }


def _agreed(stated: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Fields on which all who state them agree.

    Raises:
        ConfigurationError: If two of them differ.
    """
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in stated.items():
        for name, value in values.items():
            if name in fields and fields[name] != value:
                raise ConfigurationError(
                    f"{name} is {fields[name]!r} by {sources[name]}, but {value!r} by {source}; leave one out, or "
                    "convert another checkpoint"
                )
            fields[name], sources[name] = value, source
    return fields


def convert_scan(checkpoints: Sequence[PublishedCheckpoint], request: ConversionRequest) -> Conversion:
    """Convert SCAN.

    Raises:
        CheckpointError: As of `fit_tensors`.
        ConfigurationError: If the arguments contradict the stored options, or these the tensors.
    """
    (checkpoint,) = checkpoints
    options = scan_fields(checkpoint.options)
    asked = {
        "alignment_function": request.alignment_function,
        "alignment_activation": request.alignment_activation,
    }
    given = {name: value for name, value in asked.items() if value is not None} | dict(request.fields)
    fields = _agreed({"the tensors": _sizes(checkpoint), "the stored options": options, "your arguments": given})
    request = replace(
        request,
        alignment_function=fields.pop("alignment_function", None),
        alignment_activation=fields.pop("alignment_activation", None),
    )
    config = ScanConfig(**{**fields, **request.alignment_fields()})
    model = ScanForImageTextRetrieval(config)
    fitted = fit_tensors(
        checkpoint, model, scan_name, lambda published: scan_unused(published, config.alignment_function)
    )
    load_fitted(model, fitted)
    processor = None
    if request.vocabulary is not None:
        processor = ScanProcessor(tokenizer=scan_tokenizer(request.vocabulary, config.vocab_size))
    return Conversion(model, {checkpoint.path: fitted}, processor, options)

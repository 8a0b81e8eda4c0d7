"""AttnGAN's and DAMSM's published checkpoints: `netG*.pth`, `netD*.pth`, `text_encoder*.pth`, `image_encoder*.pth`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.configuration_attngan import AttnGanConfig
from ..models.configuration_damsm import DamsmConfig
from ..models.errors import CheckpointError, ConfigurationError
from ..models.modeling_attngan import AttnGanDiscriminators, AttnGanForTextToImageGeneration
from ..models.modeling_damsm import DamsmModel
from ..models.processing_attngan import AttnGanProcessor
from .published_vocabulary import attngan_tokenizer
from .published_weights import (
    Conversion,
    ConversionRequest,
    FittedTensors,
    PublishedCheckpoint,
    alignment_family,
    fit_tensors,
    load_fitted,
    tensor_size,
)

__all__ = [
    "ATTNGAN_FUNCTIONS",
    "convert_attngan",
    "convert_damsm",
    "convert_discriminators",
    "discriminator_name",
    "generator_name",
    "generator_tensor",
    "generator_unused",
    "text_encoder_name",
]

ATTNGAN_FUNCTIONS = {
    "dot": {"alignment_function": "dot"},
    "scaled": {"alignment_function": "scaled_dot"},
    "general_kwq": {"alignment_function": "general_query"},
    "general_qwk": {"alignment_function": "general_key"},
    "biased_general_kwq": {"alignment_function": "biased_general_query"},
    "biased_general_qwk": {"alignment_function": "biased_general_key"},
    **{
        f"activated_general_qwk_{activation}": {
            "alignment_function": "activated_general_key",
            "alignment_activation": activation,
        }
        for activation in ("relu", "sigmoid")  # COCO's code, CUB's
    },
}
"""The study's variants -> the fields of ours."""

_ALIGNMENTS = {
    "general": "attn_general",
    "biased_general": "attn_biased_general",
    "activated_general": "attn_act_general_qwk",
}
_TEXT = {"encoder.": "embedding.", "rnn.": "recurrence."}
_PROJECTIONS = {"emb_features.": "region_projection.", "emb_cnn_code.": "code_projection."}
_DOUBLING = {"1": "convolution", "2": "norm"}
_CONVOLUTION = {"0": "convolution", "1": "norm"}
_RESIDUAL = {"0": "gated", "1": "gated_norm", "3": "plain", "4": "plain_norm"}
_SMALLEST = 64  # pixels of the first stage


def generator_name(published: str) -> str | None:
    """`h_net2.residual.0.block.3.weight` -> the name of our parameter; None where there is none."""
    try:
        return _generator_name(published)
    except (IndexError, KeyError, ValueError):
        return None


def _generator_name(published: str) -> str:
    net, *rest = published.split(".")
    number = int(net[-1]) if net[-1].isdigit() else 0
    kind = rest[-1]
    if net == "ca_net":
        return f"conditioning.linear.{kind}"
    if net.startswith("img_net"):
        return f"painters.{number - 1}.{kind}"
    if number == 1:
        layer, place = rest[0], rest[1]
        if layer == "fc":
            return f"first_stage.{('linear', 'norm')[int(place)]}.{kind}"
        return f"first_stage.doublings.{int(layer[-1]) - 1}.{_DOUBLING[place]}.{kind}"
    stage = f"stages.{number - 2}"
    if rest[0] == "att":
        return f"{stage}.attention.{'word_projection' if rest[1] == 'conv_context' else 'alignment'}.{kind}"
    if rest[0] == "upsample":
        return f"{stage}.doubling.{_DOUBLING[rest[1]]}.{kind}"
    return f"{stage}.residual_blocks.{rest[1]}.{_RESIDUAL[rest[3]]}.{kind}"


def generator_tensor(published: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """A published tensor as ours is laid out: a 1 x 1 convolution of words is a linear layer."""
    if published.endswith(".conv_context.weight") and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)
    return tensor


def generator_unused(published: str, function: str) -> str | None:
    """Why a generator of this function has no use for a published tensor; None where it has."""
    _, _, layer = published.partition(".att.attn_")
    if not layer:
        return None
    family = alignment_family(function)
    own = family is not None and f"attn_{layer}".startswith(f"{_ALIGNMENTS[family]}.")
    return None if own else "of another alignment function"


def discriminator_name(published: str) -> str | None:
    """`img_code_s32_1.0.weight` -> the name of our parameter of one stage's discriminator; None where there is none."""
    try:
        return _discriminator_name(published)
    except (IndexError, KeyError, ValueError):
        return None


def _discriminator_name(published: str) -> str:
    part, *rest = published.split(".")
    place, kind = rest[-2], rest[-1]
    if part == "UNCOND_DNET":
        return f"unconditional_judge.{kind}"
    if part == "COND_DNET":
        return f"conditional_judge.{kind}" if rest[0] == "outlogits" else f"joint.{_CONVOLUTION[place]}.{kind}"
    if part == "img_code_s16":
        if place == "0":
            return f"entrance.{kind}"
        block, inner = divmod(int(place) - 2, 3)
        return f"halvings.{block}.{_CONVOLUTION[str(inner)]}.{kind}"
    size, _, narrowing = part.removeprefix("img_code_s").partition("_")
    layer = f"narrowings.{int(narrowing) - 1}" if narrowing else f"halvings.{ {'32': 3, '64': 4}[size] }"
    return f"{layer}.{_CONVOLUTION[place]}.{kind}"


def text_encoder_name(published: str) -> str | None:
    """`rnn.weight_ih_l0` -> the name of our parameter; None where there is none."""
    return _renamed(published, _TEXT)


def _image_encoder_name(published: str) -> str:
    return _renamed(published, _PROJECTIONS) or f"vision_model.{published}"


def _renamed(published: str, prefixes: dict[str, str]) -> str | None:
    for theirs, ours in prefixes.items():
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    return None


def _used(_: str) -> None:
    return None


def convert_attngan(checkpoints: Sequence[PublishedCheckpoint], request: ConversionRequest) -> Conversion:
    """Convert a generator with its text encoder, and discriminators where they are given.

    Args:
        checkpoints: The generator's, the text encoder's, then any discriminators'.
        request: What the user says.

    Raises:
        CheckpointError: As of `fit_tensors`.
        ConfigurationError: If the alignment function is missing or a field is wrong, or discriminators are missing.
        DataError: If the vocabulary is damaged or of another size.
    """
    generator, text_encoder, *judges = checkpoints
    stages = sum(name.startswith("img_net") for name in generator.tensors)
    condition = tensor_size(generator, "ca_net.fc.weight", 0) // 4
    fields = {
        **_text_fields(text_encoder),
        "num_stages": stages,
        "image_size": _SMALLEST << max(stages - 1, 0),
        "conditioning_size": condition,
        "noise_size": tensor_size(generator, "h_net1.fc.0.weight", 1) - condition,
        "generator_size": tensor_size(generator, "img_net1.img.0.weight", 1),
        "num_residual_blocks": sum(
            name.startswith("h_net2.residual.") and name.endswith(".block.0.weight") for name in generator.tensors
        )
        or 1,
    }
    if judges:
        fields["discriminator_size"] = tensor_size(judges[0], "img_code_s16.0.weight", 0)
    config = AttnGanConfig(**{**fields, **request.fields, **request.alignment_fields()})
    model = AttnGanForTextToImageGeneration(config)
    fitted = {
        generator.path: _fit(
            generator,
            model.generator,
            generator_name,
            lambda name: generator_unused(name, config.alignment_function),
            generator_tensor,
            "generator.",
        ),
        text_encoder.path: _fit(text_encoder, model.text_encoder, text_encoder_name, place="text_encoder."),
    }
    beside = {}
    if judges:
        beside["discriminators"], judged = _discriminators(judges, config)
        fitted |= judged
    return Conversion(model, fitted, _processor(request, config.vocab_size), beside=beside)


def convert_discriminators(checkpoints: Sequence[PublishedCheckpoint], request: ConversionRequest) -> Conversion:
    """Convert discriminators alone, one of every stage.

    Raises:
        CheckpointError: As of `fit_tensors`.
        ConfigurationError: If one of the stages' is missing or given twice, or a field is wrong.
    """
    first = checkpoints[0]
    entrance = tensor_size(first, "img_code_s16.0.weight", 0)
    fields = {
        "num_stages": len(checkpoints),
        "image_size": _SMALLEST << (len(checkpoints) - 1),
        "discriminator_size": entrance,
        "hidden_size": tensor_size(first, "COND_DNET.jointConv.0.weight", 1) - 8 * entrance,
    }
    asked = request.alignment_fields() if request.alignment_function is not None else {}
    model, fitted = _discriminators(checkpoints, AttnGanConfig(**{**fields, **request.fields, **asked}))
    return Conversion(model, fitted)


def convert_damsm(checkpoints: Sequence[PublishedCheckpoint], request: ConversionRequest) -> Conversion:
    """Convert DAMSM, of an image encoder and a text encoder.

    Raises:
        CheckpointError: As of `fit_tensors`.
        ConfigurationError: If the alignment function is missing or a field is wrong.
        DataError: If the vocabulary is damaged or of another size.
    """
    image_encoder, text_encoder = checkpoints
    fields = {**_text_fields(text_encoder), **request.fields, **request.alignment_fields()}
    model = DamsmModel(DamsmConfig(**fields))
    # A module of the image encoder's parts alone, which share their parameters with the model's.
    parts = nn.ModuleDict(
        {name: getattr(model, name) for name in ("vision_model", "region_projection", "code_projection")}
    )
    fitted = {
        image_encoder.path: _fit(image_encoder, parts, _image_encoder_name, prepare=_flat_projection),
        text_encoder.path: _fit(text_encoder, model.text_encoder, text_encoder_name, place="text_encoder."),
    }
    return Conversion(model, fitted, _processor(request, model.config.vocab_size))


def _flat_projection(published: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """The projection of regions is a 1 x 1 convolution as published, a linear layer here."""
    return tensor.flatten(1) if published == "emb_features.weight" and tensor.shape[2:] == (1, 1) else tensor


def _fit(
    checkpoint: PublishedCheckpoint,
    module: nn.Module,
    name: Any,
    unused: Any = _used,
    prepare: Any = None,
    place: str = "",
) -> FittedTensors:
    """Fill a part of a model; `place` is what its names begin with there."""
    fitted = fit_tensors(checkpoint, module, name, unused, prepare)
    load_fitted(module, fitted)
    fitted.taken = {published: place + ours for published, ours in fitted.taken.items()}
    return fitted


def _text_fields(checkpoint: PublishedCheckpoint) -> dict[str, Any]:
    """The fields of the text encoder, which its tensors show."""
    states = tensor_size(checkpoint, "rnn.weight_hh_l0", 1)
    gates = tensor_size(checkpoint, "rnn.weight_hh_l0", 0)
    kinds = {4 * states: "lstm", 3 * states: "gru"}
    if gates not in kinds:
        raise CheckpointError(
            f"tensor rnn.weight_hh_l0 is {(gates, states)}; an LSTM has 4 rows a state, a GRU 3", path=checkpoint.path
        )
    return {
        "vocab_size": tensor_size(checkpoint, "encoder.weight", 0),
        "word_embedding_size": tensor_size(checkpoint, "encoder.weight", 1),
        "hidden_size": 2 * states,
        "recurrence": kinds[gates],
    }


def _discriminators(
    checkpoints: Sequence[PublishedCheckpoint], config: AttnGanConfig
) -> tuple[AttnGanDiscriminators, dict[Any, FittedTensors]]:
    """The discriminators of all stages, whichever order their files are given in."""
    sizes = sorted(_pixels(checkpoint) for checkpoint in checkpoints)
    if sizes != config.stage_sizes:
        raise ConfigurationError(
            f"discriminators of {sizes} pixels are given; the stages have {config.stage_sizes}, give one file for each"
        )
    by_size = {_pixels(checkpoint): checkpoint for checkpoint in checkpoints}
    model = AttnGanDiscriminators(config)
    fitted = {}
    for number, (size, stage) in enumerate(zip(config.stage_sizes, model.stages, strict=True)):
        fitted[by_size[size].path] = _fit(by_size[size], stage, discriminator_name, place=f"stages.{number}.")
    return model, fitted


def _pixels(checkpoint: PublishedCheckpoint) -> int:
    """The side of the pictures that a discriminator judges: its name says how often it halves them."""
    for factor, name in ((4, "img_code_s64."), (2, "img_code_s32.")):
        if any(tensor.startswith(name) for tensor in checkpoint.tensors):
            return _SMALLEST * factor
    return _SMALLEST


def _processor(request: ConversionRequest, vocab_size: int) -> AttnGanProcessor | None:
    if request.vocabulary is None:
        return None
    return AttnGanProcessor(tokenizer=attngan_tokenizer(request.vocabulary, vocab_size))

"""Converting published checkpoints: which model a file holds is seen by its tensors' names."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.atomic_files import cannot_write, whole_folder
from ..models.errors import CheckpointError, ConfigurationError
from ..training.runs import versions, write_json
from .convert_attngan import convert_attngan, convert_damsm, convert_discriminators
from .convert_m4c import convert_m4c
from .convert_mac import convert_mac
from .convert_scan import convert_scan
from .published_weights import (
    Conversion,
    ConversionRequest,
    PublishedCheckpoint,
    read_published_checkpoint,
)

__all__ = ["CONVERSION_FILE", "convert_checkpoint"]

CONVERSION_FILE = "conversion.json"
"""Beside the weights: where they are from, what of the files was taken, and what was left. Written last."""

_SCHEMA_VERSION = 1
_SCAN, _MAC, _M4C = "SCAN", "MAC", "M4C"
_GENERATOR, _DISCRIMINATOR = "AttnGAN generator", "AttnGAN discriminator"
_TEXT_ENCODER, _IMAGE_ENCODER = "DAMSM text encoder", "DAMSM image encoder"
# What a file holds -> a tensor that nothing else has.
_MARKS = {
    _SCAN: "txt_enc.embed.weight",
    _MAC: "mac.control_0",
    _M4C: "mmt.prev_pred_embeddings.position_embeddings.weight",
    _GENERATOR: "h_net1.fc.0.weight",
    _DISCRIMINATOR: "img_code_s16.0.weight",
    _IMAGE_ENCODER: "emb_features.weight",
    _TEXT_ENCODER: "encoder.weight",
}


@dataclass(frozen=True)
class _Model:
    """A model that files make together.

    Attributes:
        parts: What the files hold, in the order in which `convert` wants them.
        convert: Makes the model.
        many: A part of which there may be several files, after all others.
        takes_vocabulary: Whether a vocabulary becomes a tokenizer or the names of answers.
    """

    parts: tuple[str, ...]
    convert: Callable[[Sequence[PublishedCheckpoint], ConversionRequest], Conversion]
    many: str | None = None
    takes_vocabulary: bool = True


_MODELS = (
    _Model((_SCAN,), convert_scan),
    _Model((_MAC,), convert_mac),
    _Model((_M4C,), convert_m4c),
    _Model((_GENERATOR, _TEXT_ENCODER), convert_attngan, many=_DISCRIMINATOR),
    _Model((_IMAGE_ENCODER, _TEXT_ENCODER), convert_damsm),
    _Model((), convert_discriminators, many=_DISCRIMINATOR, takes_vocabulary=False),
)


def convert_checkpoint(
    checkpoints: Sequence[str | Path],
    output: str | Path,
    *,
    alignment_function: str | None = None,
    alignment_activation: str | None = None,
    released_layout: bool = False,
    vocabulary: str | Path | None = None,
    tokenizer: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write published weights as a folder for `from_pretrained`, with a processor where a vocabulary is given.

    Known are SCAN's `model_best.pth.tar`, the PyTorch MAC's `checkpoint_*.model`, M4C's `best_model.tar` and MMF's
    `m4c`; AttnGAN's generator with its text encoder, and discriminators beside or alone; DAMSM's image encoder with its
    text encoder. Nothing in a file runs: what is neither a tensor nor plain data is refused.

    Args:
        checkpoints: One file, or those that make a model together, in any order.
        output: The folder; one of an earlier conversion is replaced.
        alignment_function: Which one the weights were trained with. Only SCAN's files may say it themselves.
        alignment_activation: What an activated function applies ("relu"; AttnGAN's code for CUB: "sigmoid").
        released_layout: Compute as the authors' code does, which gives the numbers that these weights had there.
        vocabulary: SCAN's JSON, MAC's `dic.pkl`, AttnGAN's `captions.pickle`, or M4C's answers, one a line.
        tokenizer: A folder or Hub id, of M4C's text encoder (google-bert/bert-base-uncased).
        fields: Of the configuration, those that weights do not show: MAC's `grid_size`, M4C's
            `num_attention_heads`.

    Returns:
        What `conversion.json` then says: sources with their hashes, options, tensors taken and left.

    Raises:
        CheckpointError: If a file is damaged, refused or of no model known here, files belong to no one model, or
            tensors are missing, have another shape or no place, or are not finite. It names tensor and file. Or if
            the folder cannot be written; an earlier conversion is still there.
        ConfigurationError: If the function is missing or contradicts what the file states, an argument is of no use,
            or the folder holds something else.
        DataError: If the vocabulary cannot be read, or is another checkpoint's.
    """
    request = ConversionRequest(
        alignment_function,
        alignment_activation,
        released_layout,
        None if vocabulary is None else Path(vocabulary),
        tokenizer,
        dict(fields or {}),
    )
    output = Path(output).absolute()
    _restore(output)
    _check_folder(output)
    files = [read_published_checkpoint(path) for path in checkpoints]
    model, ordered = _recognised(files)
    if request.tokenizer is not None and model.parts != (_M4C,):
        raise ConfigurationError("a tokenizer is given, which only M4C needs; give the others their vocabulary")
    if request.vocabulary is not None and not model.takes_vocabulary:
        raise ConfigurationError("discriminators read no words; leave the vocabulary out")
    conversion = model.convert(ordered, request)
    record = _record(ordered, request, conversion)
    _write(conversion, record, output)
    return record


def _previous(output: Path) -> Path:
    """Where an earlier conversion stands while the new one takes its place."""
    return output.with_name(f".{output.name}.previous")


def _restore(output: Path) -> None:
    """Put an earlier conversion back, where this was stopped just before the new one took its place."""
    if _previous(output).exists() and not output.exists():
        try:
            _previous(output).rename(output)
        except OSError as error:
            raise cannot_write(output, error, CheckpointError) from error


def _check_folder(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / CONVERSION_FILE).is_file():
        raise ConfigurationError(f"{output} holds something else than a conversion; give another --output")
    if output.exists() and not output.is_dir():
        raise ConfigurationError(f"{output} is a file; give a folder as --output")


def _recognised(files: Sequence[PublishedCheckpoint]) -> tuple[_Model, list[PublishedCheckpoint]]:
    """The model that files make together, and the files in its order."""
    by_part: dict[str, list[PublishedCheckpoint]] = {}
    for file in files:
        by_part.setdefault(_part(file), []).append(file)
    for model in _MODELS:
        several = by_part.get(model.many, []) if model.many is not None else []
        rest = {part: found for part, found in by_part.items() if part != model.many}
        if set(rest) == set(model.parts) and all(len(found) == 1 for found in rest.values()) and (rest or several):
            return model, [by_part[part][0] for part in model.parts] + several
    found = ", ".join(f"{file.path.name}: {_part(file)}" for file in files)
    known = "; ".join(" + ".join([*model.parts, *([f"{model.many}s"] if model.many else [])]) for model in _MODELS)
    raise CheckpointError(f"these files make no one model ({found or 'none given'}); give the files of one of: {known}")


def _part(file: PublishedCheckpoint) -> str:
    """What a file holds."""
    for part, mark in _MARKS.items():
        if mark in file.tensors:
            return part
    names = ", ".join([*file.tensors][:3])
    marks = "; ".join(f"{part}: {mark}" for part, mark in _MARKS.items())
    raise CheckpointError(
        f"is of no model known here: its tensors begin with {names}; known by ({marks})", path=file.path
    )


def _record(files: Sequence[PublishedCheckpoint], request: ConversionRequest, conversion: Conversion) -> dict[str, Any]:
    """What conversion.json says."""
    config = conversion.model.config
    words = {} if request.vocabulary is None else {"vocabulary": _source(request.vocabulary)}
    return {
        "schema_version": _SCHEMA_VERSION,
        "model": type(conversion.model).__name__,
        "alignment_function": config.alignment_function,
        "alignment_activation": config.alignment_activation,
        "released_layout": config.released_layout,
        "fields": dict(request.fields),
        "stated_by_the_checkpoint": conversion.options,
        "sources": [
            {
                **_source(file.path),
                "taken": conversion.fitted[file.path].taken,
                "left": conversion.fitted[file.path].left,
            }
            for file in files
        ],
        **words,
        "processor": None if conversion.processor is None else type(conversion.processor).__name__,
        "versions": versions(),
    }


def _source(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}


def _write(conversion: Conversion, record: dict[str, Any], output: Path) -> None:
    """Write everything into a folder beside, which then takes the output's place: it is never half written."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, and removed whatever stops this.
        beside = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise cannot_write(output, error, CheckpointError) from error
    with (
        beside as temporary,
        whole_folder(output, Path(temporary) / output.name, _previous(output), CheckpointError) as folder,
    ):
        conversion.model.save_pretrained(folder)
        if conversion.processor is not None:
            conversion.processor.save_pretrained(folder)
        for name, model in conversion.beside.items():
            model.save_pretrained(folder / name)
        write_json(folder / CONVERSION_FILE, record)

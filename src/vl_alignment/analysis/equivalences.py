"""Which alignment functions can differ at all in a model, checked on its weights.

Nobody should spend a week of computing on two names of one function.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..models.alignment import ALIGNMENT_FUNCTIONS, alignment_specification
from ..models.configuration_attngan import AttnGanConfig
from ..models.configuration_m4c import M4CConfig
from ..models.configuration_mac import MacConfig
from ..models.configuration_scan import ScanConfig
from ..models.errors import ConfigurationError
from ..models.modeling_attngan import AttnGanForTextToImageGeneration
from ..models.modeling_m4c import M4CForQuestionAnswering
from ..models.modeling_mac import MacForQuestionAnswering
from ..models.modeling_scan import ScanForImageTextRetrieval
from ..training.evaluation import model_task
from ..training.presets import PRESETS, get_preset
from .equivalence_proofs import PROOFS, Proof
from .function_classes import FunctionClass, configurable_functions, function_classes
from .layout import display_name
from .tables import published_functions

__all__ = [
    "TOLERANCE",
    "Equivalences",
    "FunctionCheck",
    "equivalences",
    "equivalences_markdown",
    "equivalences_page",
    "open_model",
]

# Two names of one function agree to rounding; SCAN's norms, which add 1e-8 to what they divide by, to about 1e-6.
TOLERANCE = 1e-5

_MODELS: dict[str, tuple[Any, Any]] = {
    "retrieval": (ScanConfig, ScanForImageTextRetrieval),
    "question-answering": (MacConfig, MacForQuestionAnswering),
    "text-question-answering": (M4CConfig, M4CForQuestionAnswering),
    "text-to-image": (AttnGanConfig, AttnGanForTextToImageGeneration),
}
_TASKS = {config.model_type: task for task, (config, _) in _MODELS.items()}

_TITLES = {"scan": "SCAN", "mac": "MAC", "m4c": "M4C", "attngan": "AttnGAN"}

# What decides which functions can differ, for the page's first line.
_DECIDING_FIELDS = {
    "scan": ("direction", "score_normalization", "normalize_regions", "normalize_words"),
    "mac": ("cell", "alignment_units"),
    "m4c": (),
    "attngan": (),
}


@dataclass(frozen=True)
class FunctionCheck:
    """One function held against another one.

    Attributes:
        function: Its name.
        other: The first function of its class, whose weights were folded; or the plainer one that it was compared
            with; None where there is none.
        same: Whether the two are names of one function, by the statements.
        how: What was done with the weights.
        difference: The largest difference of outputs; None where nothing was compared.
    """

    function: str
    other: str | None
    same: bool
    how: str
    difference: float | None

    @property
    def confirmed(self) -> bool:
        """Whether the weights show what the statements say."""
        return self.difference is None or (self.difference <= TOLERANCE) == self.same


@dataclass(frozen=True)
class Equivalences:
    """What was found of one model.

    Attributes:
        name: Of the model or preset.
        config: Its configuration.
        classes: Of more than one function.
        checks: One a function, classes first.
    """

    name: str
    config: Any
    classes: list[FunctionClass]
    checks: list[FunctionCheck]

    def different(self, functions: Iterable[str]) -> int:
        """How many of these functions can differ from one another at most."""
        first = {name: one.functions[0] for one in self.classes for name in one.functions}
        return len({first.get(name, name) for name in functions})


def open_model(name: str | Path, fields: Mapping[str, Any] | None = None) -> Any:
    """Load a model in evaluation mode, or make one from a configuration alone, its weights from seed 0.

    Args:
        name: A preset, the folder of a model, of a run or of a configuration without weights, or a Hub repository id.
        fields: Of the configuration, in place of a preset's.

    Raises:
        CheckpointError: The model cannot be loaded.
        ConfigurationError: There is none of this name, it has no alignment function, or a field cannot be.
    """
    if str(name) in PRESETS:
        preset = get_preset(str(name))
        config_class, model_class = _MODELS[preset["task"]]
        return _fresh_model(model_class, config_class(**{**preset["model"], **(fields or {})}))
    if fields:
        raise ConfigurationError(f"{name} has a configuration of its own; {sorted(fields)} can be given for presets")
    if not Path(name).is_dir() and "/" not in str(name):
        raise ConfigurationError(
            f"{str(name)!r} is no folder of a model and no preset; presets are {', '.join(sorted(PRESETS))}"
        )
    run = Path(name) / "model"
    folder = run if (run / "config.json").exists() else name
    task = model_task(folder)
    if task not in _MODELS:
        raise ConfigurationError(f"{name} holds a model for {task}, which has no alignment function")
    config_class, model_class = _MODELS[task]
    # Of a run, weights that are missing are a fault.
    if folder == name and Path(folder).is_dir() and not any(_weights(Path(folder))):
        return _fresh_model(model_class, config_class.from_pretrained(folder))
    return model_class.from_pretrained(folder).eval()


def _weights(folder: Path) -> Iterator[Path]:
    """The files of weights in a folder, whole or in parts."""
    for pattern in ("*.safetensors*", "*.bin*"):
        yield from folder.glob(pattern)


def _fresh_model(model_class: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config).eval()


def equivalences(model: Any, name: str) -> Equivalences:
    """Find the classes of functions under a model's configuration, and check them on its weights.

    Args:
        model: A SCAN, MAC, M4C or AttnGAN in evaluation mode.
        name: For the page.
    """
    config, proof = model.config, PROOFS[model.config.model_type](model)
    classes = function_classes(config)
    checks = []
    for one in classes:
        base, *others = one.functions
        checks.append(FunctionCheck(base, None, True, "the first of its class", None))
        checks += [FunctionCheck(n, base, True, _folding(n, base, proof), proof.folding_gap(n, base)) for n in others]
    classed = {name for one in classes for name in one.functions}
    checks += [_alone(name, proof) for name in configurable_functions(config) if name not in classed]
    return Equivalences(name, config, classes, checks)


def equivalences_page(
    names: Sequence[str], output: Path | None = None, *, fields: Mapping[str, Any] | None = None
) -> str:
    """Check models or presets, and write the page about them.

    Args:
        names: As of `open_model`.
        output: A Markdown file to write it into.
        fields: As of `open_model`.

    Returns:
        The page.

    Raises:
        CheckpointError, ConfigurationError: As of `open_model`, or the file cannot be written.
    """
    page = equivalences_markdown([equivalences(open_model(name, fields), name) for name in names], fields)
    if output is not None:
        try:
            output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{output} cannot be written ({error.strerror}); choose another file") from error
    return page


def equivalences_markdown(found: Sequence[Equivalences], fields: Mapping[str, Any] | None = None) -> str:
    """Write a page about one model or several, with the fields that `open_model` was given."""
    command = " ".join(["vl-alignment equivalences", *(one.name for one in found)])
    if fields:
        command += " --config " + " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
    lines = [
        "# Which alignment functions can differ",
        "",
        "Functions of one class are one function in other coordinates: whatever the one can learn the other can, so "
        "that a gap between their results comes from initialisation and optimisation, or is a fault. Every class is "
        "checked on weights, in float64 and without dropout: what a function adds is folded into the layers around it, "
        "and the largest difference of the outputs is printed. A function of its own is held against the one that "
        "lacks what sets it apart, with the same weights otherwise; why no other weights would do is the matter of the "
        "statements in `tests/models/test_alignment_statements.py`.",
        "",
        f"Written by `{command}`. Weights that a model does not have, and all weights of a preset, are fresh ones from "
        "seed 0.",
    ]
    for one in found:
        lines += ["", *_section(one)]
    return "\n".join(lines) + "\n"


def _section(found: Equivalences) -> list[str]:
    config = found.config
    fields = [f"{name}={getattr(config, name)!r}" for name in _DECIDING_FIELDS[config.model_type]]
    fields += ["released_layout=True"] if config.released_layout else []
    published = published_functions(_TASKS[config.model_type])
    known = [check.function for check in found.checks]
    here = [name for name in published if name in known]
    lines = [
        f"## {found.name}: {_TITLES[config.model_type]}" + (f" with {', '.join(fields)}" if fields else ""),
        "",
        f"Of the {len(here)} functions of the paper's table at most {found.different(here)} can differ; of all "
        f"{len(known)} at most {found.different(known)}.",
        "",
    ]
    lines += [f"- {_listed(one.functions)}: {one.reason}." for one in found.classes]
    lines += ["", "| Function | Kind | Compared with | Weights | Largest difference |", "|:---|:---|:---|:---|---:|"]
    lines += [_row(check, {name for one in found.classes for name in one.functions}) for check in found.checks]
    return lines


def _row(check: FunctionCheck, classed: set[str]) -> str:
    kind = "one of a class" if check.function in classed else "of its own"
    kind += "" if check.confirmed else " (**not confirmed on these weights**)"
    other = "" if check.other is None else _escaped(check.other)
    difference = "" if check.difference is None else f"{check.difference:.0e}"
    return f"| {_escaped(check.function)} | {kind} | {other} | {check.how} | {difference} |"


def _listed(names: Sequence[str]) -> str:
    shown = [_escaped(name) for name in names]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _escaped(name: str) -> str:
    return display_name(name).replace("*", r"\*")


def _folding(name: str, base: str, proof: Proof) -> str:
    row, other = alignment_specification(name), alignment_specification(base)
    if proof.where:
        parts = [("the scale", row.scaled), ("W", row.transforms is not None), ("b", row.bias)]
        return f"{' and '.join(part for part, there in parts if there) or 'nothing'} folded into {proof.where}"
    if row.transforms is None:
        return "neither has any"
    parts = [("W transposed", row.transforms != other.transforms), ("b left out", row.bias)]
    return ", ".join(part for part, there in parts if there)


def _alone(name: str, proof: Proof) -> FunctionCheck:
    """Compare a function with the plainer one that lacks what sets it apart."""
    row = alignment_specification(name)
    plain = replace(row, equation="", published=False)
    if name == "dot":
        plainer, how = None, ""
    elif row.module is not None:
        plainer, how = "dot", "of another form"
    elif row.activated:
        plainer, how = _like(replace(plain, activated=False)), "the same, without the activation"
    elif row.bias:
        plainer, how = _like(replace(plain, bias=False)), "the same, without b"
    else:
        extras = {"the norms": row.normalized, "the scale": row.scaled, "W": row.transforms is not None}
        plainer, how = "dot", f"the same, without {' and '.join(name for name, there in extras.items() if there)}"
    if plainer is None:
        return FunctionCheck(name, None, False, "nothing plainer to compare with", None)
    return FunctionCheck(name, plainer, False, how, proof.plain_gap(name, plainer))


def _like(wanted: Any) -> str | None:
    """The function with such a row."""
    for name, row in ALIGNMENT_FUNCTIONS.items():
        if replace(row, equation="", published=False) == wanted:
            return name
    return None

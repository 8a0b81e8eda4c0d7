"""What a study is to run, as a YAML file says it: parts (a data set each), functions, seeds, layouts.

`study_example.yaml` beside this file says every entry.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..data.named_data import check_splits
from ..data.yaml_text import parse_yaml
from ..models.alignment import alignment_function_names, alignment_specification
from ..models.configuration_attngan import AttnGanConfig
from ..models.configuration_base import AlignmentConfig
from ..models.configuration_m4c import M4CConfig
from ..models.configuration_mac import MacConfig
from ..models.configuration_scan import ScanConfig
from ..models.errors import ConfigurationError, VlAlignmentError
from ..training.arguments import check_integer
from ..training.data_options import check_option_names
from ..training.preparation import load_study, prepare_study, preset_settings
from ..training.presets import get_preset
from ..training.studies import Study
from .comparison import planned_runs
from .nouns import build_noun_tagger
from .tasks import TASKS, Task

__all__ = ["Cell", "StudyPart", "StudyPlan", "read_plan"]

OUTPUT = "outputs"
SPLITS = ("train", "validation", "test")
_CONFIGURATIONS: dict[str, type[AlignmentConfig]] = {
    "retrieval": ScanConfig,
    "question-answering": MacConfig,
    "text-question-answering": M4CConfig,
    "text-to-image": AttnGanConfig,
}


@dataclass(frozen=True)
class Cell:
    """One run of a part."""

    part: str
    alignment_function: str
    seed: int
    released_layout: bool = False

    @property
    def title(self) -> str:
        """How it is called in a list of runs."""
        return f"{self.part}: {self.alignment_function}{' (released)' * self.released_layout}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class StudyPart:
    """The runs of one preset.

    Attributes:
        name: Of the folder below the study's.
        preset: A name of `PRESETS`.
        seeds: One run of every function each.
        functions: Names of the table; those of the paper's table for the task where None.
        released: Of these one more run each, in the layout of the released code.
        metric: Shown in the line of a run that is done; the task's, which decides everything else too, where None.
        settings, model, options, sizes: Changes of the preset.
        data_dir, regions, extractor: As of `prepare_study`.
        controls: Whether to make the controls.
        pictures: Test items whose attention the report draws.
        grounding: Test pictures on which to measure where every model looks; see `evaluate_grounding`.
        noun_tagger: What counts the nouns of captions; see `measure_strata`.
    """

    name: str
    preset: str
    seeds: tuple[int, ...]
    functions: tuple[str, ...] | None = None
    released: tuple[str, ...] = ()
    metric: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    data_dir: str | None = None
    regions: str | None = None
    extractor: str | None = None
    controls: bool = True
    pictures: int = 4
    grounding: int = 0
    noun_tagger: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise ConfigurationError(f"{self.name!r} names a folder: use letters, digits, '-', '_' and '.'")
        runs = planned_runs(self.functions, self.seeds, self.task_name)
        for seed in self.seeds:
            preset_settings(self.preset, {**self.settings, "seed": seed})
        for _, name in runs:
            self.configuration(name)
        check_option_names(self.options)
        self._check_released()
        check_splits(self.sizes, SPLITS)
        for split, size in self.sizes.items():
            check_integer(f"sizes: {split}", size, smallest=1)
        for count in ("pictures", "grounding"):
            check_integer(count, getattr(self, count), smallest=0)
        if self.noun_tagger is not None:
            build_noun_tagger(self.noun_tagger)
        known = [self.task.metric, *(column.key for column in self.task.columns)]
        if self.metric is not None and self.metric not in known:
            raise ConfigurationError(
                f"metric={self.metric!r} is none of {self.task_name}; known are {sorted(set(known))}"
            )

    def configuration(self, alignment_function: str, released_layout: bool = False) -> AlignmentConfig:
        """The configuration of a run's model, but for what its data decide.

        Raises:
            ConfigurationError: A field is unknown or its value cannot be, or the released code has no such function.
        """
        kind = _CONFIGURATIONS[self.task_name]
        known = kind.__dataclass_fields__
        if unknown := sorted(set(self.model) - set(known)):
            own = sorted(set(known) - set(PreTrainedConfig.__dataclass_fields__))
            raise ConfigurationError(f"model: unknown {unknown}; known are {own}")
        own_fields = {"alignment_function": alignment_function, "released_layout": released_layout}
        return kind(**{**get_preset(self.preset)["model"], **self.model, **own_fields})

    def _check_released(self) -> None:
        for name in self.released:
            alignment_specification(name)
        if len(set(self.released)) < len(self.released):
            raise ConfigurationError(f"released={list(self.released)} names a function twice")
        refused = [name for name in self.released if not self._has_released_layout(name)]
        if refused:
            known = [name for name in alignment_function_names() if self._has_released_layout(name)]
            raise ConfigurationError(
                f"released={refused}: with these fields of the model the released code has "
                f"{f'the functions {known} alone' if known else 'no layout of its own'}"
            )

    def _has_released_layout(self, alignment_function: str) -> bool:
        try:
            self.configuration(alignment_function, released_layout=True)
        except ConfigurationError:
            return False
        return True

    @property
    def task_name(self) -> str:
        """Of the preset."""
        return get_preset(self.preset)["task"]

    @property
    def task(self) -> Task:
        """What the analysis knows of it."""
        return TASKS[self.task_name]

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed, so that a study that is interrupted holds whole seeds."""
        runs = planned_runs(self.functions, self.seeds, self.task_name)
        right = {seed: [Cell(self.name, function, seed) for of, function in runs if of == seed] for seed in self.seeds}
        return [
            cell
            for seed in self.seeds
            for cell in (*right[seed], *(Cell(self.name, function, seed, True) for function in self.released))
        ]

    def prepare(self, output: Path) -> Study:
        """Load the data and make or open what the runs share; see `prepare_study`."""
        return prepare_study(
            self.preset, output=output, regions=self.regions, extractor=self.extractor, **self._changes()
        )

    def load(self) -> Study:
        """Load the data alone."""
        return load_study(self.preset, **self._changes())

    def _changes(self) -> dict[str, Any]:
        return {
            "data_dir": self.data_dir,
            "sizes": dict(self.sizes) or None,
            "settings": self.settings,
            "model_fields": self.model,
            "options": self.options,
        }


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A whole study.

    Attributes:
        output: Folder of everything.
        parts: At least one, of different names.
        processes: Runs at a time.
        threads: Of each run.
        devices: CUDA devices that the runs take in turn; the visible ones, or the CPU, where None.
    """

    output: Path
    parts: tuple[StudyPart, ...]
    processes: int = 1
    threads: int = 1
    devices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names:
            raise ConfigurationError("a study has at least one part")
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"two parts are called {name!r}; their runs would be mixed up")
        for name in ("processes", "threads"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}={getattr(self, name)} must be at least 1")
        if self.devices is not None and (not self.devices or min(self.devices) < 0):
            raise ConfigurationError(f"devices={list(self.devices)} must be numbers from 0, at least one")

    @property
    def cells(self) -> list[Cell]:
        """The runs of all parts, in their order."""
        return [cell for part in self.parts for cell in part.cells]

    def part(self, name: str) -> StudyPart:
        """Return the part of this name."""
        return next(part for part in self.parts if part.name == name)

    def only(self, names: Sequence[str]) -> "StudyPlan":
        """Return the plan of these parts alone.

        Raises:
            ConfigurationError: One of them is unknown.
        """
        known = [part.name for part in self.parts]
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ConfigurationError(f"the study has no part {unknown}; its parts are {known}")
        return replace(self, parts=tuple(part for part in self.parts if part.name in names))


def read_plan(path: str | Path, *, output: str | Path | None = None) -> StudyPlan:
    """Read a study's YAML file.

    Args:
        path: The file; `study_example.yaml` says every entry.
        output: In place of the file's.

    Raises:
        ConfigurationError: The file cannot be read, or says something that is not known or cannot be; the message
            names the file and the part.
    """
    path = Path(path)
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not isinstance(content.get("parts"), list):
        raise ConfigurationError(f"{path}: a study has `parts`, a list; see `vl-alignment study --help`")
    values = _known(content, StudyPlan, f"{path}")
    values["output"] = Path(output or values.get("output") or Path(OUTPUT) / path.stem)
    values["parts"] = tuple(_part(part, number, path) for number, part in enumerate(content["parts"], start=1))
    return _made(StudyPlan, values, f"{path}")


def _part(content: Any, number: int, path: Path) -> StudyPart:
    where = f"{path}, part {number}"
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where}: must be a mapping with at least `preset` and `seeds`")
    where += f" ({content.get('name') or content.get('preset')})"
    missing = [name for name in ("preset", "seeds") if content.get(name) in (None, [])]
    if missing:
        raise ConfigurationError(f"{where}: without {' and '.join(missing)}; one run of every function a seed")
    return _made(StudyPart, {"name": content["preset"], **_known(content, StudyPart, where)}, where)


_LISTS = ("seeds", "functions", "released", "devices")
_MAPPINGS = ("settings", "model", "options", "sizes")
_SCALARS: dict[str, type] = {
    **dict.fromkeys(("name", "preset", "metric", "data_dir", "regions", "extractor", "output", "noun_tagger"), str),
    **dict.fromkeys(("processes", "threads", "pictures", "grounding"), int),
    "controls": bool,
}


def _known(content: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    """Return the entries whose values are not null, checked by name and type."""
    known = [entry.name for entry in fields(kind)]
    unknown = sorted(str(name) for name in content if name not in known)
    if unknown:
        raise ConfigurationError(f"{where}: unknown {unknown}; known are {sorted(known)}")
    values = {name: value for name, value in content.items() if value is not None and name != "parts"}
    for name, value in values.items():
        entry: type = int if name in ("seeds", "devices") else str
        if name in _LISTS:
            right = isinstance(value, list) and all(_is_a(one, entry) for one in value)
            expected = f"a list of {'numbers' if entry is int else 'names'}"
        elif name in _MAPPINGS:
            right, expected = isinstance(value, dict), "a mapping"
        else:
            right, expected = _is_a(value, _SCALARS[name]), f"of type {_SCALARS[name].__name__}"
        if not right:
            raise ConfigurationError(f"{where}: {name}={value!r:.200} must be {expected}")
        if name in _LISTS:
            values[name] = tuple(value)
    return values


def _is_a(value: Any, kind: type) -> bool:
    """Whether it is of this type; `true` is no number, though Python takes it for one."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _made(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except VlAlignmentError as error:
        raise ConfigurationError(f"{where}: {error}") from error

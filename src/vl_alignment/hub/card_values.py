"""The numbers and commands of a card, from the results of a run: nothing is in it that they do not hold."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import EvalResult

from ..analysis.layout import Column, Table
from ..analysis.statistics import Result
from ..analysis.tables import DATASET_TITLES, breakdown_table, control_values, results_table
from ..analysis.tasks import task_of
from ..training.preparation import BUILT_IN
from ..training.presets import PRESETS
from .card_texts import DATA_FACTS
from .variants import PUBLISHED_VARIANTS, Variant, cell_values, find_variant, task_of_model

__all__ = [
    "RecordedCommand",
    "controls_table",
    "evaluations",
    "hyper_parameters",
    "markdown_table",
    "measured_split",
    "metric_ids",
    "not_learned",
    "published_cells",
    "results_rows",
    "scale_differences",
]

BLIND = ("image zeroed", "blind")
"""Controls that were trained alike without seeing anything."""

SCALE = ("hidden_size", "feature_size", "num_steps", "image_size", "generator_size", "epochs", "batch_size")
"""What is named where it is other than in the paper."""

POINTS = 5.0
"""By how much an accuracy must beat such a control to count as learned, as in the reports."""

# Options of a recorded command that say which run it was, or how it went on, not how it was trained.
_OF_THE_RUN = (
    *("--output", "--functions", "--seeds", "--seed", "--alignment-function", "--task", "--preset"),
    *("--no-controls", "--pictures", "--device", "--debug", "--released-layout"),
)
# What the scripts of examples/ take too.
_OF_EXAMPLES = (
    *("--data-dir", "--regions", "--sizes", "--epochs", "--batch-size", "--questions-per-image", "--matching-weight"),
    *("--precision", "--ocr", "--character-error-rate", "--reader", "--answer-vocabulary", "--fasttext"),
    *("--text-encoder", "--dataset", "--image-encoder", "--feature-network", "--feature-variant"),
    *("--pictures-per-image", "--damsm-epochs"),
)
# Of a model's configuration: what is not its size or behaviour.
_NO_HYPER_PARAMETERS = ("model_type", "id2label", "label2id", "alignment_function", "released_layout", "config_version")


@dataclass(frozen=True)
class RecordedCommand:
    """The command that results record, taken apart.

    Attributes:
        words: As recorded; folders outside of the working folder, which are nobody else's, as `$DATA_DIR` and the like.
        options: The values of each option.
        preset: What it trained; None where neither command nor names tell.
    """

    words: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    preset: str | None

    @classmethod
    def of(cls, result: Result) -> "RecordedCommand":
        """Take apart the command of a result."""
        words: list[str] = []
        options: dict[str, tuple[str, ...]] = {}
        option = None
        for word in shlex.split(str(result["command"])):
            if word.startswith("--"):
                option, _, joined = word.partition("=")
                words.append(option)
                options[option] = ()
                if not joined:
                    continue
                word = joined
            if option is not None and word.startswith(("/", "~", "..")):
                word = f"${option.strip('-').replace('-', '_').upper()}"
            words.append(word)
            if option is not None:
                options[option] = (*options[option], word)
        variant = find_variant(result["model"], result["dataset"]["name"], result["alignment_function"])
        named = options.get("--preset", (variant.preset if variant else None,))[0]
        return cls(tuple(words), options, named if named in PRESETS else None)

    def __str__(self) -> str:
        return _line(self.words)

    @property
    def output(self) -> str:
        """The folder of the runs."""
        trained = len(self.words) > 1 and self.words[1] == "train"
        default = "outputs/train" if trained else f"outputs/{self.preset or 'runs'}"
        return self.options.get("--output", (default,))[0]

    def rebuild(self, result: Result) -> str | None:
        """The command for this run alone; None where the recorded one is none of `compare` and `train`."""
        if self.words[:2] == ("vl-alignment", "train"):
            return str(self)
        if self.words[:2] != ("vl-alignment", "compare"):
            return None
        words = ["vl-alignment", "compare"]
        for option, values in self.options.items():
            if option not in ("--functions", "--seeds", "--no-controls", "--debug"):
                words += [option, *values]
        own = ["--functions", result["alignment_function"], "--seeds", str(result["seed"])]
        return _line([*words, *own, "--no-controls"])

    def launch(self, result: Result) -> str | None:
        """The same by `accelerate launch`; None where the script lacks an option that the run had."""
        further = [option for option in self.options if option not in _OF_THE_RUN]
        if self.preset is None or result["released_layout"] or not set(further) <= set(_OF_EXAMPLES):
            return None
        words = ["accelerate", "launch", task_of_model(result["model"]).example, "--preset", self.preset]
        words += ["--alignment-function", result["alignment_function"], "--seed", str(result["seed"])]
        for option in further:
            words += [option, *self.options[option]]
        return _line([*words, "--output", self.output])

    def extraction(self, result: Result, extractors: Sequence[str]) -> str | None:
        """The command that makes the regions which the run read; None where it made them itself, or it is not known.

        Args:
            result: Of the run.
            extractors: Names that need no further options.
        """
        extractor = (result["dataset"].get("regions") or {}).get("extractor")
        if extractor not in extractors or "--regions" not in self.options or self.preset is None:
            return None
        words = ["vl-alignment", "extract-features", "--preset", self.preset]
        words += ["--data-dir", *self.options["--data-dir"]] if "--data-dir" in self.options else []
        return _line([*words, "--extractor", str(extractor), "--output", *self.options["--regions"]])


def _line(words: Sequence[str]) -> str:
    return " ".join(word if word.startswith("$") else shlex.quote(word) for word in words)


def hyper_parameters(result: Result, run: Mapping[str, Any] | None, command: RecordedCommand) -> dict[str, Any]:
    """Return fields of the model, settings of the training and options of the data.

    Args:
        result: Of the run.
        run: Its run.json; without it they are those of the preset that the command names, changed as it says.
        command: The recorded one.
    """
    if run is not None and "model" in run and "settings" in run:
        return {"model": _plain(run["model"]), "training": _plain(run["settings"])}
    if command.preset is None:
        return {}
    preset = PRESETS[command.preset]
    training = dict(preset["settings"])
    for name in training:
        given = command.options.get(f"--{name.replace('_', '-')}")
        if given is not None:
            read = [yaml.safe_load(value) for value in given]
            training[name] = read[0] if len(read) == 1 and not isinstance(training[name], list) else read
    training |= {name: result["training"][name] for name in ("epochs", "precision") if name in result["training"]}
    data = {
        name: value for name, value in preset["data"].items() if name not in ("name", "seeds") and value is not None
    }
    initialization = command.options.get("--alignment-initialization")
    model = {**preset["model"], **({"alignment_initialization": initialization[0]} if initialization else {})}
    if preset["data"]["name"] in BUILT_IN:
        model.pop("feature_size", None)  # that of the region encoder, which the results do not hold
    return {
        "model": _plain(model),
        "training": training,
        "data": {name: value for name, value in data.items() if value is not None},
    }


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out vocabularies and what is not set; of a nested configuration keep its type."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _NO_HYPER_PARAMETERS or value is None:
            continue
        kept[name] = value.get("model_type", "given") if isinstance(value, Mapping) else value
    return kept


def metric_ids(names: Sequence[str]) -> list[str]:
    """Name metrics as the Hub's list does, each once: the kind of each, not its cut or stratum."""
    kinds = {"accuracy": "accuracy", "sentence_retrieval_r": "recall", "image_retrieval_r": "recall"}
    found = (next((kind for start, kind in kinds.items() if name.startswith(start)), name) for name in names)
    return [name for name in dict.fromkeys(found) if name != "rsum"]


def evaluations(result: Result) -> list[EvalResult]:
    """Make the entries of `model-index`: the columns of the task's table that the run measured."""
    task, dataset = task_of([result]), result["dataset"]
    of_model = task_of_model(result["model"])
    facts, split = DATA_FACTS.get((result["model"], dataset["name"])), measured_split(result)
    return [
        EvalResult(
            task_type=of_model.pipeline_tag,
            task_name=task.title,
            dataset_type=facts.hub_id if facts else dataset["name"],
            dataset_name=DATASET_TITLES.get(dataset["name"], dataset["name"]),
            dataset_split=split,
            dataset_revision=dataset.get("content_hash"),
            metric_type=column.key,
            metric_name=column.full_title,
            metric_value=round(float(result["metrics"][column.key]), 4),
        )
        for column in task.columns
        if column.key in result["metrics"]
    ]


def measured_split(result: Result) -> str:
    """Name the split that results are measured on: validation where the answers of the test split are not public."""
    variant = find_variant(result["model"], result["dataset"]["name"], result["alignment_function"])
    return PRESETS[variant.preset]["data"].get("test_split", "test") if variant else "test"


def published_cells(result: Result) -> dict[str, dict[str, float]]:
    """Return the paper's numbers of this model and function by data set: {title: {metric: value}}."""
    function = result["alignment_function"]
    cells = {}
    for variant in _counterparts(result):
        key = str(variant.published_key)
        cells[DATASET_TITLES[key]] = cell_values(key, function)
    return cells


def _counterparts(result: Result) -> list[Variant]:
    """The paper's variants of this model and function; the one of the same data set alone, where it is among them."""
    found = [
        variant
        for variant in PUBLISHED_VARIANTS
        if variant.model == result["model"] and variant.alignment_function == result["alignment_function"]
    ]
    same = [variant for variant in found if variant.dataset == result["dataset"]["name"]]
    return same or found


def scale_differences(result: Result, parameters: Mapping[str, Any]) -> list[str]:
    """Say which sizes and settings are others than those of the paper's preset, as `name 256, 1024 there`."""
    counterparts = _counterparts(result)
    if not counterparts or not parameters:
        return []
    theirs = PRESETS[counterparts[0].preset]
    found = []
    for part, key in (("model", "model"), ("training", "settings")):
        for name in SCALE:
            here, there = parameters.get(part, {}).get(name), theirs[key].get(name)  # type: ignore[literal-required]
            if here is not None and there is not None and here != there:
                found.append(f"{name} {here}, {there} there")
    return found


def results_rows(result: Result, seeds: Sequence[Result]) -> list[list[str]]:
    """Lay out what was measured, a row a metric: this run's value, the mean over seeds, and the paper's.

    Returns:
        The header, then the rows.
    """
    tables = [table for table in (results_table(seeds), breakdown_table(seeds)) if table is not None]
    published = published_cells(result)
    several = len(seeds) > 1
    header = ["Metric", "These weights", *([f"Mean of {len(seeds)} seeds"] if several else [])]
    rows = [[*header, *(f"Paper, {title}" for title in published)]]
    for table in tables:
        for number, column in enumerate(table.columns):
            if column.key not in result["metrics"] or any(row[0] == column.full_title for row in rows):
                continue
            cells = [table.text_of(float(result["metrics"][column.key]), column)]
            cells += [table.text_of(table.rows[0].cells[number], column)] if several else []
            # The paper's digits are its own.
            cells += [f"{values[column.key]:g}" if column.key in values else "" for values in published.values()]
            rows.append([column.full_title, *cells])
    return rows


def controls_table(result: Result, controls: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Lay out the controls, a row a metric of the task's table: the header, then the rows; [] without controls."""
    if not controls:
        return []
    table = results_table([result], controls)
    own = [row for row in table.rows if row.control]
    rows = [["Metric", "These weights", *(_sentence(row.name) for row in own)]]
    for number, column in enumerate(table.columns):
        cells = [table.text_of(float(result["metrics"][column.key]), column)]
        rows.append([column.full_title, *cells, *(_or_nothing(table, row.cells[number], column) for row in own)])
    return rows


def not_learned(result: Result, controls: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the accuracies that do not beat the control which saw nothing by five points, with both numbers."""
    groups = control_values(controls)
    blind = next((groups[name][0] for name in BLIND if name in groups), None)
    tables = [table for table in (results_table([result]), breakdown_table([result])) if table is not None]
    columns = {column.key: column for table in tables for column in table.columns if column.key.startswith("accuracy_")}
    found = []
    for key, column in columns.items():
        value, floor = result["metrics"].get(key), (blind or {}).get(key)
        if value is not None and floor is not None and value < floor + POINTS:
            found.append(f"{column.full_title} ({value:.1f} %, without seeing {floor:.1f} %)")
    return found


def markdown_table(rows: Sequence[Sequence[str]], alignment: str = "---:") -> str:
    """Write a header and rows as a Markdown table; `alignment` is that of all columns but the first."""
    lines = [f"| {' | '.join(cell.replace('*', chr(92) + '*') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|:---|{f'{alignment}|' * (len(rows[0]) - 1)}", *lines[1:]])


def _sentence(name: str) -> str:
    return name[:1].upper() + name[1:]


def _or_nothing(table: Table, cell: Any, column: Column) -> str:
    return "" if cell is None else table.text_of(cell, column)

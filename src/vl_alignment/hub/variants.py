"""The names under which trained variants live, and the table of them: the paper's 44 and those trained here.

A variant is one model with one alignment function, trained on one data set: `{model}-{dataset}-{alignment_function}`,
on the Hub below a namespace. Its runs carry the same name and a seed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from ..analysis.layout import display_name
from ..analysis.tables import published_functions, published_table
from ..analysis.tasks import TASKS
from ..models.errors import ConfigurationError
from ..training.presets import PRESETS
from ..training.runs import RunDirectory

__all__ = [
    "BUILT_IN_VARIANTS",
    "PUBLISHED_VARIANTS",
    "TASK_OF_MODEL",
    "ModelTask",
    "Variant",
    "cell_values",
    "find_variant",
    "task_of_model",
    "variant_name",
    "variants_text",
]


@dataclass(frozen=True)
class ModelTask:
    """What a type of model does, and by which names transformers and the Hub know it.

    Attributes:
        title: The model's name, as readers know it.
        task: As results and presets name it.
        pipeline: The name of its pipeline.
        pipeline_tag: The Hub's name for the task.
        model_class: What `from_pretrained` builds.
        processor_class: What turns pictures and words into its inputs.
        auto_classes: The Auto classes that find the model.
        example: The script that `accelerate launch` trains it with.
    """

    title: str
    task: str
    pipeline: str
    pipeline_tag: str
    model_class: str
    processor_class: str
    auto_classes: tuple[str, ...]
    example: str


_ANSWERING = ("AutoModel", "AutoModelForVisualQuestionAnswering")

TASK_OF_MODEL: dict[str, ModelTask] = {
    "scan": ModelTask(
        "SCAN",
        "retrieval",
        "image-text-matching",
        "zero-shot-image-classification",
        "ScanForImageTextRetrieval",
        "ScanProcessor",
        ("AutoModel", "AutoModelForZeroShotImageClassification"),
        "examples/train_scan.py",
    ),
    "mac": ModelTask(
        "MAC",
        "question-answering",
        "clevr-question-answering",
        "visual-question-answering",
        "MacForQuestionAnswering",
        "MacProcessor",
        _ANSWERING,
        "examples/train_mac.py",
    ),
    "m4c": ModelTask(
        "M4C",
        "text-question-answering",
        "text-visual-question-answering",
        "visual-question-answering",
        "M4CForQuestionAnswering",
        "M4CProcessor",
        _ANSWERING,
        "examples/train_m4c.py",
    ),
    "attngan": ModelTask(
        "AttnGAN",
        "text-to-image",
        "text-to-image-attngan",
        "text-to-image",
        "AttnGanForTextToImageGeneration",
        "AttnGanProcessor",
        ("AutoModel",),
        "examples/train_attngan.py",
    ),
}
"""By the config's `model_type`."""


@dataclass(frozen=True)
class Variant:
    """One cell of the paper's tables, or its counterpart on data that this package brings or reads.

    Attributes:
        model: The config's `model_type`.
        dataset: As run names carry it.
        alignment_function: A name of the table of functions.
        task: As results and presets name it.
        preset: What trains it.
        published_key: The data set of the paper's table whose cell this is; None where the paper has none.
    """

    model: str
    dataset: str
    alignment_function: str
    task: str
    preset: str
    published_key: str | None = None

    @property
    def name(self) -> str:
        """The repository's name, without a namespace."""
        return variant_name(self.model, self.dataset, self.alignment_function)

    @property
    def of_model(self) -> ModelTask:
        """Its pipeline, the Hub's tag and the Auto classes."""
        return task_of_model(self.model)

    @property
    def published_values(self) -> dict[str, float]:
        """The paper's numbers of this cell, metric by metric; empty where it has none."""
        return {} if self.published_key is None else cell_values(self.published_key, self.alignment_function)


def variant_name(model: str, dataset: str, alignment_function: str, released_layout: bool = False) -> str:
    """Name a variant as its runs are named, without the seed.

    Args:
        model: The config's `model_type`.
        dataset: A data set's name; what is no letter, digit, dot or underscore becomes an underscore.
        alignment_function: A name of the table of functions.
        released_layout: Whether the model computes as the authors' released code does.
    """
    run = RunDirectory.named(
        "",
        model=model,
        dataset=dataset,
        alignment_function=alignment_function,
        seed=0,
        released_layout=released_layout,
    )
    return run.run_id.removesuffix("-seed0")


def task_of_model(model_type: str) -> ModelTask:
    """Look up what a type of model does.

    Raises:
        ConfigurationError: It is none of this package's that answer, match or draw.
    """
    if model_type not in TASK_OF_MODEL:
        raise ConfigurationError(f"there is no model of type {model_type!r}; known are {', '.join(TASK_OF_MODEL)}")
    return TASK_OF_MODEL[model_type]


def cell_values(dataset: str, alignment_function: str) -> dict[str, float]:
    """Return the paper's numbers of a function on a data set, metric by metric; empty where it has none."""
    table = published_table(dataset)
    values: dict[str, float] = {}
    for row in table.rows:
        if row.key == alignment_function:
            cells = zip(table.columns, row.cells, strict=True)
            values = {column.key: float(cell) for column, cell in cells if isinstance(cell, int | float)}
    return values


def _variants(rows: Mapping[str, tuple[str, str | None]]) -> tuple[Variant, ...]:
    """Make the variants of {preset: (model, the paper's data set)}: one a function of the paper's table."""
    return tuple(
        Variant(model, PRESETS[preset]["data"]["name"], function, PRESETS[preset]["task"], preset, published_key)
        for preset, (model, published_key) in rows.items()
        for function in published_functions(PRESETS[preset]["task"])
    )


PUBLISHED_VARIANTS: tuple[Variant, ...] = _variants(
    {
        "flickr30k": ("scan", "flickr30k"),
        "coco": ("scan", "coco"),
        "clevr": ("mac", "clevr"),
        "textvqa": ("m4c", "textvqa"),
        "cub": ("attngan", "cub"),
        "coco-t2i": ("attngan", "coco-pictures"),
    }
)
"""The 44 cells of Tables 2 to 4."""

BUILT_IN_VARIANTS: tuple[Variant, ...] = _variants(
    {
        "blocks": ("scan", None),
        "flickr8k": ("scan", None),
        "blocks-vqa": ("mac", None),
        "blocks-text": ("m4c", None),
        "blocks-t2i": ("attngan", None),
    }
)
"""The same functions on the built-in world, which needs no download, and on Flickr8k."""


def find_variant(model: str, dataset: str, alignment_function: str) -> Variant | None:
    """Return the variant of these names, or None where the tables have none (a function or data set of your own)."""
    return _by_name().get(variant_name(model, dataset, alignment_function))


@cache
def _by_name() -> dict[str, Variant]:
    return {variant.name: variant for variant in (*PUBLISHED_VARIANTS, *BUILT_IN_VARIANTS)}


def variants_text(variants: Iterable[Variant] = (*PUBLISHED_VARIANTS, *BUILT_IN_VARIANTS)) -> str:
    """Write the table of variants for a terminal: name, function, preset, pipeline, and the paper's main numbers."""
    header = ("Variant", "Function", "Preset", "Pipeline", "Paper")
    rows = [header]
    for variant in variants:
        values, titles = variant.published_values, TASKS[variant.task].compared
        numbers = ", ".join(f"{title} {values[name]:g}" for name, title in titles.items() if name in values)
        function = display_name(variant.alignment_function)
        rows.append((variant.name, function, variant.preset, variant.of_model.pipeline, numbers or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]]) + "\n"

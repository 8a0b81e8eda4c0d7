"""Model cards: what a model is, how it was trained, what was measured, and how to use it, from a run's own results.

    results.json (+ run.json, other seeds, controls.json, examples.json) -> build_model_card -> a repository's README.md

Nothing stands in a card that these do not hold; what they leave out, the card leaves out.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..analysis.comparison import read_controls
from ..analysis.layout import display_name, ordered
from ..analysis.statistics import Result, estimate, row_key
from ..analysis.tables import dataset_title
from ..analysis.tasks import task_of
from ..data.confidential import without_secrets
from ..models.errors import ResultsError
from ..training.presets import PRESETS
from ..training.runs import RunDirectory, load_results, read_result
from .card_examples import Example, card_pictures, read_examples
from .card_metadata import check_card_metadata
from .card_sections import described, function_section, limits_section, results_section, shown, training_section
from .card_texts import DATA_FACTS
from .card_values import RecordedCommand, evaluations, hyper_parameters, metric_ids
from .connection import check_repo_id
from .variants import task_of_model, variant_name

__all__ = ["build_model_card", "build_run_card", "check_card_metadata", "write_model_cards"]

LICENSE = "apache-2.0"


def build_run_card(run: Path, *, repo_id: str | None = None) -> str:
    """Write the card of a run from all that its folder and the folder of its comparison hold.

    Args:
        run: Folder of a finished run.
        repo_id: As of `build_model_card`.

    Raises:
        ResultsError: There are no results, or something beside them cannot be read.
        HubError: As of `build_model_card`.
    """
    directory = RunDirectory(run)
    result = read_result(directory.results)
    return build_model_card(
        result,
        config=directory.read_run(),
        repo_id=repo_id,
        seeds=_same_variant(result, load_results(run.parent)),
        controls=read_controls(run.parent),
        folder=run,
    )


def build_model_card(
    result: Result,
    *,
    config: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    seeds: Sequence[Result] = (),
    controls: Sequence[Mapping[str, Any]] = (),
    folder: Path | None = None,
    place: str = "",
    notes: str | None = None,
) -> str:
    """Write the card of one run.

    Args:
        result: The content of its results.json.
        config: The content of its run.json: hyper-parameters and machine; without it the hyper-parameters are those of
            the preset that the recorded command names.
        repo_id: `namespace/name`, which the snippets load; without it they load the folder that the command makes.
        seeds: Results of the same variant with several seeds.
        controls: The content of the comparison's controls.json.
        folder: Where `examples.json`, its pictures and `attention.png` lie, if there are any.
        place: Where these pictures lie, from the card: empty, or a folder with a slash.
        notes: Where more is written about the runs.

    Returns:
        Markdown that begins with metadata.

    Raises:
        HubError: `repo_id` is no id of a repository, or the Hub would refuse the metadata.
        ResultsError: A metric is not finite, or seeds, controls or examples cannot be used.
        ConfigurationError: The model is of a type that has no card.
    """
    if repo_id is not None:
        check_repo_id(repo_id)
    seeds = list(seeds) or [result]
    examples = [example.at(place) for example in read_examples(folder)]
    command = RecordedCommand.of(result)
    data = _metadata(result, command, examples)
    parameters = hyper_parameters(result, config, command)
    values = {
        **described(result, command, repo_id),
        **function_section(result, parameters),
        **results_section(result, seeds, controls, parameters),
        **training_section(result, config, command, parameters),
        **shown(result, examples, folder, place),
        "limits": limits_section(result, seeds, controls),
        "notes": notes,
    }
    template = files(__package__).joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    text = str(ModelCard.from_template(data, template_str=template, **values))
    text = re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"
    check_card_metadata(text)
    return without_secrets(text)


def _same_variant(result: Result, results: Sequence[Result]) -> list[Result]:
    def name(one: Result) -> tuple[str, Any]:
        return variant_of(one), one["dataset"].get("content_hash")

    return [one for one in results if name(one) == name(result)] or [result]


def variant_of(result: Result) -> str:
    """Name the variant of a result."""
    names = (result["model"], result["dataset"]["name"], result["alignment_function"])
    return variant_name(*names, released_layout=bool(result["released_layout"]))


def _metadata(result: Result, command: RecordedCommand, examples: Sequence[Example]) -> ModelCardData:
    task, of_model = task_of([result]), task_of_model(result["model"])
    facts = DATA_FACTS.get((result["model"], result["dataset"]["name"]))
    function = result["alignment_function"]
    optional: dict[str, Any] = {}
    if base_model := _base_model(command):
        optional["base_model"] = base_model
    if examples:
        optional["widget"] = [example.widget() for example in examples]
    return ModelCardData(
        language="en",
        license=LICENSE,
        library_name="transformers",
        pipeline_tag=of_model.pipeline_tag,
        tags=["vl-alignment", result["model"], function, *(["released-layout"] if result["released_layout"] else [])],
        datasets=[facts.hub_id if facts else result["dataset"]["name"]],
        metrics=metric_ids([column.key for column in task.columns if column.key in result["metrics"]]),
        model_name=variant_of(result),
        eval_results=evaluations(result),
        **optional,
    )


def _base_model(command: RecordedCommand) -> str | None:
    """The Hub's id of the text encoder that a run started from; no other model's weights are trained further."""
    default = PRESETS[command.preset]["data"].get("text_encoder") if command.preset else None
    given = command.options.get("--text-encoder", (default,))[0]
    return given if given is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", given) else None


def write_model_cards(results: Sequence[Path], output: Path) -> list[Path]:
    """Write a card for every variant in folders of results, and an index of them.

    Several seeds of a variant share a card: that of the lowest seed's weights, since choosing by results would choose
    on the test split.

    Args:
        results: Folders of comparisons, each with `results.jsonl` or runs, `controls.json` and a README if it has one.
        output: Where to; made. `{variant}.md` each with its pictures in `{variant}/`, and `README.md`.

    Returns:
        The files, the index last.

    Raises:
        ResultsError: A folder holds no results or damaged ones, or a variant is there twice.
    """
    if not results:
        raise ResultsError("There are no folders of results; name those of comparisons.")
    cards: dict[str, tuple[str, list[Result]]] = {}
    pictures: dict[str, list[Path]] = {}
    for folder in results:
        found: dict[str, list[Result]] = {}
        for result in load_results(folder, strict=True):
            found.setdefault(variant_of(result), []).append(result)
        if not found:
            raise ResultsError("There are no finished runs; give a folder with results.jsonl, or of runs.", path=folder)
        readme = folder / "README.md"
        for name, seeds in found.items():
            if name in cards:
                raise ResultsError(f"{name} is in another of these folders too; give one of them.", path=folder)
            seeds.sort(key=lambda result: int(result["seed"]))
            run = RunDirectory(folder / seeds[0]["run_id"])
            text = build_model_card(
                seeds[0],
                config=run.read_run(),
                seeds=seeds,
                controls=read_controls(folder),
                folder=run.path,
                place=f"{name}/",
                notes=f"benchmarks/results/{folder.resolve().name}/README.md" if readme.exists() else None,
            )
            cards[name] = (text, seeds)
            pictures[name] = card_pictures(run.path)
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (text, _) in cards.items():
        written.append(output / f"{name}.md")
        written[-1].write_text(text, encoding="utf-8")
        for picture in pictures[name]:
            (output / name).mkdir(exist_ok=True)
            shutil.copyfile(picture, output / name / picture.name)
    index = output / "README.md"
    index.write_text(_index([seeds for _, seeds in cards.values()], results), encoding="utf-8")
    return [*written, index]


def _index(variants: Sequence[Sequence[Result]], folders: Sequence[Path]) -> str:
    """The table of the cards, by task and data set, functions in the paper's order."""
    groups: dict[tuple[str, str], dict[str, Sequence[Result]]] = {}
    for seeds in variants:
        groups.setdefault((seeds[0]["task"], seeds[0]["dataset"]["name"]), {})[row_key(seeds[0])] = seeds
    places = " ".join(str(folder) for folder in folders)
    lines = [
        "# Model cards",
        "",
        "The variants trained so far, a card each. Weights are not kept here: the command in a card makes them again,",
        "and `vl-alignment push` puts them on the Hub with their card. Written from the results by",
        "",
        "```bash",
        f"vl-alignment cards {places} --output FOLDER",
        "```",
    ]
    for rows in groups.values():
        first = next(iter(rows.values()))
        task, of_model = task_of(first), task_of_model(first[0]["model"])
        unit = "" if task.metric == "rsum" else ", percent"
        lines += ["", f"## {of_model.title} on {dataset_title(first)}", ""]
        lines += [f"| Card | Alignment function | {task.metric_title}{unit} | Seeds |", "|:---|:---|---:|---:|"]
        for key in ordered(rows):
            seeds = rows[key]
            found = estimate(result["metrics"][task.metric] for result in seeds)
            number = found.text(1) if found.count > 1 else f"{found.mean:.1f}"
            name = variant_of(seeds[0])
            function = display_name(key).replace("*", r"\*")
            lines.append(f"| [{name}]({name}.md) | {function} | {number} | {found.count} |")
    lines += ["", "Several seeds: their mean ± half its 95 % interval."]
    return "\n".join(lines) + "\n"

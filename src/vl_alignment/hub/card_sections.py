"""The parts of a card's text, as the template takes them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import yaml_dump

from ..analysis.layout import display_name
from ..analysis.statistics import Result
from ..analysis.tables import dataset_title
from ..analysis.tasks import Task, task_of
from ..data.features import extractor_names
from ..models.alignment import ALIGNMENT_FUNCTIONS
from ..training.preparation import BUILT_IN
from .card_examples import ATTENTION_FILE, Example
from .card_texts import DATA_FACTS, MODEL_FACTS, OTHER_DATA
from .card_values import (
    RecordedCommand,
    controls_table,
    markdown_table,
    measured_split,
    not_learned,
    published_cells,
    results_rows,
    scale_differences,
)
from .variants import find_variant, task_of_model

__all__ = ["described", "function_section", "limits_section", "results_section", "shown", "training_section"]

# What makes its regions from a picture without further options.
EXTRACTORS_WITHOUT_OPTIONS = tuple(name for name in extractor_names() if name != "transformers")


def described(result: Result, command: RecordedCommand, repo_id: str | None) -> dict[str, Any]:
    """What the model is, and what the snippets need."""
    model, dataset, function = result["model"], result["dataset"]["name"], result["alignment_function"]
    of_model, facts, data = task_of_model(model), MODEL_FACTS[model], DATA_FACTS.get((model, dataset))
    title, local = dataset_title([result]), f"{command.output}/{result['run_id']}/model"
    extractor = (result["dataset"].get("regions") or {}).get("extractor")
    sees = "pixels"
    if extractor is not None and dataset not in BUILT_IN:
        sees = "regions" if extractor in EXTRACTORS_WITHOUT_OPTIONS else "nothing"
    released = ", released layout" if result["released_layout"] else ""
    return {
        "title": f"{of_model.title} with `{function}`{released} on {title}",
        "facts": facts,
        "model_type": model,
        "dataset_title": title,
        "data_what": data.what if data else "a data set of the user's own",
        "function": function,
        "paper_name": display_name(function).replace("*", r"\*"),
        "pipeline": of_model.pipeline,
        "repo_id": repo_id,
        "place": repo_id or local,
        "local_model": local,
        "trust": ", trust_remote_code=True" if repo_id else "",
        "samples": (data.samples if data else ()) or facts.samples,
        "sees": sees,
        "extractor": extractor,
    }


def function_section(result: Result, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The equation, which side is transformed, and what the function cannot differ from."""
    function, facts = result["alignment_function"], MODEL_FACTS[result["model"]]
    row, released = ALIGNMENT_FUNCTIONS.get(function), bool(result["released_layout"])
    if row is None:
        return {"equation": None, "released": released}
    query, key = facts.query, facts.key
    if parameters.get("model", {}).get("direction") == "i2t":
        query, key = key, query
    side = "Neither side is transformed."
    if row.transforms is not None:
        name, learned = ("Q", "W and b") if row.transforms == "query" else ("K", "W and b")
        side = f"The {row.transforms} {name} is transformed, by a learned {learned if row.bias else 'W'}."
    elif function == "additive":
        side = "Both sides are transformed, by learned W1 and W2."
    if row.activated:
        side += f" act is {parameters.get('model', {}).get('alignment_activation', 'relu')}."
    same = next((one for one in task_of([result]).same_class if function in one.functions), None)
    others = [display_name(name).replace("*", r"\*") for name in same.functions if name != function] if same else []
    note = None
    if same is not None and not released:
        note = (
            f"It is of one class with {', '.join(others)}, since {same.reason}. A gap between them comes from "
            "initialisation and optimisation."
        )
    return {
        **{"equation": row.equation, "query": query, "key": key, "side": side},
        **{"same_class": note, "released": released},
    }


def results_section(
    result: Result, seeds: Sequence[Result], controls: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """What was measured, beside the paper's numbers and the controls."""
    task, numbers = task_of([result]), sorted(int(one["seed"]) for one in seeds)
    own = int(result["seed"])
    return {
        "test_title": _test_title(result, task),
        "units": task.units if task.metric != "rsum" else "recalls in percent, and Rsum is their sum",
        "seeds": numbers,
        "seed": own,
        "which_seed": "the lowest, not the best" if own == numbers[0] else "whatever their rank",
        "results": markdown_table(results_rows(result, seeds)),
        "published_note": _published_note(result, task, parameters),
        "controls": markdown_table(rows) if (rows := controls_table(result, controls)) else None,
        "control_notes": [f"_{one['name']}_: {one.get('description', 'not described')}" for one in controls],
    }


def _test_title(result: Result, task: Task) -> str:
    size = result["dataset"].get("test")
    items = f"{size:,} {task.items}" if size else task.items
    if measured_split(result) == "validation":
        return f"the validation split ({items}), which also chose the weights: the test split's answers are not public"
    return f"{items} of the test split"


def _published_note(result: Result, task: Task, parameters: Mapping[str, Any]) -> str | None:
    """Say what the paper's numbers are of, and that they do not compare where they are of other data."""
    cells = published_cells(result)
    if not cells:
        return None
    titles, same = " and ".join(cells), dataset_title([result]) in cells
    extractor = (result["dataset"].get("regions") or {}).get("extractor")
    differences = [f"regions by `{extractor}`"] if extractor else []
    differences += [*scale_differences(result, parameters), "other random seeds", "one run there"]
    if same:
        text = f"The paper's numbers are of this cell, on {titles}; they differ in {', '.join(differences)}."
    else:
        text = (
            f"The paper's numbers are of the same function on {titles}, which is **other data: they do not compare** "
            "with those beside them, and only show where the cell stands in the paper. Besides: "
            f"{', '.join(differences)}."
        )
    note = task.published_note.replace("*", r"\*")
    return f"{text} {note}"


def training_section(
    result: Result, run: Mapping[str, Any] | None, command: RecordedCommand, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """How it was trained, and the commands that train it again."""
    if run is not None and "settings" in run:
        note = "Hyper-parameters, as the run recorded them:"
    else:
        note = (
            f"Hyper-parameters: those that the preset `{command.preset}`, which the command names or takes by default, "
            "has in this version of the package, with the command's changes; the run's own were not kept:"
        )
    rebuild, extraction = command.rebuild(result), command.extraction(result, EXTRACTORS_WITHOUT_OPTIONS)
    launch = command.launch(result)
    named = " ".join(text for text in (rebuild, extraction) if text)
    return {
        "training": markdown_table([["", "Recorded"], *_training_rows(result, run, command)], "---"),
        "parameters": yaml_dump(dict(parameters), sort_keys=False, stream=None).rstrip() if parameters else None,
        "parameters_note": note,
        "rebuild": rebuild,
        "extraction": extraction if rebuild else None,
        "launch": launch,
        "placeholders": ", ".join(f"`{word}`" for word in dict.fromkeys(shlex.split(named)) if word.startswith("$")),
    }


def _training_rows(result: Result, run: Mapping[str, Any] | None, command: RecordedCommand) -> list[list[str]]:
    dataset, training, task = result["dataset"], result["training"], task_of([result])
    rows = [["Data", _data(result)]]
    rows += [[f"{split.capitalize()}", _size(dataset, split, task)] for split in ("train", "validation", "test")]
    if regions := dataset.get("regions"):
        rows.append(["Regions", f"`{regions['extractor']}`, version `{regions['version']}`"])
    for name, title in (("answer_words", "Answer vocabulary"), ("word_vectors", "Word vectors")):
        if dataset.get(name) is not None:
            rows.append([title, f"{dataset[name]} words" if name == "answer_words" else f"`{dataset[name]}`"])
    if source := (dataset.get("ocr") or {}).get("source"):
        rows.append(["Text in the pictures", {"true": "as it was printed", "read": "by OCR"}.get(source, source)])
    rows.append(["Seed", str(result["seed"])])
    amount = [f"{training['epochs']} epochs" if "epochs" in training else "", f"{training['steps']:,} steps"]
    rows.append(["Length", ", ".join(part for part in amount if part)])
    if "best_epoch" in training:
        rows.append(["Kept", f"the weights after epoch {training['best_epoch']}, the best on the validation split"])
    rows.append(["Time", f"{_duration(training['seconds'])} of training, without preparing data and regions"])
    rows.append(["Device", _device(training, (run or {}).get("machine") or {})])
    rows.append(["Precision", {"no": "float32"}.get(training["precision"], f"autocast to {training['precision']}")])
    rows.append(["Versions", ", ".join(f"{name} {version}" for name, version in result["versions"].items())])
    if result["commit"]:
        commit, dirty = str(result["commit"]).removesuffix("-dirty"), str(result["commit"]).endswith("-dirty")
        rows.append(["Commit", f"`{commit}`" + (", the checkout had uncommitted changes" if dirty else "")])
    rows.append(["Started, finished", f"{result['started']}, {result['finished']}"])
    rows.append(["Command", f"`{command}`"])
    return rows


def _data(result: Result) -> str:
    variant = find_variant(result["model"], result["dataset"]["name"], result["alignment_function"])
    kind = "built in" if variant and result["dataset"]["name"] in BUILT_IN else "read from files"
    content = result["dataset"].get("content_hash")
    return f"{dataset_title([result])}, {kind}" + (f", content `{content}`" if content else "")


def _size(dataset: Mapping[str, Any], split: str, task: Task) -> str:
    pictures = (dataset.get("images") or {}).get(split)
    return f"{dataset[split]:,} {task.items}" + (f" about {pictures:,} pictures" if pictures else "")


def _device(training: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    parts = [str(training["device"]), *machine.get("accelerators", ())]
    if machine.get("processor"):
        parts.append(str(machine["processor"]))
    units = {"cores": "{} cores", "threads": "{} threads", "memory_gib": "{} GiB of memory"}
    parts += [text.format(machine[name]) for name, text in units.items() if machine.get(name) is not None]
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shown(result: Result, examples: Sequence[Example], folder: Path | None, place: str) -> dict[str, Any]:
    """The examples with what the model gave, and the picture of its attention, where they exist.

    Args:
        result: Of the run.
        examples: Of the run, their pictures at their places.
        folder: Where the picture of its attention lies.
        place: Of that picture, from the card; empty, or a folder with a slash.
    """
    attention = folder is not None and (folder / ATTENTION_FILE).is_file()
    what = MODEL_FACTS[result["model"]]
    return {
        "examples": [_example(one) for one in examples],
        "attention": f"{place}{ATTENTION_FILE}" if attention else None,
        "attention_alt": f"Where {what.query} attended among {what.key}, drawn from this model",
    }


def _example(example: Example) -> str:
    asked = "; ".join(example.texts)
    picture = f" about ![{example.title}]({example.image})" if example.image else ""
    if isinstance(example.output, str):
        return f"{example.title}: “{asked}”{picture} gave ![{asked}]({example.output})"
    given = ", ".join(f"{label} ({score:.2f})" for label, score in example.output)
    return f"{example.title}: “{asked}”{picture} gave {given}"


def limits_section(result: Result, seeds: Sequence[Result], controls: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the model cannot do, what its data does to it, and what the numbers do not show."""
    data = DATA_FACTS.get((result["model"], result["dataset"]["name"]))
    limits = ["Made for research on alignment functions; it was neither made nor examined for decisions about people."]
    if failed := not_learned(result, controls):
        limits.append(
            f"**Not learned**, since a model trained alike that saw no picture does about as well: {'; '.join(failed)}."
        )
    if len(seeds) == 1:
        limits.append("One seed was trained: what another would reach is not known.")
    elif len(seeds) < 5:
        limits.append(f"{len(seeds)} seeds give wide intervals: most differences to other functions may be noise.")
    return [*limits, *(data.limits if data else OTHER_DATA), *MODEL_FACTS[result["model"]].limits]

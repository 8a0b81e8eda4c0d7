"""The command line: parses, calls one function, prints."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .cli_analysis import ANALYSIS_COMMANDS
from .cli_hub import HUB_COMMANDS
from .cli_parser import DATA_OPTIONS, SETTINGS, TASKS, TASKS_OF, build_parser
from .cli_predict import PREDICT_COMMANDS, chosen_extractor, extractor_options
from .cli_search import SEARCH_COMMANDS
from .data.confidential import masked_output

__all__ = ["main"]

# What the data set bounds the accuracy with, where that is known.
BOUNDS = ("answer_ceiling", "best_accuracy")
DONE, OUR_FAULT, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. No token or password in an argument, an address or the environment is printed.

    Returns:
        0 when done, 2 for wrong input (one line on stderr; `--debug` shows the traceback), 130 when interrupted after
        saving, 1 for a fault of ours.
    """
    with masked_output():
        return _run(build_parser().parse_args(arguments))


def _run(parsed: argparse.Namespace) -> int:
    from transformers.utils import logging

    from .models.errors import VlAlignmentError

    logging.disable_progress_bar()  # loading takes no time here, and its bars would stand between ours
    try:
        _COMMANDS[parsed.command](parsed)
    except VlAlignmentError as error:
        if parsed.debug:
            traceback.print_exc()
        print(f"vl-alignment: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt as interruption:  # TrainingInterrupted is one
        print(f"vl-alignment: interrupted. {interruption} Run the same command again to go on.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if parsed.debug:
            traceback.print_exc()
        print(
            f"vl-alignment: a fault of ours: {type(error).__name__}: {error} (--debug shows where; please report it "
            "with the output of `vl-alignment env`)",
            file=sys.stderr,
        )
        return OUR_FAULT
    return DONE


def _settle(parsed: argparse.Namespace) -> str:
    """Fill in preset and output folder; return the task.

    Raises:
        ConfigurationError: Preset or a setting is of another task.
    """
    from .models.errors import ConfigurationError
    from .training.presets import get_preset

    if parsed.preset is None:
        parsed.preset = TASKS[parsed.task or "retrieval"][1]
    task = get_preset(parsed.preset)["task"]
    if parsed.task is not None and TASKS[parsed.task][0] != task:
        raise ConfigurationError(f"the preset {parsed.preset!r} is for {task}, not for --task {parsed.task}")
    for name, owners in TASKS_OF.items():
        if getattr(parsed, name) is not None and task not in owners:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is a setting of {' and '.join(owners)}, not of {task}"
            )
    if parsed.output is None:
        parsed.output = Path(parsed.default_output.format(preset=parsed.preset))
    return task


def _data_options(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in DATA_OPTIONS if (value := getattr(parsed, name, None)) is not None}


def _prepared(parsed: argparse.Namespace) -> Any:
    from .training.preparation import prepare_study

    initialization = parsed.alignment_initialization
    return prepare_study(
        parsed.preset,
        output=parsed.output,
        data_dir=parsed.data_dir,
        regions=parsed.regions,
        extractor=parsed.extractor,
        sizes=dict(parsed.sizes) if parsed.sizes else None,
        settings={name: value for name in SETTINGS if (value := getattr(parsed, name)) is not None},
        model_fields={"alignment_initialization": initialization} if initialization else None,
        options=_data_options(parsed),
    )


def _compare(parsed: argparse.Namespace) -> None:
    from .analysis.comparison import compare, failed_runs, planned_runs, write_comparison
    from .analysis.nouns import build_noun_tagger
    from .models.errors import ResultsError
    from .training.presets import get_preset

    task = _settle(parsed)
    seeds = parsed.seeds if parsed.seeds is not None else get_preset(parsed.preset)["data"]["seeds"]
    runs = planned_runs(parsed.functions, seeds, task)
    if parsed.noun_tagger is not None:
        build_noun_tagger(parsed.noun_tagger)  # not after hours that its name is unknown
    study = _prepared(parsed)
    if parsed.dry_run:
        _print_plan(study, runs, parsed.output)
        return
    compare(study, parsed.output, runs, controls=not parsed.no_controls, released_layout=parsed.released_layout)
    print(write_comparison(parsed.output, study, pictures=parsed.pictures, noun_tagger=parsed.noun_tagger))
    print(f"report: {parsed.output / 'report.html'}")
    if failed := failed_runs(parsed.output, runs, parsed.released_layout):
        raise ResultsError(
            f"{len(runs) - len(failed)} of {len(runs)} runs are done. Not done: "
            + "; ".join(f"{title}: {failure}" for title, failure in failed.items()),
            path=parsed.output,
        )


def _train(parsed: argparse.Namespace) -> None:
    from .analysis.comparison import planned_runs

    runs = planned_runs([parsed.alignment_function], [parsed.seed], _settle(parsed))
    study = _prepared(parsed)
    if parsed.dry_run:
        _print_plan(study, runs, parsed.output)
        return
    result = study.run_cell(
        parsed.output, parsed.alignment_function, parsed.seed, released_layout=parsed.released_layout
    )
    bounds = {name: value for name in BOUNDS if (value := result["dataset"].get(name)) is not None}
    _print_metrics({**result["metrics"], **(bounds or result.get("bounds", {}))})
    print(f"model: {parsed.output / result['run_id'] / 'model'}")


def _print_plan(study: Any, runs: Sequence[tuple[int, str]], output: Path) -> None:
    print(
        f"{study.name}, {study.task}" + (f"; regions: {study.store or 'from pixels'}" if study.image_processor else "")
    )
    questions = getattr(study.data, "questions", {})
    for name, size in study.sizes.items():
        print(f"{name}: {size} pictures" + (f", {len(questions[name])} questions" if questions else ""))
    print(f"model: {json.dumps(study.model_fields)}")
    print(f"settings: {json.dumps(study.settings)}")
    for seed, name in runs:
        print(f"would train {name}, seed {seed}, below {output}")


def _evaluate(parsed: argparse.Namespace) -> None:
    from .training.evaluation import evaluate
    from .training.runs import model_folder

    _print_metrics(
        evaluate(
            model_folder(parsed.model),
            parsed.preset,
            data_dir=parsed.data_dir,
            regions=parsed.regions,
            split=parsed.split,
            sizes=dict(parsed.sizes) if parsed.sizes else None,
            folds=parsed.folds,
            options=_data_options(parsed),
            device=parsed.device,
            scores=parsed.scores,
        )
    )


def _build_vocabulary(parsed: argparse.Namespace) -> None:
    from .training.preparation import build_vocabulary

    words = build_vocabulary(
        parsed.dataset,
        parsed.output,
        data_dir=parsed.data_dir,
        size=parsed.size,
        sizes=dict(parsed.sizes) if parsed.sizes else None,
    )
    print(f"{len(words)} words: {parsed.output}")


def _extract_features(parsed: argparse.Namespace) -> None:
    from accelerate import PartialState

    from .data.features import build_extractor, extract_regions
    from .training.evaluation import load_images

    images = load_images(parsed.preset, parsed.data_dir, sizes=dict(parsed.sizes) if parsed.sizes else None)
    options = extractor_options(parsed)
    processes = PartialState(cpu=parsed.device == "cpu")
    if processes.device.type == "cuda":
        options["device"] = str(processes.device)  # of several processes each has its own
    store = extract_regions(
        images,
        build_extractor(chosen_extractor(parsed) or "efficientnet_lite0", **options),
        parsed.output,
        batch_size=parsed.batch_size,
        dtype=parsed.dtype,
        maximum_failures=parsed.maximum_failures,
        processes=processes,
    )
    if processes.is_main_process:
        print(f"{len(store)} pictures, {store.regions} regions of {store.feature_size} each: {parsed.output}")


def _env(parsed: argparse.Namespace) -> None:
    from .training.preparation import cache_folder
    from .training.runs import commit, describe_machine, versions

    home = str(Path.home())
    lines = {**versions(), **describe_machine(), "commit": commit(), "cache": str(cache_folder()).replace(home, "~")}
    for name in ("VL_ALIGNMENT_DATA", "VL_ALIGNMENT_CACHE", "VL_ALIGNMENT_GOLDEN", "HF_HOME", "OMP_NUM_THREADS"):
        if name in os.environ:
            lines[name] = os.environ[name].replace(home, "~")
    for name, value in lines.items():
        print(f"{name}: {value}")


def _print_metrics(metrics: dict[str, float]) -> None:
    width = max(len(name) for name in metrics)
    for name, value in metrics.items():
        # Distances are in units of the features, which may be small; all else is percent.
        print(f"{name:<{width}}  {value:8.{4 if name.endswith('distance') else 2}f}")


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "compare": _compare,
    "train": _train,
    "evaluate": _evaluate,
    "extract-features": _extract_features,
    "build-vocabulary": _build_vocabulary,
    "env": _env,
    **ANALYSIS_COMMANDS,
    **HUB_COMMANDS,
    **PREDICT_COMMANDS,
    **SEARCH_COMMANDS,
}


if __name__ == "__main__":
    sys.exit(main())

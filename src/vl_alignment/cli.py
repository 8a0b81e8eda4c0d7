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


def _extractor(parsed: argparse.Namespace) -> str | None:
    return parsed.extractor or ("transformers" if parsed.backbone else None)


def _extractor_options(parsed: argparse.Namespace) -> dict[str, Any]:
    options = {"model": parsed.backbone, "stage": parsed.stage, "image_size": parsed.image_size}
    return {name: value for name, value in options.items() if value is not None}


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


def _predict(parsed: argparse.Namespace) -> None:
    from .analysis.prediction import predict_answers, predict_similarity
    from .training.evaluation import model_task
    from .training.runs import model_folder

    folder = model_folder(parsed.model)
    if _draws(parsed, folder):
        _draw(parsed, folder)
        return
    read = parsed.question is not None and model_task(folder) in TASKS_OF["ocr"]
    options = _reading_options(parsed, read)
    predict: Callable[..., list[dict[str, Any]]]
    if read:
        from .analysis.text_prediction import predict_read_answers as predict
    else:
        predict = predict_similarity if parsed.question is None else predict_answers
    rows = predict(
        folder,
        parsed.images,
        parsed.text or parsed.question,
        extractor=_extractor(parsed),
        extractor_options=_extractor_options(parsed),
        attention=parsed.attention,
        **options,
    )
    for asked in rows[0].get("questions", ()):
        if unknown := asked["unknown_words"]:
            words = f"{len(unknown)} unknown word{'s' * (len(unknown) > 1)}, read as <unk>: {', '.join(unknown)}"
            print(f"vl-alignment: {asked['question']!r}: {words}", file=sys.stderr)
    if parsed.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        _print_prediction(row)


def _draws(parsed: argparse.Namespace, folder: Path) -> bool:
    """Whether the model draws pictures.

    Raises:
        ConfigurationError: Something is given that goes with other models, or pictures are missing.
    """
    from .models.errors import ConfigurationError
    from .training.evaluation import model_task

    draws = model_task(folder) in TASKS_OF["matching_weight"]
    others = ("images", "question", "ocr", "ocr_tokens", "fasttext", "extractor", "backbone", "stage", "image_size")
    for name in others if draws else ("output", "num_images", "seed"):
        if getattr(parsed, name) is not None:
            whose = "the model draws pictures from captions (--text)" if draws else "is for a model that draws pictures"
            raise ConfigurationError(f"--{name.replace('_', '-')}: {whose}")
    if not draws and parsed.images is None:
        raise ConfigurationError("give pictures with --images")
    return draws


def _draw(parsed: argparse.Namespace, folder: Path) -> None:
    from .analysis.picture_prediction import draw_captions

    chosen = {name: value for name in ("num_images", "seed") if (value := getattr(parsed, name)) is not None}
    rows = draw_captions(folder, parsed.text, parsed.output or Path("drawn.png"), attention=parsed.attention, **chosen)
    for row in rows:
        if unknown := row["unknown_words"]:
            print(
                f"vl-alignment: {row['caption']!r}: unknown words, passed over: {', '.join(unknown)}", file=sys.stderr
            )
    if parsed.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['caption']}: {row['images']} pictures in row {row['row']} of {row['file']}")


def _reading_options(parsed: argparse.Namespace, read: bool) -> dict[str, Any]:
    """Return what only a model that reads is told.

    Raises:
        ConfigurationError: Something of it is given for another model.
    """
    from .models.errors import ConfigurationError

    if not read:
        for name in ("ocr", "ocr_tokens", "fasttext"):
            if getattr(parsed, name) is not None:
                raise ConfigurationError(f"--{name.replace('_', '-')} is for questions to a model that reads (M4C)")
        return {}
    from .analysis.text_prediction import read_given_text
    from .data.word_vectors import FastTextVectors

    options: dict[str, Any] = {"reader": parsed.ocr} if parsed.ocr is not None else {}
    if parsed.ocr_tokens is not None:
        options["texts"] = read_given_text(parsed.ocr_tokens)
    if parsed.fasttext is not None:
        options["word_vectors"] = FastTextVectors(parsed.fasttext)
    return options


def _print_prediction(row: dict[str, Any]) -> None:
    """Print what was found of one picture: captions by score, answers by probability, or words and their sources."""
    print(row["image"])
    for match in row.get("captions", ()):
        print(f"  {match['score']:+.4f}  {match['text']}")
    if "tokens" in row:
        numbered = ", ".join(f"{token['token']} {token['word']}" for token in row["tokens"])
        print(f"  words in the picture: {numbered or 'none'}")
    for asked in row.get("questions", ()):
        print(f"  {asked['question']}")
        for best in asked.get("answers", ()):
            print(f"    {best['probability']:6.1%}  {best['answer']}")
        if "answer" in asked:
            print(f"    {asked['answer'] or '(no answer)'}")
        for word in asked.get("words", ()):
            source = "vocabulary" if word["source"] == "vocabulary" else f"OCR token {word['token']} at {word['box']}"
            print(f"      {word['word']}: {source}")


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
    options = _extractor_options(parsed)
    processes = PartialState(cpu=parsed.device == "cpu")
    if processes.device.type == "cuda":
        options["device"] = str(processes.device)  # of several processes each has its own
    store = extract_regions(
        images,
        build_extractor(_extractor(parsed) or "efficientnet_lite0", **options),
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
    "predict": _predict,
    "extract-features": _extract_features,
    "build-vocabulary": _build_vocabulary,
    "env": _env,
    **ANALYSIS_COMMANDS,
    **HUB_COMMANDS,
    **SEARCH_COMMANDS,
}


if __name__ == "__main__":
    sys.exit(main())

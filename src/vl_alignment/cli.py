"""The command line: parses, calls one function, prints."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

DONE, OUR_FAULT, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 when done, 2 for wrong input (one line on stderr; `--debug` shows the traceback), 130 when interrupted after
        saving, 1 for a fault of ours.
    """
    parsed = _parser().parse_args(arguments)
    from transformers.utils import logging

    from .models.errors import VlAlignmentError

    logging.disable_progress_bar()  # loading takes no time here, and its bars would stand between ours
    try:
        parsed.run(parsed)
    except VlAlignmentError as error:
        if parsed.debug:
            raise
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
            raise
        print(
            f"vl-alignment: a fault of ours: {type(error).__name__}: {error} (--debug shows where; please report it "
            "with the output of `vl-alignment env`)",
            file=sys.stderr,
        )
        return OUR_FAULT
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vl-alignment", description="Train and compare alignment functions between words and image regions."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_extract_features(commands)
    _command(commands, "env", _env, "Print versions, devices and caches, for bug reports.")
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Any:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def _add_preparation(parser: Any, output: str) -> None:
    """Add what `train` and `compare` share."""
    from .training.presets import PRESETS

    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="blocks", help="data set and settings (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path(output), help="folder of the runs (%(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set; blocks needs none")
    parser.add_argument("--regions", type=Path, help="folder of a region store (see extract-features)")
    parser.add_argument("--extractor", help="fill that store first with this extractor")
    parser.add_argument("--released-layout", action="store_true", help="compute as the authors' released code does")
    parser.add_argument("--alignment-initialization", choices=["linear", "identity"], help="where W starts")
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="SPLIT=N", help="use so many images of a split")
    for name in ("epochs", "batch-size", "evaluate-every", "all-negatives-epochs"):
        parser.add_argument(f"--{name}", type=int, help="instead of the preset's")
    parser.add_argument("--decay-epochs", type=int, nargs="*", help="instead of the preset's")
    parser.add_argument("--learning-rate", type=float, help="instead of the preset's")
    _add_device(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the plan; train nothing")


def _size(text: str) -> tuple[str, int]:
    split, separator, number = text.partition("=")
    if not separator or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=N, for instance train=500")
    return split, int(number)


def _add_device(parser: Any) -> None:
    parser.add_argument("--device", choices=["auto", "cpu"], help="auto takes an accelerator where there is one")
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], help="of training: float32 or autocast")


def _add_compare(commands: Any) -> None:
    parser = _command(
        commands,
        "compare",
        _compare,
        "Train alignment functions x seeds on one data set, print the paper's Table 2 layout and write the report. "
        "Run it again to go on after an interruption.",
    )
    _add_preparation(parser, "outputs/blocks")
    parser.add_argument("--functions", nargs="+", metavar="NAME", help="alignment functions (the paper's eight)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="one run of every function each")
    parser.add_argument(
        "--pictures", type=int, default=4, help="test images in the report, with attention (%(default)s)"
    )
    parser.add_argument("--no-controls", action="store_true", help="leave out the control runs")


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _train, "Train one alignment function and evaluate it.")
    _add_preparation(parser, "outputs/train")
    parser.add_argument("--alignment-function", default="general_key", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def _add_evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", _evaluate, "Evaluate a trained model on a split of a data set.")
    parser.add_argument("model", type=Path, help="folder of a model, or of a run")
    parser.add_argument("--preset", default="blocks", help="whose data set to take (%(default)s)")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--regions", type=Path, help="region store; without it the model sees pixels")
    parser.add_argument("--split", default="test", help="(%(default)s)")
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="SPLIT=N", help="use so many images of a split")
    parser.add_argument("--folds", type=int, default=1, help="average over so many folds of the split (%(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", _predict, "Score pictures against captions with a trained model.")
    parser.add_argument("model", type=Path, help="folder of a model, or of a run")
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="FILE", help="pictures")
    parser.add_argument("--text", nargs="+", required=True, metavar="CAPTION", help="captions")
    parser.add_argument("--extractor", help="how to make regions, for a model without a backbone (what it records)")
    parser.add_argument("--attention", type=Path, metavar="PNG", help="draw where the best caption's words look")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_extract_features(commands: Any) -> None:
    parser = _command(
        commands, "extract-features", _extract_features, "Extract the regions of a data set into a region store."
    )
    parser.add_argument("--preset", default="flickr8k", help="whose data set to take (%(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set")
    parser.add_argument("--extractor", default="efficientnet_lite0", help="plug-in (%(default)s)")
    parser.add_argument("--model", help="for the extractor `transformers`: a model id or folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of the region store; resumes")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--maximum-failures", type=int, help="broken images beyond which to stop")


def _prepared(parsed: argparse.Namespace) -> Any:
    from .training.preparation import prepare_retrieval

    settings = {
        name: value
        for name in (
            *("epochs", "batch_size", "evaluate_every", "all_negatives_epochs", "decay_epochs", "learning_rate"),
            *("device", "precision"),
        )
        if (value := getattr(parsed, name)) is not None
    }
    initialization = parsed.alignment_initialization
    return prepare_retrieval(
        parsed.preset,
        output=parsed.output,
        data_dir=parsed.data_dir,
        regions=parsed.regions,
        extractor=parsed.extractor,
        sizes=dict(parsed.sizes) if parsed.sizes else None,
        settings=settings,
        model_fields={"alignment_initialization": initialization} if initialization else None,
    )


def _compare(parsed: argparse.Namespace) -> None:
    from .analysis.comparison import compare_retrieval, planned_runs, write_comparison
    from .training.presets import get_preset

    seeds = parsed.seeds if parsed.seeds is not None else get_preset(parsed.preset)["data"]["seeds"]
    runs = planned_runs(parsed.functions, seeds)
    study = _prepared(parsed)
    if parsed.dry_run:
        _print_plan(study, runs, parsed.output)
        return
    compare_retrieval(
        study, parsed.output, runs, controls=not parsed.no_controls, released_layout=parsed.released_layout
    )
    print(write_comparison(parsed.output, study, pictures=parsed.pictures))
    print(f"report: {parsed.output / 'report.html'}")


def _train(parsed: argparse.Namespace) -> None:
    from .analysis.comparison import planned_runs
    from .training.preparation import run_study_cell

    runs = planned_runs([parsed.alignment_function], [parsed.seed])
    study = _prepared(parsed)
    if parsed.dry_run:
        _print_plan(study, runs, parsed.output)
        return
    result = run_study_cell(
        study, parsed.output, parsed.alignment_function, parsed.seed, released_layout=parsed.released_layout
    )
    _print_metrics(result["metrics"])
    print(f"model: {parsed.output / result['run_id'] / 'model'}")


def _print_plan(study: Any, runs: Sequence[tuple[int, str]], output: Path) -> None:
    sizes = ", ".join(f"{len(split)} {name}" for name, split in study.data.items())
    print(f"{study.name}: {sizes}; regions: {study.store or 'from pixels'}")
    print(f"settings: {json.dumps(study.settings)}")
    for seed, name in runs:
        print(f"would train {name}, seed {seed}, below {output}")


def _evaluate(parsed: argparse.Namespace) -> None:
    from .training.evaluation import evaluate_retrieval

    _print_metrics(
        evaluate_retrieval(
            _model_folder(parsed.model),
            parsed.preset,
            data_dir=parsed.data_dir,
            regions=parsed.regions,
            split=parsed.split,
            sizes=dict(parsed.sizes) if parsed.sizes else None,
            folds=parsed.folds,
            device=parsed.device,
        )
    )


def _predict(parsed: argparse.Namespace) -> None:
    from .analysis.prediction import predict_similarity

    scores = predict_similarity(
        _model_folder(parsed.model), parsed.images, parsed.text, extractor=parsed.extractor, attention=parsed.attention
    )
    if parsed.json:
        print(json.dumps(scores, indent=2, ensure_ascii=False))
        return
    for row in scores:
        print(row["image"])
        for match in row["captions"]:
            print(f"  {match['score']:+.4f}  {match['text']}")


def _extract_features(parsed: argparse.Namespace) -> None:
    from .data.features import build_extractor, extract_regions
    from .data.retrieval import load_retrieval_dataset
    from .training.presets import get_preset

    options = {"model": parsed.model} if parsed.model else {}
    store = extract_regions(
        load_retrieval_dataset(get_preset(parsed.preset)["data"]["name"], parsed.data_dir),
        build_extractor(parsed.extractor, **options),
        parsed.output,
        batch_size=parsed.batch_size,
        dtype=parsed.dtype,
        maximum_failures=parsed.maximum_failures,
    )
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


def _model_folder(path: Path) -> Path:
    """Accept a run's folder for its model's."""
    return path / "model" if (path / "model" / "config.json").exists() else path


def _print_metrics(metrics: dict[str, float]) -> None:
    width = max(len(name) for name in metrics)
    for name, value in metrics.items():
        print(f"{name:<{width}}  {value:8.2f}")


if __name__ == "__main__":
    sys.exit(main())

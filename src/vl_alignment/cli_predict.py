"""The command `predict`: its options, what it asks of trained models, and what it prints."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .cli_types import AddCommand

__all__ = ["PREDICT_COMMANDS", "add_predict_command", "chosen_extractor", "extractor_options"]

Rows: TypeAlias = list[dict[str, Any]]
# Asks the model in a folder, and writes its pictures to the files given.
Ask: TypeAlias = Callable[[Path, Mapping[str, Path]], Rows]


def add_predict_command(
    add: AddCommand, add_word_vectors: Callable[[Any], None], add_backbone: Callable[[Any], None]
) -> None:
    """Add it; the last two add the options that other commands have too."""
    parser = add(
        "predict",
        "Score pictures against captions, answer questions, or draw pictures from captions, with a trained model, or "
        "with several of one task beside one another.",
    )
    parser.add_argument("model", type=Path, nargs="+", help="folder of a model, or of a run")
    parser.add_argument(
        "--images", type=Path, nargs="+", metavar="FILE", help="pictures; a model that draws needs none"
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--text", nargs="+", metavar="CAPTION", help="captions, to be found or drawn")
    asked.add_argument("--question", nargs="+", metavar="QUESTION", help="for a question-answering model")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--ocr", metavar="READER", help="what reads the words in pictures for M4C (rapidocr)")
    text.add_argument(
        "--ocr-tokens",
        type=Path,
        metavar="FILE",
        help='words that are known: JSON, a list of {"tokens": [...], "boxes": [[x0, y0, x1, y1], ...]} a picture, '
        "boxes in [0, 1]",
    )
    add_word_vectors(parser)
    parser.add_argument("--output", type=Path, metavar="PNG", help="for drawn pictures, a row a caption (drawn.png)")
    parser.add_argument("--num-images", type=int, help="pictures drawn of each caption (4)")
    parser.add_argument("--seed", type=int, help="of their noise (0)")
    parser.add_argument("--extractor", help="how to make regions, for a model without a backbone (what it records)")
    add_backbone(parser)
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="PNG",
        help="draw where the best caption's words look or were drawn, or the steps or words of the first answer; of "
        "several models one above the other (of captions, all draw the one that is best to the first)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def chosen_extractor(parsed: argparse.Namespace) -> str | None:
    """Return the name of the plug-in that makes regions; None where none is named."""
    return parsed.extractor or ("transformers" if parsed.backbone else None)


def extractor_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a backbone as that plug-in."""
    options = {"model": parsed.backbone, "stage": parsed.stage, "image_size": parsed.image_size}
    return {name: value for name, value in options.items() if value is not None}


def _predict(parsed: argparse.Namespace) -> None:
    """Ask every model the same; print what each finds, and put their pictures one above the other."""
    from .training.runs import model_folder

    folders = [model_folder(model) for model in parsed.model]
    task = _shared_task(folders)
    ask = _drawing(parsed) if _draw_pictures(parsed, task) else _seeing(parsed, task)
    several = len(folders) > 1
    targets = {name: file for name in ("attention", "output") if (file := getattr(parsed, name)) is not None}
    if several:
        _check_targets(targets.values())
    with tempfile.TemporaryDirectory() as scratch:
        parts = [
            {name: Path(scratch) / f"{name}-{number}.png" if several else target for name, target in targets.items()}
            for number in range(len(folders))
        ]
        found = [ask(folder, files) for folder, files in zip(folders, parts, strict=True)]
        for name, target in targets.items() if several else ():
            _put_together(target, [files[name] for files in parts], parsed.model, folders)
    if parsed.json:
        named = [{"model": str(model), "predictions": rows} for model, rows in zip(parsed.model, found, strict=True)]
        print(json.dumps(named if several else found[0], indent=2, ensure_ascii=False))
        return
    for model, rows in zip(parsed.model, found, strict=True):
        if several:
            print(f"{model}:")
        for row in rows:
            _print_prediction(row)


def _shared_task(folders: Sequence[Path]) -> str:
    """Return what the models are for.

    Raises:
        ConfigurationError: They are for several tasks.
    """
    from .models.errors import ConfigurationError
    from .training.evaluation import model_task

    tasks = [model_task(folder) for folder in folders]
    if len(set(tasks)) > 1:
        named = ", ".join(f"{folder} {task}" for folder, task in zip(folders, tasks, strict=True))
        raise ConfigurationError(f"the models are for several tasks ({named}); ask those of one at a time")
    return tasks[0]


def _seeing(parsed: argparse.Namespace, task: str) -> Ask:
    """Return what asks a model that sees pictures."""
    reads = task == "text-question-answering" and parsed.question is not None
    options = _reading_options(parsed, reads)
    predict: Callable[..., Rows]
    if reads:
        from .analysis.text_prediction import predict_read_answers as predict
    elif parsed.question is not None:
        from .analysis.prediction import predict_answers as predict
    else:
        from .analysis.prediction import predict_similarity as predict

    def ask(folder: Path, files: Mapping[str, Path]) -> Rows:
        rows = predict(
            folder,
            parsed.images,
            parsed.text or parsed.question,
            extractor=chosen_extractor(parsed),
            extractor_options=extractor_options(parsed),
            attention=files.get("attention"),
            **options,
        )
        if parsed.question is None:
            options.setdefault("attended", rows[0]["captions"][0]["text"])
        for asked in rows[0].get("questions", ()):
            if unknown := asked["unknown_words"]:
                words = f"{len(unknown)} unknown word{'s' * (len(unknown) > 1)}, read as <unk>: {', '.join(unknown)}"
                print(f"vl-alignment: {asked['question']!r}: {words}", file=sys.stderr)
        return rows

    return ask


def _drawing(parsed: argparse.Namespace) -> Ask:
    """Return what lets a model draw."""
    from .analysis.picture_prediction import draw_captions

    chosen = {name: value for name in ("num_images", "seed") if (value := getattr(parsed, name)) is not None}
    parsed.output = parsed.output or Path("drawn.png")

    def ask(folder: Path, files: Mapping[str, Path]) -> Rows:
        rows = draw_captions(folder, parsed.text, files["output"], attention=files.get("attention"), **chosen)
        for row in rows:
            row["file"] = str(parsed.output)
            if unknown := row["unknown_words"]:
                words = f"unknown words, passed over: {', '.join(unknown)}"
                print(f"vl-alignment: {row['caption']!r}: {words}", file=sys.stderr)
        return rows

    return ask


def _check_targets(targets: Iterable[Path]) -> None:
    """Refuse a file for pictures before any model is asked.

    Raises:
        ConfigurationError: It is no PNG, or there is no such folder.
    """
    from .models.errors import ConfigurationError

    for target in targets:
        if target.suffix.lower() != ".png":
            raise ConfigurationError(f"{target} must end in .png")
        if not target.parent.is_dir():
            raise ConfigurationError(f"{target} cannot be written: there is no folder {target.parent}")


def _put_together(target: Path, parts: Sequence[Path], models: Sequence[Path], folders: Sequence[Path]) -> None:
    """Write the pictures of all models below their names into one."""
    from transformers import AutoConfig

    from .analysis.best_against_worst import one_above_the_other
    from .analysis.layout import display_name
    from .analysis.statistics import row_key

    functions = [display_name(row_key(AutoConfig.from_pretrained(folder).to_dict())) for folder in folders]
    titles = [f"{function}: {model.name}" for function, model in zip(functions, models, strict=True)]
    target.write_bytes(one_above_the_other(titles, [part.read_bytes() for part in parts]))


def _draw_pictures(parsed: argparse.Namespace, task: str) -> bool:
    """Whether the models draw pictures.

    Raises:
        ConfigurationError: Something is given that goes with other models, or pictures are missing.
    """
    from .models.errors import ConfigurationError

    draws = task == "text-to-image"
    others = ("images", "question", "ocr", "ocr_tokens", "fasttext", "extractor", "backbone", "stage", "image_size")
    for name in others if draws else ("output", "num_images", "seed"):
        if getattr(parsed, name) is not None:
            whose = "the model draws pictures from captions (--text)" if draws else "is for a model that draws pictures"
            raise ConfigurationError(f"--{name.replace('_', '-')}: {whose}")
    if not draws and parsed.images is None:
        raise ConfigurationError("give pictures with --images")
    return draws


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
    """Print what was found of a picture (captions, answers, words and their sources), or where a caption is drawn."""
    if "caption" in row:
        print(f"{row['caption']}: {row['images']} pictures in row {row['row']} of {row['file']}")
        return
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


PREDICT_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {"predict": _predict}

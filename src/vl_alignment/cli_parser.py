"""The commands and options of the command line."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from .cli_analysis import add_analysis_commands
from .cli_hub import add_hub_commands
from .cli_predict import add_predict_command
from .cli_search import add_search_commands
from .cli_types import split_size

__all__ = [
    "DATA_OPTIONS",
    "SETTINGS",
    "TASKS",
    "TASKS_OF",
    "add_damsm_options",
    "add_picture_options",
    "add_text_options",
    "build_parser",
]

# What --task calls a task: the presets' name of it, and the preset that needs no download.
TASKS = {
    "retrieval": ("retrieval", "blocks"),
    "text-to-image": ("text-to-image", "blocks-t2i"),
    "textvqa": ("text-question-answering", "blocks-text"),
    "vqa": ("question-answering", "blocks-vqa"),
}
SETTINGS = (
    *("epochs", "batch_size", "evaluate_every", "decay_epochs", "learning_rate", "device", "precision"),
    *("all_negatives_epochs", "gather_negatives", "questions_per_image", "matching_weight"),
)
READING_OPTIONS = ("ocr", "character_error_rate", "reader", "answer_vocabulary", "fasttext", "text_encoder")
PICTURE_OPTIONS = (
    *("dataset", "image_encoder", "feature_network", "feature_variant", "pictures_per_image", "damsm_epochs"),
)
# Changes of a preset's options of the data: of answering by reading, and of pictures from words.
DATA_OPTIONS = (*READING_OPTIONS, *PICTURE_OPTIONS)
# Settings and options that not every task has.
TASKS_OF = {
    **dict.fromkeys(("all_negatives_epochs", "gather_negatives"), ("retrieval",)),
    "questions_per_image": ("question-answering", "text-question-answering"),
    **dict.fromkeys(READING_OPTIONS, ("text-question-answering",)),
    **dict.fromkeys(("matching_weight", *PICTURE_OPTIONS), ("text-to-image",)),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; it sets `command`, and everything that the command reads."""
    parser = argparse.ArgumentParser(
        prog="vl-alignment", description="Train and compare alignment functions between words and image regions."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_train(commands)
    _add_evaluate(commands)
    add_predict_command(partial(_command, commands), _add_word_vectors, _add_backbone)
    add_analysis_commands(partial(_command, commands))
    _add_extract_features(commands)
    _add_build_vocabulary(commands)
    add_search_commands(partial(_command, commands), _add_sizes)
    add_hub_commands(partial(_command, commands))
    _command(commands, "env", "Print versions, devices and caches, for bug reports.")
    return parser


def _command(commands: Any, name: str, summary: str) -> Any:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=name)
    return parser


def _add_preparation(parser: Any, output: str) -> None:
    """Add what `train` and `compare` share."""
    from .training.presets import PRESETS

    parser.add_argument(
        "--task",
        choices=sorted(TASKS),
        help="retrieval with SCAN, question answering with MAC (vqa) or by reading with M4C (textvqa), pictures from "
        "words with AttnGAN (text-to-image); the preset's",
    )
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="data set and settings (blocks; of another task "
        + ", ".join(f"{preset} for {name}" for name, (_, preset) in TASKS.items() if preset != "blocks")
        + ")",
    )
    parser.add_argument("--output", type=Path, help=f"folder of the runs ({output.format(preset='PRESET')})")
    parser.set_defaults(default_output=output)
    parser.add_argument("--data-dir", type=Path, help="folder of the data set; blocks needs none")
    parser.add_argument("--regions", type=Path, help="folder of a region store (see extract-features)")
    parser.add_argument("--extractor", help="fill that store first with this extractor")
    parser.add_argument("--released-layout", action="store_true", help="compute as the authors' released code does")
    parser.add_argument("--alignment-initialization", choices=["linear", "identity"], help="where W starts")
    _add_sizes(parser)
    for name in ("epochs", "batch-size", "evaluate-every"):
        parser.add_argument(f"--{name}", type=int, help="instead of the preset's")
    parser.add_argument("--all-negatives-epochs", type=int, help="of retrieval, instead of the preset's")
    parser.add_argument(
        "--gather-negatives",
        action=argparse.BooleanOptionalAction,
        help="of retrieval: negatives of the whole batch, or of each process's share of it alone (the whole batch)",
    )
    parser.add_argument(
        "--questions-per-image", type=int, help="of an example of vqa or textvqa, instead of the preset's"
    )
    parser.add_argument("--decay-epochs", type=int, nargs="*", help="instead of the preset's")
    parser.add_argument("--learning-rate", type=float, help="instead of the preset's")
    _add_device(parser)
    add_text_options(parser)
    add_picture_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the plan; train nothing")


def _add_sizes(parser: Any) -> None:
    parser.add_argument("--sizes", nargs="+", type=split_size, metavar="SPLIT=N", help="use so many images of a split")


def add_text_options(parser: Any) -> None:
    """Add the options of training to answer by reading."""
    _add_ocr(parser)
    _add_word_vectors(parser)
    parser.add_argument(
        "--answer-vocabulary", type=Path, metavar="FILE", help="of build-vocabulary; the training answers' by default"
    )
    parser.add_argument(
        "--text-encoder", metavar="MODEL", help="BERT-like model id or folder that reads questions (the preset's)"
    )


def add_damsm_options(parser: Any) -> None:
    """Add the options of training DAMSM."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="of text-to-image, in place of the preset's: cub, coco, folder, flickr30k, ... or owner/name of the Hub",
    )
    parser.add_argument(
        "--image-encoder", metavar="WEIGHTS", help="what DAMSM sees with: a file of Inception-v3, or a vision backbone"
    )


def add_picture_options(parser: Any) -> None:
    """Add the options of training to draw pictures from words."""
    _add_shared_damsm(parser)
    parser.add_argument("--matching-weight", type=float, help="of DAMSM's losses, instead of the preset's")
    _add_feature_network(parser)


def _add_shared_damsm(parser: Any) -> None:
    """Add what decides which DAMSM trained, and judges, a generator."""
    add_damsm_options(parser)
    parser.add_argument("--damsm-epochs", type=int, help="of DAMSM, which is trained first, instead of the preset's")


def _add_feature_network(parser: Any) -> None:
    parser.add_argument(
        "--feature-network",
        metavar="WEIGHTS",
        help="what generated pictures are compared with real ones by: the FID network's file or Hub id, or a backbone",
    )
    parser.add_argument(
        "--feature-variant", choices=["fid", "torchvision"], help="of Inception-v3's weights (fid); only fid gives FID"
    )
    parser.add_argument("--pictures-per-image", type=int, help="pictures drawn for each one of the test split")


def _add_ocr(parser: Any) -> None:
    parser.add_argument(
        "--ocr",
        choices=["true", "corrupted", "read"],
        help="words in the pictures of blocks-text: as they are printed (true), with mistakes, or read by OCR",
    )
    parser.add_argument(
        "--character-error-rate", type=float, metavar="RATE", help="of --ocr corrupted, expected mistakes a letter"
    )
    parser.add_argument("--reader", metavar="NAME", help="of --ocr read, the OCR plug-in (rapidocr)")


def _add_word_vectors(parser: Any) -> None:
    parser.add_argument(
        "--fasttext", type=Path, metavar="FILE", help=".bin or .vec vectors of words in pictures; the model's own"
    )


def _add_device(parser: Any) -> None:
    parser.add_argument("--device", choices=["auto", "cpu"], help="auto takes an accelerator where there is one")
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], help="of training: float32 or autocast")


def _add_compare(commands: Any) -> None:
    parser = _command(
        commands,
        "compare",
        "Train alignment functions x seeds on one data set, print the paper's table and write the report. "
        "Run it again to go on after an interruption. Several data sets, several runs at a time: see `study`.",
    )
    _add_preparation(parser, "outputs/{preset}")
    parser.add_argument(
        "--functions", nargs="+", metavar="NAME", help="alignment functions (those of the paper's table)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="one run of every function each")
    parser.add_argument(
        "--pictures", type=int, default=4, help="test images in the report, with attention (%(default)s)"
    )
    parser.add_argument("--no-controls", action="store_true", help="leave out the control runs")
    parser.add_argument(
        "--noun-tagger", metavar="NAME", help="what counts the nouns of captions (blocks for blocks, else english)"
    )


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", "Train one alignment function and evaluate it.")
    _add_preparation(parser, "outputs/train")
    parser.add_argument("--alignment-function", default="general_key", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def _add_evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "Evaluate a trained model on a split of a data set.")
    parser.add_argument("model", type=Path, help="folder of a model, or of a run")
    parser.add_argument("--preset", help="whose data set to take (by the model, one that is built in)")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--regions", type=Path, help="region store; without it the model sees pixels")
    parser.add_argument("--split", help="(the one that the preset's results are measured on)")
    _add_sizes(parser)
    parser.add_argument("--folds", type=int, default=1, help="average over so many folds of the split (%(default)s)")
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FOLDER",
        help="keep finished scores of retrieval here; the same command goes on after it was killed",
    )
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    _add_ocr(parser)
    _add_word_vectors(parser)
    _add_shared_damsm(parser)
    _add_feature_network(parser)


def _add_extract_features(commands: Any) -> None:
    parser = _command(commands, "extract-features", "Extract the regions of a data set into a region store.")
    parser.add_argument("--preset", default="flickr8k", help="whose data set to take (%(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set")
    parser.add_argument("--extractor", help="plug-in (efficientnet_lite0; transformers where a backbone is named)")
    _add_backbone(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder of the region store; resumes")
    _add_sizes(parser)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--maximum-failures", type=int, help="broken images beyond which to stop")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")


def _add_build_vocabulary(commands: Any) -> None:
    parser = _command(
        commands,
        "build-vocabulary",
        "Write the most frequent words of the training answers, for --answer-vocabulary; equal data, equal file.",
    )
    parser.add_argument("--dataset", default="blocks-text", help="textvqa, stvqa or blocks-text (%(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set; blocks-text needs none")
    parser.add_argument("--size", type=int, help="entries at most, four special words included (5000; blocks-text 40)")
    parser.add_argument("--output", type=Path, required=True, help="text file, one word a line")
    _add_sizes(parser)


def _add_backbone(parser: Any) -> None:
    """Add the options of the extractor `transformers`."""
    parser.add_argument("--backbone", help="for the extractor `transformers`: a model id or folder")
    parser.add_argument("--stage", help="of that backbone, for instance stage3: 14 x 14 cells of a ResNet at 224 px")
    parser.add_argument("--image-size", type=int, help="of that backbone's input, in pixels a side")

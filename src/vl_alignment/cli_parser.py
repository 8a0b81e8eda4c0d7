"""The commands and options of the command line."""

import argparse
import json
from pathlib import Path
from typing import Any

from .cli_grounding import GROUNDING_SUMMARY, add_grounding_options

__all__ = [
    "DATA_OPTIONS",
    "SETTINGS",
    "TASKS",
    "TASKS_OF",
    "add_damsm_options",
    "add_picture_options",
    "add_text_options",
    "build_parser",
    "config_field",
    "split_size",
]

STUDY_EXAMPLE = Path(__file__).parent / "analysis" / "study_example.yaml"
# What --task calls a task: the presets' name of it, and the preset that needs no download.
TASKS = {
    "retrieval": ("retrieval", "blocks"),
    "text-to-image": ("text-to-image", "blocks-t2i"),
    "textvqa": ("text-question-answering", "blocks-text"),
    "vqa": ("question-answering", "blocks-vqa"),
}
SETTINGS = (
    *("epochs", "batch_size", "evaluate_every", "decay_epochs", "learning_rate", "device", "precision"),
    *("all_negatives_epochs", "questions_per_image", "matching_weight"),
)
READING_OPTIONS = ("ocr", "character_error_rate", "reader", "answer_vocabulary", "fasttext", "text_encoder")
PICTURE_OPTIONS = (
    *("dataset", "image_encoder", "feature_network", "feature_variant", "pictures_per_image", "damsm_epochs"),
)
# Changes of a preset's options of the data: of answering by reading, and of pictures from words.
DATA_OPTIONS = (*READING_OPTIONS, *PICTURE_OPTIONS)
# Settings and options that not every task has.
TASKS_OF = {
    "all_negatives_epochs": ("retrieval",),
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
    _add_study(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_extract_features(commands)
    _add_build_vocabulary(commands)
    _add_cards(commands)
    _add_equivalences(commands)
    add_grounding_options(_command(commands, "grounding", GROUNDING_SUMMARY))
    _command(commands, "variants", "Print the variants: the paper's 44 and those of the data sets at hand.")
    _add_push(commands)
    _add_demo(commands)
    _add_convert(commands)
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


def split_size(text: str) -> tuple[str, int]:
    """Read SPLIT=N.

    Raises:
        ArgumentTypeError: It is something else.
    """
    split, separator, number = text.partition("=")
    if not separator or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=N, for instance train=500")
    return split, int(number)


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
        "Run it again to go on after an interruption.",
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


def _add_study(commands: Any) -> None:
    parser = _command(
        commands,
        "study",
        "Run a study of several tasks, functions, seeds and layouts, several runs at a time, to tables and reports. "
        "A run that fails does not stop the rest. Run it again to go on.",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = STUDY_EXAMPLE.read_text(encoding="utf-8")
    parser.add_argument("plan", type=Path, metavar="STUDY.yaml", help="what to run; see below")
    parser.add_argument("--output", type=Path, help="folder of the study, in place of the file's")
    parser.add_argument("--processes", type=int, help="runs at a time, in place of the file's")
    parser.add_argument("--dry-run", action="store_true", help="check everything, load the data, and print the plan")


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
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    _add_ocr(parser)
    _add_word_vectors(parser)
    _add_shared_damsm(parser)
    _add_feature_network(parser)


def _add_predict(commands: Any) -> None:
    parser = _command(
        commands,
        "predict",
        "Score pictures against captions, answer questions, or draw pictures from captions, with a trained model.",
    )
    parser.add_argument("model", type=Path, help="folder of a model, or of a run")
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
    _add_word_vectors(parser)
    parser.add_argument("--output", type=Path, metavar="PNG", help="for drawn pictures, a row a caption (drawn.png)")
    parser.add_argument("--num-images", type=int, help="pictures drawn of each caption (4)")
    parser.add_argument("--seed", type=int, help="of their noise (0)")
    parser.add_argument("--extractor", help="how to make regions, for a model without a backbone (what it records)")
    _add_backbone(parser)
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="PNG",
        help="draw where the best caption's words look or were drawn, or the steps or words of the first answer",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


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


def _add_equivalences(commands: Any) -> None:
    parser = _command(
        commands,
        "equivalences",
        "Say which alignment functions can differ at all in a model, with folded or transposed weights as proof.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="MODEL_OR_PRESET", help="folder of a model or of a run, owner/name, or a preset"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Markdown file (standard output)")


def _add_push(commands: Any) -> None:
    parser = _command(
        commands,
        "push",
        "Push a finished run to the Hub: weights, code, results and card. The token is that of `hf auth login`, or "
        "HF_TOKEN. What is there with the same content is not sent again.",
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--repo-id", required=True, metavar="NAMESPACE/NAME", help="repository; made if it is missing")
    parser.add_argument("--with-space", action="store_true", help="push a Space that tries it, NAMESPACE/NAME-demo")
    _add_where(parser)
    parser = _command(
        commands,
        "push-study",
        "Push every finished run of an output folder, one repository a variant; further seeds are branches. Run it "
        "again to go on.",
    )
    parser.add_argument("output", type=Path, help="folder of the runs, as `compare` writes it")
    parser.add_argument("--namespace", required=True, help="your user or organization on the Hub")
    parser.add_argument("--space", metavar="NAME", help="push a Space of this name that tries all the variants")
    parser.add_argument("--collection", metavar="TITLE", help="list the repositories in a collection of this title")
    _add_where(parser)


def _add_demo(commands: Any) -> None:
    parser = _command(commands, "demo", "Show a page in the browser on which models are tried, two side by side.")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="repository, whose code is run, or folder of a model or run"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to answer at (%(default)s: this machine alone)")
    parser.add_argument("--port", type=int, help="(the first free one from 7860 on)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_where(parser: Any) -> None:
    parser.add_argument(
        "--private", action="store_true", help="only its owners may see it; a Space then needs HF_TOKEN as a secret"
    )
    parser.add_argument("--dry-run", action="store_true", help="print files and sizes; send nothing")


def _add_cards(commands: Any) -> None:
    parser = _command(commands, "cards", "Write a model card for every variant in folders of results, and an index.")
    parser.add_argument(
        "results",
        type=Path,
        nargs="*",
        metavar="RESULTS",
        help="folders of comparisons (every folder of benchmarks/results that holds results.jsonl)",
    )
    parser.add_argument("--output", type=Path, default=Path("model_cards"), help="folder of the cards (%(default)s)")


def _add_convert(commands: Any) -> None:
    parser = _command(
        commands,
        "convert",
        "Write a published checkpoint as a folder for from_pretrained: SCAN, the PyTorch MAC, M4C (the study's or "
        "MMF's), AttnGAN, DAMSM. Nothing in the file runs.",
    )
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="one, or those that belong together: netG*.pth text_encoder*.pth [netD*.pth ...], or image_encoder*.pth "
        "text_encoder*.pth",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the model")
    parser.add_argument(
        "--alignment-function", metavar="NAME", help="which it was trained with (what a SCAN file itself says)"
    )
    parser.add_argument("--alignment-activation", metavar="NAME", help="of an activated function (relu)")
    parser.add_argument(
        "--released-layout", action="store_true", help="compute as the authors' code, where these weights are from it"
    )
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="SCAN's JSON, MAC's dic.pkl, AttnGAN's captions.pickle, or M4C's answers, one a line",
    )
    parser.add_argument("--tokenizer", metavar="MODEL", help="of M4C's questions: BERT's folder or Hub id")
    parser.add_argument(
        "--config",
        type=config_field,
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="fields that weights do not show, as JSON: grid_size=14, num_attention_heads=12",
    )


def config_field(text: str) -> tuple[str, Any]:
    """Read FIELD=VALUE, the value as JSON or else as it stands.

    Raises:
        ArgumentTypeError: It is something else.
    """
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE, for instance grid_size=14")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _add_backbone(parser: Any) -> None:
    """Add the options of the extractor `transformers`."""
    parser.add_argument("--backbone", help="for the extractor `transformers`: a model id or folder")
    parser.add_argument("--stage", help="of that backbone, for instance stage3: 14 x 14 cells of a ResNet at 224 px")
    parser.add_argument("--image-size", type=int, help="of that backbone's input, in pixels a side")

"""The commands about the Hub: their options, and what they call and print."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cli_types import AddCommand, config_field

__all__ = ["HUB_COMMANDS", "add_hub_commands"]


def add_hub_commands(add: AddCommand) -> None:
    """Add all of them."""
    _add_cards(add)
    add("variants", "Print the variants: the paper's 44 and those of the data sets at hand.")
    _add_push(add)
    _add_demo(add)
    _add_convert(add)


def _add_push(add: AddCommand) -> None:
    parser = add(
        "push",
        "Push a finished run to the Hub: weights, code, results and card. The token is that of `hf auth login`, or "
        "HF_TOKEN. What is there with the same content is not sent again.",
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--repo-id", required=True, metavar="NAMESPACE/NAME", help="repository; made if it is missing")
    parser.add_argument("--with-space", action="store_true", help="push a Space that tries it, NAMESPACE/NAME-demo")
    _add_where(parser)
    parser = add(
        "push-study",
        "Push every finished run of an output folder, one repository a variant; further seeds are branches. Run it "
        "again to go on.",
    )
    parser.add_argument("output", type=Path, help="folder of the runs, as `compare` writes it")
    parser.add_argument("--namespace", required=True, help="your user or organization on the Hub")
    parser.add_argument("--space", metavar="NAME", help="push a Space of this name that tries all the variants")
    parser.add_argument("--collection", metavar="TITLE", help="list the repositories in a collection of this title")
    _add_where(parser)


def _add_where(parser: Any) -> None:
    parser.add_argument(
        "--private", action="store_true", help="only its owners may see it; a Space then needs HF_TOKEN as a secret"
    )
    parser.add_argument("--dry-run", action="store_true", help="print files and sizes; send nothing")


def _add_demo(add: AddCommand) -> None:
    parser = add("demo", "Show a page in the browser on which models are tried, two side by side.")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="repository, whose code is run, or folder of a model or run"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to answer at (%(default)s: this machine alone)")
    parser.add_argument("--port", type=int, help="(the first free one from 7860 on)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_cards(add: AddCommand) -> None:
    parser = add("cards", "Write a model card for every variant in folders of results, and an index.")
    parser.add_argument(
        "results",
        type=Path,
        nargs="*",
        metavar="RESULTS",
        help="folders of comparisons (every folder of benchmarks/results that holds results.jsonl)",
    )
    parser.add_argument("--output", type=Path, default=Path("model_cards"), help="folder of the cards (%(default)s)")


def _add_convert(add: AddCommand) -> None:
    parser = add(
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


def _convert(parsed: argparse.Namespace) -> None:
    """Convert published checkpoints."""
    from .hub.convert import convert_checkpoint

    record = convert_checkpoint(
        parsed.checkpoints,
        parsed.output,
        alignment_function=parsed.alignment_function,
        alignment_activation=parsed.alignment_activation,
        released_layout=parsed.released_layout,
        vocabulary=parsed.vocabulary,
        tokenizer=parsed.tokenizer,
        fields=dict(parsed.config),
    )
    for source in record["sources"]:
        print(f"{source['file']}: {len(source['taken'])} tensors taken, {len(source['left'])} left")
        for name, reason in source["left"].items():
            print(f"  {name}: {reason}")
    print(f"{record['model']} with {record['alignment_function']}: {parsed.output}")
    if record["processor"] is None:
        print("No processor: give --vocabulary (of M4C also --tokenizer) to have texts read.")


def _demo(parsed: argparse.Namespace) -> None:
    """Serve the page on which models are tried."""
    from .serving.demo import serve_demo

    runs = (Path(name) / "model" for name in parsed.models)
    models = [str(run) if run.is_dir() else name for name, run in zip(parsed.models, runs, strict=True)]
    serve_demo(models, host=parsed.host, port=parsed.port, open_browser=not parsed.no_browser)


def _push(parsed: argparse.Namespace) -> None:
    """Push one run."""
    from .hub.push import push_run, push_space

    where = {"private": parsed.private, "dry_run": parsed.dry_run}
    _print_report(push_run(parsed.run, parsed.repo_id, **where))
    if parsed.with_space:
        _print_report(push_space(f"{parsed.repo_id}-demo", [parsed.repo_id], **where))


def _push_study(parsed: argparse.Namespace) -> None:
    """Push all runs of an output folder.

    Raises:
        HubError: Some of them could not be pushed; the others were.
    """
    from .hub.push import push_study
    from .models.errors import HubError

    report = push_study(
        parsed.output,
        parsed.namespace,
        private=parsed.private,
        dry_run=parsed.dry_run,
        space=parsed.space,
        collection=parsed.collection,
    )
    for name, pushed in report.pushed.items():
        print(f"{name} -> {pushed.repo_id}, {pushed.branch}")
        _print_report(pushed)
    if report.space is not None:
        print(f"Space -> {report.space.repo_id}")
        _print_report(report.space)
    if report.collection is not None:
        print(f"collection: {report.collection}")
    for name, reason in report.failures.items():
        print(f"{name} failed: {reason}")
    if report.failures:
        runs = len(report.pushed) + len(report.failures)
        done = "would be" if parsed.dry_run else "were"
        raise HubError(
            f"{len(report.failures)} of {runs} runs could not be pushed ({', '.join(report.failures)}), "
            f"{len(report.pushed)} {done}; the same command goes on when what is said above is mended"
        )


def _print_report(report: Any) -> None:
    if report.url is None:
        width = max(map(len, report.files))
        for name, size in report.files.items():
            print(f"  {name:<{width}}  {size:>12,} bytes")
        print(f"would push {len(report.files)} files, {sum(report.files.values()):,} bytes, to {report.repo_id}")
        return
    sent = sum(report.files[name] for name in report.sent)
    there = len(report.files) - len(report.sent)
    print(f"{report.url}: {len(report.sent)} files sent ({sent:,} bytes), {there} were there already")


def _cards(parsed: argparse.Namespace) -> None:
    from .hub.model_card import write_model_cards

    folders = parsed.results or sorted(path.parent for path in Path("benchmarks/results").glob("*/results.jsonl"))
    written = write_model_cards(folders, parsed.output)
    print(f"{len(written) - 1} cards: {written[-1]}")


def _variants(_parsed: argparse.Namespace) -> None:
    from .hub.variants import variants_text

    print(variants_text(), end="")


HUB_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "cards": _cards,
    "convert": _convert,
    "demo": _demo,
    "push": _push,
    "push-study": _push_study,
    "variants": _variants,
}

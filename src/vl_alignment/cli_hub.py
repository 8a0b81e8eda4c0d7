"""The commands about the Hub; they parse, call one function, and print."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["convert", "demo", "push", "push_study"]


def convert(parsed: argparse.Namespace) -> None:
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


def demo(parsed: argparse.Namespace) -> None:
    """Serve the page on which models are tried."""
    from .serving.demo import serve_demo

    runs = (Path(name) / "model" for name in parsed.models)
    models = [str(run) if run.is_dir() else name for name, run in zip(parsed.models, runs, strict=True)]
    serve_demo(models, host=parsed.host, port=parsed.port, open_browser=not parsed.no_browser)


def push(parsed: argparse.Namespace) -> None:
    """Push one run."""
    from .hub.push import push_run, push_space

    where = {"private": parsed.private, "dry_run": parsed.dry_run}
    _print_report(push_run(parsed.run, parsed.repo_id, **where))
    if parsed.with_space:
        _print_report(push_space(f"{parsed.repo_id}-demo", [parsed.repo_id], **where))


def push_study(parsed: argparse.Namespace) -> None:
    """Push all runs of an output folder.

    Raises:
        HubError: Some of them could not be pushed; the others were.
    """
    from .hub.push import push_study as push_runs
    from .models.errors import HubError

    report = push_runs(
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

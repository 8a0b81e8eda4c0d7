"""Runs to repositories of the Hub: only what differs is sent, weights before the card."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from tqdm import tqdm

from ..models.errors import HubError, ResultsError, VlAlignmentError
from ..training.runs import read_result
from .connection import check_repo_id, connect, hub_errors
from .repository import CARD, write_card, write_repository, write_weights
from .upload import MAIN, files_below, make_repository, send_folder
from .variants import variant_name

__all__ = ["PushReport", "StudyReport", "push_run", "push_space", "push_study"]


@dataclass(frozen=True)
class PushReport:
    """What a repository holds of a run, and what of that was sent.

    Attributes:
        repo_id: `namespace/name`.
        branch: "main", or the branch of a further seed.
        files: All files of the run, by name, with their sizes in bytes.
        sent: Those that were not there with the same content; empty in a dry run.
        url: Where to look at it; None in a dry run.
    """

    repo_id: str
    branch: str
    files: dict[str, int]
    sent: tuple[str, ...] = ()
    url: str | None = None


@dataclass
class StudyReport:
    """What became of the runs of an output folder.

    Attributes:
        pushed: One report a run, in the order of the runs.
        failures: What went wrong, by the run's name.
        space: Of the page that shows all variants, where one was asked for.
        collection: The page of the collection that lists the repositories, where one was asked for.
    """

    pushed: dict[str, PushReport] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    space: PushReport | None = None
    collection: str | None = None


def push_run(
    run: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    branch: str = MAIN,
    token: str | None = None,
) -> PushReport:
    """Push a finished run: weights, code and results in one commit, then the card in another.

    Files that are there with the same content are not sent again, whether the first push ended or not; files of others
    stay.

    Args:
        run: The run's folder.
        repo_id: `namespace/name`; made if it is not there.
        private: Whether only its owners may see it.
        dry_run: Write the files to a temporary folder and report them; nothing is sent, no token is needed.
        branch: Where to; made from `main` if it is not there.
        token: Of the Hub; by default the one that is logged in.

    Raises:
        ResultsError: The run has no results, or they are damaged or of another model.
        CheckpointError: Its model is missing, half written, or holds numbers that are not finite.
        HubError: No repository id, no token, no network, no right to write, a newer commit, or a card that cannot be
            written or is refused (the weights are there then).
    """
    run = Path(run)
    check_repo_id(repo_id)
    api = None if dry_run else connect(token)
    with tempfile.TemporaryDirectory(prefix="vl-alignment-push-") as temporary:
        folder = Path(temporary)
        if api is None:
            write_repository(run, folder, repo_id=repo_id)
            return PushReport(repo_id, branch, _sizes(folder))
        write_weights(run, folder)
        url = make_repository(api, repo_id, private=private, branch=branch)
        name = run.resolve().name
        sent = send_folder(api, folder, repo_id, f"Weights, code and results of {name}", branch=branch)
        try:
            write_card(run, folder, repo_id=repo_id)
            sent += send_folder(api, folder, repo_id, f"Card of {name}", branch=branch)
        except Exception as error:  # whatever a template does, the weights are there
            reason = str(error).removeprefix(f"{repo_id}: ")
            raise HubError(f"the weights are pushed, but not the card ({CARD}): {reason}", repo_id=repo_id) from error
        return PushReport(repo_id, branch, _sizes(folder), sent, url)


def push_space(
    space_id: str,
    models: Sequence[str],
    *,
    private: bool = False,
    dry_run: bool = False,
    token: str | None = None,
) -> PushReport:
    """Push a Space: a page that tries repositories of models, two of them side by side.

    Args:
        space_id: `namespace/name` of the Space; made if it is not there.
        models: Repositories of the Hub.
        private: Whether only its owners may see it. A Space reads private models only with a token among its secrets.
        dry_run: As in `push_run`.
        token: As in `push_run`.

    Raises:
        HubError: As in `push_run`.
    """
    from ..serving.space import write_space

    check_repo_id(space_id)
    api = None if dry_run else connect(token)
    with tempfile.TemporaryDirectory(prefix="vl-alignment-space-") as temporary:
        folder = Path(temporary)
        write_space(folder, models, title=space_id.partition("/")[2])
        if api is None:
            return PushReport(space_id, MAIN, _sizes(folder))
        url = make_repository(api, space_id, private=private, repo_type="space")
        sent = send_folder(api, folder, space_id, "The page and its examples", repo_type="space")
        return PushReport(space_id, MAIN, _sizes(folder), sent, url)


def push_study(
    output: Path | str,
    namespace: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    space: str | None = None,
    collection: str | None = None,
    token: str | None = None,
) -> StudyReport:
    """Push every finished run of an output folder, or of a study's parts, one repository a variant.

    Run it again to go on.

    The lowest seed's run is on `main`, those of further seeds are on branches `seed1`, `seed2`, ... A run that cannot
    be pushed does not keep the others from it.

    Args:
        output: What `compare` or `study` wrote to.
        namespace: Your user or organization on the Hub.
        private: Whether only its owners may see the repositories, the Space and the collection.
        dry_run: As in `push_run`.
        space: Name, below the namespace, of a Space that shows all the variants; made if it is not there.
        collection: Title of a collection that lists the repositories; made if it is not there.
        token: As in `push_run`.

    Raises:
        ResultsError: There is no finished run.
        HubError: The namespace is none, there is no token or no network, or Space or collection cannot be made.
    """
    check_repo_id(f"{namespace}/{space or 'study'}")
    report = StudyReport()
    runs = _finished_runs(Path(output), report)
    if not dry_run:
        with hub_errors(namespace):  # what is wrong for all runs is said once
            connect(token).whoami()
    for run, (name, branch) in tqdm(runs.items(), desc="push", unit="run", disable=None):
        try:
            report.pushed[run.name] = push_run(
                run, f"{namespace}/{name}", private=private, dry_run=dry_run, branch=branch, token=token
            )
        except VlAlignmentError as error:
            report.failures[run.name] = str(error)
    models = [pushed.repo_id for pushed in report.pushed.values() if pushed.branch == MAIN]
    if space is not None and models:
        report.space = push_space(f"{namespace}/{space}", models, private=private, dry_run=dry_run, token=token)
    if collection is not None and models and not dry_run:
        report.collection = _collect(connect(token), collection, namespace, private, models, report.space)
    return report


def _finished_runs(output: Path, report: StudyReport) -> dict[Path, tuple[str, str]]:
    """Return the repository's name and the branch of every finished run; note those that cannot be read."""
    if not output.is_dir():
        raise ResultsError("There is no such folder of runs.", path=output)
    seeds: dict[str, dict[int, Path]] = defaultdict(dict)
    # Those of a study lie in the folders of its parts; controls are none of its variants.
    files = [*output.glob("*/results.json"), *output.glob("*/*/results.json")]
    for file in sorted(file for file in files if file.parent.parent.name != "controls"):
        try:
            result = read_result(file)
        except ResultsError as error:
            report.failures[file.parent.name] = str(error)
            continue
        name = variant_name(
            result["model"], result["dataset"]["name"], result["alignment_function"], result["released_layout"]
        )
        if result["seed"] in seeds[name]:
            report.failures[file.parent.name] = (
                f"{name}, seed {result['seed']}, is there twice; push one part at a time"
            )
            continue
        seeds[name][result["seed"]] = file.parent
    if not seeds and not report.failures:
        raise ResultsError("There are no finished runs to push.", path=output)
    return {
        run: (name, MAIN if seed == min(of_variant) else f"seed{seed}")
        for name, of_variant in seeds.items()
        for seed, run in sorted(of_variant.items())
    }


def _collect(
    api: HfApi, title: str, namespace: str, private: bool, models: Sequence[str], space: PushReport | None
) -> str:
    """List what was pushed in a collection; return its page."""
    with hub_errors(f"collection {title!r} of {namespace}"):
        collection = api.create_collection(title, namespace=namespace, private=private, exists_ok=True)
        if space is not None:
            api.add_collection_item(collection.slug, space.repo_id, "space", exists_ok=True)
        for repo_id in models:
            api.add_collection_item(collection.slug, repo_id, "model", exists_ok=True)
    return collection.url


def _sizes(folder: Path) -> dict[str, int]:
    return {name: path.stat().st_size for name, path in files_below(folder).items()}

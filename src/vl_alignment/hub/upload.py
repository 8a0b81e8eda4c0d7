"""What is on the Hub already, and the commit of what is not."""

import hashlib
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import RepoFile

from ..models.errors import HubError
from .connection import hub_errors

__all__ = ["MAIN", "files_below", "make_repository", "send_folder"]

MAIN = "main"


def make_repository(api: HfApi, repo_id: str, *, private: bool, branch: str = MAIN, repo_type: str = "model") -> str:
    """Make a repository and a branch where they are missing.

    Args:
        api: With a token.
        repo_id: `namespace/name`.
        private: Whether only its owners may see it.
        branch: Made from `main`.
        repo_type: "model", or "space", which is one of Gradio then.

    Returns:
        Its page.

    Raises:
        HubError: It is there already and public, although it shall be private; or what the client raises.
    """
    sdk = "gradio" if repo_type == "space" else None
    with hub_errors(repo_id):
        url = api.create_repo(repo_id, private=private, repo_type=repo_type, space_sdk=sdk, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise HubError("is there already and public; make it private in its settings first", repo_id=repo_id)
        if branch != MAIN:
            api.create_branch(repo_id, branch=branch, repo_type=repo_type, exist_ok=True)
    return str(url) if branch == MAIN else f"{url}/tree/{branch}"


def send_folder(
    api: HfApi, folder: Path, repo_id: str, message: str, *, branch: str = MAIN, repo_type: str = "model"
) -> tuple[str, ...]:
    """Commit the files of a folder whose content the branch does not have; files of others stay.

    Args:
        api: With a token.
        folder: Its files keep their places below it.
        repo_id: `namespace/name`.
        message: Of the commit.
        branch: Where to.
        repo_type: "model" or "space".

    Returns:
        The names of what was sent; nothing, and no commit, where all was there.

    Raises:
        HubError: What the client raises, also where somebody else committed in between.
    """
    with hub_errors(repo_id):
        head = api.repo_info(repo_id, revision=branch, repo_type=repo_type).sha
        entries = api.list_repo_tree(repo_id, revision=head, repo_type=repo_type, recursive=True)
        there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
        changed = {name: path for name, path in files_below(folder).items() if not _is_same(path, there.get(name))}
        if changed:
            api.create_commit(
                repo_id,
                [CommitOperationAdd(name, path) for name, path in changed.items()],
                commit_message=message,
                revision=branch,
                repo_type=repo_type,
                parent_commit=head,  # what somebody else commits in this moment is not overwritten
            )
    return tuple(changed)


def files_below(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by the names that they have in a repository."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _is_same(path: Path, entry: RepoFile | None) -> bool:
    """Whether a file has the content that the Hub's entry of it names by a hash."""
    if entry is None or entry.size != path.stat().st_size:
        return False
    if entry.lfs is not None:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == entry.lfs.sha256
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)  # as git names it
    return blob.hexdigest() == entry.blob_id

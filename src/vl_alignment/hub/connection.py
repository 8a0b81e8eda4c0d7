"""The Hub's own client, whose every failure becomes one `HubError` that says what to do."""

import contextlib
from collections.abc import Iterator

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..models.errors import HubError, VlAlignmentError

__all__ = ["check_repo_id", "connect", "hub_errors"]

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_repo_id(repo_id: str) -> None:
    """Check the form `namespace/name`.

    Raises:
        HubError: It is something else; the Hub's rule is part of the message.
    """
    if repo_id.count("/") != 1:
        raise HubError(
            "is no repository id; give NAMESPACE/NAME, the first your user's or organization's", repo_id=repo_id
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(f"is no repository id: {' '.join(str(error).split())}", repo_id=repo_id) from error


def connect(token: str | None = None) -> HfApi:
    """Return the client with this token, or with the one that is logged in.

    Raises:
        HubError: There is no token.
    """
    token = token or get_token()
    if token is None:
        raise HubError(f"There is no token for the Hub; {LOG_IN} (a token that may write)")
    return HfApi(token=token, library_name="vl-alignment")


@contextlib.contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Turn what the Hub's client raises into `HubError`s about this repository or collection.

    Its errors have no common base, so that only calls of the client belong into the block.
    """
    try:
        yield
    except VlAlignmentError:
        raise
    except Exception as error:
        raise HubError(_explanation(error), repo_id=where) from error


def _explanation(error: BaseException) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "the network is switched off by HF_HUB_OFFLINE; unset it"
    if isinstance(error, HfHubHTTPError):
        return _answer(error)
    if error.__cause__ is not None and type(error) is RuntimeError:  # of an upload's thread; it only names the file
        return f"{error} {_explanation(error.__cause__)}"
    if isinstance(error, ValueError) and "README.md" in str(error):
        return f"the Hub refuses the card: {' '.join(str(error).split())}"
    return f"no answer from the Hub ({_in_one_line(error)}); check the network, then run it again"


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or the token may not see it; {LOG_IN}"
    if status == 401:
        return f"the token is not accepted; {LOG_IN}"
    if status == 403:
        return "the token may not write there; take one with write access to this namespace"
    if status == 412:
        return "somebody else committed in the meantime, and nothing was overwritten; look at that, then run it again"
    return f"the Hub answers {status}: {error.server_message or _in_one_line(error)}"


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]

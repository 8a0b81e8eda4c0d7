"""The errors of this package: each names the thing, where it is, and the remedy.

They derive from `ValueError`, so that code written against the libraries underneath keeps working.
"""

__all__ = ["CheckpointError", "ConfigurationError", "DataError", "HubError", "ResultsError", "VlAlignmentError"]


class VlAlignmentError(ValueError):
    """Base class of every error that this package raises on purpose."""


class ConfigurationError(VlAlignmentError):
    """A setting that does not exist, is out of range, or contradicts another one."""


class DataError(VlAlignmentError):
    """Input that cannot be read or used.

    Args:
        message: What is wrong and how to mend it.
        path: The file or folder, where there is one.
        record: The record within it (an image id, a line number), where there is one.
    """

    def __init__(self, message: str, *, path: object = None, record: object = None) -> None:
        where = [str(path)] if path is not None else []
        where += [f"record {record}"] if record is not None else []
        super().__init__(f"{', '.join(where)}: {message}" if where else message)
        self.path = path
        self.record = record


class _PathError(VlAlignmentError):
    def __init__(self, message: str, *, path: object = None) -> None:
        super().__init__(f"{path}: {message}" if path is not None else message)
        self.path = path


class CheckpointError(_PathError):
    """Weights or training states that are missing, damaged, or of another model."""


class ResultsError(_PathError):
    """Results that are missing, damaged, or of another version."""


class HubError(VlAlignmentError):
    """A repository that cannot be read or written."""

    def __init__(self, message: str, *, repo_id: str | None = None) -> None:
        super().__init__(f"{repo_id}: {message}" if repo_id is not None else message)
        self.repo_id = repo_id

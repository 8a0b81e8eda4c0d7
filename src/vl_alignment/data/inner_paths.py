"""File names that stand in files: they stay within the folder that they are names of."""

import os
from pathlib import Path

__all__ = ["inner_path"]

LONGEST = 255  # bytes of a name, on any file system


def inner_path(folder: str | Path, name: str) -> str:
    """Join a name that a file gives to the folder that it is a name in.

    Links on the disk are followed: they are the user's own, and so are the blobs of the Hub's cache. A name comes with
    the data.

    Raises:
        ValueError: The name is empty, absolute, leads out of the folder, or is too long or otherwise no name.
    """
    parts = name.replace("\\", "/").split("/")
    drive = os.path.splitdrive(name)[0]
    depth = 0
    for part in parts:
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            break
    longest = max(len(os.fsencode(part)) for part in parts)
    if not name or name[0] in "/\\" or drive or depth < 0 or "\0" in name or longest > LONGEST:
        raise ValueError(f"the file name {name[:200]!r} leads out of the folder or is none")
    return os.path.join(folder, name)

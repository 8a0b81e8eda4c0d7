"""What the modules of the command line share: how a command is added, and how pairs of a name and a value are read."""

import argparse
import json
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["AddCommand", "config_field", "split_size"]

# Makes a command of this name and summary, and returns its parser.
AddCommand: TypeAlias = Callable[[str, str], Any]


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


def split_size(text: str) -> tuple[str, int]:
    """Read SPLIT=N.

    Raises:
        ArgumentTypeError: It is something else.
    """
    split, separator, number = text.partition("=")
    if not separator or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=N, for instance train=500")
    return split, int(number)

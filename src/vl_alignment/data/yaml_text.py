"""YAML of unknown origin: plain values only, and no more of them than a person writes."""

from typing import Any

import yaml

__all__ = ["parse_yaml"]

MAXIMUM_CHARACTERS = 2**20
MAXIMUM_VALUES = 100_000
MAXIMUM_BITS = 10_000  # Python writes no number of more than 4,300 digits, in messages neither


def parse_yaml(text: str) -> Any:
    """Decode YAML as `yaml.safe_load` does, for readers that turn a `ValueError` into an error of their own.

    Raises:
        ValueError: It is no YAML, is nested too deeply, has numbers of thousands of digits, is too large, or stands for
            too many values: a few lines of aliases of aliases stand for more than any memory holds.
    """
    if len(text) > MAXIMUM_CHARACTERS:
        raise ValueError(f"more than {MAXIMUM_CHARACTERS:,} characters")
    try:
        content = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[:1_000]) from error
    values, left = [content], MAXIMUM_VALUES
    while values:
        value = values.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"it stands for more than {MAXIMUM_VALUES:,} values; write without aliases")
        if isinstance(value, int) and value.bit_length() > MAXIMUM_BITS:
            raise ValueError("a number in it has thousands of digits")
        if isinstance(value, dict):
            values += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            values += value
    return content

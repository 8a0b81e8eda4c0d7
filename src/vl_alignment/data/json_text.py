"""JSON of unknown origin: what cannot be used further on is refused where it is read, always as a `ValueError`."""

import json
import re
from typing import Any

__all__ = ["parse_json"]

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """Decode JSON as `json.loads` does, for readers that turn a `ValueError` into an error of their own.

    Raises:
        ValueError: It is no JSON, is nested too deeply for Python to follow, or a text in it holds half of a character
            (a lone surrogate), which can be written nowhere.
    """
    try:
        content = json.loads(text)
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        if _HALF_CHARACTER.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half of a character, a lone surrogate") from None
    return content

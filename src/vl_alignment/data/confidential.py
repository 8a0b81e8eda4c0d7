"""Tokens and passwords, kept out of what is printed and written.

They get into texts by arguments, by addresses (`https://user:password@host`, `?token=...`), and by the messages of the
libraries that were given either.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["masked_output", "without_secrets"]

MASK = "***"
# A token of the Hub; names in code (hf_hub_download) have another underscore before so many letters.
HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{12,}")
# One slash where an address was taken for a path.
IN_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]+:/{1,2})[^/\s\"'@]+@")
SECRET = r"(?:token|password|passwd|secret|api[-_]?key|signature|credential)"
VALUE = r"""(?:'[^']*'|"[^"]*"|[^\s"'&,;]+)"""
# --hf-token VALUE, &X-Amz-Signature=VALUE; not --token-file, and not prose ("the token may").
NAMED = re.compile(rf"((?:--|[?&])(?:[A-Za-z0-9]+[-_])*{SECRET}[= ]){VALUE}", re.IGNORECASE)
BEARER = re.compile(rf"\b(Bearer ){VALUE}")
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST = 8  # a shorter value of a variable is no token, and may be a word of any text


def without_secrets(text: str) -> str:
    """Return a text with `***` for every token and password in it.

    Example:
        >>> without_secrets("train.py --hf-token abc --data-dir https://me:1234@host/data?token=abc&part=1")
        'train.py --hf-token *** --data-dir https://***@host/data?token=***&part=1'
    """
    for name in VARIABLES:
        if len(value := os.environ.get(name, "").strip()) >= SHORTEST:
            text = text.replace(value, MASK)
    text = IN_ADDRESS.sub(rf"\1{MASK}@", HUB_TOKEN.sub(MASK, text))
    return BEARER.sub(rf"\1{MASK}", NAMED.sub(rf"\1{MASK}", text))


class _MaskedStream:
    """A text stream that writes without secrets; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text; the number of characters is that of what was given."""
        self._stream.write(without_secrets(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write lines, which may come in pieces."""
        self.write("".join(lines))


@contextlib.contextmanager
def masked_output() -> Iterator[None]:
    """Keep secrets out of all that this process prints in the block, its libraries' messages too."""
    masked = {id(stream): (_MaskedStream(stream), stream) for stream in (sys.stdout, sys.stderr)}
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(masked[id(sys.stdout)][0]))
        stack.enter_context(contextlib.redirect_stderr(masked[id(sys.stderr)][0]))
        for handler in handlers:
            # Libraries that are imported already log to the streams themselves.
            if isinstance(handler, logging.StreamHandler) and id(handler.stream) in masked:
                stream, original = masked[id(handler.stream)]
                handler.setStream(stream)
                stack.callback(handler.setStream, original)
        yield

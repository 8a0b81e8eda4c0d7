"""Reading a list inside a large JSON file entry by entry, so that the file is never in memory as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from vl_alignment.models.errors import DataError

__all__ = ["stream_json_list"]

BLOCK_CHARACTERS = 2**20
# An entry that is still not readable at this length is taken for damage, instead of reading on to the end of the file.
MAXIMUM_ENTRY_CHARACTERS = 2**26
WHITESPACE = " \t\n\r"


def stream_json_list(path: str | Path, name: str) -> Iterator[Any]:
    """Yield the entries of the list `name` of the object that the file holds, such as {"info": ..., name: [...]}.

    Raises:
        DataError: The file is missing, cut short or no JSON (after the entries before the fault were given), or has no
            such list.
    """
    try:
        with open(path, encoding="utf-8") as file:
            yield from _Reader(file, path).entries_of(name)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text ({error}); fetch or write the file again", path=path) from error


class _Reader:
    """A window on the text of the file that moves forward."""

    def __init__(self, file: TextIO, path: str | Path) -> None:
        self.file, self.path = file, path
        self.text, self.position = "", 0
        self.decode = json.JSONDecoder().raw_decode

    def entries_of(self, name: str) -> Iterator[Any]:
        found = False
        self.expect("{")
        if self.next_character() != "}":
            while True:
                key = self.value()
                self.expect(":")
                if key == name and self.next_character() == "[":
                    found = True
                    yield from self.list_entries()
                else:
                    self.value()
                if self.next_character() != ",":
                    break
                self.position += 1
        self.expect("}")
        if self.next_character():
            raise self.damaged("there is more text after the end of the object")
        if not found:
            raise DataError(f'there is no list "{name}" in it', path=self.path)

    def list_entries(self) -> Iterator[Any]:
        self.expect("[")
        if self.next_character() != "]":
            while True:
                yield self.value()
                if self.next_character() != ",":
                    break
                self.position += 1
        self.expect("]")

    def value(self) -> Any:
        """Decode the value that begins here; a value at the end of the window may go on after it."""
        self.next_character()
        while True:
            try:
                value, end = self.decode(self.text, self.position)
            except json.JSONDecodeError as error:
                too_long = len(self.text) - self.position > MAXIMUM_ENTRY_CHARACTERS
                if too_long or not self.read_on():
                    raise self.damaged(error.msg) from error
            except RecursionError:
                raise self.damaged("nested too deeply") from None
            except ValueError as error:  # a number of thousands of digits
                raise self.damaged(str(error)) from error
            else:
                # A number that touches the end may have more digits.
                if end < len(self.text) or not self.read_on():
                    self.check_characters(value, end)
                    self.position = end
                    return value

    def check_characters(self, value: Any, end: int) -> None:
        """Refuse half of a character, which JSON can escape and nothing can write."""
        if "\\ud" in self.text[self.position : end].lower():
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise self.damaged("a text in it holds half of a character, a lone surrogate") from error

    def expect(self, character: str) -> None:
        found = self.next_character()
        if found != character:
            raise self.damaged(f"expected {character!r}, found {found!r}" if found else "it ends too early")
        self.position += 1

    def next_character(self) -> str:
        """Skip white space; return the character there without taking it, "" at the end of the file."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in WHITESPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read_on():
                return ""

    def read_on(self) -> bool:
        """Append the next block to what is not yet taken; returns whether there was one."""
        # The block grows with an unfinished value, so that a long one is not decoded again for every mebibyte.
        block = self.file.read(max(BLOCK_CHARACTERS, len(self.text) - self.position))
        self.text, self.position = self.text[self.position :] + block, 0
        return bool(block)

    def damaged(self, reason: str) -> DataError:
        return DataError(f"not complete, valid JSON ({reason}); fetch or write the file again", path=self.path)

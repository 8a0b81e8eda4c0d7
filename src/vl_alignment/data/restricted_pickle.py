"""Reading published pickles and `.pth` files without running what is in them.

A pickle is a program: an ordinary load of a downloaded file can do anything its author wished. These readers rebuild
plain containers, strings, numbers, NumPy arrays or tensors, and `argparse.Namespace`, and refuse all else by name.
"""

import argparse
import collections
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar

from vl_alignment.models.errors import DataError

__all__ = ["load_restricted", "load_tensors"]


def _allowed_globals() -> dict[tuple[str, str], Any]:
    """Return what a pickle may name, made anew for each file.

    A pickle can also assign attributes to what it names. So the entries written in Python are private copies: a file
    that tries it spoils only its own. (Types written in C refuse such assignments by themselves.)
    """

    def encode(text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"the encoding {encoding!r} is not allowed in a pickle")
        return text.encode("latin1")

    def from_buffer(buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")

    def empty_bytes() -> bytes:
        return b""

    # Arrays begin empty, and their shape follows with their numbers: one that began with a shape, or was called for
    # with one, could ask for any memory. So the type itself is only a mark.
    array_type = object()

    def reconstruct(kind: object, shape: tuple[int, ...], typecode: bytes) -> Any:
        if kind is not array_type or shape != (0,):
            raise pickle.UnpicklingError("an array in it does not begin empty")
        return _reconstruct(np.ndarray, shape, typecode)

    def number(dtype: np.dtype, content: Any) -> Any:
        if not isinstance(content, bytes | str) or len(content) != dtype.itemsize:
            raise pickle.UnpicklingError("a number in it has not the bytes of its type")
        return scalar(dtype, content)

    allowed: dict[tuple[str, str], Any] = {
        ("argparse", "Namespace"): type("Namespace", (argparse.Namespace,), {}),
        ("collections", "Counter"): type("Counter", (collections.Counter,), {}),
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): encode,
        ("__builtin__", "bytes"): empty_bytes,  # how protocol 2 writes b""; with a length it could ask for any memory
        ("numpy", "ndarray"): array_type,
        ("numpy", "dtype"): np.dtype,
    }
    for kind in (set, frozenset, complex, list, dict, tuple):
        for module in ("builtins", "__builtin__"):
            allowed[module, kind.__name__] = kind
    # NumPy moved these functions from numpy.core to numpy._core; files of either age are met.
    for package in ("numpy.core", "numpy._core"):
        allowed[f"{package}.multiarray", "_reconstruct"] = reconstruct
        allowed[f"{package}.multiarray", "scalar"] = number
        allowed[f"{package}.numeric", "_frombuffer"] = from_buffer
    return allowed


# The one written in Python: that in C sets as much memory aside as a damaged file names, unread. It has no public name.
_Unpickler: Any = pickle._Unpickler


class _RestrictedUnpickler(_Unpickler):
    """An unpickler whose globals come from the list above and from nowhere else."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.allowed = _allowed_globals()
        self.refused: str | None = None

    def load_bytearray8(self) -> None:
        """Read the bytes before there is a place for them."""
        length = int.from_bytes(self.read(8), "little")
        content = self.read(length)
        if len(content) < length:
            raise pickle.UnpicklingError("pickle data was truncated")
        self.append(bytearray(content))

    dispatch = {**_Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}

    def find_class(self, module: str, name: str) -> Any:
        """Return the allowed object called `module.name`."""
        try:
            return self.allowed[module, name]
        except KeyError:
            self.refused = f"{module}.{name}"
            raise pickle.UnpicklingError(f"{self.refused} is not allowed") from None


def load_restricted(path: str | Path, *, encoding: str = "latin1") -> Any:
    """Read a pickle that holds plain data.

    Args:
        path: The file.
        encoding: How byte strings of Python 2 become text; "latin1" is what NumPy arrays of that age need.

    Raises:
        DataError: The file is missing, damaged, or names anything beyond plain containers, strings, numbers, NumPy
            arrays and `argparse.Namespace`; the name is in the message, and nothing of it has run.
    """

    def read() -> Any:
        unpickler = _RestrictedUnpickler(io.BytesIO(Path(path).read_bytes()), encoding=encoding)
        try:
            return unpickler.load()
        except Exception as error:
            if unpickler.refused is None:
                raise
            raise DataError(
                f"the pickle asks for {unpickler.refused}, which is not plain data: refused, nothing ran. "
                "If you trust the file, convert it to JSON or NumPy elsewhere",
                path=path,
            ) from error

    return _reading(path, "pickle", read)


def load_tensors(path: str | Path, *, map_location: str | torch.device = "cpu") -> Any:
    """Read a file of torch, in either of its formats, with torch's own restricted loader.

    It holds tensors, plain containers and `argparse.Namespace`.

    Raises:
        DataError: The file is missing, damaged, or names anything else; the name is in the message, and nothing of it
            has run.
    """

    def read() -> Any:
        try:
            # Attributes can be set on a namespace that the file has made, never on the class.
            with torch.serialization.safe_globals([argparse.Namespace]), _BoundedReader(path) as file:
                source = path if _is_plain_archive(file) else file
                return torch.load(source, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL ([\w.]+)", str(error))
            if refused is None:
                raise
            raise DataError(
                f"the torch file asks for {refused[1]}, which is neither a tensor nor plain data: refused, nothing "
                "ran. If you trust the file, save its tensors alone elsewhere",
                path=path,
            ) from error

    return _reading(path, "torch file", read)


class _BoundedReader(io.BufferedReader):
    """A file from which no more can be asked than is in it."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(io.FileIO(path))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or what is left."""
        left = max(0, self.length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _is_plain_archive(file: _BoundedReader) -> bool:
    """Whether a file of torch is of the newer format, an archive.

    Raises:
        ValueError: It is one that is larger once it is unpacked; torch compresses none.
    """
    archived = zipfile.is_zipfile(file)
    if archived:
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > file.length:
                raise ValueError("its members are compressed, or more than the file holds")
    file.seek(0)
    return archived


def _reading(path: str | Path, kind: str, read: Callable[[], Any]) -> Any:
    """Run `read`, turning whatever a missing, damaged or hostile file raises into a `DataError`."""
    try:
        return read()
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no such {kind}", path=path) from error
    except Exception as error:  # damaged pickles raise almost anything: EOFError, KeyError, TypeError, MemoryError ...
        raise DataError(f"this {kind} cannot be read ({_first_line(error)})", path=path) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

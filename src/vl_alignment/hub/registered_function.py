"""How an alignment function of the user's travels: its row goes into the pushed table, its class's file beside it."""

import ast
import dataclasses
import inspect
import sys
from pathlib import Path

from ..models import alignment
from ..models.alignment import BUILT_IN_FUNCTIONS, AlignmentFunction, alignment_specification
from ..models.errors import HubError

__all__ = ["add_registered_function"]

TABLE = "alignment.py"
# What exists wherever a repository is loaded; anything else would have to travel as well.
AVAILABLE = {"torch", "transformers", "huggingface_hub", "numpy"} | sys.stdlib_module_names
# Where a file may take the parts of an alignment function from; in a repository all of them are in the table's file.
SOURCES = {f"vl_alignment{rest}" for rest in ("", ".models", ".models.alignment", ".models.alignment_function")}


def add_registered_function(name: str, folder: Path) -> None:
    """Add a function that `register_alignment_function` knows to the table of a folder of flat files.

    Args:
        name: An alignment function; one that comes with the package needs nothing.
        folder: Holds the copied `alignment.py`, which is changed.

    Raises:
        HubError: The function's class does not live in one importable file, or that file needs others.
    """
    if name in BUILT_IN_FUNCTIONS:
        return
    row = alignment_specification(name)
    given = {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if field.name != "module" and getattr(row, field.name) != field.default
    }
    arguments = [f"{key}={value!r}" for key, value in given.items()]
    lines = ["", "# A function that the user registered, where these weights were trained."]
    if row.module is not None:
        arguments.append(f"module={row.module.__name__}")
        if row.module.__module__.partition(".")[0] != "vl_alignment":
            # At the end of the file: the other one takes from here what it builds on.
            lines.append(f"from .{_copy_file(name, row.module, folder)} import {row.module.__name__}  # noqa: E402")
    lines += [
        "",
        f"if {name!r} not in ALIGNMENT_FUNCTIONS:  # its own file may have registered it",
        f"    register_alignment_function({name!r}, AlignmentSpecification({', '.join(arguments)}))",
    ]
    with (folder / TABLE).open("a", encoding="utf-8") as table:
        table.write("\n".join(lines) + "\n")


def _copy_file(name: str, function: type[AlignmentFunction], folder: Path) -> str:
    """Copy the file of a class into the folder; return its name as a module."""
    refusal = f"the alignment function {name!r} cannot travel with the weights: "
    try:
        file = inspect.getsourcefile(function)
    except (OSError, TypeError):
        file = None
    if function.__module__ == "__main__" or file is None or not Path(file).is_file() or "." in function.__qualname__:
        raise HubError(
            f"{refusal}its class {function.__qualname__} is defined in the main program, in a function, or in no file; "
            "move it to the top level of a file of its own and import it from there"
        )
    path = Path(file)
    if not path.stem.isidentifier() or (folder / path.name).exists():
        raise HubError(
            f"{refusal}its file is called {path.name}, as a file of the package is, or is no module; rename it"
        )
    (folder / path.name).write_text(_flat(path, refusal), encoding="utf-8")
    return path.stem


def _flat(path: Path, refusal: str) -> str:
    """Return the file's text with what it imports from this package taken from the table's file beside it."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for node in sorted(ast.walk(ast.parse(text)), key=lambda node: -getattr(node, "lineno", 0)):
        if isinstance(node, ast.Import):
            foreign = {alias.name.partition(".")[0] for alias in node.names} - AVAILABLE
        elif isinstance(node, ast.ImportFrom):
            if not node.level and node.module in SOURCES:
                missing = [alias.name for alias in node.names if not hasattr(alignment, alias.name)]
                if not missing:
                    line = ast.unparse(ast.ImportFrom(module=Path(TABLE).stem, names=node.names, level=1))
                    lines[node.lineno - 1 : node.end_lineno] = [f"{' ' * node.col_offset}{line}\n"]
                    continue
            foreign = {ast.unparse(node)} if node.level else {(node.module or "").partition(".")[0]} - AVAILABLE
        else:
            continue
        if foreign:
            raise HubError(
                f"{refusal}{path.name}, line {node.lineno}, imports {', '.join(sorted(foreign))}; in a repository "
                "there are only torch, transformers, numpy, the standard library, and what `from vl_alignment import "
                "AlignmentFunction, register_alignment_function, ...` gives for alignment functions"
            )
    return "".join(lines)

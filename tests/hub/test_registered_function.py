"""Alignment functions of the user's, written into a folder of flat files."""

import importlib
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

from vl_alignment.hub.registered_function import add_registered_function
from vl_alignment.models import alignment, alignment_function, errors
from vl_alignment.models.alignment import (
    AlignmentFunction,
    AlignmentSpecification,
    build_alignment_function,
    register_alignment_function,
)
from vl_alignment.models.errors import HubError

OWN_FILE = '''"""A function of my own."""
import torch
from vl_alignment import (
    AlignmentFunction,
    register_alignment_function,
)
from vl_alignment.models.alignment import AlignmentSpecification as Row


class Halved(AlignmentFunction):
    """Half the inner product."""

    def scores(self, query, key):
        return torch.einsum("qd,kd->qk", query, key) / 2
'''


@pytest.fixture
def folder(tmp_path):
    """The files of the table, as they are saved beside weights."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for module in (alignment, alignment_function, errors):
        shutil.copy(module.__file__, folder)
    return folder


def loaded_table(folder):
    """The folder's own `alignment.py`, imported as a part of a package, as transformers does."""
    name = f"flat_files_{abs(hash(folder))}"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]
    return importlib.import_module(f"{name}.alignment")


def test_functions_of_the_package_need_nothing(folder):
    before = (folder / "alignment.py").read_text()
    add_registered_function("additive", folder)
    assert (folder / "alignment.py").read_text() == before


def test_a_row_is_written_into_the_table(folder, open_table):
    row = AlignmentSpecification("(W Q) K / sqrt(d)", "query", scaled=True)
    register_alignment_function("scaled_general_query", row)
    add_registered_function("scaled_general_query", folder)
    table = loaded_table(folder)
    assert repr(table.ALIGNMENT_FUNCTIONS["scaled_general_query"]) == repr(row)


@pytest.mark.parametrize("registers_itself", [False, True])
def test_the_file_of_a_class_travels(folder, own_module, registers_itself):
    module = own_module(OWN_FILE + 'register_alignment_function("halved", Halved)\n' * registers_itself)
    if not registers_itself:
        register_alignment_function("halved", AlignmentSpecification("Q K / 2", module=module.Halved))
    add_registered_function("halved", folder)
    assert "vl_alignment" not in (folder / "my_alignment.py").read_text()

    function = loaded_table(folder).build_alignment_function("halved", 4)
    assert type(function).__name__ == "Halved" and not isinstance(function, module.Halved)
    query, key = torch.randn(2, 4), torch.randn(3, 4)
    torch.testing.assert_close(function(query, key), build_alignment_function("halved", 4)(query, key))


def test_a_class_of_the_package_with_a_row_of_its_own_needs_no_file(folder, open_table):
    register_alignment_function("mine", alignment.AdditiveAlignment)
    add_registered_function("mine", folder)
    assert type(loaded_table(folder).build_alignment_function("mine", 4)).__name__ == "AdditiveAlignment"
    assert len([*folder.glob("*.py")]) == 3


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("import sklearn.metrics", "sklearn"),
        ("from pandas import DataFrame", "pandas"),
        ("from .neighbour import helper", "neighbour"),
        ("from vl_alignment.training import runs", "vl_alignment"),
        ("import vl_alignment.models", "vl_alignment"),
    ],
)
def test_a_file_that_needs_others_is_refused(folder, own_module, line, named):
    module = own_module(OWN_FILE)
    register_alignment_function("halved", module.Halved)
    Path(module.__file__).write_text(f"{OWN_FILE}\n\ndef later():\n    {line}\n")
    with pytest.raises(HubError, match=rf"'halved' cannot travel.*my_alignment\.py, line 18, imports .*{named}"):
        add_registered_function("halved", folder)


def test_a_class_without_a_file_of_its_own_is_refused(folder, open_table):
    class Local(AlignmentFunction):
        pass

    register_alignment_function("local", Local)
    with pytest.raises(HubError, match="'local' cannot travel.*move it to the top level of a file of its own"):
        add_registered_function("local", folder)


def test_a_file_called_like_one_of_the_package_is_refused(folder, own_module):
    module = own_module(OWN_FILE, "errors")
    register_alignment_function("halved", module.Halved)
    with pytest.raises(HubError, match=r"called errors\.py.*rename it"):
        add_registered_function("halved", folder)

import pytest

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS


@pytest.fixture
def open_table():
    """The table of alignment functions, put back as it was after the test."""
    before = dict(ALIGNMENT_FUNCTIONS)
    yield ALIGNMENT_FUNCTIONS
    ALIGNMENT_FUNCTIONS.clear()
    ALIGNMENT_FUNCTIONS.update(before)

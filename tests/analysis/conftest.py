import pytest

from .synthetic import make_answer_result, make_read_answer_result, make_result


@pytest.fixture
def results():
    """Two functions with three seeds: dot 300, 302, 304; general_query 310, 311, 315."""
    values = {"dot": (300.0, 302.0, 304.0), "general_query": (310.0, 311.0, 315.0)}
    return [make_result(name, seed, rsum) for name, row in values.items() for seed, rsum in enumerate(row)]


@pytest.fixture
def answer_results():
    """Two functions with three seeds: dot 70, 71, 72; general_query 75, 75.5, 77.5."""
    values = {"dot": (70.0, 71.0, 72.0), "general_query": (75.0, 75.5, 77.5)}
    return [make_answer_result(name, seed, value) for name, row in values.items() for seed, value in enumerate(row)]


@pytest.fixture
def read_answer_results():
    """Two functions with three seeds: dot 70, 71, 72; scaled_dot 75, 75.5, 77.5."""
    values = {"dot": (70.0, 71.0, 72.0), "scaled_dot": (75.0, 75.5, 77.5)}
    return [
        make_read_answer_result(name, seed, value) for name, row in values.items() for seed, value in enumerate(row)
    ]

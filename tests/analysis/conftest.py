import pytest

from .synthetic import make_result


@pytest.fixture
def results():
    """Two functions with three seeds: dot 300, 302, 304; general_query 310, 311, 315."""
    values = {"dot": (300.0, 302.0, 304.0), "general_query": (310.0, 311.0, 315.0)}
    return [make_result(name, seed, rsum) for name, row in values.items() for seed, rsum in enumerate(row)]

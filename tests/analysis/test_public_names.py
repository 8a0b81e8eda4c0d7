import pytest

from vl_alignment import analysis, metrics


def test_every_public_name_exists():
    for package in (analysis, metrics):
        for name in package.__all__:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing

import pytest

from vl_alignment.models import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_the_packages_and_a_value_error(name):
    error = getattr(errors, name)("the message")
    assert isinstance(error, errors.VlAlignmentError) and isinstance(error, ValueError)
    assert str(error) == "the message"


def test_errors_say_where():
    data = errors.DataError("is broken", path="captions.txt", record=7)
    assert str(data) == "captions.txt, record 7: is broken" and data.path == "captions.txt" and data.record == 7
    assert str(errors.DataError("is broken", record=0)) == "record 0: is broken"
    checkpoint = errors.CheckpointError("is damaged", path="run/model")
    assert str(checkpoint) == "run/model: is damaged" and checkpoint.path == "run/model"
    assert str(errors.HubError("is private", repo_id="me/scan")) == "me/scan: is private"

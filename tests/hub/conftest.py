import huggingface_hub.constants
import pytest

from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS

from .hub_server import OWNER_TOKEN, HubServer


@pytest.fixture
def hub():
    """A Hub of this machine, in memory."""
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub, monkeypatch, tmp_path):
    """The Hub's client of this process talks to that Hub, as its owner.

    Set where the client keeps what it read from the environment, since importing it anew takes ten seconds; tests of
    what a user starts set the environment of a process of its own.
    """
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
    return hub


@pytest.fixture
def open_table():
    """The table of alignment functions, put back as it was after the test."""
    before = dict(ALIGNMENT_FUNCTIONS)
    yield ALIGNMENT_FUNCTIONS
    ALIGNMENT_FUNCTIONS.clear()
    ALIGNMENT_FUNCTIONS.update(before)

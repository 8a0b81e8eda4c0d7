import importlib.util
import sys

import huggingface_hub.constants
import pytest
import transformers.utils.hub

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
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # it would go on talking to the Hub of another test
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


@pytest.fixture
def own_module(tmp_path, monkeypatch, open_table):
    """Import a module of this text from a file of its own; it and what it registers are gone after the test."""
    folder = tmp_path / "modules"

    def import_text(text: str, name: str = "my_alignment"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        description = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        module = importlib.util.module_from_spec(description)
        monkeypatch.setitem(sys.modules, name, module)
        description.loader.exec_module(module)
        return module

    return import_text

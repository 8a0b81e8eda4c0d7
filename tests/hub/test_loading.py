"""What was pushed is loaded: with and without the package, by revision, privately, and without a network."""

import huggingface_hub.constants
import pytest
import torch
from tests.pipelines.test_remote_pipelines import close
from transformers import AutoModel, AutoModelForZeroShotImageClassification, AutoProcessor, pipeline

from vl_alignment import ScanForImageTextRetrieval, ScanProcessor, register_alignment_function
from vl_alignment.hub.push import push_run
from vl_alignment.models.errors import CheckpointError

from .clients import load_pushed, picture
from .hub_server import OTHER_TOKEN
from .run_folder import write_run

pytestmark = pytest.mark.hub
REPOSITORY = "me/scan-blocks-general_key"
TEXTS = ["a dog runs", "two dogs"]
OWN_FILE = '''"""A function of my own."""

from vl_alignment import AlignmentFunction


class Halved(AlignmentFunction):
    """Half the inner product."""

    def scores(self, query, key):
        return query @ key.transpose(-1, -2) / 2

    def products(self, query, key):
        return query.unsqueeze(-2) * key.unsqueeze(-3) / 2
'''


def same_weights(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one variant."""
    return [write_run(tmp_path / "runs", seed=seed) for seed in (0, 1)]


def test_with_the_package_by_revision(client, runs, tmp_path):
    push_run(runs[0], REPOSITORY)
    push_run(runs[1], REPOSITORY, branch="seed1")
    first = client.model(REPOSITORY).branches["main"]
    push_run(runs[1], REPOSITORY)  # a newer state of main
    models = [ScanForImageTextRetrieval.from_pretrained(run / "model") for run in runs]
    for revision, expected in ((None, models[1]), ("seed1", models[1]), (first, models[0])):
        where = {"cache_dir": tmp_path / "cache"} | ({} if revision is None else {"revision": revision})
        for auto_class in (AutoModel, AutoModelForZeroShotImageClassification):
            loaded = auto_class.from_pretrained(REPOSITORY, **where)
            assert type(loaded) is ScanForImageTextRetrieval and same_weights(loaded, expected)
        assert type(AutoProcessor.from_pretrained(REPOSITORY, **where)) is ScanProcessor
    with pytest.raises(CheckpointError, match=f"{REPOSITORY}: cannot be loaded"):
        ScanForImageTextRetrieval.from_pretrained(REPOSITORY, revision="seed7", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("token", [OTHER_TOKEN, None, "hf_wrong"])
def test_a_private_repository_is_its_owners(client, runs, tmp_path, token, monkeypatch):
    push_run(runs[0], REPOSITORY, private=True)
    assert ScanForImageTextRetrieval.from_pretrained(REPOSITORY, cache_dir=tmp_path / "cache")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=f"{REPOSITORY}: cannot be loaded"):
        ScanForImageTextRetrieval.from_pretrained(REPOSITORY, cache_dir=tmp_path / "other cache", token=token)


def test_offline_from_the_cache(client, runs, tmp_path, monkeypatch):
    push_run(runs[0], REPOSITORY)
    before = ScanForImageTextRetrieval.from_pretrained(REPOSITORY, cache_dir=tmp_path)
    AutoProcessor.from_pretrained(REPOSITORY, cache_dir=tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    client.requests.clear()
    assert same_weights(ScanForImageTextRetrieval.from_pretrained(REPOSITORY, cache_dir=tmp_path), before)
    assert AutoProcessor.from_pretrained(REPOSITORY, cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="me/another: cannot be loaded"):
        ScanForImageTextRetrieval.from_pretrained("me/another", cache_dir=tmp_path)
    assert client.requests == []


@pytest.mark.slow
def test_without_the_package_with_a_function_of_the_users_and_offline(client, tmp_path, own_module):
    register_alignment_function("halved", own_module(OWN_FILE).Halved)
    seeds = [write_run(tmp_path / "runs", function="halved", seed=seed) for seed in (0, 1)]
    push_run(seeds[0], "me/own", private=True)
    push_run(seeds[1], "me/own", private=True, branch="seed1")
    assert "my_alignment.py" in client.model("me/own").files()

    call = ["image-text-matching", [picture(), TEXTS], {"output_attentions": True}]
    wanted = [
        {"repo_id": "me/own", "revision": revision, "calls": [call], "payload": None} for revision in ("main", "seed1")
    ]
    found = load_pushed(wanted, tmp_path, client.url)
    for seed, answer in zip(seeds, found, strict=True):
        own = pipeline("image-text-matching", model=str(seed / "model"), device="cpu")
        assert close(answer["calls"], [own(*call[1], **call[2])])
    assert found[0]["weights"] != found[1]["weights"]

    client.requests.clear()
    assert load_pushed(wanted, tmp_path, client.url, HF_HUB_OFFLINE="1", HF_TOKEN="") == found
    assert client.requests == []

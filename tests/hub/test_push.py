"""Pushes of one run by the real client over HTTP to a Hub of this machine."""

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from vl_alignment import cli
from vl_alignment.hub.push import push_run
from vl_alignment.models.errors import CheckpointError, HubError, ResultsError

from .hub_server import OTHER_TOKEN, OWNER_TOKEN, File
from .run_folder import write_run

pytestmark = pytest.mark.hub
REPOSITORY = "me/scan-blocks-general_key"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of SCAN; tests copy it before they change it."""
    torch.manual_seed(0)
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def change_results(run, **changes):
    file = run / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, indent=2))


def test_weights_first_then_the_card(client, run):
    report = push_run(run, REPOSITORY)
    repository = client.model(REPOSITORY)
    name = run.name
    assert repository.messages == ["initial commit", f"Weights, code and results of {name}", f"Card of {name}"]
    files = repository.files()
    assert files[WEIGHTS].lfs and files[WEIGHTS].content == (run / "model" / WEIGHTS).read_bytes()
    assert set(files) == {".gitattributes", *report.files}
    assert {name: len(files[name].content) for name in report.files} == report.files
    assert set(report.sent) == set(report.files) and report.url == f"{client.url}/{REPOSITORY}"
    assert not repository.private


def test_what_is_there_is_not_sent_again(client, run):
    push_run(run, REPOSITORY)
    commits = len(client.model(REPOSITORY).commits)
    assert push_run(run, REPOSITORY).sent == ()
    assert len(client.model(REPOSITORY).commits) == commits

    change_results(run, command="vl-alignment train --epochs 5")
    assert set(push_run(run, REPOSITORY).sent) == {"results.json", "README.md"}
    assert client.asked("PUT", "/lfs/") == 1


def test_files_of_others_stay(client, run):
    push_run(run, REPOSITORY)
    repository = client.model(REPOSITORY)
    repository.commit("main", {**repository.files(), "notes.md": File(b"mine", lfs=False)}, "notes")
    change_results(run, command="vl-alignment train --epochs 5")
    push_run(run, REPOSITORY)
    assert repository.files()["notes.md"].content == b"mine"


def test_a_private_repository(client, run):
    push_run(run, REPOSITORY, private=True)
    assert client.model(REPOSITORY).private
    push_run(run, "me/public")
    with pytest.raises(HubError, match="me/public: is there already and public; make it private in its settings"):
        push_run(run, "me/public", private=True)


def test_a_foreign_token_writes_nothing(client, run):
    with pytest.raises(HubError, match="the token may not write there; take one with write access"):
        push_run(run, REPOSITORY, token=OTHER_TOKEN)
    push_run(run, REPOSITORY)
    commits = len(client.model(REPOSITORY).commits)
    change_results(run, command="vl-alignment train --epochs 5")
    with pytest.raises(HubError, match="the token may not write there"):
        push_run(run, REPOSITORY, token=OTHER_TOKEN)
    push_run(run, "me/hidden", private=True)
    with pytest.raises(HubError, match="the token may not write there"):
        push_run(run, "me/hidden", token=OTHER_TOKEN)
    assert len(client.model(REPOSITORY).commits) == commits


def test_a_wrong_token(client, run):
    with pytest.raises(
        HubError, match=f"{REPOSITORY}: the token is not accepted; log in with `hf auth login`"
    ) as caught:
        push_run(run, REPOSITORY, token="hf_wrongSecretToken")
    assert "hf_wrong" not in str(caught.value)


def test_no_token(client, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="There is no token for the Hub; log in with `hf auth login`, or set HF_TOKEN"):
        push_run(run, REPOSITORY)
    assert client.requests == []


def test_no_network(client, run, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="no answer from the Hub .*refused.*check the network, then run it again"):
        push_run(run, REPOSITORY)


def test_offline(client, run, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="the network is switched off by HF_HUB_OFFLINE; unset it"):
        push_run(run, REPOSITORY)


def test_an_upload_that_breaks_off_is_taken_up_again(client, run):
    client.drops = [("PUT", "^/lfs/")]
    assert WEIGHTS in push_run(run, REPOSITORY).sent
    assert client.asked("PUT", "/lfs/") == 2


def test_a_push_that_breaks_off_goes_on_when_it_is_run_again(client, run):
    client.drops = [("POST", "/commit/main$")]
    with pytest.raises(HubError, match=f"{REPOSITORY}: no answer from the Hub"):
        push_run(run, REPOSITORY)
    assert client.model(REPOSITORY).messages == ["initial commit"]
    push_run(run, REPOSITORY)
    assert client.asked("PUT", "/lfs/") == 1  # the weights had arrived
    assert WEIGHTS in client.model(REPOSITORY).files()


def test_a_newer_commit_is_not_overwritten(client, run):
    push_run(run, REPOSITORY)
    repository = client.model(REPOSITORY)

    def somebody_commits():
        files = {**repository.files(), "results.json": File(b"{}", lfs=False)}
        repository.commit("main", files, "by somebody else")

    client.before_commit = somebody_commits
    change_results(run, command="vl-alignment train --epochs 5")
    with pytest.raises(HubError, match="somebody else committed in the meantime, and nothing was overwritten"):
        push_run(run, REPOSITORY)
    assert repository.messages[-1] == "by somebody else"
    assert set(push_run(run, REPOSITORY).sent) == {"results.json", "README.md"}


def test_a_refused_card_leaves_the_weights(client, run):
    client.card_problem = '"license" must be one of a list'
    with pytest.raises(
        HubError, match=r"weights are pushed, but not the card \(README.md\): .*\"license\" must be"
    ) as caught:
        push_run(run, REPOSITORY)
    assert str(caught.value).count(REPOSITORY) == 1
    files = client.model(REPOSITORY).files()
    assert WEIGHTS in files and "README.md" not in files
    client.card_problem = None
    assert push_run(run, REPOSITORY).sent == ("README.md",)


def test_a_branch(client, run):
    push_run(run, REPOSITORY)
    change_results(run, seed=3)
    report = push_run(run, REPOSITORY, branch="seed3")
    repository = client.model(REPOSITORY)
    assert set(repository.branches) == {"main", "seed3"}
    assert b'"seed": 3' in repository.files("seed3")["results.json"].content
    assert b'"seed": 0' in repository.files("main")["results.json"].content
    assert report.url == f"{client.url}/{REPOSITORY}/tree/seed3" and report.branch == "seed3"


def test_tokens_are_nowhere(client, run, capfd, caplog):
    assert cli.main(["push", str(run), "--repo-id", REPOSITORY]) == 0
    assert cli.main(["push", str(run), "--repo-id", "other/model"]) == 2
    printed = "".join(capfd.readouterr()) + caplog.text
    assert f"{client.url}/{REPOSITORY}: " in printed and "other/model: the token may not write there" in printed
    for text in (printed, *(file.content.decode("latin1") for file in client.model(REPOSITORY).files().values())):
        assert OWNER_TOKEN not in text and "hf_" not in text.replace("hf_hub", "")


def test_a_dry_run_asks_nobody(client, run, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    before = sorted(run.parent.rglob("*"))
    report = push_run(run, REPOSITORY, dry_run=True)
    assert report.files[WEIGHTS] == (run / "model" / WEIGHTS).stat().st_size and "README.md" in report.files
    assert report.sent == () and report.url is None
    assert cli.main(["push", str(run), "--repo-id", REPOSITORY, "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:-1]] == list(report.files)
    assert printed[-1].startswith(f"would push {len(report.files)} files, ") and printed[-1].endswith(REPOSITORY)
    assert client.requests == [] and sorted(run.parent.rglob("*")) == before


def test_a_space_that_tries_it(client, run, capsys):
    assert cli.main(["push", str(run), "--repo-id", REPOSITORY, "--with-space", "--private"]) == 0
    space = client.repositories["spaces", f"{REPOSITORY}-demo"]
    assert json.loads(space.files()["models.json"].content) == [REPOSITORY] and space.private
    assert f"{client.url}/spaces/{REPOSITORY}-demo: " in capsys.readouterr().out


@pytest.mark.parametrize("repo_id", ["model", "me/a/b", "me/", "me/two words", "me/a--b", "me/" + "a" * 97, "me/x.git"])
def test_what_is_no_repository_id(client, run, repo_id):
    with pytest.raises(HubError, match="is no repository id"):
        push_run(run, repo_id)
    assert client.requests == []


def test_a_run_that_cannot_be_pushed_makes_no_repository(client, run):
    (run / "model" / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="half written"):
        push_run(run, REPOSITORY)
    (run / "results.json").unlink()
    with pytest.raises(ResultsError, match="no results"):
        push_run(run, REPOSITORY)
    assert client.requests == []

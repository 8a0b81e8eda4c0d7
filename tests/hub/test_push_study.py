"""Pushes of all runs of an output folder."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from vl_alignment import cli
from vl_alignment.hub.push import push_study
from vl_alignment.models.errors import HubError, ResultsError

from .hub_server import OTHER_TOKEN
from .run_folder import write_run

pytestmark = pytest.mark.hub
DOT, GENERAL = "me/scan-blocks-dot", "me/scan-blocks-general_key"


@pytest.fixture
def output(tmp_path):
    """Two functions with two seeds each, one of them diverged, and a run that is not finished."""
    for function, seeds in (("dot", (1, 2)), ("general_key", (0, 1))):
        for seed in seeds:
            write_run(tmp_path / "study", function=function, seed=seed)
    weights = tmp_path / "study" / "scan-blocks-general_key-seed1" / "model" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.cross_attention.alignment.weight"].fill_(float("inf"))
    save_file(tensors, weights, metadata={"format": "pt"})
    unfinished = write_run(tmp_path / "study", function="cosine")
    (unfinished / "results.json").unlink()
    return tmp_path / "study"


def test_one_repository_a_variant_and_one_branch_a_further_seed(client, output):
    report = push_study(output, "me", private=True, space="blocks-demo", collection="Alignment on blocks")
    assert {name: (pushed.repo_id, pushed.branch) for name, pushed in report.pushed.items()} == {
        "scan-blocks-dot-seed1": (DOT, "main"),
        "scan-blocks-dot-seed2": (DOT, "seed2"),
        "scan-blocks-general_key-seed0": (GENERAL, "main"),
    }
    assert [*report.failures] == ["scan-blocks-general_key-seed1"]
    assert "not finite" in report.failures["scan-blocks-general_key-seed1"]
    assert set(client.repositories) == {("models", DOT), ("models", GENERAL), ("spaces", "me/blocks-demo")}
    assert all(repository.private for repository in client.repositories.values())
    repository = client.model(DOT)
    assert b'"seed": 2' in repository.files("seed2")["results.json"].content
    assert repository.files("seed2")["model.safetensors"] != repository.files()["model.safetensors"]

    space = client.repositories["spaces", "me/blocks-demo"].files()
    assert json.loads(space["models.json"].content) == [DOT, GENERAL]
    assert set(space) == {".gitattributes", *report.space.files} and "examples/examples.json" in space
    assert report.space.url == f"{client.url}/spaces/me/blocks-demo"

    (collection,) = client.collections.values()
    assert [item["id"] for item in collection["items"]] == ["me/blocks-demo", DOT, GENERAL] and collection["private"]
    assert report.collection == f"{client.url}/collections/{collection['slug']}"


def test_the_parts_of_a_study_are_pushed_together(client, output, tmp_path):
    study = tmp_path / "parts"
    (study / "first").mkdir(parents=True)
    (study / "second").mkdir()
    shutil.copytree(output / "scan-blocks-dot-seed1", study / "first" / "scan-blocks-dot-seed1")
    shutil.copytree(output / "scan-blocks-dot-seed1", study / "first" / "controls" / "scan-blocks_shuffled-dot-seed1")
    shutil.copytree(output / "scan-blocks-general_key-seed0", study / "second" / "scan-blocks-general_key-seed0")
    report = push_study(study, "me", dry_run=True)
    assert {pushed.repo_id for pushed in report.pushed.values()} == {DOT, GENERAL} and report.failures == {}
    shutil.copytree(output / "scan-blocks-dot-seed1", study / "second" / "scan-blocks-dot-seed1")
    report = push_study(study, "me", dry_run=True)
    assert len(report.pushed) == 2 and "is there twice" in report.failures["scan-blocks-dot-seed1"]


def test_run_again_it_sends_what_is_missing(client, output):
    push_study(output, "me", space="demo", collection="Alignment")
    commits = {repo_id: len(repository.commits) for (_, repo_id), repository in client.repositories.items()}
    report = push_study(output, "me", space="demo", collection="Alignment")
    assert all(pushed.sent == () for pushed in (*report.pushed.values(), report.space)) and len(report.failures) == 1
    assert {repo_id: len(one.commits) for (_, repo_id), one in client.repositories.items()} == commits
    assert len(client.collections) == 1 and len(next(iter(client.collections.values()))["items"]) == 3


def test_the_command_says_what_became_of_each_run(client, output, capsys):
    (output / "scan-blocks-dot-seed2" / "results.json").write_text("{")
    with pytest.warns(UserWarning, match="dot-seed2/results.json: Damaged.*It is left out"):  # of the other seed's card
        assert cli.main(["push-study", str(output), "--namespace", "me"]) == 2
    printed = capsys.readouterr()
    assert f"scan-blocks-dot-seed1 -> {DOT}, main" in printed.out
    assert "scan-blocks-general_key-seed1 failed: " in printed.out and "scan-blocks-dot-seed2 failed: " in printed.out
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("vl-alignment: 2 of 4 runs could not be pushed (") and "2 were" in last


def test_a_dry_run_of_the_command(client, output, capsys):
    assert (
        cli.main(["push-study", str(output), "--namespace", "me", "--space", "A", "--collection", "A", "--dry-run"])
        == 2
    )
    printed = capsys.readouterr().out
    assert printed.count("would push ") == 4 and f"to {GENERAL}" in printed and "to me/A" in printed
    assert client.requests == []


def test_what_is_wrong_for_all_runs_is_said_once(client, output, monkeypatch):
    with pytest.raises(HubError, match="two words/study: is no repository id"):
        push_study(output, "two words")
    with pytest.raises(HubError, match="me: the token is not accepted"):
        push_study(output, "me", token="hf_wrong")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="There is no token for the Hub"):
        push_study(output, "me")
    assert client.repositories == {}


def test_a_foreign_token(client, output):
    report = push_study(output, "me", collection="A", token=OTHER_TOKEN)
    assert report.pushed == {} and report.collection is None and client.repositories == {}
    assert "the token may not write there" in report.failures["scan-blocks-dot-seed1"]


def test_folders_without_finished_runs(client, tmp_path):
    with pytest.raises(ResultsError, match="no such folder of runs"):
        push_study(tmp_path / "missing", "me")
    with pytest.raises(ResultsError, match="no finished runs to push"):
        push_study(tmp_path, "me")

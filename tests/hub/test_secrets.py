"""Tokens in the environment, in arguments and in addresses reach no file and no output."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .hub_server import OWNER_TOKEN, USERS, HubServer
from .run_folder import write_run

pytestmark = pytest.mark.hub

GIVEN, ADDRESSED, PASSWORD = "hf_givenSecretToken", "hf_addressedSecretToken", "pass-of-the-address"
BASIC = base64.b64encode(f"{ADDRESSED}:{PASSWORD}".encode()).decode()
SECRETS = (OWNER_TOKEN, GIVEN, ADDRESSED, PASSWORD, BASIC)
TINY = ["--sizes", "train=16", "validation=8", "test=8"]
SETTINGS = ["--epochs", "1", "--batch-size", "8", "--all-negatives-epochs", "1", "--decay-epochs"]
# A program of the user's own, whose token stands among its arguments; what runs record as their command is those.
PROGRAM = "import json, sys; from vl_alignment.cli import main; sys.exit(sum(map(main, json.loads(sys.argv[1]))))"
STUDY = """
output: {folder}/study
threads: 1
parts:
  - name: small
    preset: blocks
    functions: [dot, general_key]
    seeds: [0]
    sizes: {{train: 16, validation: 8, test: 8}}
    settings: {{epochs: 1, batch_size: 8, decay_epochs: [], all_negatives_epochs: 1, device: cpu}}
    model: {{hidden_size: 8, word_embedding_size: 4}}
    controls: false
    pictures: 0
"""


class Terminal:
    """Runs commands as a user does, with a token in every place that can hold one, and keeps what they print."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        self.folder, self.printed = folder, ""
        self.address = hub.url.replace("://", f"://{ADDRESSED}:{PASSWORD}@")

    def run(self, *commands: list[str], status: int = 0) -> str:
        """Run commands in one process, whose exit status is the sum of theirs; return what they print."""
        finished = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(commands), f"--hf-token={GIVEN}"],
            cwd=self.folder,
            env={
                **os.environ,
                "HF_TOKEN": OWNER_TOKEN,
                "HF_ENDPOINT": self.address,
                "HF_HOME": str(self.folder / "huggingface"),
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "HF_DEBUG": "1",  # the Hub's client prints its requests
                "VL_ALIGNMENT_CACHE": os.environ.get("VL_ALIGNMENT_CACHE", str(self.folder / "cache")),
            },
            capture_output=True,
            text=True,
            timeout=900,  # where others compute beside
        )
        self.printed += finished.stdout + finished.stderr
        assert finished.returncode == status, finished.stderr[-3000:]
        return finished.stdout + finished.stderr

    def leaks(self) -> list[str]:
        """What holds a secret, in names or contents."""
        found = [f"printed: {line}" for line in self.printed.splitlines() if any(one in line for one in SECRETS)]
        for path in self.folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            if any(one in str(path.relative_to(self.folder)) or one.encode() in content for one in SECRETS):
                found.append(str(path))
        return found


@pytest.fixture
def terminal(tmp_path, hub, monkeypatch):
    monkeypatch.setitem(USERS, f"Basic {BASIC}", "me")  # what the client sends for an address with a password
    return Terminal(tmp_path, hub)


@pytest.mark.slow
def test_a_run_its_comparison_and_its_push(terminal, hub):
    run = "runs/scan-blocks-dot-seed0"
    printed = terminal.run(
        ["train", "--output", "runs", "--alignment-function", "dot", *TINY, *SETTINGS],
        ["compare", "--output", "runs", "--functions", "dot", "--seeds", "0", "--no-controls", *TINY, *SETTINGS],
        ["cards", "runs", "--output", "cards"],
        ["push", run, "--repo-id", "me/scan", "--with-space"],
        ["push-study", "runs", "--namespace", "me", "--space", "all", "--collection", "All"],
    )
    assert "http://***@127.0.0.1" in printed and "Space" in printed and "Send: curl" in printed
    assert json.loads((terminal.folder / run / "run.json").read_text())["command"].endswith("--hf-token=***")
    assert terminal.leaks() == []
    assert len(hub.repositories) == 4 and hub.collections
    for repository in hub.repositories.values():
        for name, file in repository.files().items():
            assert not any(one.encode() in file.content for one in SECRETS), name


@pytest.mark.slow
def test_a_study_and_its_logs(terminal):
    (terminal.folder / "plan.yaml").write_text(STUDY.format(folder=terminal.folder))
    blocked = terminal.folder / "study" / "small" / "scan-blocks-dot-seed0"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    printed = terminal.run(["study", "plan.yaml"], status=2)
    assert "FAILED" in printed and "Traceback" in (blocked.parent / "logs" / "run-dot-0.log").read_text()
    assert "--hf-token=***" in (blocked.parent / "scan-blocks-general_key-seed0" / "run.json").read_text()
    assert terminal.leaks() == []


@pytest.mark.slow
def test_errors(terminal):
    run = str(write_run(terminal.folder / "runs"))
    secret = f"https://{ADDRESSED}:{PASSWORD}@127.0.0.1:9/data?token={GIVEN}"
    commands = [
        ["train", "--preset", "flickr8k", f"--data-dir={secret}", "--output", "out"],
        ["push", run, "--repo-id", "other/scan"],  # no right to write there
        ["demo", secret],
    ]
    debugged = [[*command, "--debug"] for command in commands]
    printed = terminal.run(*commands, *debugged, ["train", "--hf-token", GIVEN], status=2)
    assert "https:/***@127.0.0.1:9/data?token=***" in printed and printed.count("Traceback") >= 3
    assert "the token may not write there" in printed and "Send: curl" in printed
    assert "unrecognized arguments: --hf-token ***" in printed
    assert terminal.leaks() == []

"""Processes as a user starts them: the Hub's address in the environment, no access to the package."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .hub_server import OWNER_TOKEN


def picture() -> str:
    """A small picture as a data URL."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def load_pushed(wanted: list[dict[str, Any]], folder: Path, url: str, **environment: str) -> list[dict[str, Any]]:
    """Run `load_pushed.py`; its caches are below the folder.

    Args:
        wanted: What it shall load and ask.
        folder: A temporary one.
        url: Of the Hub.
        environment: More variables.
    """
    (folder / "wanted.json").write_text(json.dumps(wanted))
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("load_pushed.py"), folder / "wanted.json", folder / "answers.json"],
        cwd=folder,
        env={
            **inherited,
            "HF_ENDPOINT": url,
            "HF_HOME": str(folder / "huggingface"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": OWNER_TOKEN,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert OWNER_TOKEN not in finished.stdout + finished.stderr
    return json.loads((folder / "answers.json").read_text())

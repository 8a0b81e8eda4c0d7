"""Pipelines of saved repositories answer the same where the package is not installed."""

import ast
import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import pipeline

from vl_alignment.hub.flat_code import save_with_code
from vl_alignment.pipelines import PIPELINES

from .load_remote_pipelines import plain
from .repositories import READ, TEXTS, tiny_pipeline

# What stands beside the package's own modules on the Hub, and so may import none of them.
PIPELINE_FILES = sorted(
    {path for _, file in PIPELINES.values() for path in file.parent.glob("*.py") if path.name != "__init__.py"}
)
CALLS = {
    "scan": [
        ["image-text-matching", ["PICTURE", TEXTS], {"output_attentions": True}],
        ["image-text-matching", [["PICTURE", "PICTURE"], TEXTS], {}],
        ["zero-shot-image-classification", ["PICTURE"], {"candidate_labels": TEXTS, "hypothesis_template": "{}"}],
    ],
    "mac": [[None, ["PICTURE", TEXTS], {"batch_size": 2, "output_attentions": True}]],
    "m4c": [["text-visual-question-answering", ["PICTURE", TEXTS[0]], {**READ, "output_attentions": True}]],
    "attngan": [[None, [TEXTS], {"num_images": 2, "seed": 3, "output_attentions": True}]],
}


def data_url(picture):
    content = io.BytesIO()
    picture.save(content, format="png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def close(there, here):
    """Whether two answers are the same but for the last digits of their numbers."""
    if isinstance(here, dict):
        return there.keys() == here.keys() and all(close(there[key], here[key]) for key in here)
    if isinstance(here, list):
        return len(there) == len(here) and all(map(close, there, here))
    return there == pytest.approx(here, abs=1e-6) if isinstance(here, float) else there == here


def test_saved_pipelines_run_where_the_package_is_not_installed(pictures, tmp_path):
    expected = {}
    for name, calls in CALLS.items():
        calls = json.loads(json.dumps(calls).replace("PICTURE", data_url(pictures[0])))
        own = tiny_pipeline(name, alignment_function="additive")
        save_with_code(own.model, own.processor, tmp_path / name)
        (tmp_path / name / "calls.json").write_text(json.dumps(calls))
        expected[name] = []
        for task, arguments, keywords in calls:
            transformers_own = task == "zero-shot-image-classification"
            run = pipeline(task, model=str(tmp_path / name), device="cpu") if transformers_own else own
            expected[name].append(plain(run(*arguments, **keywords)))

    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    script = Path(__file__).with_name("load_remote_pipelines.py")
    finished = subprocess.run(
        [sys.executable, script, *(tmp_path / name for name in CALLS)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for name, here in expected.items():
        assert close(json.loads((tmp_path / name / "answers.json").read_text()), here), name


@pytest.mark.parametrize("file", PIPELINE_FILES, ids=lambda file: file.name)
def test_pipelines_import_only_what_is_there(file):
    roots = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # a file that travels beside it
                assert (node.level, node.module) == (1, "packaged_pipeline"), f"{file.name}: {ast.unparse(node)}"
            else:
                roots.add(node.module.partition(".")[0])
    assert roots <= {"torch", "transformers", "PIL", "numpy"} | sys.stdlib_module_names

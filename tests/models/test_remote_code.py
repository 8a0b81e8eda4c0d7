"""What is saved with `register_for_auto_class` loads where the package is not installed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, ResNetConfig

import vl_alignment.models
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models import ScanConfig, ScanForImageTextRetrieval, ScanModel, ScanProcessor, SquareImageProcessorPil

from .scan_model import FEATURES, tiny_model

MODELS = Path(vl_alignment.models.__file__).parent
TRAVELS_WITH_SCAN = {
    *("alignment.py", "alignment_function.py", "checked_inputs.py", "configuration_base.py", "configuration_scan.py"),
    *("errors.py", "modeling_base.py", "modeling_scan.py", "processing_base.py", "processing_scan.py"),
    *("similarity_scan.py", "vision.py"),
}


@pytest.fixture
def registered(monkeypatch):
    """SCAN's classes as they are before a push; other tests save without code."""
    classes = (ScanConfig, ScanForImageTextRetrieval, ScanModel, ScanProcessor, SquareImageProcessorPil)
    for registered_class in classes:
        monkeypatch.setattr(registered_class, "_auto_class", None)
    ScanConfig.register_for_auto_class()
    ScanForImageTextRetrieval.register_for_auto_class("AutoModel")
    ScanProcessor.register_for_auto_class()


def save_repository(folder, **fields):
    tokenizer = build_word_tokenizer(["a dog runs", "two dogs"], minimum_count=1)
    model = tiny_model(**fields)
    model.save_pretrained(folder)
    processor = ScanProcessor(SquareImageProcessorPil(size={"height": 16, "width": 16}), tokenizer)
    processor.save_pretrained(folder)
    return model, processor


def test_repositories_load_where_the_package_is_not_installed(registered, tmp_path):
    given = {
        "features": torch.randn(2, 4, FEATURES),
        "pictures": torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8),
    }
    save_file(given, tmp_path / "given.safetensors")
    backbone = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    captions = ["a dog runs", "two dogs"]
    expected = {}
    for name, fields in {
        "regions": {"alignment_function": "additive", "direction": "i2t"},
        "pixels": {"alignment_function": "biased_general_query", "vision_config": backbone},
    }.items():
        folder = tmp_path / name
        model, processor = save_repository(folder, **fields)
        if name == "regions":
            inputs = processor(text=captions, region_features=list(given["features"]))
        else:
            inputs = processor(text=captions, images=[picture.numpy() for picture in given["pictures"]])
        with torch.no_grad():
            expected[name] = model(**inputs).logits_per_image

        assert {path.name for path in folder.glob("*.py")} == TRAVELS_WITH_SCAN
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert auto_map == {
            "AutoConfig": "configuration_scan.ScanConfig",
            "AutoModel": "modeling_scan.ScanForImageTextRetrieval",
        }

    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    script = Path(__file__).with_name("load_remote_code.py")
    finished = subprocess.run(
        [sys.executable, str(script), *(str(tmp_path / name) for name in expected)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for name, similarity in expected.items():
        there = load_file(tmp_path / name / "similarity.safetensors")["similarity"]
        torch.testing.assert_close(there, similarity, rtol=0, atol=1e-6)


def test_where_the_package_is_installed_its_own_classes_are_used(registered, tmp_path):
    save_repository(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is ScanForImageTextRetrieval
    assert type(AutoProcessor.from_pretrained(tmp_path)) is ScanProcessor


def test_nothing_is_copied_without_registration(tmp_path):
    save_repository(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("file", sorted(path for path in MODELS.glob("*.py")), ids=lambda path: path.name)
def test_models_import_only_what_travels(file):
    # Checked on the syntax tree, since an import within a function counts as well.
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            roots = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            # `from . import x` is silently not copied, `from ..x` and `from .x.y` fail within save_pretrained.
            assert node.level == 1 and node.module and "." not in node.module, ast.unparse(node)
            continue
        elif isinstance(node, ast.ImportFrom):
            roots = {node.module.partition(".")[0]}
        else:
            continue
        assert roots <= {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names, ast.unparse(node)


def test_the_folder_of_the_models_is_flat():
    assert [path.name for path in MODELS.iterdir() if path.is_dir() and path.name != "__pycache__"] == []

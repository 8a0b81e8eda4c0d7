"""What is saved with `register_for_auto_class` loads where the package is not installed."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, ResNetConfig

import vl_alignment.models
from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models import (
    AttnGanConfig,
    AttnGanForTextToImageGeneration,
    AttnGanProcessor,
    DamsmConfig,
    DamsmModel,
    MacConfig,
    MacForQuestionAnswering,
    MacModel,
    MacProcessor,
    ScanConfig,
    ScanForImageTextRetrieval,
    ScanModel,
    ScanProcessor,
    SquareImageProcessorPil,
)
from vl_alignment.models.configuration_m4c import M4CConfig
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering, M4CModel
from vl_alignment.models.phoc import PHOC_SIZE
from vl_alignment.models.processing_m4c import M4CProcessor

from . import attngan_model, damsm_model, m4c_model, mac_model, scan_model
from .load_remote_code import inputs_of, scores_in

MODELS = Path(vl_alignment.models.__file__).parent
TEXTS = ["a dog runs", "two dogs"]
SHARED_FILES = {
    *("alignment.py", "alignment_function.py", "checked_inputs.py", "configuration_base.py", "errors.py"),
    *("modeling_base.py", "processing_base.py", "vision.py"),
}
BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")  # stride 8


@dataclass(frozen=True)
class Family:
    """A model with its processor, and what is expected of its repository.

    Attributes:
        make: Makes a tiny model.
        model, base, config, processor: Its classes.
        files: The files that travel with it, beside the shared ones.
        side: Of the square pictures that give as many cells as `regions`.
        regions: How many regions a picture has.
        processor_fields: Of the processor, beside the image processor and the tokenizer.
    """

    make: Callable
    model: type
    base: type
    config: type
    processor: type
    files: frozenset
    side: int
    regions: int
    processor_fields: dict = field(default_factory=dict)


FAMILIES = {
    "scan": Family(
        *(scan_model.tiny_model, ScanForImageTextRetrieval, ScanModel, ScanConfig, ScanProcessor),
        frozenset({"configuration_scan.py", "modeling_scan.py", "processing_scan.py", "similarity_scan.py"}),
        side=16,
        regions=4,
    ),
    "mac": Family(
        *(mac_model.tiny_model, MacForQuestionAnswering, MacModel, MacConfig, MacProcessor),
        frozenset({"configuration_mac.py", "modeling_mac.py", "processing_mac.py", "reasoning_mac.py"})
        | {"bidirectional_lstm.py"},
        side=24,
        regions=9,
    ),
    "m4c": Family(
        partial(m4c_model.tiny_model, word_vector_size=7, phoc_size=PHOC_SIZE),
        *(M4CForQuestionAnswering, M4CModel, M4CConfig, M4CProcessor),
        frozenset({f"{role}_m4c.py" for role in ("attention", "configuration", "decoding", "embedding", "modeling")})
        | {"processing_m4c.py", "hashed_word_vectors.py", "phoc.py"},
        side=24,
        regions=9,
        processor_fields={"word_vectors": HashedWordVectors(7)},
    ),
    "damsm": Family(
        *(damsm_model.tiny_model, DamsmModel, DamsmModel, DamsmConfig, AttnGanProcessor),
        frozenset({f"{role}_damsm.py" for role in ("configuration", "matching", "modeling", "text_encoder")})
        | {"bidirectional_lstm.py", "inception_v3.py", "processing_attngan.py"},
        side=damsm_model.SIDE,
        regions=damsm_model.CELLS,
    ),
    "attngan": Family(
        *(attngan_model.tiny_model, AttnGanForTextToImageGeneration, AttnGanForTextToImageGeneration),
        *(AttnGanConfig, AttnGanProcessor),
        frozenset(
            {
                f"{role}_attngan.py"
                for role in ("attention", "configuration", "discriminators", "generator", "modeling", "processing")
            }
        )
        | {"bidirectional_lstm.py", "text_encoder_damsm.py"},
        side=attngan_model.SIZE,
        regions=1,
    ),
}


@pytest.fixture
def registered(monkeypatch):
    """The classes as they are before a push; other tests save without code."""
    for family in FAMILIES.values():
        for registered_class in (family.config, family.model, family.base, family.processor, SquareImageProcessorPil):
            monkeypatch.setattr(registered_class, "_auto_class", None)
        family.config.register_for_auto_class()
        family.model.register_for_auto_class("AutoModel")
        family.processor.register_for_auto_class()


def save_repository(family, folder, **fields):
    tokenizer = build_word_tokenizer(TEXTS, minimum_count=1)
    model = family.make(**fields)
    model.save_pretrained(folder)
    image_processor = SquareImageProcessorPil(size={"height": family.side, "width": family.side})
    processor = family.processor(image_processor, tokenizer, **family.processor_fields)
    processor.save_pretrained(folder)
    return model, processor


@pytest.mark.parametrize(
    ("name", "repositories"),
    [
        (
            "scan",
            {
                "regions": {"alignment_function": "additive", "direction": "i2t"},
                "pixels": {"alignment_function": "biased_general_query", "vision_config": BACKBONE},
            },
        ),
        (
            "mac",
            {
                "regions": {"alignment_function": "additive", "memory_gate": True, "self_attention": True},
                "pixels": {"alignment_function": "general_key", "cell": "pytorch", "vision_config": BACKBONE},
            },
        ),
        (
            "m4c",
            {
                "regions": {"alignment_function": "additive"},
                "pixels": {"alignment_function": "biased_general_query", "vision_config": BACKBONE},
            },
        ),
        ("damsm", {"pixels": {"alignment_function": "additive", "recurrence": "gru"}}),
        ("attngan", {"captions": {"alignment_function": "additive"}, "released": {"released_layout": True}}),
    ],
)
def test_repositories_load_where_the_package_is_not_installed(name, repositories, registered, tmp_path):
    family = FAMILIES[name]
    given = {
        "features": torch.randn(2, family.regions, 6),
        "pictures": torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8),
        "noise": torch.randn(2, attngan_model.NOISE),
        "conditioning_noise": torch.randn(2, attngan_model.CONDITION),
    }
    save_file(given, tmp_path / "given.safetensors")
    expected = {}
    for kind, fields in repositories.items():
        folder = tmp_path / kind
        model, processor = save_repository(family, folder, **fields)
        inputs = inputs_of(model, processor, given)
        with torch.no_grad():
            output = model(**inputs)
        expected[kind] = scores_in(output)

        assert {path.name for path in folder.glob("*.py")} == SHARED_FILES | family.files
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert auto_map == {
            "AutoConfig": f"configuration_{name}.{family.config.__name__}",
            "AutoModel": f"modeling_{name}.{family.model.__name__}",
        }

    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    script = Path(__file__).with_name("load_remote_code.py")
    finished = subprocess.run(
        [sys.executable, script, tmp_path / "given.safetensors", *(tmp_path / kind for kind in expected)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for kind, scores in expected.items():
        there = load_file(tmp_path / kind / "scores.safetensors")["scores"]
        torch.testing.assert_close(there, scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_where_the_package_is_installed_its_own_classes_are_used(family, registered, tmp_path):
    save_repository(family, tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is family.model
    assert type(AutoProcessor.from_pretrained(tmp_path)) is family.processor


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_nothing_is_copied_without_registration(family, tmp_path):
    save_repository(family, tmp_path)
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

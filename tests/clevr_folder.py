"""A few questions in CLEVR's layout, and a MAC that reads the features of a small ResNet, all on disk."""

import json
from pathlib import Path

import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.configuration_mac import MacConfig
from vl_alignment.models.modeling_mac import MacForQuestionAnswering
from vl_alignment.models.processing_mac import MacProcessor

# Text, answer, functions after "scene": the third answer is none that the model knows.
QUESTIONS = [
    ("Is there a red thing?", "yes", ["exist"]),
    ("How many things are there?", "2", ["count"]),
    ("What size is it?", "small", ["unique", "query_size"]),
]
IMAGES = 2
# So that `stage2` gives 2 x 2 cells of 8 numbers.
IMAGE_SIZE = 16


def chain(functions: list[str]) -> list[dict]:
    """A program whose functions each take what the one before gives."""
    return [
        {"function": function, "inputs": [step - 1] if step else [], "value_inputs": []}
        for step, function in enumerate(functions)
    ]


def write_clevr(root: Path) -> Path:
    """Train and val, each of two pictures with three questions each."""
    for split in ("train", "val"):
        names = [f"CLEVR_{split}_{number:06d}.png" for number in range(IMAGES)]
        (root / "images" / split).mkdir(parents=True)
        for number, name in enumerate(names):
            Image.new("RGB", (12, 8), (40 + 150 * number, 0, 99)).save(root / "images" / split / name)
        questions = [
            {
                "image_filename": name,
                "question": text,
                "answer": answer,
                "program": chain(["scene", *functions]),
                "question_family_index": 0,
            }
            for name in names
            for text, answer, functions in QUESTIONS
        ]
        numbered = [{"question_index": number, **question} for number, question in enumerate(questions)]
        path = root / "questions" / f"CLEVR_{split}_questions.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"info": {}, "questions": numbered}))
    return root


def write_resnet(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    return folder


def write_mac(folder: Path, **fields) -> Path:
    """A model with random weights that knows two of the three answers and has no backbone of its own."""
    tokenizer = build_word_tokenizer([text for text, _, _ in QUESTIONS], minimum_count=1)
    torch.manual_seed(0)
    values = {
        **{"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "feature_size": 8, "grid_size": 2},
        **{"hidden_size": 8, "word_embedding_size": 6, "num_steps": 2, "cell": "pytorch"},
        **{"id2label": {0: "2", 1: "yes"}, "region_extractor": "transformers", **fields},
    }
    MacForQuestionAnswering(MacConfig(**values)).save_pretrained(folder)
    MacProcessor(None, tokenizer).save_pretrained(folder)
    return folder

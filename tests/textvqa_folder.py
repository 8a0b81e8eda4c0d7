"""A few questions in TextVQA's published layout, and a BERT of two small layers for them, all on disk."""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from vl_alignment.data.vocabulary import build_word_tokenizer

QUESTIONS = ("What does it say?", "Which word is on the sign?")
ANSWERS = (["stop"] * 10, ["go now"] * 7 + ["go"] * 3)
WORDS = ("Stop", "go", "now")
IMAGES = 4


def write_textvqa(root: Path) -> Path:
    """Train and val, each of four pictures with two questions each, with the tokens and boxes of their text."""
    root.mkdir(parents=True)
    for split in ("train", "val"):
        ids = [f"{split}{number}" for number in range(IMAGES)]
        questions = [
            {
                "question_id": 10 * number + place,
                "image_id": image_id,
                "question": QUESTIONS[place],
                "answers": ANSWERS[place],
            }
            for number, image_id in enumerate(ids)
            for place in range(2)
        ]
        (root / f"TextVQA_0.5.1_{split}.json").write_text(json.dumps({"data": questions}))
        box = {"top_left_x": 0.2, "top_left_y": 0.3, "width": 0.3, "height": 0.1, "rotation": 0}
        text = [
            {
                "image_id": image_id,
                "ocr_tokens": list(WORDS),
                "ocr_info": [{"word": word, "bounding_box": box} for word in WORDS],
            }
            for image_id in ids
        ]
        (root / f"TextVQA_Rosetta_OCR_v0.2_{split}.json").write_text(json.dumps({"data": text}))
    return root


def write_text_encoder(folder: Path) -> Path:
    tokenizer = build_word_tokenizer(QUESTIONS, minimum_count=1)
    torch.manual_seed(3)
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

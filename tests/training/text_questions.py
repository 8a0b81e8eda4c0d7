"""A few questions about words in pictures of random features, and an M4C that is small enough to train on them."""

import datasets
import numpy as np

from vl_alignment.data.question_records import QuestionData
from vl_alignment.data.region_store import RegionStore
from vl_alignment.data.text_question_records import TEXT_FEATURES, TEXT_QUESTION_FEATURES
from vl_alignment.data.vocabulary import build_spelling_tokenizer
from vl_alignment.models.hashed_word_vectors import HashedWordVectors
from vl_alignment.models.processing_m4c import M4CProcessor

SIZE, SIDE, STEPS = 4, 2, 3
TEXT_CONFIG = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 48,
}
TINY = {
    "text_config": TEXT_CONFIG,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "pointer_size": 8,
    "num_decoding_steps": STEPS,
    "ocr_padding_size": 0,
}
# Of every picture: "stop" twice and a word of its split, so that answers can be spelled in several ways.
UNSEEN = {"train": "mill", "validation": "vine", "test": "tide"}


def text_question_data(images: int = 6, *, answers: bool = True) -> QuestionData:
    """Train, validation and test of so many pictures with two questions each; the last picture has no text."""
    pictures, asked = datasets.DatasetDict(), datasets.DatasetDict()
    for split, own in UNSEEN.items():
        ids = [f"{split}-{number}" for number in range(images)]
        words = [["stop", f"{own}{number}", "stop"] for number in range(images - 1)] + [[]]
        boxes = [[[0.1 * n, 0.2, 0.1 * n + 0.3, 0.4] for n in range(len(found))] for found in words]
        columns = {"image_id": ids, "ocr_tokens": words, "ocr_boxes": boxes}
        columns["ocr_confidences"] = [[1.0] * len(found) for found in words]
        features = datasets.Features({"image_id": datasets.Value("string"), **TEXT_FEATURES})
        pictures[split] = datasets.Dataset.from_dict(columns, features=features)
        rows = []
        for number, image_id in enumerate(ids):
            read = [f"{own}{number}"] * 8 + ["stop"] * 2
            known = ["stop"] * 9 + ["halt"]
            for place, (question, given) in enumerate((("what is written?", read), ("which sign is it?", known))):
                rows.append(
                    {
                        "question_id": f"{image_id}#{place}",
                        "image_id": image_id,
                        "question": question,
                        "answers": given if answers or split != "test" else [],
                        "question_type": ("read", "sign")[place],
                        "hops": place,
                    }
                )
        asked[split] = datasets.Dataset.from_list(rows, features=TEXT_QUESTION_FEATURES)
    return QuestionData(pictures, asked)


def text_region_store(data: QuestionData) -> RegionStore:
    """Random features [SIDE * SIDE, SIZE] for every picture."""
    ids = [image_id for split in data.images.values() for image_id in split["image_id"]]
    features = np.random.default_rng(0).normal(size=(len(ids), SIDE * SIDE, SIZE)).astype(np.float32)
    return RegionStore(ids, [features], None, extractor="random", extractor_version="1")


def text_processor(data: QuestionData) -> M4CProcessor:
    tokenizer = build_spelling_tokenizer(data.questions["train"]["question"], 1)
    return M4CProcessor(tokenizer=tokenizer, word_vectors=HashedWordVectors(8), max_ocr_tokens=5)

"""A data set of a few questions about pictures of random features, and a MAC that is small enough to train on it."""

import datasets
import numpy as np

from vl_alignment.data.question_answering import QuestionData
from vl_alignment.data.region_store import RegionStore
from vl_alignment.data.vocabulary import build_word_tokenizer

SIZE, SIDE = 4, 2
ANSWERS = ("red", "blue", "2")
TINY = {"hidden_size": 8, "word_embedding_size": 6, "num_steps": 2, "stem_layers": 1}


def question_data(images: int = 6, questions: int = 4, unknown_answer: bool = False) -> QuestionData:
    """Train, validation and test of so many pictures with so many questions each."""
    pictures, asked = datasets.DatasetDict(), datasets.DatasetDict()
    for split in ("train", "validation", "test"):
        ids = [f"{split}-{number}" for number in range(images)]
        pictures[split] = datasets.Dataset.from_dict({"image_id": ids})
        rows = [(image, number) for image in range(images) for number in range(questions)]
        answers = [ANSWERS[(image + number) % 3] for image, number in rows]
        if unknown_answer and split != "train":
            answers[0] = "octarine"
        asked[split] = datasets.Dataset.from_dict(
            {
                "question_id": [f"{split}-{image}#{number}" for image, number in rows],
                "image_id": [ids[image] for image, _ in rows],
                "question": [f"what is number {number} {'really ' * number}?" for _, number in rows],
                "answer": answers,
                "question_type": ["count" if answer == "2" else "query_attribute" for answer in answers],
                "program": ["" for _ in rows],
                "program_depth": [2 + number for _, number in rows],
                "question_family_index": [0 for _ in rows],
            }
        )
    return QuestionData(pictures, asked)


def region_store(data: QuestionData) -> RegionStore:
    """Random features [SIDE * SIDE, SIZE] for every picture."""
    ids = [image_id for split in data.images.values() for image_id in split["image_id"]]
    features = np.random.default_rng(0).normal(size=(len(ids), SIDE * SIDE, SIZE)).astype(np.float32)
    return RegionStore(ids, [features], None, extractor="random", extractor_version="1")


def tokenizer_of(data: QuestionData):
    return build_word_tokenizer(data.questions["train"]["question"], minimum_count=1)

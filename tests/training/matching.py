"""A retrieval data set of a few numbers, and a matcher with the call signature of the package's models."""

from types import SimpleNamespace

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedTokenizerFast

from vl_alignment.data.features import RegionStore
from vl_alignment.training.arguments import TrainingSettings

WORDS = ["red", "green", "blue", "cube", "ball", "cone", "left", "right"]
VOCABULARY = len(WORDS) + 2
REGIONS, FEATURES = 3, 8


def word_tokenizer():
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def matching_data(train=24, validation=7, test=9, captions=2, seed=0):
    """Captions that name the regions of their picture; features that are noisy codes of the names."""
    random = np.random.default_rng(seed)
    codes = random.normal(size=(len(WORDS), FEATURES))
    splits, ids, features = {}, [], []
    for name, size in [("train", train), ("validation", validation), ("test", test)]:
        rows = {"image_id": [], "captions": []}
        for number in range(size):
            named = random.integers(len(WORDS), size=REGIONS)
            rows["image_id"].append(f"{name}-{number}")
            texts = [" ".join(WORDS[word] for word in random.permutation(named)[: 2 + k % 2]) for k in range(captions)]
            rows["captions"].append(texts)
            features.append(codes[named] + 0.1 * random.normal(size=(REGIONS, FEATURES)))
        splits[name] = datasets.Dataset.from_dict(rows)
        ids += rows["image_id"]
    array = np.stack(features).astype(np.float16)
    return datasets.DatasetDict(splits), feature_store(ids, array)


def feature_store(ids, array):
    return RegionStore(ids, [array], None, extractor="codes", extractor_version="1")


class TinyMatcher(nn.Module):
    def __init__(self, vocab_size=VOCABULARY, feature_size=FEATURES, size=6):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(vocab_size=vocab_size, feature_size=feature_size, vision_config=None)
        self.words = nn.Embedding(vocab_size, size)
        self.regions = nn.Linear(feature_size, size)
        self.seen = []

    def encode_images(self, region_features):
        return self.regions(region_features)

    def encode_texts(self, input_ids, attention_mask):
        return self.words(input_ids)

    def similarity(self, region_embeddings, word_embeddings, region_mask=None, word_mask=None):
        scores = torch.einsum("ird,cld->icrl", region_embeddings, word_embeddings).amax(2)
        return (scores * word_mask).sum(-1) / word_mask.sum(-1)

    def forward(
        self, input_ids, attention_mask, region_features, return_loss=False, negatives=None, gather_negatives=True
    ):
        self.seen.append((negatives, input_ids, region_features))
        scores = self.similarity(
            self.encode_images(region_features), self.encode_texts(input_ids, attention_mask), None, attention_mask
        )
        return SimpleNamespace(loss=nn.functional.cross_entropy(scores, torch.arange(len(scores))))


def small_settings(**changes):
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "decay_epochs": (2,), "all_negatives_epochs": 1}
    return TrainingSettings(**{**values, "device": "cpu", "log_every_steps": 1, **changes})


def run_small(output, settings=None, data=None, accelerator=None, **fields):
    """A whole run of SCAN on `matching_data`."""
    from vl_alignment.training.retrieval import train_retrieval_run

    dataset_dict, store = data or matching_data()
    return train_retrieval_run(
        dataset_dict,
        dataset_name="codes",
        output=output,
        settings=settings or small_settings(),
        model_fields={"hidden_size": 16, "word_embedding_size": 8, "alignment_function": "general_key", **fields},
        region_store=store,
        minimum_count=1,
        accelerator=accelerator,
        command="test",
    )

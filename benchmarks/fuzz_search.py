"""Valid indexes and shards of scores for `fuzz_readers.py`, and how each is read whole."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fuzz_data import NAMES
from fuzz_models import make_model

from vl_alignment.models.errors import ResultsError
from vl_alignment.search import shortlist
from vl_alignment.search.scan_index import ScanIndex
from vl_alignment.training.evaluation import load_model
from vl_alignment.training.score_shards import ScoreShards

IDENTITY = {"model": "0123", "captions": "4567", "precision": "no", "shard": [2, 3]}
SCORES = np.arange(6, dtype=np.float32).reshape(2, 3)


class _Regions:
    """Pictures as regions of noise."""

    records = [{"id": name, "source": f"{name}.png"} for name in NAMES]

    def encode(self, encoder: Any, rows: Sequence[int]) -> tuple[list[int], torch.Tensor]:
        features = torch.randn(len(rows), 2, 4, generator=torch.Generator().manual_seed(0))
        return list(rows), encoder.model.encode_images(region_features=features)


def make_index(folder: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as trained:
        make_model(Path(trained))
        model, processor = load_model(trained)
    with patch.object(shortlist, "LISTS_FROM", 3):
        index = ScanIndex.create(folder, model, processor, extractor="efficientnet_lite0")
        index.add_pictures(_Regions(), progress=False)
        index.add_captions(["it is", "is it a dog"], ["it is", "is it a dog"], progress=False)
    files = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".json", ".npy", ".faiss")]
    kinds = {".json": "json", ".npy": "npy", ".faiss": "bytes"}
    return {name: kinds[Path(name).suffix] for name in files}


def read_index(folder: Path) -> object:
    index = ScanIndex.open(folder)
    records = [collection.ids() for collection in index._collections.values()]
    found = index.search("is it a dog", top=3) if len(index) else []
    return records, found, [match.record for match in found]


def make_scores(folder: Path) -> dict[str, str]:
    ScoreShards(folder, IDENTITY).get(0, 0, SCORES.shape, lambda: SCORES)
    return {"shards.json": "json", "scores-00000000-00000000.npy": "npy"}


def read_scores(folder: Path) -> object:
    shards = ScoreShards(folder, IDENTITY)
    path = folder / "scores-00000000-00000000.npy"

    def refuse() -> np.ndarray:  # what is damaged is warned of and computed again
        raise ResultsError("damaged", path=path)

    return shards.get(0, 0, SCORES.shape, refuse)

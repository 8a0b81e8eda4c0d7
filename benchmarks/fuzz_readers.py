"""The readers that `fuzz.py` feeds: a small valid folder for each, which files are mutated, and how it is read."""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from fuzz_data import (
    make_answers,
    make_caption_folder,
    make_clevr,
    make_coco,
    make_cub,
    make_extraction,
    make_fasttext,
    make_given_text,
    make_hdf5,
    make_karpathy,
    make_picture,
    make_precomputed,
    make_regions,
    make_stvqa,
    make_text_part,
    make_text_store,
    make_textvqa,
    make_vectors,
    questions,
    read_caption_folder,
    read_clevr,
    read_coco,
    read_cub,
    read_extraction,
    read_hdf5,
    read_karpathy,
    read_precomputed,
    read_regions,
    read_segments,
    read_text_part,
    read_text_store,
    read_vectors,
    write_json,
    write_picture,
)
from fuzz_models import (
    make_attngan,
    make_card,
    make_checkpoint,
    make_damsm,
    make_kept,
    make_m4c,
    make_mac,
    make_mac_checkpoint,
    make_model,
    make_pickle,
    make_predictions,
    make_results,
    make_scan_checkpoint,
    make_study,
    make_torch,
    published_state,
    read_card,
    read_checkpoint,
    read_kept,
    read_mac_checkpoint,
    read_model,
    read_predictions,
    read_results,
    read_scan_checkpoint,
)
from fuzz_mutations import SECRET
from fuzz_published import (
    make_attngan_checkpoint,
    make_damsm_checkpoint,
    make_efficientnet,
    make_inception,
    make_m4c_checkpoint,
    read_attngan_checkpoint,
    read_damsm_checkpoint,
    read_efficientnet,
    read_inception,
    read_m4c_checkpoint,
)
from fuzz_search import make_index, make_scores, read_index, read_scores
from PIL import Image
from safetensors.numpy import save_file

from vl_alignment.analysis.prediction import read_picture
from vl_alignment.analysis.study_plan import read_plan
from vl_alignment.analysis.text_prediction import read_given_text
from vl_alignment.data.answer_vocabulary import read_answer_vocabulary
from vl_alignment.data.restricted_pickle import load_restricted, load_tensors
from vl_alignment.data.textvqa import load_stvqa, load_textvqa
from vl_alignment.data.word_vectors import FastTextVectors
from vl_alignment.training.evaluation import model_task


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        make: Writes a valid folder; returns the files that are mutated, with their kinds (see `STRUCTURED`).
        read: Reads all that is in the folder.
        share: Of the mutated files; cheap readers are given more.
    """

    make: Callable[[Path], dict[str, str]]
    read: Callable[[Path], object]
    share: float = 1.0


def make_outside(folder: Path) -> None:
    """Write valid files of all kinds to where nothing may look."""
    folder.mkdir()
    write_picture(folder / f"{SECRET}.png")
    np.save(folder / f"{SECRET}.npy", np.zeros((2, 3, 4), dtype="float16"))
    np.savez(folder / f"{SECRET}.npz", a=np.zeros(3))
    save_file({"a": np.zeros(3)}, folder / f"{SECRET}.safetensors")
    torch.save(published_state(), folder / f"{SECRET}.pth")
    write_json(folder / f"{SECRET}.json", [{"a": 1}])
    (folder / f"{SECRET}.yaml").write_text("a: [1, 2]\n")
    (folder / f"{SECRET}.txt").write_text("a b c\n")
    (folder / f"{SECRET}.pkl").write_bytes(pickle.dumps({"a": 1}))
    with h5py.File(folder / f"{SECRET}.h5", "w") as file:
        file.create_dataset("features", data=np.zeros((4, 5, 3, 2), dtype="float32"))
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), folder / f"{SECRET}.parquet")
    image = io.BytesIO()
    Image.new("RGB", (9, 9)).save(image, "EPS")
    (folder / f"{SECRET}.eps").write_bytes(image.getvalue())


READERS: Mapping[str, Reader] = {
    "Karpathy JSON": Reader(make_karpathy, read_karpathy, 0.5),
    "COCO captions": Reader(make_coco, read_coco, 0.5),
    "COCO outlines": Reader(make_coco, read_segments, 3),
    "caption folder": Reader(make_caption_folder, read_caption_folder, 0.4),
    "CUB": Reader(make_cub, read_cub, 0.4),
    "CLEVR JSON": Reader(make_clevr, read_clevr, 0.25),
    "TextVQA JSON": Reader(make_textvqa, lambda folder: questions(load_textvqa(folder)), 0.3),
    "ST-VQA JSON": Reader(make_stvqa, lambda folder: questions(load_stvqa(folder)), 0.3),
    "text in pictures, given": Reader(make_given_text, lambda folder: read_given_text(folder / "text.json"), 5),
    "text in pictures, store": Reader(make_text_store, read_text_store, 2),
    "text in pictures, unfinished": Reader(make_text_part, read_text_part, 0.5),
    "answer vocabulary": Reader(make_answers, lambda folder: read_answer_vocabulary(folder / "answers.txt"), 5),
    "region store": Reader(make_regions, read_regions, 3),
    "region extraction": Reader(make_extraction, read_extraction, 0.25),
    "HDF5 features": Reader(make_hdf5, read_hdf5, 0.5),
    "SCAN precomputed": Reader(make_precomputed, read_precomputed, 0.5),
    "word vectors": Reader(make_vectors, read_vectors, 5),
    "FastText binary": Reader(
        make_fasttext, lambda folder: FastTextVectors(folder / "tiny.bin").vectors(["go", "x"]), 5
    ),
    "pictures": Reader(make_picture, lambda folder: [read_picture(folder / name) for name in ("a.png", "b.jpg")], 4),
    "pickles": Reader(
        make_pickle, lambda folder: [load_restricted(folder / n) for n in ("plain.pkl", "arrays.pkl")], 3
    ),
    "torch files": Reader(make_torch, lambda folder: [load_tensors(folder / n) for n in ("model.pth", "old.pth")], 1),
    "SCAN checkpoint": Reader(make_scan_checkpoint, read_scan_checkpoint, 0.25),
    "MAC checkpoint": Reader(make_mac_checkpoint, read_mac_checkpoint, 0.25),
    "M4C checkpoint": Reader(make_m4c_checkpoint, read_m4c_checkpoint, 0.25),
    "AttnGAN checkpoint": Reader(make_attngan_checkpoint, read_attngan_checkpoint, 0.25),
    "DAMSM checkpoint": Reader(make_damsm_checkpoint, read_damsm_checkpoint, 0.1),
    "Inception weights": Reader(make_inception, read_inception, 0.1),
    "EfficientNet weights": Reader(make_efficientnet, read_efficientnet, 0.2),
    "SCAN model folder": Reader(make_model, read_model, 0.25),
    "MAC model folder": Reader(make_mac, read_model, 0.25),
    "M4C model folder": Reader(make_m4c, read_model, 0.2),
    "AttnGAN model folder": Reader(make_attngan, read_model, 0.2),
    "DAMSM model folder": Reader(make_damsm, read_model, 0.2),
    "kept networks": Reader(make_kept, read_kept, 2),
    "index": Reader(make_index, read_index, 0.5),
    "shards of scores": Reader(make_scores, read_scores, 2),
    "configuration": Reader(make_mac, model_task, 1.5),
    "results": Reader(make_results, read_results, 0.7),
    "predictions": Reader(make_predictions, read_predictions, 2),
    "training checkpoint": Reader(make_checkpoint, read_checkpoint, 0.1),
    "study YAML": Reader(make_study, lambda folder: read_plan(folder / "study.yaml").cells, 1.5),
    "model card": Reader(make_card, read_card, 2),
}

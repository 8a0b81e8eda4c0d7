"""Checkpoints and vocabularies in the layouts in which others publish them, for tests of their conversion."""

import argparse
import json
import pickle

import torch
from safetensors.torch import load_file

SCAN_PARTS = ("img_enc", "txt_enc", "sim_enc")


def golden_weights(*files):
    """The published weights of golden files by their published names; later files replace those of earlier ones."""
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return {name.removeprefix("weight."): tensor for name, tensor in tensors.items() if name.startswith("weight.")}


def write_scan(path, weights, options, parts=SCAN_PARTS, zipped=True):
    """`model_best.pth.tar`, as SCAN's training script writes it."""
    states = [
        {name.removeprefix(f"{part}."): tensor for name, tensor in weights.items() if name.startswith(f"{part}.")}
        for part in parts
    ]
    content = {
        "epoch": 12,
        "model": states,
        "best_rsum": 401.5,
        "opt": argparse.Namespace(**options, data_name="f30k_precomp", learning_rate=2e-4, resume=""),
        "Eiters": 29_000,
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def write_weights(path, weights, prefix="", **beside):
    """A state_dict alone, or under `model_state_dict` where other things are saved beside it."""
    state = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save({"model_state_dict": state, **beside} if beside else state, path)
    return path


def write_scan_vocabulary(path, words):
    """`f30k_precomp_vocab.json`, the special words first."""
    numbers = {word: number for number, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", *words])}
    names = {number: word for word, number in numbers.items()}
    path.write_text(json.dumps({"word2idx": numbers, "idx2word": names, "idx": len(numbers)}))
    return path


def write_pickle(path, content):
    """As the published scripts write theirs."""
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def captions_pickle(path, words):
    """AttnGAN's `captions.pickle`."""
    names = dict(enumerate(["<end>", *words]))
    return write_pickle(path, [[[1, 2]], [[2]], names, {word: number for number, word in names.items()}])

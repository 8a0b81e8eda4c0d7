"""A tiny SCAN that sees pixels, and pictures of one colour each."""

import numpy as np
from PIL import Image
from tests.pipelines.repositories import tiny_pipeline


def tiny_scan(function="dot", **fields):
    made = tiny_pipeline("scan", alignment_function=function, **fields)
    return made.model, made.processor


def write_pictures(folder, number, seed=0):
    """Pictures of noise, so that no two are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(number):
        Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{index:03d}.png")
    return folder

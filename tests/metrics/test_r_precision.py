import multiprocessing

import numpy as np
import pytest
import torch

from vl_alignment.metrics import RPrecision
from vl_alignment.metrics.text_to_image import r_precision
from vl_alignment.models.errors import DataError

DRAW = np.random.default_rng(0)
SENTENCES = DRAW.normal(size=(20, 4)).astype(np.float32)
IMAGES = SENTENCES + DRAW.normal(size=SENTENCES.shape).astype(np.float32)
NAMES = [str(row // 2) for row in range(20)]


@pytest.fixture
def metric(tmp_path):
    return RPrecision(cache_dir=str(tmp_path))


def test_compute_in_one_call_and_by_batches(metric):
    expected = r_precision(IMAGES, SENTENCES, candidates=20)
    assert 0 < expected < 100
    result = metric.compute(predictions=IMAGES, references=SENTENCES, candidates=20)
    assert result == {"r_precision": expected, "candidates": 20, "seed": 0, "images": 20}
    metric.add_batch(predictions=torch.tensor(IMAGES[:9]), references=torch.tensor(SENTENCES[:9]))
    metric.add_batch(predictions=IMAGES[9:19].tolist(), references=SENTENCES[9:19].tolist())
    metric.add(prediction=IMAGES[19], reference=SENTENCES[19])
    assert metric.compute(candidates=20) == result


def test_names_and_seed_are_passed_on(metric):
    expected = r_precision(IMAGES, SENTENCES, image_ids=NAMES, candidates=10, seed=3)
    result = metric.compute(predictions=IMAGES, references=SENTENCES, image_ids=NAMES, candidates=10, seed=3)
    assert result["r_precision"] == expected and result["seed"] == 3
    with pytest.raises(DataError, match="18 mismatched captions, 19 are wanted"):
        metric.compute(predictions=IMAGES, references=SENTENCES, captions=NAMES, candidates=20)


def test_bad_input_is_named(metric):
    with pytest.raises(DataError, match="no pictures to measure"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(DataError, match=r"codes of pictures have different sizes, \[1, 2\]"):
        metric.compute(predictions=[[1.0], [1.0, 2.0]], references=[[1.0], [1.0]])


def compute_share(rank, cache, queue):
    metric = RPrecision(num_process=2, process_id=rank, experiment_id="two", cache_dir=cache)
    metric.add_batch(predictions=IMAGES[rank::2], references=SENTENCES[rank::2])
    queue.put((rank, metric.compute(candidates=20)))


@pytest.mark.distributed
def test_two_processes_give_the_same_and_only_the_first_gets_it(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=compute_share, args=(rank, str(tmp_path), queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert results[0]["r_precision"] == r_precision(IMAGES, SENTENCES, candidates=20) and results[1] is None

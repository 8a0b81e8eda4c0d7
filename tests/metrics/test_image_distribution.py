import multiprocessing
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from tests.metrics.tiny_network import TinyNetwork

from vl_alignment.metrics import ImageDistribution
from vl_alignment.metrics.image_distribution import frechet_distance, inception_score
from vl_alignment.models.errors import ConfigurationError, DataError

REAL = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
GENERATED = REAL[:20].flip(-1) * 0.5 + 0.2


@pytest.fixture
def metric(tmp_path):
    return ImageDistribution(TinyNetwork(), cache_dir=str(tmp_path))


def formula(real, generated):
    """The distance as it is written, with scipy's matrix root."""
    first, second = real.numpy().astype(float), generated.numpy().astype(float)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root)


def test_distance_equals_the_formula():
    real = torch.randn(60, 6) @ torch.randn(6, 6) + 3
    generated = torch.randn(50, 6) @ torch.randn(6, 6)
    assert frechet_distance(real, generated) == pytest.approx(formula(real, generated), rel=1e-6)


def test_distances_worked_out_by_hand():
    features = torch.randn(40, 3)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 2) == pytest.approx(3 * 2**2, rel=1e-6)
    # One picture again and again has no spread: what is left is the distance of the means and the real ones' spread.
    same = torch.ones(10, 3)
    expected = (features.double().mean(0) - 1).square().sum() + features.double().var(dim=0).sum()
    assert frechet_distance(features, same) == pytest.approx(float(expected), rel=1e-6)


def test_score_equals_the_definition():
    logits = torch.randn(23, 5, dtype=torch.float64) * 2
    torch.manual_seed(7)
    order = torch.randperm(20)
    probabilities = logits[:20].softmax(dim=1)[order].numpy()  # the last three cannot be divided among four
    scores = []
    for part in np.split(probabilities, 4):
        divergences = [(p * np.log(p / part.mean(axis=0))).sum() for p in part]
        scores.append(np.exp(np.mean(divergences)))
    mean, deviation = inception_score(logits, splits=4, seed=7)
    assert mean == pytest.approx(np.mean(scores)) and deviation == pytest.approx(np.std(scores, ddof=1))


def test_scores_worked_out_by_hand():
    sure = torch.eye(4).repeat(6, 1) * 1e3  # each picture surely of one class, all classes equally often
    assert inception_score(sure, splits=1) == (pytest.approx(4.0), 0.0)
    assert inception_score(torch.zeros(10, 4), splits=1) == (pytest.approx(1.0), 0.0)


def test_score_leaves_the_global_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    inception_score(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), splits=2)
    assert torch.equal(torch.rand(1), expected)


def test_result_states_what_was_measured_with_what(metric):
    for start in (0, 16):
        metric.add_batch(predictions=REAL[start : start + 16], references=[True] * len(REAL[start : start + 16]))
    metric.add_batch(predictions=GENERATED[:-1], references=[False] * 19)
    metric.add(prediction=GENERATED[-1], reference=False)
    result = metric.compute(splits=2, seed=5)
    network = TinyNetwork()
    generated = network(GENERATED)
    mean, deviation = inception_score(network.classify(generated).detach(), splits=2, seed=5)
    assert result == {
        "feature_distance": pytest.approx(formula(network(REAL), generated), rel=1e-5),
        "class_score": pytest.approx(mean),
        "class_score_std": pytest.approx(deviation),
        "network": "tiny network of the test",
        "weights_sha256": "abc",
        "num_features": 5,
        "resize": "none",
        "generated_images": 20,
        "real_images": 30,
        "splits": 2,
        "seed": 5,
    }


def test_without_classes_there_is_no_score(metric):
    metric.network.score_name = None
    result = metric.compute(predictions=torch.cat([REAL, GENERATED]), references=[True] * 30 + [False] * 20)
    assert not {"fid", "inception_score", "class_score", "splits", "seed"} & set(result)


def test_nothing_else_is_needed():
    assert not {"torch_fidelity", "torchvision"} & set(sys.modules)


def test_bad_input_is_named(metric):
    with pytest.raises(DataError, match="no pictures to measure"):
        metric.compute(predictions=torch.zeros(0, 3, 8, 8), references=[])
    with pytest.raises(DataError, match="features of generated pictures"):
        metric.compute(predictions=REAL, references=[True] * 30)
    with pytest.raises(DataError, match="1 references for 30 pictures"):
        metric.add_batch(predictions=REAL, references=[True])
    with pytest.raises(DataError, match="4 pictures cannot be divided into 10 parts; give splits=4"):
        inception_score(torch.zeros(4, 2))
    with pytest.raises(ConfigurationError, match="splits=0"):
        inception_score(torch.zeros(4, 2), splits=0)
    with pytest.raises(DataError, match="one width"):
        frechet_distance(torch.zeros(4, 2), torch.zeros(4, 3))


def compute_share(rank, cache, queue):
    metric = ImageDistribution(TinyNetwork(), num_process=2, process_id=rank, experiment_id="two", cache_dir=cache)
    metric.add_batch(predictions=REAL[rank::2], references=[True] * 15)
    metric.add_batch(predictions=GENERATED[rank::2], references=[False] * 10)
    queue.put((rank, metric.compute(splits=1)))


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
    expected = formula(TinyNetwork()(REAL), TinyNetwork()(GENERATED))
    assert results[0]["feature_distance"] == pytest.approx(expected, rel=1e-5) and results[1] is None

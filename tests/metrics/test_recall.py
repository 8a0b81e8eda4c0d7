import multiprocessing

import pytest

from vl_alignment.metrics import RetrievalRecall
from vl_alignment.models.errors import DataError

# The right candidate leads; is third; ties with a wrong one; the better of two right ones is second.
SCORES = [[0.9, 0.1, 0.2], [0.5, 0.6, 0.4], [0.7, 0.7, 0.1], [0.1, 0.2, 0.3]]
RIGHT = [[0], [2], [1], [0, 1]]
EXPECTED = {"r1": 25.0, "r5": 100.0, "r10": 100.0, "rsum": 225.0, "median_rank": 2.0, "mean_rank": 2.0}


@pytest.fixture
def metric(tmp_path):
    return RetrievalRecall(cache_dir=str(tmp_path))


def test_compute_in_one_call(metric):
    assert metric.compute(predictions=SCORES, references=RIGHT) == EXPECTED


def test_batches_give_the_same(metric):
    metric.add_batch(predictions=SCORES[:3], references=RIGHT[:3])
    metric.add(prediction=SCORES[3], reference=RIGHT[3])
    assert metric.compute() == EXPECTED


def test_queries_may_have_different_numbers_of_candidates(metric):
    assert metric.compute(predictions=[[0.1, 0.2], [0.3]], references=[[0], [0]])["r1"] == 50.0


@pytest.mark.parametrize(
    ("scores", "right", "message"),
    [
        ([], [], "no queries"),
        ([[0.1, 0.2]], [[]], "record 0: the query has no right candidate"),
        ([[0.1, 0.2]], [[2]], r"0\.\.1, got \[2\]"),
        ([[0.1, float("nan")]], [[0]], "record 0: a score is NaN"),
    ],
)
def test_bad_input_is_named(metric, scores, right, message):
    with pytest.raises(DataError, match=message):
        metric.compute(predictions=scores, references=right)


def compute_share(rank, cache, queue):
    metric = RetrievalRecall(num_process=2, process_id=rank, experiment_id="two", cache_dir=cache)
    metric.add_batch(predictions=SCORES[rank::2], references=RIGHT[rank::2])
    queue.put((rank, metric.compute()))


@pytest.mark.distributed
def test_two_processes_give_the_same_and_only_the_first_gets_it(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=compute_share, args=(rank, str(tmp_path), queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert results == {0: EXPECTED, 1: None}

import multiprocessing

import pytest

from vl_alignment.metrics import AnswerAccuracy
from vl_alignment.models.errors import DataError

PREDICTIONS = ["yes", "no", "3", "red"]
REFERENCES = ["yes", "yes", "3", "blue"]
TYPES = ["exist", "exist", "count", "query_attribute"]
DEPTHS = [3, 5, 3, -1]
EXPECTED = {
    "accuracy": 50.0,
    "accuracy_exist": 50.0,
    "accuracy_count": 100.0,
    "accuracy_query_attribute": 0.0,
    "accuracy_depth_3": 100.0,
    "accuracy_depth_5": 0.0,
}
EVERYTHING = {
    "predictions": PREDICTIONS,
    "references": REFERENCES,
    "question_types": TYPES,
    "program_depths": DEPTHS,
}


@pytest.fixture
def metric(tmp_path):
    return AnswerAccuracy(cache_dir=str(tmp_path))


def test_compute_in_one_call(metric):
    assert metric.compute(**EVERYTHING) == EXPECTED


def test_batches_and_single_rows_give_the_same(metric):
    metric.add_batch(**{name: column[:3] for name, column in EVERYTHING.items()})
    metric.add(prediction="red", reference="blue", question_type="query_attribute")
    assert metric.compute() == EXPECTED


def test_types_and_depths_may_be_left_out(metric):
    assert metric.compute(predictions=["a"], references=["a"]) == {"accuracy": 100.0}
    metric.add_batch(predictions=["a"], references=["a"], question_types=["count"])
    metric.add(prediction="a", reference="b")
    assert metric.compute() == {"accuracy": 50.0, "accuracy_count": 100.0}


def test_bad_input_is_named(metric):
    with pytest.raises(DataError, match="no questions to measure"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(DataError, match="record 0: the right answer is unknown"):
        metric.compute(predictions=["yes"], references=[""])
    with pytest.raises(ValueError, match="Mismatch in the number"):
        metric.compute(predictions=["yes"], references=["yes", "no"])
    with pytest.raises(ValueError, match="Bad inputs"):
        metric.add_batch(predictions=["yes"], references=["yes"], types=["exist"])


def compute_share(rank, cache, queue):
    metric = AnswerAccuracy(num_process=2, process_id=rank, experiment_id="two", cache_dir=cache)
    metric.add_batch(**{name: column[rank::2] for name, column in EVERYTHING.items()})
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

import multiprocessing

import pytest

from vl_alignment.metrics.text_answer_accuracy import TextAnswerAccuracy
from vl_alignment.models.errors import DataError

EVERYTHING = {
    "predictions": ["Coca-Cola", "stop", "7", "red"],
    "references": [["coca cola"] * 8 + ["coke"] * 2, ["exit"] * 10, ["seven"], ["red"] * 2 + ["blue"] * 8],
    "question_types": ["brand", "sign", "", "sign"],
}
EXPECTED = {"accuracy": 65.0, "accuracy_brand": 100.0, "accuracy_sign": 30.0, "anls": pytest.approx(100 * 17 / 36)}


@pytest.fixture
def metric(tmp_path):
    return TextAnswerAccuracy(cache_dir=str(tmp_path))


def test_compute_in_one_call(metric):
    assert metric.compute(**EVERYTHING) == EXPECTED


def test_batches_and_single_rows_give_the_same(metric):
    metric.add_batch(**{name: column[:3] for name, column in EVERYTHING.items()})
    metric.add(prediction="red", reference=["red"] * 2 + ["blue"] * 8, question_type="sign")
    assert metric.compute() == EXPECTED


def test_families_may_be_left_out(metric):
    assert metric.compute(predictions=["x"], references=[["y", "x"]]) == {"accuracy": 100.0, "anls": 100.0}
    metric.add(prediction="x", reference=["x"])
    assert metric.compute() == {"accuracy": 100.0, "anls": 100.0}


def test_bad_input_is_named(metric):
    with pytest.raises(DataError, match="no questions to measure"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(DataError, match="record 0: the question has no answers"):
        metric.compute(predictions=["yes"], references=[[]])
    with pytest.raises(ValueError, match="Mismatch in the number"):
        metric.compute(predictions=["yes"], references=[["yes"], ["no"]])
    with pytest.raises(ValueError, match="expected a list"):
        metric.compute(predictions=["yes"], references=["yes"])


def compute_share(rank, cache, queue):
    metric = TextAnswerAccuracy(num_process=2, process_id=rank, experiment_id="two", cache_dir=cache)
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

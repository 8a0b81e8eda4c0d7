"""One process and several: equal stores and scores, and equal losses up to rounding."""

from pathlib import Path

import pytest

from . import shared_work
from .launching import ACCELERATE, TORCHRUN, launched

RUNS = ("retrieval", "question answering", "text question answering")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    shared_work.pictures(folder)  # before several processes look at them
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data_folder):
    return shared_work.work(tmp_path_factory.mktemp("alone"), shared_work.pictures(data_folder))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((2, TORCHRUN), id="2 of torchrun", marks=pytest.mark.distributed),
        pytest.param((4, ACCELERATE), id="4 of accelerate", marks=[pytest.mark.distributed, pytest.mark.slow]),
    ],
)
def together(request, tmp_path_factory, data_folder):
    """The number of processes, and what each of them got."""
    count, launcher = request.param
    output, root = tmp_path_factory.mktemp("together"), Path(__file__).parents[2]
    return count, launched("shared_work.py", root, output, count, data_folder, processes=count, launcher=launcher)


def test_extracted_store_is_the_same_byte_for_byte(alone, together):
    assert len(alone["extraction"]) == 2 * 5 + 1
    assert all(row["extraction"] == alone["extraction"] for row in together[1])


def test_all_processes_raise_what_one_of_them_does(alone, together):
    assert "07" in alone["refusal"]
    assert all(row["refusal"] == alone["refusal"] for row in together[1])


def test_scores_and_metrics_of_an_evaluation_are_the_same_exactly(alone, together):
    assert all(row["evaluation"] == alone["evaluation"] for row in together[1])


@pytest.mark.parametrize("run", RUNS)
def test_losses_of_training_are_the_same_up_to_rounding(alone, together, run):
    assert len(alone[run]["losses"]) >= 2
    for row in together[1]:
        assert row[run]["losses"] == pytest.approx(alone[run]["losses"], rel=1e-4)
        assert row[run]["metrics"] == pytest.approx(alone[run]["metrics"], abs=1e-4)


def test_negatives_of_each_process_alone_give_another_loss(alone, together):
    gathered, own = (together[1][0][name]["losses"] for name in ("retrieval", "own negatives"))
    # All negatives in the first epoch: fewer of them make the sum smaller. With one process nothing is gathered.
    assert all(fewer < every for fewer, every in zip(own[:3], gathered[:3], strict=True))
    assert alone["own negatives"] == alone["retrieval"]


def test_one_process_asked_to_stop_stops_all_and_they_go_on_to_the_same_weights(alone, together):
    for whole, stopped in (alone["stopped"], *(row["stopped"] for row in together[1])):
        assert not whole[0] and stopped[0] and whole[1:] == stopped[1:]


def test_loss_that_is_not_finite_names_the_share_that_made_it_on_every_process(alone, together):
    count, rows = together
    assert len({row["not finite"] for row in rows}) == 1
    assert "loss is not finite at step 3" in rows[0]["not finite"]
    assert [text.count("row-") for text in (alone["not finite"], rows[0]["not finite"])] == [8, 8 // count]

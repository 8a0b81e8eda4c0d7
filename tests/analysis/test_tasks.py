import pytest

from vl_alignment.analysis.layout import PAPER_NAMES
from vl_alignment.analysis.tasks import TASKS, task_of
from vl_alignment.models.alignment import ALIGNMENT_FUNCTIONS
from vl_alignment.models.errors import ResultsError

from .synthetic import make_answer_result, make_drawing_result, make_read_answer_result, make_result


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_description_is_consistent(task):
    columns = [column.key for column in task.columns]
    assert task.metric in columns and len(set(columns)) == len(columns)
    assert set(task.compared) <= set(columns)
    assert task.metric_title[0].isupper() and task.metric_title.lower() == task.metric_name.lower()
    for same in task.same_class:
        assert set(same.functions) <= set(ALIGNMENT_FUNCTIONS) & set(PAPER_NAMES)
    for check in task.checks:
        assert check.metric in columns and check.floor == check.floor.lower()
        for sentence in (check.above, check.within):
            assert "Name" in sentence.format(name="Name", value=1.0, floor=1.0, ratio=1.0, gap=0.0)
    assert task.picture_alt.format(name="N", caption="{C}").count("{C}") == 1


def test_the_task_is_that_of_the_results():
    assert task_of([make_result("dot", 0)]).metric == "rsum"
    assert task_of([make_answer_result("dot", 0)]).metric == "accuracy"
    assert task_of([make_read_answer_result("dot", 0)]).metric_title == "Accuracy"
    assert task_of([make_drawing_result("dot", 0)]).metric_title == "R-precision"
    with pytest.raises(ResultsError, match="no finished runs"):
        task_of([])
    with pytest.raises(ResultsError, match="no analysis of the task None"):
        task_of([{"alignment_function": "dot"}])

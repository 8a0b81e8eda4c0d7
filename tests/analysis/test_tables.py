import csv
import io
import json

import pytest

from vl_alignment.analysis.differences import paired_comparisons
from vl_alignment.analysis.tables import (
    breakdown_table,
    published_comparison,
    published_table,
    released_table,
    results_table,
    runs_csv,
)
from vl_alignment.analysis.tasks import TASKS
from vl_alignment.models.errors import ConfigurationError, ResultsError

from .synthetic import make_answer_result, make_read_answer_result, make_result

CONTROLS = [
    {"name": "Shuffled captions", "metrics": {"sentence_retrieval_r1": 0.4, "rsum": 15.0}, "seed": 0},
    {"name": "Shuffled captions", "metrics": {"sentence_retrieval_r1": 0.6, "rsum": 17.0}, "seed": 1},
    {"name": "Chance", "metrics": {"sentence_retrieval_r1": 0.5, "rsum": 16.0}},
]


def test_layout_of_table_2(results):
    table = results_table(results)
    assert [column.full_title for column in table.columns] == [
        "Sentence retrieval: R@1",
        "Sentence retrieval: R@5",
        "Sentence retrieval: R@10",
        "Sentence retrieval: Rsum",
        "Image retrieval: R@1",
        "Image retrieval: R@5",
        "Image retrieval: R@10",
        "Image retrieval: Rsum",
        "Rsum",
    ]
    assert [row.name for row in table.rows] == ["Dot product", "General*"]


def test_markdown_by_hand(results):
    lines = results_table(results, CONTROLS).to_markdown().splitlines()
    # dot: 300, 302, 304 -> 302 ± 4.30 * 2 / sqrt(3); R@1 of sentence retrieval is 12 % of it.
    assert lines[2].startswith("| Dot product | 36.2 ± 0.6 |")
    assert lines[2].endswith("| 302.0 ± 5.0 |")
    # general_query: 310, 311, 315 -> 312, standard deviation sqrt(7).
    assert lines[3].startswith(r"| General\* | **37.4 ± 0.8** |")
    assert lines[3].endswith("| **312.0 ± 6.6** |")
    # Two seeds of the control: 15 and 17, standard deviation sqrt(2), 12.71 / sqrt(2) * sqrt(2) = 12.7.
    assert lines[4].startswith("| _Shuffled captions_ | 0.5 ± 1.3 | - |")
    assert lines[4].endswith("| 16.0 ± 12.7 |")
    assert lines[5].endswith("| 16.0 |")


def test_one_seed_shows_no_interval():
    assert "| 300.0 ± - |" in results_table([make_result("dot", 0)]).to_markdown()


def test_a_single_row_is_not_best(results):
    assert "**" not in results_table(results[:3]).to_markdown()


def test_plain_text_is_aligned_and_cut_between_groups(results):
    table = results_table(results, CONTROLS)
    lines = table.to_text().splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[0].index("Image retrieval") > lines[0].index("Sentence retrieval")
    assert lines[5].startswith("---")  # between results and controls
    narrow = table.to_text(80)
    assert max(len(line) for line in narrow.splitlines()) <= 80
    assert narrow.count("Alignment function") == 2
    assert narrow.count("Dot product") == 2


def test_csv_keeps_every_digit(results):
    rows = list(csv.DictReader(io.StringIO(results_table(results, CONTROLS).to_csv())))
    assert rows[1]["name"] == "General*"
    assert float(rows[1]["rsum"]) == 312.0
    assert float(rows[1]["rsum_half_interval"]) == pytest.approx(4.3027 * 7**0.5 / 3**0.5, abs=1e-3)
    assert rows[1]["rsum_seeds"] == "3"
    assert (rows[3]["name"], rows[3]["control"], rows[3]["rsum"], rows[3]["rsum_seeds"]) == ("Chance", "1", "16.0", "")


def test_csv_of_the_runs(results):
    rows = list(csv.DictReader(io.StringIO(runs_csv(results))))
    assert len(rows) == 6
    assert (rows[4]["run_id"], rows[4]["seed"], rows[4]["rsum"]) == ("scan-blocks-general_query-seed1", "1", "311.0")


def test_published_values():
    table = published_table("flickr30k")
    cells = {row.key: row.cells for row in table.rows}
    assert list(cells)[:4] == ["cosine", "dot", "scaled_dot", "general_query"]
    assert cells["general_query"] == (63.2, 93.6, 245.0, 46.7, 81.8, 201.8, pytest.approx(446.8))
    assert published_table("coco").rows[4].cells[0] == 53.8
    with pytest.raises(
        ConfigurationError, match="flickr30k, coco, clevr, textvqa, cub, coco-pictures, not for 'blocks'"
    ):
        published_table("blocks")


def test_published_values_stand_beside(results):
    table = published_comparison([*results, make_result("mine", 0)])
    cells = {row.key: [table.text_of(cell) for cell in row.cells] for row in table.rows}
    assert cells["dot"] == ["36.2 ± 0.6", "30.2 ± 0.5", "302.0 ± 5.0", "62.1", "44.8", "441.0", "59.7", "46.0", "456.1"]
    assert cells["mine"][3:] == ["-"] * 6
    assert table.columns[0].group == "This study (blocks)"


@pytest.mark.parametrize("control", [{"metrics": {}}, {"name": "Chance"}])
def test_a_control_needs_a_name_and_metrics(results, control):
    with pytest.raises(ResultsError, match="a control needs a name and metrics"):
        results_table(results, [control])


def test_no_results_is_an_error():
    with pytest.raises(ResultsError, match="no finished runs"):
        results_table([])


ANSWER_CONTROLS = [
    {"name": "majority by type", "metrics": {"accuracy": 44.0, "accuracy_exist": 50.0, "accuracy_depth_4": 40.0}},
    {"name": "perfect reader", "metrics": {"accuracy": 100.0, "accuracy_depth_2": 100.0}},
]


def test_layout_of_tables_3a_and_5(answer_results):
    table = results_table(answer_results, ANSWER_CONTROLS)
    assert [column.full_title for column in table.columns] == [
        "Accuracy",
        "By question type: Exist",
        "By question type: Query attribute",
        "By question type: Compare attribute",
        "By question type: Count",
        "By question type: Compare integer",
    ]
    assert table.caption.startswith("Question answering on blocks, percent: mean ± half the 95% interval")
    lines = table.to_markdown().splitlines()
    # dot: 70, 71, 72 -> 71 ± 4.30 / sqrt(3); existence lies 10 points above, counting 10 below.
    assert lines[2] == ("| Dot product | 71.0 ± 2.5 | 81.0 ± 2.5 | 76.0 ± 2.5 | 71.0 ± 2.5 | 61.0 ± 2.5 | 73.0 ± 2.5 |")
    assert lines[3].startswith(r"| General\* | **76.0 ± 3.3** |")
    assert lines[4] == "| _majority by type_ | 44.0 | 50.0 | - | - | - | - |"


def test_the_task_of_the_runs_chooses_the_table(results, answer_results):
    assert "Rsum" in results_table(results).to_markdown()
    assert "Accuracy" in results_table(answer_results).to_markdown()
    with pytest.raises(ResultsError, match="no analysis of the task 'dancing', only of retrieval, question-answering"):
        results_table([make_result("dot", 0, task="dancing")])
    with pytest.raises(ResultsError, match="several tasks"):
        results_table([results[0], answer_results[0]])


def test_accuracy_by_depth_is_a_second_table(results, answer_results):
    table = breakdown_table(answer_results, ANSWER_CONTROLS)
    assert [column.full_title for column in table.columns] == [
        f"Depth of the question's program: {depth}" for depth in (2, 4, 10)
    ]
    cells = {row.key: [table.text_of(cell) for cell in row.cells] for row in table.rows}
    assert cells["dot"] == ["87.0 ± 2.5", "83.0 ± 2.5", "71.0 ± 2.5"]
    assert cells["control: majority by type"] == ["-", "40.0", "-"]
    assert breakdown_table(results) is None
    assert breakdown_table([make_answer_result("dot", 0, metrics={"accuracy": 50.0})]) is None


READING_CONTROLS = [
    {"name": "without copying", "metrics": {"accuracy": 40.0, "anls": 42.0, "accuracy_unseen": 0.0}},
    {"name": "best spelling", "metrics": {"accuracy": 95.0}},
    {"name": "ceiling", "metrics": {"accuracy": 97.5, "accuracy_read_sign": 98.0}},
]


def test_layout_of_table_3b(read_answer_results):
    table = results_table(read_answer_results, READING_CONTROLS)
    # No question of one hop was measured.
    assert [column.full_title for column in table.columns] == [
        "Accuracy",
        "ANLS",
        "Unseen words: All",
        "Unseen words: Up to one hop",
        "By hops: 0",
        "By hops: 2",
    ]
    lines = table.to_markdown().splitlines()
    assert lines[2] == "| Dot product | 71.0 ± 2.5 | 76.0 ± 2.5 | 51.0 ± 2.5 | 61.0 ± 2.5 | 72.0 ± 2.5 | 69.0 ± 2.5 |"
    assert lines[4:] == [
        "| _without copying_ | 40.0 | 42.0 | 0.0 | - | - | - |",
        "| _best spelling_ | 95.0 | - | - | - | - | - |",
        "| _ceiling_ | 97.5 | - | - | - | - | - |",
    ]


def test_accuracy_by_question_family_is_a_second_table(read_answer_results):
    table = breakdown_table(read_answer_results, READING_CONTROLS)
    assert [column.full_title for column in table.columns] == [
        "By question family: Color of word",
        "By question family: Read sign",  # nobody asked to verify a word
    ]
    assert table.caption.startswith("Accuracy by question family on blocks-text, percent")
    cells = {row.key: [table.text_of(cell) for cell in row.cells] for row in table.rows}
    # Controls without a value in any column are left out.
    assert cells == {
        "dot": ["66.0 ± 2.5", "81.0 ± 2.5"],
        "scaled_dot": ["71.0 ± 3.3", "86.0 ± 3.3"],
        "control: ceiling": ["-", "98.0"],
    }
    # TextVQA names no families.
    named = {"name": "textvqa", "question_types": {"": 90}}
    assert breakdown_table([make_read_answer_result("dot", 0, dataset=named)]) is None


def test_published_accuracy_and_similarity(read_answer_results):
    table = published_comparison(read_answer_results)
    cells = {row.key: [table.text_of(cell) for cell in row.cells] for row in table.rows}
    assert cells["scaled_dot"] == ["76.0 ± 3.3", "81.0 ± 3.3", "41.9", "55.4"]
    assert "Table 3b; one run each" in table.caption and "40.7 to 41.9" in table.caption
    assert table.columns[3].full_title == "TextVQA, published: ANLS"
    assert len(published_table("textvqa").rows) == 7


def test_published_accuracies():
    table = published_table("clevr")
    cells = {row.key: row.cells for row in table.rows}
    assert len(table.columns) == 6 and len(cells) == 7
    assert cells["scaled_dot"] == (97.3, 99.12, 99.28, 98.6, 92.0, 97.8)
    assert cells["general_key"] == (96.2, None, None, None, None, None)
    assert "Tables 3a and 5, CLEVR" in table.caption


def test_published_accuracies_stand_beside(answer_results):
    table = published_comparison(answer_results)
    cells = {row.key: [table.text_of(cell) for cell in row.cells] for row in table.rows}
    assert cells["dot"][0] == "71.0 ± 2.5" and cells["dot"][6:] == ["96.6", "-", "-", "-", "-", "-"]
    assert len(table.columns) == 12 and table.columns[6].full_title == "CLEVR, published: Accuracy"
    assert "96.2 to 97.3" in table.caption


@pytest.mark.parametrize(("dataset", "lowest", "highest"), [("clevr", 96.2, 97.3), ("textvqa", 40.7, 41.9)])
def test_the_published_spread_of_one_function_is_that_of_the_tables(dataset, lowest, highest):
    """What notes say of published values holds for them."""
    values = {row.key: row.cells[0] for row in published_table(dataset).rows}
    task = next(task for task in TASKS.values() if f"{lowest} to {highest}" in task.published_note)
    same = [values[name] for name in task.same_class[0].functions]
    assert (min(same), max(same)) == (lowest, highest)


@pytest.mark.parametrize("dataset", ["flickr30k", "coco"])
def test_the_published_faults_are_those_of_the_tables(dataset):
    """What notes say of published values holds for them."""
    values = {row.key: row.cells[-1] for row in published_table(dataset).rows}
    scrambled = ["general_key", "biased_general_query", "biased_general_key", "activated_general_key"]
    right = [value for name, value in values.items() if name not in scrambled]
    assert max(values[name] for name in scrambled) < min(right) - 20


@pytest.mark.real_data
def test_published_values_are_the_papers(data_root):
    """Compare with the tables as they were read from the paper, where those lie beside the repository."""
    path = data_root.parent / "paper" / "tables.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    paper = json.loads(path.read_text(encoding="utf-8"))
    for name, row in paper["table2"]["rows"].items():
        for dataset in ("flickr30k", "coco"):
            cells = dict(zip((c.key for c in published_table(dataset).columns), _row(dataset, name), strict=True))
            for direction in ("sentence_retrieval", "image_retrieval"):
                for metric, value in row[direction][dataset].items():
                    assert cells[f"{direction}_{metric.replace('@', '')}"] == value
    for name, value in paper["table3a"]["rows"].items():
        types = paper["table5"]["rows"].get(name, {})
        expected = [100 * value, *(100 * types[kind] for kind in types)] if types else [100 * value]
        assert [cell for cell in _row("clevr", name) if cell is not None] == pytest.approx(expected)
    for name, row in paper["table3b"]["rows"].items():
        assert _row("textvqa", name) == pytest.approx([100 * row["accuracy"], 100 * row["anls"]])
    for name, row in paper["table4"]["rows"].items():
        for dataset, published in (("cub", "cub"), ("coco", "coco-pictures")):
            cells = [cell for cell in _row(published, name) if cell is not None]
            assert cells == [row[dataset]["is"], row[dataset]["fid"]]


def _row(dataset, name):
    return next(row.cells for row in published_table(dataset).rows if row.key == name)


def test_what_the_released_layout_changes_beside_the_paper_s_gap():
    values = {("dot", False): (400, 402), ("general_key", False): (410, 411), ("general_key", True): (310, 309)}
    results = [
        make_result(name, seed, value, released_layout=released, run_id=f"{name}-{released}-{seed}")
        for (name, released), row in values.items()
        for seed, value in enumerate(row)
    ]
    table = released_table(results, paired_comparisons(results))
    (row,) = table.rows
    right, released, gap, interval, flickr30k, _ = row.cells
    assert (row.key, right.mean, released.mean, gap) == ("general_key", 410.5, 309.5, -101.0)
    low, high = (float(end) for end in interval.strip("[]").split(", "))
    assert low == pytest.approx(-101 - 12.706, abs=0.06) and high == pytest.approx(-101 + 12.706, abs=0.06)
    published = {row.key: row.cells[-1] for row in published_table("flickr30k").rows}
    others = [published[name] for name in ("cosine", "dot", "scaled_dot", "general_query")]  # which no layout touches
    assert flickr30k == pytest.approx(published["general_key"] - sum(others) / len(others))
    assert released_table(results[:4], paired_comparisons(results[:4])) is None

import csv
import io

import pytest

from vl_alignment.analysis.tables import (
    Column,
    Row,
    Table,
    display_name,
    ordered,
    published_comparison,
    published_table,
    retrieval_table,
    runs_csv,
)
from vl_alignment.models.errors import ConfigurationError, ResultsError

from .synthetic import make_result

CONTROLS = [
    {"name": "Shuffled captions", "metrics": {"sentence_retrieval_r1": 0.4, "rsum": 15.0}, "seed": 0},
    {"name": "Shuffled captions", "metrics": {"sentence_retrieval_r1": 0.6, "rsum": 17.0}, "seed": 1},
    {"name": "Chance", "metrics": {"sentence_retrieval_r1": 0.5, "rsum": 16.0}},
]


def test_layout_of_table_2(results):
    table = retrieval_table(results)
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


def test_rows_are_in_the_papers_order_with_its_names():
    names = [
        "mine",
        "additive",
        "activated_general_key",
        "general_key (released)",
        "general_key",
        "general_query",
        "cosine",
    ]
    assert [display_name(name) for name in ordered(names)] == [
        "Cosine similarity",
        "General*",
        "General†",
        "Activated general†",
        "Additive",
        "mine",
        "General† (released)",
    ]


def test_markdown_by_hand(results):
    lines = retrieval_table(results, CONTROLS).to_markdown().splitlines()
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
    assert "| 300.0 ± - |" in retrieval_table([make_result("dot", 0)]).to_markdown()


def test_a_single_row_is_not_best(results):
    assert "**" not in retrieval_table(results[:3]).to_markdown()


def test_rows_that_are_written_alike_are_best_together():
    rows = (Row("a", "a", (1.04,)), Row("b", "b", (0.96,)), Row("c", "c", (0.9,)), Row("d", "d", (9.0,), control=True))
    assert Table("", (Column("x", "X"),), rows).best() == [frozenset("ab")]


def test_plain_text_is_aligned_and_cut_between_groups(results):
    table = retrieval_table(results, CONTROLS)
    lines = table.to_text().splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[0].index("Image retrieval") > lines[0].index("Sentence retrieval")
    assert lines[5].startswith("---")  # between results and controls
    narrow = table.to_text(80)
    assert max(len(line) for line in narrow.splitlines()) <= 80
    assert narrow.count("Alignment function") == 2
    assert narrow.count("Dot product") == 2


def test_csv_keeps_every_digit(results):
    rows = list(csv.DictReader(io.StringIO(retrieval_table(results, CONTROLS).to_csv())))
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
    with pytest.raises(ConfigurationError, match="flickr30k, coco, not for 'blocks'"):
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
        retrieval_table(results, [control])


def test_no_results_is_an_error():
    with pytest.raises(ResultsError, match="no finished runs"):
        retrieval_table([])

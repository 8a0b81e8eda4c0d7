import re

import pytest

from vl_alignment.analysis.latex import latex_table, latex_text
from vl_alignment.analysis.layout import Column, Row, Table
from vl_alignment.analysis.tables import paper_tables, results_table

from .synthetic import make_result

CONTROLS = [{"name": "Shuffled_captions & more", "metrics": {"rsum": 16.0}}]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("General†", r"General\textsuperscript{\textdagger}"),
        ("General*", r"General\textsuperscript{*}"),
        ("95% of a_b & #1 ${x}", r"95\% of a\_b \& \#1 \$\{x\}"),
        ("1.0 ± 0.5", r"1.0 $\pm$ 0.5"),
        ("\\~^", r"\textbackslash{}\textasciitilde{}\textasciicircum{}"),
        ("[1] <2|", r"{[}1] \textless{}2\textbar{}"),
    ],
)
def test_text_is_set_as_it_stands(text, written):
    assert latex_text(text) == written


def test_structure_of_table_2(results):
    lines = latex_table(results_table(results, CONTROLS), "table").splitlines()
    assert lines[0].startswith("% Needs") and lines[1] == r"\begin{table}" and lines[-1] == r"\end{table}"
    assert r"\label{tab:table}" in lines
    rules = [line for line in lines if re.fullmatch(r"\\(top|mid|bottom)rule", line)]
    assert rules == [r"\toprule", r"\midrule", r"\midrule", r"\bottomrule"]  # one above the controls
    assert (
        r" & \multicolumn{4}{c}{Sentence retrieval} & \multicolumn{4}{c}{Image retrieval} & \multicolumn{1}{c}{} \\"
        in (lines)
    )
    assert r"\cmidrule(lr){2-5}\cmidrule(lr){6-9}" in lines
    rows = [line for line in lines if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows[1:]} == {9}
    assert rows[2].startswith(r"Dot product & 36.2 $\pm$ 0.6 & ")  # the worst mean has no shade
    assert rows[3].startswith(r"General\textsuperscript{*} & \cellcolor{heat!60}\textbf{37.4 $\pm$ 0.8} & ")
    assert rows[4].startswith(r"\textit{Shuffled\_captions \& more} & - & ")


def test_braces_and_environments_are_closed(results):
    text = re.sub(r"\\[{}]", "", latex_table(results_table(results, CONTROLS)))
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text) == list(reversed(re.findall(r"\\end\{(\w+)\}", text)))


def test_the_lowest_is_the_hottest_where_lower_is_better():
    rows = (Row("a", "a", (1.0, 1.0)), Row("b", "b", (2.0, 1.0)), Row("c", "c", (5.0, None)))
    rows = (*rows, Row("d", "d", (9.0, 9.0), control=True), Row("e", "e", ("text", "text")))
    columns = (Column("x", "X", lower_is_better=True), Column("y", "Y"))
    assert Table("", columns, rows).heat() == [{"a": 1.0, "b": 0.75, "c": 0.0}, {}]
    assert Table("", columns, rows, mark_best=False).heat() == [{}, {}]


def test_published_values_stand_beside_each_measured_one(results):
    released = make_result("general_key", 0, 290.0, released_layout=True)
    tables = paper_tables([*results, released])
    assert list(tables) == ["flickr30k", "coco"]
    table = tables["flickr30k"]
    assert [column.full_title for column in table.columns][:4] == [
        "Sentence retrieval: R@1: blocks",
        "Sentence retrieval: R@1: Flickr30k, published",
        "Sentence retrieval: R@10: blocks",
        "Sentence retrieval: R@10: Flickr30k, published",
    ]
    cells = {row.key: table.texts(row) for row in table.rows}
    assert cells["dot"][:4] == ["36.2 ± 0.6", "62.1", "66.4 ± 1.1", "92.1"]
    assert cells["general_key (released)"][-2:] == ["290.0 ± -", "411.9"]


def test_the_paper_s_own_data_set_stands_alone():
    dataset = {**make_result("dot", 0)["dataset"], "name": "coco"}
    ((name, table),) = paper_tables([make_result("dot", 0, dataset=dataset)]).items()
    assert name == "coco" and table.columns[0].title == "COCO" and table.columns[1].title == "COCO, published"


def test_tables_of_question_answering(answer_results, read_answer_results):
    clevr = paper_tables(answer_results)["clevr"]
    assert len(clevr.columns) == 12 and clevr.columns[2].group == "By question type: Exist"
    textvqa = paper_tables(read_answer_results)["textvqa"]
    assert [column.group for column in textvqa.columns] == ["Accuracy", "Accuracy", "ANLS", "ANLS"]
    assert textvqa.texts(textvqa.rows[0]) == ["71.0 ± 2.5", "40.7", "76.0 ± 2.5", "54.5"]

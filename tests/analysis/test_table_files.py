from vl_alignment.analysis.table_files import write_table_files
from vl_alignment.analysis.tables import breakdown_table, results_table

from .test_report import Page


def test_tables_that_belong_together_share_files(tmp_path, answer_results):
    tables = {"results": results_table(answer_results), "breakdown": breakdown_table(answer_results)}
    files = write_table_files(tmp_path, "table", "Two <tables>", tables)
    assert sorted(file.name for file in files) == [
        "table-breakdown.csv",
        "table.csv",
        "table.html",
        "table.md",
        "table.tex",
    ]
    assert (tmp_path / "table.tex").read_text().count(r"\begin{table}") == 2
    assert (tmp_path / "table.md").read_text().count("| Dot product |") == 2
    assert (tmp_path / "table-breakdown.csv").read_text().startswith("row,name,control,accuracy_depth_2,")
    page = Page((tmp_path / "table.html").read_text())
    assert "Two <tables>" in page.text and page.text.count("Dot product") == 2
    # Two functions: the better one has all of the shade.
    assert page.attributes("style").count("--heat: 100%") == len(tables["results"].columns) + 3

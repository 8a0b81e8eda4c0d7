"""Tables as files, for papers, spreadsheets and browsers."""

from collections.abc import Mapping
from pathlib import Path

from ..training.runs import write_file
from .latex import latex_table
from .layout import Table
from .report import render_tables, write_page

__all__ = ["write_table_files"]


def write_table_files(folder: Path, name: str, title: str, tables: Mapping[str, Table]) -> list[Path]:
    """Write tables that belong together as `{name}.md`, `.tex` and `.html`, and each as a `.csv` of its own.

    Args:
        folder: Made if need be.
        name: Of the files.
        title: Of the page.
        tables: {ending: table}: the first one's values are `{name}.csv`, the others' `{name}-{ending}.csv`.

    Returns:
        The files.

    Raises:
        ResultsError: One of them cannot be written.
    """
    written = {
        f"{name}.md": "\n".join(f"{table.caption}\n\n{table.to_markdown()}" for table in tables.values()),
        f"{name}.tex": "\n".join(latex_table(table, f"{name}-{ending}") for ending, table in tables.items()),
    }
    for number, (ending, table) in enumerate(tables.items()):
        written[f"{name}-{ending}.csv" if number else f"{name}.csv"] = table.to_csv()
    for file, text in written.items():
        write_file(folder / file, text)
    page = write_page(folder / f"{name}.html", title, (), render_tables(tables))
    return [*(folder / file for file in written), page]

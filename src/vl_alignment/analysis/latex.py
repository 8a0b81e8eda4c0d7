"""A table as LaTeX, for the packages booktabs, colortbl and xcolor: cells shaded as its heat map says."""

import re
from itertools import groupby

from .layout import Row, Table

__all__ = ["PREAMBLE", "latex_table", "latex_text"]

PREAMBLE = "% Needs \\usepackage{booktabs,xcolor,colortbl,graphicx}"
HEAT_COLOUR = "5AA9E6"
STRONGEST = 60  # per cent of the colour, so that the numbers stay legible

_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "*": r"\textsuperscript{*}",  # at the beginning of a row it would belong to the line break before it
    "[": "{[}",  # likewise
    "†": r"\textsuperscript{\textdagger}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
}


def latex_text(text: str) -> str:
    """Write plain text so that LaTeX sets it as it stands."""
    return re.sub("|".join(map(re.escape, _ESCAPES)), lambda match: _ESCAPES[match.group()], text)


def latex_table(table: Table, label: str = "") -> str:
    """Write a table as a `table` environment: the best mean of every column bold, controls below a rule in italics.

    Args:
        table: Scaled down to the width of the text where it is wider.
        label: For references, without its `tab:`; none where empty.
    """
    columns = "".join("@{\\hspace{1em}}r" if start else "r" for start in _group_starts(table))
    lines = [
        PREAMBLE,
        "\\begin{table}",
        "\\centering",
        f"\\definecolor{{heat}}{{HTML}}{{{HEAT_COLOUR}}}",
        f"\\caption{{{latex_text(table.caption)}}}",
        *([f"\\label{{tab:{label}}}"] if label else []),
        # Only where it is wider than the text: a table of two columns would be blown up.
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{columns}}}",
        "\\toprule",
        *_header(table),
        "\\midrule",
        *_body(table),
        "\\bottomrule",
        "\\end{tabular}}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _group_starts(table: Table) -> list[bool]:
    groups = [column.group for column in table.columns]
    return [i > 0 and group != groups[i - 1] for i, group in enumerate(groups)]


def _header(table: Table) -> list[str]:
    titles, rules, first = [""], [], 2
    for group, members in groupby(table.columns, key=lambda column: column.group):
        width = len(list(members))
        titles.append(f"\\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    names = " & ".join(map(latex_text, (table.heading, *(column.title for column in table.columns))))
    above = [f"{' & '.join(titles)} \\\\", "".join(rules)] if rules else []
    return [*above, f"{names} \\\\"]


def _body(table: Table) -> list[str]:
    lines: list[str] = []
    before = False
    for row in table.rows:
        if row.control and not before and lines:
            lines.append("\\midrule")
        before = row.control
        lines.append(_row(table, row))
    return lines


def _row(table: Table, row: Row) -> str:
    best, heat = table.best(), table.heat()
    cells = []
    for i, text in enumerate(table.texts(row)):
        written = latex_text(text)
        if row.key in best[i]:
            written = f"\\textbf{{{written}}}"
        strength = round(STRONGEST * heat[i].get(row.key, 0.0))
        cells.append(f"\\cellcolor{{heat!{strength}}}{written}" if strength else written)
    name = latex_text(row.name)
    name = f"\\textit{{{name}}}" if row.control else name
    return f"{' & '.join((name, *cells))} \\\\"

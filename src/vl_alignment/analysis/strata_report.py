"""Breakdowns of a comparison of retrieval: measured from its runs' predictions, written as tables and charts."""

from collections.abc import Sequence
from pathlib import Path

from ..training.runs import write_file
from ..training.studies import RetrievalStudy, Study
from .charts import standalone_svg
from .nouns import build_noun_tagger
from .statistics import Result
from .strata import StrataRecalls, noun_strata, picture_strata, strata_recalls
from .strata_charts import strata_charts
from .table_files import write_table_files

__all__ = ["measure_strata", "write_strata"]


def measure_strata(
    study: Study, output: Path | str, results: Sequence[Result], noun_tagger: str | None = None
) -> list[StrataRecalls]:
    """Measure the runs of a comparison by what the test pictures hold and by the nouns of their captions.

    Args:
        study: Whose test records say what is in a picture.
        output: Folder of the runs, which holds their predictions.
        results: Of the runs.
        noun_tagger: A name of `noun_tagger_names`; by default the grammar's own for blocks, else "english".

    Returns:
        Nothing where the study is not one of retrieval, or no run has predictions.

    Raises:
        ConfigurationError: The tagger is unknown.
    """
    if not isinstance(study, RetrievalStudy):
        return []
    test = study.data["test"]
    tagger = build_noun_tagger(noun_tagger or ("blocks" if "scene" in test.column_names else "english"))
    return strata_recalls(output, results, [*picture_strata(test), *noun_strata(test, tagger)])


def write_strata(folder: Path, title: str, measured: Sequence[StrataRecalls]) -> None:
    """Write `strata.md`, `.tex`, `.html`, a `strata*.csv` a table, and `strata-{groups}-{direction}.svg`.

    Args:
        folder: Made if need be.
        title: Of the page.
        measured: Of `measure_strata`; where it is empty nothing is written.

    Raises:
        ResultsError: One of them cannot be written.
    """
    if not measured:
        return
    write_table_files(folder, "strata", title, {found.strata.key: found.table() for found in measured})
    for found in measured:
        for direction, chart in strata_charts(found).items():
            write_file(folder / f"strata-{found.strata.key}-{direction}.svg", standalone_svg(chart))
